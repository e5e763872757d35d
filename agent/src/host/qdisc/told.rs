//! What somebody has shaped, taken down so that it can be told to the kernel again: disciplines and classes, parents first.
//!
//! Only kinds whose every option the kernel lists, and lists in a way that it takes back, are taken down at all. What a
//! listing rounds is corrected (`exact`), so that the second listing is the first one.

use std::collections::BTreeSet;
use std::fs;

use serde::{Deserialize, Serialize};
use squall_experiments::protocol::Refusal;

use super::super::netlink::{Message, find, u16_at, u32_at};
use super::super::netns::Netns;
use super::message::{self, Listed, ROOT};
use super::root::Before;
use super::{Device, Tc, htb};

/// Disciplines whose options the kernel lists as it takes them, or as [`exact`] makes them. Not `netem`, whose table of a
/// distribution is not listed.
const KNOWN: [&str; 13] = [
    "htb",
    "tbf",
    "prio",
    "pfifo",
    "bfifo",
    "pfifo_fast",
    "fq",
    "fq_codel",
    "codel",
    "sfq",
    "cake",
    MQ,
    "noqueue",
];
/// One discipline for each queue of the device: its classes are there as soon as it is.
const MQ: &str = "mq";
/// Disciplines that the kernel gives because of what the device is, not by `net.core.default_qdisc`.
const BY_DEVICE: [&str; 2] = ["noqueue", MQ];

/// A discipline or a class, as it is told to the kernel again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Told {
    class: bool,
    handle: u32,
    parent: u32,
    kind: String,
    /// In hexadecimal digits.
    options: String,
}

/// Takes down everything that stands below a foreign root, so that it can be told again; refuses what cannot.
pub fn snapshot(tc: &mut Tc, device: &Device, disciplines: &[Listed]) -> Result<Before, Refusal> {
    let cannot = |what: String| {
        Refusal::new(
            format!("the root of `{device}` cannot be borrowed, as it could not be put back exactly: {what}"),
            "use `engine: queue`, which leaves interfaces alone",
        )
    };
    let classes = tc.classes(device.index)?;
    let mut parents = vec![ROOT];
    parents.extend(disciplines.iter().chain(&classes).map(|one| one.handle).filter(|handle| *handle != 0));
    for parent in parents.iter().skip(1) {
        if tc.filters(device.index, *parent)? > 0 {
            return Err(cannot(format!("filters stand at {}", named(*parent))));
        }
    }
    if let Some(odd) = disciplines.iter().chain(&classes).find(|one| one.odd) {
        return Err(cannot(format!(
            "`{}` {} has an estimator, a table or offload",
            odd.kind,
            named(odd.handle)
        )));
    }
    if let Some((one, why)) = disciplines.iter().find_map(|one| Some((one, untold(one)?))) {
        return Err(cannot(format!("`{}` {} {why}", one.kind, named(one.handle))));
    }
    if let Some(why) = ungiven(disciplines) {
        return Err(cannot(why));
    }
    // A root with bands or queues makes their classes itself; those of `htb` are told.
    let told = |class: bool| {
        move |one: &Listed| Told {
            class,
            handle: one.handle,
            parent: one.parent,
            kind: one.kind.clone(),
            options: hex(&one.options),
        }
    };
    let mut left: Vec<Told> = disciplines.iter().filter(|one| one.handle != 0).map(told(false)).collect();
    left.extend(classes.iter().filter(|one| one.kind == htb::KIND).map(told(true)));
    let mut ordered: Vec<Told> = Vec::new();
    let banded = |handle: u32| classes.iter().any(|one| one.handle == handle && one.kind != htb::KIND);
    while !left.is_empty() {
        let there = |handle: u32| ordered.iter().any(|one: &Told| one.handle == handle);
        let stands = |one: &Told| {
            let (parent, owner) = (one.parent, |handle: u32| there(handle & 0xffff_0000));
            // A class at the top of its discipline says that it stands at the root.
            (parent == ROOT || there(parent) || banded(parent) && owner(parent))
                && (!one.class || owner(one.handle))
        };
        let Some(at) = left.iter().position(stands) else {
            return Err(cannot(format!("{} stands below nothing", named(left[0].handle))));
        };
        ordered.push(left.remove(at));
    }
    Ok(Before::Told(ordered))
}

/// What cannot be told again of a discipline; `None` where all of it can.
fn untold(one: &Listed) -> Option<String> {
    /// `TCA_CAKE_AUTORATE`.
    const MEASURES: u16 = 9;
    if !KNOWN.contains(&one.kind.as_str()) {
        return Some("may have options that the kernel does not list".to_owned());
    }
    let measures = find(&one.options, MEASURES).is_some_and(|value| u32_at(value, 0) != 0);
    (one.kind == "cake" && measures).then(|| "measures its rate itself (`autorate-ingress`)".to_owned())
}

impl Told {
    /// Whether it is the same object, whatever its options.
    pub fn is(&self, other: &Told) -> bool {
        (self.class, self.handle, self.parent) == (other.class, other.handle, other.parent)
    }

    /// The message that makes it; a root takes the place of ours.
    pub fn message(&self, interface: u32) -> Message {
        let options = exact(&self.kind, unhex(&self.options), self.class);
        if self.class {
            return message::new_class(interface, self.handle, self.parent, &self.kind, &options);
        }
        let options = (!options.is_empty()).then_some(&options[..]);
        message::new_qdisc(interface, self.handle, self.parent, &self.kind, options, true)
    }
}

/// Why the kernel would not give again what it gave by itself to a device or to its queues; `None` where it would.
pub fn ungiven(disciplines: &[Listed]) -> Option<String> {
    let given = disciplines.iter().filter(|one| one.handle == 0 && !BY_DEVICE.contains(&one.kind.as_str()));
    let kinds: BTreeSet<&str> = given.map(|one| one.kind.as_str()).collect();
    if kinds.is_empty() {
        return None;
    }
    // Where nobody can ask, the end compares.
    let today = today()?;
    let other = kinds.into_iter().find(|kind| *kind != today)?;
    Some(format!(
        "the kernel has put `{other}` there, and would put `{today}` today (`net.core.default_qdisc`)"
    ))
}

/// What the kernel gives to whoever chooses nothing: told in the machine's first network namespace alone.
fn today() -> Option<String> {
    let ask = || fs::read_to_string("/proc/sys/net/core/default_qdisc");
    let told = ask().ok().or_else(|| Netns::of_process(1).and_then(|first| first.enter(ask)?).ok());
    told.map(|kind| kind.trim().to_owned())
}

/// Options that the kernel reads as the ones that it has listed.
fn exact(kind: &str, mut options: Vec<u8>, class: bool) -> Vec<u8> {
    match kind {
        // It lists its whole version, and takes the upper half of it (`htb_init`, `htb_dump`).
        htb::KIND if !class => {
            if let Some(version) = options.get_mut(4..8) {
                version.copy_from_slice(&htb::VERSION.to_ne_bytes());
            }
        }
        // Target, interval and threshold (`TCA_FQ_CODEL_…`, `TCA_CODEL_…`).
        "fq_codel" => rounded_up(&mut options, &[1, 3, 7]),
        "codel" => rounded_up(&mut options, &[1, 3, 5]),
        _ => {}
    }
    options
}

/// Times of `codel` are kept in units of 1,024 ns, and told in whole microseconds, cut off each way (`codel_time_to_us`,
/// `fq_codel_change`): told again as listed, each would lose a microsecond.
fn rounded_up(options: &mut [u8], times: &[u16]) {
    let mut at = 0;
    while let Some(head) = options.get(at..at + 4) {
        let (length, kind) = (usize::from(u16_at(head, 0)), u16_at(head, 2));
        if let Some(value) = options.get_mut(at + 4..at + 8).filter(|_| length == 8 && times.contains(&kind))
        {
            let listed = u64::from(u32_at(value, 0));
            let told = (listed * 1000).div_ceil(1024) * 1024;
            // One that is too large for the field is no time that the kernel has listed.
            let told = u32::try_from(told.div_ceil(1000)).unwrap_or(u32::MAX);
            value.copy_from_slice(&told.to_ne_bytes());
        }
        at += length.max(4).next_multiple_of(4);
    }
}

/// What can be compared: sorted, and without the counts that some options contain.
pub fn alike(before: &Before) -> Vec<Told> {
    let Before::Told(all) = before else { return Vec::new() };
    let mut all = all.clone();
    for one in all.iter_mut().filter(|one| !one.class && one.kind == htb::KIND) {
        // `direct_pkts`, the fifth number of the first attribute.
        let mut bytes = unhex(&one.options);
        if let Some(count) = bytes.get_mut(20..24) {
            count.fill(0);
        }
        one.options = hex(&bytes);
    }
    all.sort_by_key(|one| (one.class, one.handle, one.parent));
    all
}

/// As `tc` names it.
fn named(handle: u32) -> String {
    format!("{:x}:{:x}", handle >> 16, handle & 0xffff)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |index: usize| text.get(index..index + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len() / 2).map_while(|index| digit(index * 2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_journal() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), bytes);
        assert_eq!(named(0x5a17_0010), "5a17:10");
    }

    /// What the kernel makes of a time of `codel`, and lists of it.
    fn listed_of(told: u32) -> u32 {
        let kept = (u64::from(told) * 1000) >> 10;
        u32::try_from((kept << 10) / 1000).unwrap()
    }

    #[test]
    fn times_of_codel_are_listed_again_as_they_were() {
        for listed in (1..200_000).map(listed_of) {
            let attribute =
                |kind: u16| [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &listed.to_ne_bytes()].concat();
            let (target, limit) = (attribute(1), attribute(2));
            let told = exact("fq_codel", [target, limit.clone()].concat(), false);
            assert_eq!(listed_of(u32_at(&told, 4)), listed, "told {}", u32_at(&told, 4));
            assert_eq!(told[8..], limit, "a number is no time");
        }
    }

    #[test]
    fn what_is_not_listed_whole_is_not_taken_down() {
        let one = |kind: &str, options: &[u8]| Listed {
            kind: kind.into(),
            options: options.into(),
            ..Listed::default()
        };
        assert!(untold(&one("fq", &[])).is_none());
        assert!(untold(&one("netem", &[])).is_some());
        let measures = |on: u32| [&[8, 0, 9, 0][..], &on.to_ne_bytes()].concat();
        assert!(untold(&one("cake", &measures(0))).is_none());
        assert!(untold(&one("cake", &measures(1))).is_some_and(|why| why.contains("autorate")));
    }
}
