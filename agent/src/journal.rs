//! The undo journal: append, sync, replay.
//!
//! One line per entry: sixteen hexadecimal digits of a checksum, a blank, JSON. A torn last line is ignorable, because
//! nothing is performed before its undo is on disk and synced; anything else that is unreadable stops the agent.
//! Space is reserved ahead, so that a disk that fills up is noticed before a change, not during one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use squall_experiments::protocol::RunId;

use crate::host::undo::Undo;
use crate::points;

/// The version of this format.
pub const VERSION: u32 = 1;
const STEP: i64 = 64 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// The first line of every journal.
    Header {
        /// [`VERSION`].
        version: u32,
        /// The boot that the kernel-state undos belong to.
        boot: String,
        /// The network namespace's inode, by which its processes are found.
        namespace: u64,
    },
    /// A run has begun.
    Begin {
        /// Which.
        run: RunId,
        /// The experiment's title.
        title: String,
    },
    /// What takes a change back that may be made from now on.
    Undo {
        /// Counts up in one journal.
        number: u64,
        /// Of which run.
        run: RunId,
        /// How.
        undo: Undo,
    },
    /// It has been taken back and looked at.
    Undone {
        /// Which.
        number: u64,
    },
    /// A run has ended.
    End {
        /// Which.
        run: RunId,
    },
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: i64,
    reserved: i64,
    number: u64,
}

/// A journal that must not be taken for "nothing to do".
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It cannot be read at all.
    #[error("the journal `{path}` cannot be read")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is damaged.
    #[error("the journal `{path}` is damaged at line {line}: {what}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// An undo that has not been marked as done.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Its number in the journal.
    pub number: u64,
    /// Of which run.
    pub run: RunId,
    /// How.
    pub undo: Undo,
}

/// The boot that is now.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The inode of the calling thread's network namespace.
pub fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |metadata| metadata.ino())
}

impl Journal {
    /// Starts an empty journal; an existing one must have been recovered and removed before.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        let mut journal = Journal { path: path.to_owned(), file, length: 0, reserved: 0, number: 0 };
        let header = Entry::Header { version: VERSION, boot: boot_id(), namespace: namespace() };
        let synced = journal.append(&[header]).and_then(|()| {
            let directory = path.parent().unwrap_or(Path::new("/"));
            File::open(directory)?.sync_all()
        });
        if let Err(error) = synced {
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        Ok(journal)
    }

    /// Appends entries; they are on disk when this returns. A crash meanwhile leaves the first of them, or none.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let lines = entries.iter().map(line_of).collect::<io::Result<String>>()?;
        let needed = self.length + lines.len() as i64;
        // Always one step ahead, so that the marks of undone entries find room on a full disk.
        if needed + STEP / 2 > self.reserved {
            match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, self.reserved, STEP) {
                Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => self.reserved += STEP,
                Err(_)
                    if entries
                        .iter()
                        .all(|entry| matches!(entry, Entry::Undone { .. } | Entry::End { .. })) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        points::write(&mut self.file, lines.as_bytes())?;
        points::sync(&self.file)?;
        self.length = needed;
        Ok(())
    }

    /// Appends an undo and says its number.
    pub fn record(&mut self, run: &RunId, undo: &Undo) -> io::Result<u64> {
        let number = self.number + 1;
        self.append(&[Entry::Undo { number, run: run.clone(), undo: undo.clone() }])?;
        self.number = number;
        Ok(number)
    }

    /// Removes the journal: everything in it has been undone.
    pub fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn line_of(entry: &Entry) -> io::Result<String> {
    let json = serde_json::to_string(entry)?;
    Ok(format!("{} {json}\n", checksum(&json)))
}

fn checksum(json: &str) -> String {
    blake3::hash(json.as_bytes()).to_hex()[..16].to_owned()
}

/// Reads a journal. A missing one is empty; a torn last line is left out.
pub fn read(path: &Path) -> Result<Vec<Entry>, Unreadable> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Unreadable::Io { path: path.to_owned(), source });
        }
        Ok(bytes) => bytes,
    };
    let mut entries = Vec::new();
    let mut rest = bytes.as_slice();
    let mut line = 0;
    while !rest.is_empty() {
        line += 1;
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            break;
        };
        match entry_of(&rest[..end]) {
            Ok(entry) => entries.push(entry),
            Err(what) => {
                return Err(Unreadable::Damaged { path: path.to_owned(), line, what });
            }
        }
        rest = &rest[end + 1..];
    }
    match entries.first() {
        None => Ok(entries),
        Some(Entry::Header { version: VERSION, .. }) => Ok(entries),
        Some(Entry::Header { version, .. }) => Err(Unreadable::Damaged {
            path: path.to_owned(),
            line: 1,
            what: format!("its version is {version}, and this build reads {VERSION}"),
        }),
        Some(_) => Err(Unreadable::Damaged {
            path: path.to_owned(),
            line: 1,
            what: "the header is missing".to_owned(),
        }),
    }
}

fn entry_of(line: &[u8]) -> Result<Entry, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not text".to_owned())?;
    let (sum, json) = text.split_once(' ').ok_or("it has no checksum")?;
    if checksum(json) != sum {
        return Err("its checksum does not match".to_owned());
    }
    serde_json::from_str(json).map_err(|error| format!("it is not understood ({error})"))
}

/// What has not been undone, in the order in which it must be: rules out, what waits in queues let go, the table
/// away (which would take what waits with it), then the rest, latest first.
pub fn pending(entries: &[Entry]) -> Vec<Pending> {
    let undone = |number: u64| entries.contains(&Entry::Undone { number });
    let mut pending: Vec<Pending> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Undo { number, run, undo } if !undone(*number) => {
                Some(Pending { number: *number, run: run.clone(), undo: undo.clone() })
            }
            _ => None,
        })
        .collect();
    pending.reverse();
    pending.sort_by_key(|pending| match pending.undo.inner() {
        Undo::Rules(_) => 0,
        Undo::Queue { .. } => 1,
        Undo::Table => 2,
        _ => 3,
    });
    pending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("squall-journal-{}-{name}", std::process::id()))
    }

    fn written(name: &str) -> (PathBuf, Vec<Entry>) {
        let path = path(name);
        let _ = std::fs::remove_file(&path);
        let mut journal = Journal::create(&path).unwrap();
        let run = RunId("r1".into());
        journal.append(&[Entry::Begin { run: run.clone(), title: "t".into() }]).unwrap();
        assert_eq!(journal.record(&run, &Undo::Table).unwrap(), 1);
        assert_eq!(journal.record(&run, &Undo::Mark(4)).unwrap(), 2);
        assert_eq!(journal.record(&run, &Undo::Rules("x".into())).unwrap(), 3);
        journal.append(&[Entry::Undone { number: 2 }]).unwrap();
        let entries = read(&path).unwrap();
        assert_eq!(entries.len(), 6);
        (path, entries)
    }

    #[test]
    fn what_is_not_undone_is_pending_with_packets_first() {
        let (path, entries) = written("pending");
        let numbers: Vec<u64> = pending(&entries).iter().map(|pending| pending.number).collect();
        assert_eq!(numbers, [3, 1]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_acts_in_another_namespace_is_ordered_as_at_home() {
        let netns = crate::host::netns::Id { inode: 7, cookie: 9 };
        let within = |undo| Undo::Within { netns, undo: Box::new(undo) };
        let undos =
            [Undo::Table, within(Undo::Table), within(Undo::Rules("a".into())), Undo::Rules("b".into())];
        let number = |(number, undo): (usize, &Undo)| {
            let run = RunId("r".into());
            Entry::Undo { number: number as u64, run, undo: undo.clone() }
        };
        let entries: Vec<Entry> = undos.iter().enumerate().map(number).collect();
        let read: Vec<Entry> = entries
            .iter()
            .map(|entry| entry_of(line_of(entry).unwrap().trim_end().as_bytes()).unwrap())
            .collect();
        let order: Vec<u64> = pending(&read).iter().map(|pending| pending.number).collect();
        assert_eq!(order, [3, 2, 1, 0]);
    }

    #[test]
    fn a_cut_at_every_byte_loses_at_most_the_torn_line() {
        let (path, entries) = written("cut");
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(read(&path).unwrap(), entries[..whole], "cut at {cut}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_flipped_bit_is_never_read_as_nothing_to_do() {
        let (path, _) = written("flip");
        let bytes = std::fs::read(&path).unwrap();
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
        for at in 0..last {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x04;
            std::fs::write(&path, &damaged).unwrap();
            assert!(read(&path).is_err(), "bit flipped at {at}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_future_version_is_refused() {
        let path = path("future");
        let header = Entry::Header { version: VERSION + 1, boot: "b".into(), namespace: 1 };
        std::fs::write(&path, line_of(&header).unwrap()).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("version"));
        std::fs::remove_file(path).unwrap();
    }
}
