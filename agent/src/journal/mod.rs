//! The undo journal: append, sync, replay.
//!
//! Its text is described in [`lines`]. A torn last line is ignorable, because nothing is performed before its undo is on
//! disk and synced; anything else that is unreadable stops the agent. A journal comes into being with its first line, by
//! renaming, so an empty one is damaged too. Space is reserved ahead, so that a disk that fills up is noticed before a
//! change, not during one.

pub mod lines;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use squall_experiments::protocol::RunId;

use crate::host::netns::{Id, Netns};
use crate::host::undo::Undo;
use crate::points;
use lines::{Chain, Flaw};

/// The version of this format.
pub const VERSION: u32 = 2;
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
        /// The network namespace.
        namespace: Id,
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

/// A journal that must not be taken for "nothing to do".
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It cannot be read at all.
    #[error("the journal `{path}` cannot be read: {source}")]
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

/// The boot that is now. Without it nobody can say which undos are void.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What a journal is written on.
pub trait Disk: std::fmt::Debug {
    /// Sees to it that so many bytes more will find room.
    fn reserve(&mut self, bytes: usize) -> io::Result<()>;
    /// Writes at the end. After an error some of it may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything is where no crash can take it.
    fn sync(&mut self) -> io::Result<()>;
    /// Shortens it to so many bytes.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

/// A file, with room reserved ahead.
#[derive(Debug)]
pub struct Paper {
    file: File,
    length: i64,
    reserved: i64,
}

impl Disk for Paper {
    fn reserve(&mut self, bytes: usize) -> io::Result<()> {
        // Always one step ahead, so that the marks of undone entries find room on a full disk.
        if self.length + bytes as i64 + STEP / 2 > self.reserved {
            match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, self.reserved, STEP) {
                Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => self.reserved += STEP,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        points::write(&mut self.file, bytes)?;
        self.length += bytes.len() as i64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        points::sync(&self.file)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.length = length as i64;
        // What was reserved behind the end may have gone with it.
        self.reserved = self.length;
        self.file.sync_data()
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal<D: Disk = Paper> {
    disk: D,
    length: u64,
    chain: Chain,
    number: u64,
    /// A line was written in part, and could not be taken back.
    broken: bool,
}

impl Journal {
    /// Starts a journal with nothing but its header; an existing one must have been recovered and removed before.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let new = path.with_extension("new");
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&new)?;
        file.set_len(0)?;
        let header = Entry::Header { version: VERSION, boot: boot_id()?, namespace: Netns::here()?.id() };
        let begun = Journal::begin(Paper { file, length: 0, reserved: 0 }, header).and_then(|journal| {
            std::fs::rename(&new, path)?;
            let directory = path.parent().unwrap_or(Path::new("/"));
            File::open(directory)?.sync_all()?;
            Ok(journal)
        });
        if begun.is_err() {
            let _ = std::fs::remove_file(new);
            let _ = std::fs::remove_file(path);
        }
        begun
    }
}

impl<D: Disk> Journal<D> {
    /// Writes the header on an empty disk.
    pub fn begin(disk: D, header: Entry) -> io::Result<Self> {
        let mut journal = Journal { disk, length: 0, chain: Chain::default(), number: 0, broken: false };
        journal.append(&[header])?;
        Ok(journal)
    }

    /// Appends entries; they are on disk when this returns. A crash meanwhile leaves the first of them, or none; after an
    /// error there is none.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an entry was written in part before"));
        }
        let (lines, chain) = self.chain.lines(entries)?;
        let over = |entry: &Entry| matches!(entry, Entry::Undone { .. } | Entry::End { .. });
        match self.disk.reserve(lines.len()) {
            Err(error) if !entries.iter().all(over) => return Err(error),
            _ => {}
        }
        let written = self.disk.append(lines.as_bytes()).and_then(|()| self.disk.sync());
        if let Err(error) = written {
            // A line that follows a torn one could not be read.
            self.broken = self.disk.cut(self.length).is_err();
            return Err(error);
        }
        self.length += lines.len() as u64;
        self.chain = chain;
        Ok(())
    }

    /// Appends an undo and says its number.
    pub fn record(&mut self, run: &RunId, undo: &Undo) -> io::Result<u64> {
        let number = self.number + 1;
        self.append(&[Entry::Undo { number, run: run.clone(), undo: undo.clone() }])?;
        self.number = number;
        Ok(number)
    }
}

/// Reads a journal. A missing one is empty; a torn last line is left out.
pub fn read(path: &Path) -> Result<Vec<Entry>, Unreadable> {
    bytes(path)?.map_or(Ok(Vec::new()), |bytes| {
        lines::parse(&bytes).map_err(|Flaw { line, what }| Unreadable::Damaged {
            path: path.to_owned(),
            line,
            what,
        })
    })
}

/// What stands in a journal; `None` where there is none.
pub fn bytes(path: &Path) -> Result<Option<Vec<u8>>, Unreadable> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Unreadable::Io { path: path.to_owned(), source }),
        Ok(bytes) => Ok(Some(bytes)),
    }
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
