//! What the proxy has seen, written where the worker reads it: into memory that both have, so that it outlives the proxy.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::proxy::observations::Observations;

/// What may wait there to be read, in bytes: what was read is taken out by the worker.
const MOST: u64 = 16 << 20;
/// How many are taken over at once.
const PAGE: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Diary {
    memory: File,
    /// The number of the next observation.
    next: u64,
    /// How many were left out since the last line.
    dropped: u64,
    most: u64,
}

impl Diary {
    /// An empty one.
    pub(super) fn new(memory: OwnedFd) -> Self {
        Diary { memory: memory.into(), next: 0, dropped: 0, most: MOST }
    }

    /// Writes what is new, one JSON object a line. Where nobody reads, what does not fit any more is left out, and how much
    /// that was is said by a line of its own (`gap`) as soon as there is room.
    ///
    /// # Errors
    /// There is no memory: what was to be written is lost, and the next line may be cut off.
    pub(super) fn write(&mut self, observations: &Observations) -> io::Result<()> {
        loop {
            let page = observations.page(self.next, PAGE);
            if page.records.is_empty() {
                return Ok(());
            }
            self.dropped += page.dropped;
            self.next += page.dropped + page.records.len() as u64;
            // The room that it takes, not its length: the beginning has been read (`st_blocks`, stat(2)).
            if self.memory.metadata()?.blocks() * 512 > self.most {
                self.dropped += page.records.len() as u64;
                continue;
            }
            let mut lines = Vec::new();
            if self.dropped > 0 {
                writeln!(lines, "{}", json!({ "kind": "gap", "dropped": self.dropped }))?;
                self.dropped = 0;
            }
            for record in &page.records {
                writeln!(lines, "{record}")?;
            }
            self.memory.write_all(&lines)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, memfd_create};
    use serde_json::Value;

    use super::*;
    use crate::host::redirect::seen::Seen;
    use crate::proxy::caller::Asked;
    use crate::proxy::observations::{Connection, Record};

    fn see(observations: &Observations, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let connection = Connection { connection: number, ..Connection::default() };
            observations.push(Record::Connection(connection), Asked::default());
        }
    }

    fn numbers(seen: &[Value]) -> Vec<u64> {
        seen.iter().map(|line| line["connection"].as_u64().unwrap_or(u64::MAX)).collect()
    }

    #[test]
    fn what_is_written_is_read_once_in_order_and_makes_room() {
        let (mut seen, memory) = Seen::new("r1", 3).expect("memory");
        let observations = Observations::alone(10_000);
        let mut diary = Diary::new(memory);
        assert!(seen.more().is_empty());
        let mut read = Vec::new();
        for round in 0..20 {
            see(&observations, round * 500..round * 500 + 500);
            diary.write(&observations).expect("there is memory");
            loop {
                let more = seen.more();
                if more.is_empty() {
                    break;
                }
                assert!(more.iter().all(|line| line["part"] == 3 && line["run"] == "r1"), "{more:?}");
                read.extend(numbers(&more));
            }
        }
        assert_eq!(read, (0..10_000).collect::<Vec<_>>());
        let held = diary.memory.metadata().expect("it is there");
        assert!(held.len() > 3 << 20 && held.blocks() * 512 < 64 << 10, "{held:?}");
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let memory = memfd_create("squall-test", MemfdFlags::CLOEXEC).expect("memory");
        let file = File::from(memory.try_clone().expect("a descriptor"));
        let mut diary = Diary { most: 64 << 10, ..Diary::new(memory) };
        let observations = Observations::alone(300);
        // Of a thousand 300 are kept, of which 256 are written, and then there is no room.
        see(&observations, 0..1000);
        diary.write(&observations).expect("there is memory");
        see(&observations, 1000..1100);
        diary.write(&observations).expect("there is memory");
        file.set_len(0).expect("it can be emptied");
        see(&observations, 1100..1101);
        diary.write(&observations).expect("there is memory");
        let mut buffer = vec![0; file.metadata().expect("it is there").len() as usize];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, 0).expect("it can be read");
        let text = String::from_utf8_lossy(&buffer);
        let lines: Vec<Value> = text
            .trim_matches('\0')
            .lines()
            .map(|line| serde_json::from_str(line).expect("it is JSON"))
            .collect();
        assert_eq!(lines[0]["dropped"], 44 + 100, "{lines:?}");
        assert_eq!(lines[1]["connection"], 1100, "{lines:?}");
    }
}
