//! What the proxies of outages have seen of connections and requests: each writes it into memory of its own
//! (memfd_create(2)), and it is read here for whoever watches the run.
//!
//! What a process without privileges has written is taken for text that may be anything.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use serde_json::Value;

/// What is read at once, in bytes; no line is longer.
const PAGE: usize = 128 << 10;
/// Holes are made in whole pages.
const HOLE: u64 = 4096;

/// What one of them has seen.
#[derive(Debug)]
pub struct Seen {
    pub(super) run: String,
    pub(super) part: u32,
    memory: File,
    read: u64,
}

impl Seen {
    /// Memory for what the proxy of a part of a run sees, and the descriptor by which it writes.
    pub fn new(run: &str, part: u32) -> io::Result<(Self, OwnedFd)> {
        let memory = File::from(memfd_create("squall-seen", MemfdFlags::CLOEXEC)?);
        let theirs = OwnedFd::from(memory.try_clone()?);
        Ok((Seen { run: run.to_owned(), part, memory, read: 0 }, theirs))
    }

    /// What was not read yet, a page of it at most; empty where there is nothing more. What was read is let go of.
    pub fn more(&mut self) -> Vec<Value> {
        let mut page = vec![0; PAGE];
        let Ok(length) = self.memory.read_at(&mut page, self.read) else { return Vec::new() };
        let Some(end) = page[..length].iter().rposition(|byte| *byte == b'\n') else {
            // A line that is longer than any may be: nothing after it can be told either.
            if length == PAGE {
                self.read = u64::MAX >> 1;
            }
            return Vec::new();
        };
        let before = self.read;
        self.read += end as u64 + 1;
        let hole = (before / HOLE * HOLE, self.read / HOLE * HOLE);
        if hole.1 > hole.0 {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where it cannot be made, less is kept of what comes.
            let _ = fallocate(&self.memory, flags, hole.0, hole.1 - hole.0);
        }
        let lines = page[..end].split(|byte| *byte == b'\n');
        let told = lines.filter_map(|line| {
            let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { return None };
            let mut all = serde_json::Map::new();
            all.insert("run".to_owned(), Value::from(self.run.as_str()));
            all.insert("part".to_owned(), Value::from(self.part));
            all.extend(fields.into_iter().filter(|(name, _)| name != "run" && name != "part"));
            Some(Value::Object(all))
        });
        told.collect()
    }
}
