//! What a host is, in lines that can be compared: taken before a test and after it.
//!
//! Normalised: no counters, handles, expiries, set contents or pids.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::{self, Netns, Process, feed, look};

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The namespace; `None` is the one that the tests themselves run in.
    pub netns: Option<&'a Netns>,
    /// The world's own directory: what is mounted below it counts, what other worlds mount does not.
    pub world: &'a Path,
    /// Directories whose files count.
    pub directories: &'a [PathBuf],
    /// Control groups whose values count.
    pub cgroups: &'a [PathBuf],
}

/// A host, section by section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    sections: BTreeMap<&'static str, Vec<String>>,
}

impl Fingerprint {
    /// Looks at a host.
    pub fn of(place: Place) -> Result<Self> {
        let mut sections = BTreeMap::new();
        let mut put = |name, mut lines: Vec<String>| {
            lines.sort_unstable();
            sections.insert(name, lines);
        };
        put("links", links(place.netns)?);
        let qdiscs = lines(place.netns, &["tc", "qdisc", "show"])?;
        put("classes and filters", classes_and_filters(place.netns, &qdiscs)?);
        put("qdiscs", qdiscs);
        put("nftables", ruleset(place.netns)?);
        put("routes and rules", routes(place.netns)?);
        if let Some(netns) = place.netns {
            let processes = netns.processes();
            put("processes that do not run", halted(&processes));
            put("sockets with a mark", marked(netns)?);
            put("packet queues", queues(netns)?);
        }
        put("mounts", mounts(place.world)?);
        put("files", files(place.directories));
        put("control groups", cgroups(place.cgroups));
        Ok(Fingerprint { sections })
    }

    /// What differs, for a reader; `None` when nothing does.
    pub fn difference(&self, after: &Fingerprint) -> Option<String> {
        let mut text = String::new();
        let names: BTreeSet<_> = self.sections.keys().chain(after.sections.keys()).collect();
        for name in names {
            let none = Vec::new();
            let (before, now) =
                (self.sections.get(*name).unwrap_or(&none), after.sections.get(*name).unwrap_or(&none));
            let (gone, new) = (without(before, now), without(now, before));
            if gone.is_empty() && new.is_empty() {
                continue;
            }
            let _ = writeln!(text, "  {name}:");
            for line in gone {
                let _ = writeln!(text, "    - {line}");
            }
            for line in new {
                let _ = writeln!(text, "    + {line}");
            }
        }
        (!text.is_empty()).then_some(text)
    }
}

/// The lines of `a` that `b` lacks, each as often as it is lacking.
fn without<'a>(a: &'a [String], b: &[String]) -> Vec<&'a String> {
    let mut left: Vec<&String> = b.iter().collect();
    a.iter()
        .filter(|line| match left.iter().position(|other| other == line) {
            Some(at) => {
                left.swap_remove(at);
                false
            }
            None => true,
        })
        .collect()
}

/// The numbers of the packet queues that somebody reads; none where the kernel has no queues.
fn queues(netns: &Netns) -> Result<Vec<String>> {
    // `/proc/net` is that of the process, which need not be the thread's.
    let list = netns.inside(|| fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue"));
    match list {
        Ok(list) => {
            let number = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
            Ok(list.lines().map(number).collect())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("cannot list the packet queues"),
    }
}

fn lines(netns: Option<&Netns>, argv: &[&str]) -> Result<Vec<String>> {
    Ok(look(netns, argv)?.lines().map(|line| line.trim().to_owned()).collect())
}

fn json(netns: Option<&Netns>, argv: &[&str]) -> Result<Vec<Value>> {
    let text = look(netns, argv)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let value: Value =
        serde_json::from_str(&text).with_context(|| format!("output of `{}`", argv.join(" ")))?;
    Ok(value.as_array().cloned().unwrap_or_default())
}

/// Links with their addresses, without what changes by itself. The tests' own namespace may get links from others
/// while tests run, so there only those count that stand in it alone.
fn links(netns: Option<&Netns>) -> Result<Vec<String>> {
    let links = json(netns, &["ip", "-j", "address", "show"])?;
    let counted = links.iter().filter(|link| netns.is_some() || link.get("link_netnsid").is_none());
    let described = counted.map(|link| {
        let text = |key: &str| link.get(key).map(Value::to_string).unwrap_or_default();
        let addresses = link.get("addr_info").and_then(Value::as_array).cloned().unwrap_or_default();
        let addresses: Vec<String> = addresses
            .iter()
            .map(|address| {
                format!("{}/{}", address["local"].as_str().unwrap_or_default(), address["prefixlen"])
            })
            .collect();
        format!(
            "{} {} mtu {} qdisc {} {}",
            text("ifname"),
            text("flags"),
            text("mtu"),
            text("qdisc"),
            addresses.join(" ")
        )
    });
    Ok(described.collect())
}

/// Classes and filters of the links that have a queueing discipline, as `tc qdisc show` lists them: on others there can
/// be none.
fn classes_and_filters(netns: Option<&Netns>, qdiscs: &[String]) -> Result<Vec<String>> {
    let link = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "dev")?;
        (words.get(1) != Some(&"noqueue")).then(|| words.get(at + 1).map(|name| (*name).to_owned()))?
    };
    let mut found = Vec::new();
    for name in qdiscs.iter().filter_map(link).collect::<BTreeSet<String>>() {
        let questions =
            ["class show dev", "filter show dev", "filter show ingress dev", "filter show egress dev"];
        let asked = questions.map(|question| format!("{question} {name}\n")).concat();
        let said = feed(netns, &["tc", "-batch", "-"], &asked)?;
        found.extend(said.lines().map(|line| format!("{name} {}", line.trim())));
    }
    Ok(found)
}

/// The nftables ruleset without what moves by itself.
fn ruleset(netns: Option<&Netns>) -> Result<Vec<String>> {
    let text = look(netns, &["nft", "-j", "list", "ruleset"])?;
    let value: Value = serde_json::from_str(&text).context("output of `nft -j list ruleset`")?;
    let objects = value["nftables"].as_array().cloned().unwrap_or_default();
    let objects = objects.into_iter().filter(|object| object.get("metainfo").is_none());
    Ok(objects
        .map(|mut object| {
            calm(&mut object);
            object.to_string()
        })
        .collect())
}

fn calm(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for moving in ["handle", "elem", "packets", "bytes", "expires", "used"] {
                map.remove(moving);
            }
            map.values_mut().for_each(calm);
        }
        Value::Array(list) => list.iter_mut().for_each(calm),
        _ => {}
    }
}

/// Routes and the rules that choose among their tables.
fn routes(netns: Option<&Netns>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        let said = feed(netns, &["ip", family, "-batch", "-"], "route show table all\nrule show\n")?;
        for line in said.lines() {
            // What is left of a learnt route's life moves by itself.
            let mut words = line.split_whitespace();
            let mut kept = vec![family];
            while let Some(word) = words.next() {
                if word == "expires" {
                    words.next();
                } else {
                    kept.push(word);
                }
            }
            found.push(kept.join(" "));
        }
    }
    Ok(found)
}

fn halted(processes: &[Process]) -> Vec<String> {
    processes.iter().filter_map(|process| Some(format!("{} {}", process.name, process.halted()?))).collect()
}

/// Sockets with a mark: a mark that stays is a change that stays. What is left of a connection when its socket is gone
/// (TIME-WAIT) keeps the mark that it had, and is nobody's any more.
fn marked(netns: &Netns) -> Result<Vec<String>> {
    let all = look(Some(netns), &["ss", "-H", "-O", "-t", "-u", "-a", "-n", "-e"])?;
    let marked = all.lines().filter(|line| !line.contains(" TIME-WAIT ")).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mark = words.iter().find(|word| word.starts_with("fwmark:"))?;
        Some(format!("{} {} {mark}", words.first()?, words.get(4)?))
    });
    Ok(marked.collect())
}

/// Mount points, without those of worlds that other tests have made meanwhile.
fn mounts(world: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let harness = format!("/{}", netns::PREFIX);
    let counts = |point: &str| {
        Path::new(point).starts_with(world) || !point.contains(&harness) && !point.starts_with("/run/netns")
    };
    let points = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let (root, point) = (fields.get(3)?, fields.get(4)?);
        let kind = fields.iter().skip_while(|field| **field != "-").nth(1)?;
        counts(point).then(|| format!("{point} {kind} {root}"))
    });
    Ok(points.collect())
}

/// Files below directories, by path, length and mode. The event files of ended runs are results, and stay. A lock is
/// held by the kernel for a living process; the empty file that it was held on says nothing, and the next agent takes
/// it: one that is killed while it leaves may leave it.
fn files(directories: &[PathBuf]) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = directories.to_vec();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else {
                continue;
            };
            let name = entry.file_name();
            if meta.is_dir() && name == "runs" || name == "lock" && meta.len() == 0 {
                continue;
            }
            if meta.is_dir() {
                open.push(entry.path());
            } else {
                found.push(format!(
                    "{} {} bytes, mode {:o}",
                    entry.path().display(),
                    meta.len(),
                    meta.mode()
                ));
            }
        }
    }
    found
}

fn cgroups(groups: &[PathBuf]) -> Vec<String> {
    let mut found = Vec::new();
    for group in groups {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let moves =
                ["procs", "threads", "tasks", "stat", "events", "current", "pressure", "peak", "usage"];
            if !entry.path().is_file() || moves.iter().any(|word| name.contains(word)) {
                continue;
            }
            if let Ok(value) = fs::read_to_string(entry.path()) {
                found.push(format!("{} = {}", shown(group, &name), value.trim()));
            }
        }
    }
    found
}

fn shown(group: &Path, file: &str) -> String {
    format!("{}/{file}", group.display())
}
