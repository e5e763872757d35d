//! Following a control group that goes and comes back: a unit that restarts gets a new directory at the same path, and
//! with it a new number.
//!
//! The kernel says when a directory appears in another one (inotify), so the new number joins the set that the rules
//! look into before most programs have opened a socket. What was missed is said.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use procfs::ticks_per_second;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use squall_experiments::protocol::Refusal;

use super::cgroup::{Cgroup, Group};
use super::netlink::NetlinkError;
use super::owed::{Owed, Tried};
use super::process::Target;
use super::set::{Element, Filled, Kind, Set};
use super::sys;
use super::table::set_name;

/// `cgroupsv2`, in nft's own numbers of types, for listing only.
const CGROUP: u32 = 46;
/// How often processes are looked for that joined a group of version 1, of which the kernel says nothing.
const LOOK_NANOS: u64 = 250_000_000;

/// How many times it is said who joined: what starts a program for every task has many.
const MOST_TOLD: u32 = 20;

/// Where a group is followed, and what it is called.
#[derive(Debug)]
pub struct Follower {
    /// What it is called in the report: `unit shop.service`.
    name: String,
    group: Group,
    events: OwnedFd,
    gone_since: Option<u64>,
    next: u64,
    /// How many times it was said who joined.
    told: u32,
    /// Whether its number is still to be put into the set.
    owed: Owed,
}

/// What a look at a followed group has found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Same,
    Gone,
    New,
}

/// The numbers of a group of version 2 by which its packets are told, in a set of the table.
#[derive(Debug)]
pub struct Numbers {
    /// How many levels below the root the group is.
    pub level: u32,
    /// The set that holds the group's number, and those that it had before.
    pub set: Arc<Filled>,
    tag: String,
}

impl Numbers {
    /// For the rules with this tag.
    pub fn of(group: &Cgroup, tag: &str) -> Self {
        let set = Set { name: set_name(tag, "cgroups"), key: 8, shown_as: CGROUP, kind: Kind::Keys };
        let set = Arc::new(Filled { set, elements: BTreeSet::from([element(group)]) });
        Numbers { level: group.level, set, tag: tag.to_owned() }
    }

    /// All numbers.
    pub fn ids(&self) -> BTreeSet<u64> {
        let keys = self.set.elements.iter().filter_map(|element| element.first.as_slice().try_into().ok());
        keys.map(u64::from_ne_bytes).collect()
    }

    /// The rules match another group, too.
    fn join(
        &mut self,
        group: &Cgroup,
        refill: impl FnOnce(&str, &Arc<Filled>) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let mut set = Filled::clone(&self.set);
        set.elements.insert(element(group));
        let set = Arc::new(set);
        refill(&self.tag, &set)?;
        self.set = set;
        Ok(())
    }
}

fn element(group: &Cgroup) -> Element {
    Element::key(group.id.to_ne_bytes())
}

impl Follower {
    /// Begins to watch: from here on nothing that happens to the group is missed.
    pub fn new(name: String, group: Group) -> Result<Self, Refusal> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| Refusal::bare(format!("{name} cannot be watched: {error}")))?;
        let mut follower = Follower {
            name,
            group,
            events,
            gone_since: None,
            next: sys::boot_nanos() + LOOK_NANOS,
            told: 0,
            owed: Owed::default(),
        };
        follower.listen();
        // It may have restarted since it was found.
        if let Group::New(group) = &follower.group
            && let Some(now) = group.again()
        {
            follower.group = Group::New(now);
        }
        Ok(follower)
    }

    /// The group as it was last seen.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Watches every directory above the group, as far as there are any: each may go and come back.
    fn listen(&self) {
        let watched = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        let mut above: Vec<&Path> = self.group.directory().ancestors().skip(1).collect();
        above.retain(|directory| directory.join("cgroup.procs").exists());
        for directory in above {
            // One that is gone by now comes back below one that is watched.
            let _ = inotify::add_watch(&self.events, directory, watched);
        }
    }

    /// Becomes readable when a group near it has come or gone.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// When to look for processes that have joined a group of version 1: the kernel does not say.
    pub fn due(&self) -> u64 {
        self.next
    }

    /// When to try again to follow a group of version 2, where that failed.
    pub fn owed(&self) -> Option<u64> {
        self.owed.due()
    }

    /// Its processes now.
    pub fn processes(&self) -> Vec<Target> {
        self.group.processes()
    }

    fn drain(&self) {
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.events, &mut buffer).is_ok_and(|length| length > 0) {}
    }

    fn look(&mut self) -> Found {
        self.drain();
        self.listen();
        let before = self.gone_since;
        let now = match &self.group {
            Group::New(group) => group.again().map(Group::New),
            Group::Old(directory) => directory.is_dir().then(|| Group::Old(directory.clone())),
        };
        match now {
            None if before.is_none() => {
                self.gone_since = Some(sys::boot_nanos());
                Found::Gone
            }
            None => Found::Same,
            Some(now) => {
                self.gone_since = None;
                let found = if before.is_some() || now != self.group { Found::New } else { Found::Same };
                self.group = now;
                found
            }
        }
    }

    /// Looks for a group of version 2, has the rules match it where it is a new one, and says what has happened. One that
    /// cannot be put into the rules is tried again, as long as it is there.
    pub fn tick(
        &mut self,
        numbers: &mut Numbers,
        refill: impl FnOnce(&str, &Arc<Filled>) -> Result<(), NetlinkError>,
    ) -> Option<String> {
        let gone_since = self.gone_since;
        let name = self.name.clone();
        match self.look() {
            Found::Same if !self.owed.is_due() => return None,
            Found::Same | Found::New => {}
            Found::Gone => {
                self.owed.forget();
                return Some(format!("{name} is gone: nothing of it is matched until it comes back"));
            }
        }
        let Group::New(group) = &self.group else { return None };
        match self.owed.tried(numbers.join(group, refill)) {
            Tried::FailedAgain => None,
            Tried::Failed(error) => Some(format!(
                "{name} has restarted and could not be followed yet, it is tried again: {error}"
            )),
            Tried::Done => {
                let gap = gap(&self.processes());
                let away = gone_since.map_or_else(String::new, |since| {
                    format!(" after {} ms", (sys::boot_nanos() - since) / 1_000_000)
                });
                Some(format!("{name} has restarted{away}: followed {gap}"))
            }
        }
    }

    /// Looks for processes that have joined a group of version 1 since. Nothing where it is not time yet.
    pub fn joined(&mut self, known: &[Target]) -> (Vec<Target>, Option<String>) {
        let now = sys::boot_nanos();
        let found = self.look();
        if found == Found::Same && self.next > now {
            return (Vec::new(), None);
        }
        self.next = now + LOOK_NANOS;
        let name = &self.name;
        if found == Found::Gone {
            return (
                Vec::new(),
                Some(format!("{name} is gone: nothing of it is matched until it comes back")),
            );
        }
        let new: Vec<Target> =
            self.processes().into_iter().filter(|target| !known.contains(target)).collect();
        self.told += u32::from(!new.is_empty() && self.told <= MOST_TOLD);
        if self.told > MOST_TOLD {
            let last = format!("more joined {name} than can be told one by one; they are followed, too");
            return (new, (std::mem::replace(&mut self.told, u32::MAX) != u32::MAX).then_some(last));
        }
        let said = (!new.is_empty()).then(|| {
            let names: Vec<String> = new.iter().map(ToString::to_string).collect();
            format!("{} joined {name}: followed {}", names.join(", "), gap(&new))
        });
        (new, said)
    }
}

/// How much of what these processes did came before now.
fn gap(processes: &[Target]) -> String {
    let now_ms = sys::boot_nanos() / 1_000_000;
    let started = processes.iter().map(|target| target.start * 1000 / ticks_per_second()).min();
    match started {
        None => "before it had a process".to_owned(),
        // Times of start are counted in ticks, of which the last may have been a whole one ago.
        Some(started) => format!(
            "at most {} ms after its first process began, whose packets passed until then",
            now_ms.saturating_sub(started) + 1
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that takes the place of a group's, with a number of its own each time that it is made.
    struct Directory(std::path::PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("squall-follow-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn group(&self) -> Cgroup {
            Cgroup { directory: self.0.clone(), level: 1, id: 1 }
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn full(_: &str, _: &Arc<Filled>) -> Result<(), NetlinkError> {
        Err(std::io::Error::other("no room").into())
    }

    #[test]
    fn a_group_that_could_not_join_is_tried_again() {
        let directory = Directory::new();
        let old = directory.group();
        let mut numbers = Numbers::of(&old, "tag");
        let mut follower = Follower::new("unit shop.service".into(), Group::New(old.clone())).unwrap();
        // As if it had restarted since.
        follower.group = Group::New(old.clone());
        let begun = sys::boot_nanos();
        let said = follower.tick(&mut numbers, full).expect("it is said");
        assert!(said.contains("could not be followed yet"), "{said}");
        let due = follower.owed().expect("it is tried again");
        assert!(due >= begun + 1_000_000_000, "not at once");
        while sys::boot_nanos() < due {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(follower.tick(&mut numbers, full), None, "it is said once");
        let due = follower.owed().expect("and again");
        while sys::boot_nanos() < due {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let said = follower.tick(&mut numbers, |_, _| Ok(())).expect("it is said");
        assert!(said.contains("followed"), "{said}");
        assert!(numbers.ids().contains(&old.again().unwrap().id), "{numbers:?}");
        assert_eq!(follower.owed(), None);
    }
}
