//! What a host is, in things that can be compared: taken when a run begins and when it has ended, and by
//! `squall-agent fingerprint`.
//!
//! Normalised, so that what moves by itself is no difference: no counters, handles, expiries, set contents or pids; the
//! clock as an offset. Read by netlink and from `/proc` and `/sys`; nothing is changed and no program is started.
//!
//! | file | what it looks at |
//! |---|---|
//! | [`links`] | links, addresses, routes and the rules that choose among them |
//! | [`disciplines`] | queueing disciplines, classes, filters |
//! | [`firewall`] | the nftables ruleset of all families |
//! | [`sockets`] | marks of sockets, packet queues |
//! | [`processes`] | processes that do not run although they could |
//! | [`groups`] | limits and freezers of control groups |
//! | [`places`] | mounts, files, the clock |
//! | [`compare`] | differences, and whose they are |
//! | [`claims`], [`run`] | what runs have claimed; a host before and after a run |
//! | [`command`] | the verb |

pub mod claims;
pub mod command;
pub mod compare;
pub mod disciplines;
pub mod firewall;
pub mod groups;
pub mod links;
pub mod places;
pub mod processes;
pub mod run;
pub mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the form in which a fingerprint is written.
pub const VERSION: u32 = 1;

/// A section with more things than this is compared as one: a host with a full routing table is not worth a list.
const LONGEST: usize = 1000;
/// The name of everything in such a section.
const EVERYTHING: &str = "everything";

/// A part of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Links and addresses.
    Links,
    /// Queueing disciplines, classes and filters.
    Disciplines,
    /// nftables.
    Firewall,
    /// Routes and routing rules.
    Routes,
    /// Marks of sockets.
    Sockets,
    /// Packet queues that are read.
    Queues,
    /// Processes that do not run although they could.
    Processes,
    /// Values of control groups.
    ControlGroups,
    /// Mounts.
    Mounts,
    /// Files.
    Files,
    /// The clock.
    Clock,
}

impl Section {
    /// Those of a network namespace; the others are the machine's.
    pub const OF_A_NETWORK: [Section; 6] = [
        Section::Links,
        Section::Disciplines,
        Section::Firewall,
        Section::Routes,
        Section::Sockets,
        Section::Queues,
    ];
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Links => "links",
            Section::Disciplines => "queueing disciplines",
            Section::Firewall => "nftables",
            Section::Routes => "routes and rules",
            Section::Sockets => "marks of sockets",
            Section::Queues => "packet queues",
            Section::Processes => "processes that do not run",
            Section::ControlGroups => "control groups",
            Section::Mounts => "mounts",
            Section::Files => "files",
            Section::Clock => "clock",
        })
    }
}

/// The things of a section: what each is called, and what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Things(BTreeMap<String, String>);

/// A host, or a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fingerprint {
    version: u32,
    sections: BTreeMap<Section, Things>,
    /// Names of what bears Squall's mark.
    ours: BTreeSet<String>,
    /// What could not be looked at, or only as a whole.
    notes: Vec<String>,
}

impl Fingerprint {
    /// Looks at the machine and at the calling thread's network namespace. What cannot be looked at is noted.
    pub fn take() -> Self {
        let mut fingerprint = Fingerprint::of_network();
        fingerprint.put(Section::Processes, processes::look);
        fingerprint.put(Section::ControlGroups, groups::look);
        fingerprint.put(Section::Mounts, places::mounts);
        fingerprint.put(Section::Files, places::files);
        fingerprint.put(Section::Clock, places::clock);
        fingerprint
    }

    /// Looks at the calling thread's network namespace alone.
    pub fn of_network() -> Self {
        let mut fingerprint = Fingerprint { version: VERSION, ..Fingerprint::default() };
        fingerprint.put(Section::Links, links::look);
        fingerprint.put(Section::Disciplines, disciplines::look);
        fingerprint.put(Section::Firewall, firewall::look);
        fingerprint.put(Section::Routes, links::routes);
        fingerprint.put(Section::Sockets, sockets::marks);
        fingerprint.put(Section::Queues, sockets::queues);
        fingerprint
    }

    fn put(&mut self, section: Section, look: impl FnOnce(&mut Seen) -> Result<(), String>) {
        let mut seen = Seen::default();
        if let Err(why) = look(&mut seen) {
            self.notes.push(format!("{section}: {why}"));
        }
        self.notes.extend(seen.notes);
        self.ours.extend(seen.ours);
        let things = seen.things.into_iter().map(|(name, thing)| (name, thing.in_words()));
        let mut things = Things(things.collect());
        if things.0.len() > LONGEST {
            self.notes.push(format!("{section}: there are {}, they are compared as one", things.0.len()));
            things = things.as_one();
        }
        self.sections.insert(section, things);
    }

    /// How many things it holds.
    pub fn len(&self) -> usize {
        self.sections.values().map(|things| things.0.len()).sum()
    }

    /// Whether it holds nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of what bears Squall's mark.
    pub fn ours(&self) -> impl Iterator<Item = &str> {
        self.ours.iter().map(String::as_str)
    }

    /// Whether there is an interface of this name.
    pub fn has_link(&self, name: &str) -> bool {
        self.sections.get(&Section::Links).is_some_and(|links| links.0.contains_key(&links::named(name)))
    }

    /// What could not be looked at, or only as a whole.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Each section by its number of things and a digest of them: `12: 3fa9b2c1d0e4`.
    pub fn digests(&self) -> BTreeMap<String, String> {
        let digest = |(section, things): (&Section, &Things)| {
            (section.to_string(), format!("{}: {}", things.0.len(), things.digest()))
        };
        self.sections.iter().map(digest).collect()
    }
}

impl Things {
    fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, value) in &self.0 {
            // Lengths keep what ends in one from beginning the next.
            for text in [name, value] {
                hasher.update(&text.len().to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        hasher.finalize().to_hex()[..12].to_owned()
    }

    /// All of them as one thing.
    fn as_one(&self) -> Self {
        if self.is_one() {
            return self.clone();
        }
        Things(BTreeMap::from([(EVERYTHING.to_owned(), format!("{} of {}", self.digest(), self.0.len()))]))
    }

    fn is_one(&self) -> bool {
        self.0.len() == 1 && self.0.contains_key(EVERYTHING)
    }
}

/// What is being looked at.
#[derive(Debug, Default)]
pub struct Seen {
    things: BTreeMap<String, Thing>,
    ours: BTreeSet<String>,
    notes: Vec<String>,
}

#[derive(Debug)]
enum Thing {
    Words(String),
    Bytes(u32, Box<blake3::Hasher>),
}

impl Thing {
    fn in_words(self) -> String {
        match self {
            Thing::Words(words) => words,
            Thing::Bytes(count, hasher) => {
                let digest = hasher.finalize();
                let digest = &digest.to_hex()[..12];
                if count == 1 { digest.to_owned() } else { format!("{digest} of {count}") }
            }
        }
    }
}

impl Seen {
    /// A thing, in words. One more of the same name is said beside it.
    pub fn say(&mut self, name: String, words: impl Into<String>) {
        let words = words.into();
        match self.things.get_mut(&name) {
            Some(Thing::Words(said)) => {
                said.push_str("; ");
                said.push_str(&words);
            }
            Some(Thing::Bytes(..)) => {}
            None => drop(self.things.insert(name, Thing::Words(words))),
        }
    }

    /// A thing that is known by its bytes, or one more part of it.
    pub fn hash(&mut self, name: String, bytes: &[u8]) {
        let thing =
            self.things.entry(name).or_insert_with(|| Thing::Bytes(0, Box::new(blake3::Hasher::new())));
        if let Thing::Bytes(count, hasher) = thing {
            *count += 1;
            hasher.update(&bytes.len().to_le_bytes());
            hasher.update(bytes);
        }
    }

    /// A thing that bears Squall's mark.
    pub fn ours(&mut self, name: &str) {
        self.ours.insert(name.to_owned());
    }

    /// Something that the reader must know of this section.
    pub fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, things) in &self.sections {
            writeln!(f, "{section}: {}", things.0.len())?;
            for (name, value) in &things.0 {
                let ours = if self.ours.contains(name) { "  (Squall's)" } else { "" };
                writeln!(f, "  {name}: {value}{ours}")?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: usize, last: &str) -> Fingerprint {
        let mut all = Fingerprint::default();
        all.put(Section::Routes, |seen| {
            (0..count).for_each(|number| seen.say(format!("route {number}"), "main"));
            seen.say("route last".to_owned(), last);
            Ok(())
        });
        all
    }

    #[test]
    fn too_many_things_are_compared_as_one_and_said_so() {
        let (few, all, other) = (many(999, "a"), many(1000, "a"), many(1000, "b"));
        assert_eq!((few.len(), all.len()), (1000, 1));
        assert!(few.notes().is_empty());
        assert!(all.notes()[0].contains("1001"), "{:?}", all.notes());
        assert!(all.differences(&all).is_empty());
        let seen: Vec<String> = all.differences(&other).iter().map(ToString::to_string).collect();
        assert_eq!(seen, ["routes and rules: everything: changed"]);
        // One that grew beyond the limit meanwhile is one difference, too, not a thousand.
        assert_eq!(few.differences(&all).len(), 1);
        assert_eq!(all.differences(&few).len(), 1);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut whole = many(3, "a");
        whole.ours.insert("route 1".to_owned());
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), whole);
    }

    #[test]
    fn parts_of_one_thing_keep_their_order_and_their_borders() {
        let of = |parts: &[&[u8]]| {
            let mut seen = Seen::default();
            parts.iter().for_each(|part| seen.hash("chain".to_owned(), part));
            seen.things.remove("chain").unwrap().in_words()
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert!(of(&[b"a", b"b"]).ends_with(" of 2"));
    }

    #[test]
    fn this_machine_is_twice_the_same() {
        // Others use this machine while tests run: what they cannot change must not differ.
        let (first, second) = (Fingerprint::take(), Fingerprint::take());
        for section in [Section::Clock, Section::Files] {
            assert!(!first.sections[&section].0.is_empty(), "{section} is empty");
            let differences = first.differences(&second);
            assert!(differences.iter().all(|one| one.section != section), "{differences:?}");
        }
        assert!(first.sections[&Section::Links].0.keys().any(|name| name == "link lo"), "{first}");
        assert!(first.len() > 10, "{first}");
    }
}
