//! Choosing hosts by a seed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Candidate, Hosts, Spread};
use crate::protocol::Refusal;

/// A refusal lists at most so many hosts.
const LISTED: usize = 8;

/// The hosts that a selector takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// In order of their names.
    pub chosen: Vec<String>,
    /// Those that match and are not connected, in order of their names.
    pub unconnected: Vec<String>,
}

/// Chooses by a seed. The order of the candidates does not matter; of two with one name the first counts.
///
/// Each host has a rank by seed and name alone, and the lowest are taken. So selectors that overlap take the same hosts as
/// far as they can, and a host that joins or leaves the fleet moves at most one other in or out.
///
/// Refused where nothing matches, fewer are connected than are picked, or a host that is named is not known, does not match
/// the rest, or is not connected.
pub fn choose(on: &Hosts, candidates: &[Candidate], seed: u64) -> Result<Choice, Refusal> {
    let mut known: BTreeMap<&str, &Candidate> = BTreeMap::new();
    for candidate in candidates {
        known.entry(&candidate.name).or_insert(candidate);
    }
    for name in &on.name {
        named(on, name, &known)?;
    }
    let matching: Vec<&Candidate> =
        known.values().copied().filter(|candidate| matches(on, candidate)).collect();
    let names =
        |hosts: &[&Candidate]| -> Vec<String> { hosts.iter().map(|host| host.name.clone()).collect() };
    let (connected, gone): (Vec<&Candidate>, Vec<&Candidate>) =
        matching.into_iter().partition(|candidate| candidate.connected);
    let unconnected = names(&gone);
    let Some(count) = on.pick.of(connected.len()) else {
        return Err(too_few(on, &names(&connected), &unconnected, &known));
    };
    let mut chosen = names(&take(connected, count, on.spread, seed));
    chosen.sort();
    Ok(Choice { chosen, unconnected })
}

fn matches(on: &Hosts, candidate: &Candidate) -> bool {
    let same = |wanted: &Option<String>, own: &Option<String>| wanted.is_none() || wanted == own;
    on.labels.iter().all(|(key, value)| candidate.labels.get(key) == Some(value))
        && same(&on.zone, &candidate.zone)
        && same(&on.cell, &candidate.cell)
        && (on.name.is_empty() || on.name.contains(&candidate.name))
}

/// A host that is named must be there: the choice is never silently smaller.
fn named(on: &Hosts, name: &str, known: &BTreeMap<&str, &Candidate>) -> Result<(), Refusal> {
    match known.get(name) {
        None => Err(Refusal::new(format!("the host `{name}` is not known"), listed(known))),
        Some(candidate) if !candidate.connected => Err(Refusal::new(
            format!("the host `{name}` is not connected"),
            "start its agent, or take another host",
        )),
        Some(candidate) if !matches(on, candidate) => Err(Refusal::new(
            format!("the host `{name}` is named and does not match `{on}`"),
            format!("it is: {}", in_words(candidate)),
        )),
        Some(_) => Ok(()),
    }
}

/// The hosts with the lowest ranks; spread, those of each zone in turn.
fn take(mut hosts: Vec<&Candidate>, count: usize, spread: Option<Spread>, seed: u64) -> Vec<&Candidate> {
    hosts.sort_by_cached_key(|host| rank(seed, "host", &host.name));
    let Some(Spread::Zone) = spread else {
        hosts.truncate(count);
        return hosts;
    };
    let zone = |host: &Candidate| rank(seed, "zone", host.zone.as_deref().unwrap_or_default());
    // The how-manieth of its zone a host is: all first ones come before all second ones.
    let mut seen: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let mut turns: Vec<(usize, [u8; 32], &Candidate)> = Vec::new();
    for host in hosts {
        let zone = zone(host);
        let turn = seen.entry(zone).or_default();
        turns.push((*turn, zone, host));
        *turn += 1;
    }
    turns.sort_by_key(|(turn, zone, _)| (*turn, *zone));
    turns.into_iter().take(count).map(|(_, _, host)| host).collect()
}

/// As good as random, and the same in every build: BLAKE3 over the seed (little-endian), what it is for, and the name.
fn rank(seed: u64, what: &str, name: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(what.as_bytes()).update(&[0]).update(name.as_bytes());
    *hasher.finalize().as_bytes()
}

fn too_few(
    on: &Hosts,
    connected: &[String],
    unconnected: &[String],
    known: &BTreeMap<&str, &Candidate>,
) -> Refusal {
    if connected.is_empty() && unconnected.is_empty() {
        return Refusal::new(format!("no host matches `{on}`"), listed(known));
    }
    let gone = match unconnected {
        [] => String::new(),
        gone => format!("; not connected: {}", some(gone.iter().map(String::as_str))),
    };
    let there = match connected {
        [] => "none of the hosts that match is connected".to_owned(),
        there => format!("only {} connected: {}", there.len(), some(there.iter().map(String::as_str))),
    };
    Refusal::new(
        format!("too few hosts match `{on}`: {there}{gone}"),
        "start the agents that are missing, or pick fewer",
    )
}

fn listed(known: &BTreeMap<&str, &Candidate>) -> String {
    if known.is_empty() {
        return "no host has joined this controller yet".to_owned();
    }
    let hosts: Vec<String> = known.values().map(|host| in_words(host)).collect();
    format!("there are: {}", some(hosts.iter().map(String::as_str)))
}

fn some<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let mut text = names.take(LISTED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// `web-1 (role=web, zone a)`.
fn in_words(host: &Candidate) -> String {
    let mut words: Vec<String> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.extend(host.zone.iter().map(|zone| format!("zone {zone}")));
    words.extend(host.cell.iter().map(|cell| format!("cell {cell}")));
    if !host.connected {
        words.push("not connected".to_owned());
    }
    let words: BTreeSet<String> = words.into_iter().collect();
    match words.is_empty() {
        true => host.name.clone(),
        false => format!("{} ({})", host.name, words.into_iter().collect::<Vec<_>>().join(", ")),
    }
}
