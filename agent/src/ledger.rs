//! The guardian's pen: what of the worker's requests goes into the journal, and when the journal goes.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use squall_experiments::protocol::RunId;

use crate::journal::{self, Disk, Entry, Journal, Paper, lines};
use crate::points::{self, Point};
use crate::records::Ask;

/// Where the one journal of a place lies.
pub trait Shelf: std::fmt::Debug {
    /// What it is written on.
    type Disk: Disk;
    /// Begins it, with its header.
    fn create(&self) -> io::Result<Journal<Self::Disk>>;
    /// What stands in it; `None` where there is none.
    fn bytes(&self) -> io::Result<Option<Vec<u8>>>;
    /// Takes it away.
    fn remove(&self);
}

/// A file.
impl Shelf for PathBuf {
    type Disk = Paper;

    fn create(&self) -> io::Result<Journal> {
        Journal::create(self)
    }

    fn bytes(&self) -> io::Result<Option<Vec<u8>>> {
        journal::bytes(self).map_err(io::Error::other)
    }

    fn remove(&self) {
        let _ = std::fs::remove_file(self);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ledger<S: Shelf = PathBuf> {
    shelf: S,
    journal: Option<Journal<S::Disk>>,
    live: BTreeSet<RunId>,
}

impl<S: Shelf> Ledger<S> {
    /// Writes nothing yet: the first request begins the journal.
    pub fn new(shelf: S) -> Self {
        Ledger { shelf, journal: None, live: BTreeSet::new() }
    }

    /// Writes what is asked; it is on disk when this returns. Gives the number of an undo, 0 for everything else. With the
    /// last run the journal goes, unless something in it is not undone.
    pub fn write(&mut self, ask: &Ask) -> io::Result<u64> {
        match ask {
            Ask::Begin { run, title, .. } => {
                self.journal()?.append(&[Entry::Begin { run: run.clone(), title: title.clone() }])?;
                self.live.insert(run.clone());
            }
            Ask::Record { run, undo } => return self.journal()?.record(run, undo),
            Ask::Undone { numbers } => {
                let undone: Vec<Entry> =
                    numbers.iter().map(|number| Entry::Undone { number: *number }).collect();
                self.journal()?.append(&undone)?;
            }
            Ask::End { run } => {
                self.live.remove(run);
                self.journal()?.append(&[Entry::End { run: run.clone() }])?;
                if self.live.is_empty() && self.is_clean() {
                    self.journal = None;
                    points::pass(Point::BeforeRemove);
                    self.shelf.remove();
                }
            }
        }
        Ok(0)
    }

    /// Whether everything that was written has been undone, by what is on disk.
    fn is_clean(&self) -> bool {
        let Ok(Some(bytes)) = self.shelf.bytes() else { return false };
        lines::parse(&bytes).is_ok_and(|entries| journal::pending(&entries).is_empty())
    }

    fn journal(&mut self) -> io::Result<&mut Journal<S::Disk>> {
        match &mut self.journal {
            Some(journal) => Ok(journal),
            none => Ok(none.insert(self.shelf.create()?)),
        }
    }
}
