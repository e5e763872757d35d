//! Log probes: lines that are added to a file, across rotation.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use regex::bytes::Regex;
use squall_experiments::probe::compare::Found;
use squall_experiments::probe::{Expect, LogProbe};

use super::expect::Seen;
use super::tcp::words;
use super::value::ExpectValue;

/// The longest part of a line that is looked at, in bytes.
const LONGEST_LINE: usize = 64 << 10;
/// The most that one look reads, in bytes: more than a gigabyte in a minute of looks is said to be too much.
const MOST: usize = 16 << 20;

/// A log probe, ready to be sampled.
pub(super) struct LogLook {
    path: PathBuf,
    pattern: Regex,
    expect: ExpectValue,
    follow: RefCell<Follow>,
}

/// Where in which file.
struct Follow {
    file: File,
    /// The beginning of a line whose end was not there yet.
    line: Vec<u8>,
    read: u64,
    /// Matching lines that no look has told yet: one that failed after it had read them.
    untold: u64,
}

impl LogLook {
    /// Opens the file and goes to its end; an error says why that is not possible.
    pub(super) fn new(probe: &LogProbe, expect: &Expect) -> Result<Self, String> {
        let path = PathBuf::from(&probe.file);
        let failed = |error: io::Error| format!("`{}`: {}", path.display(), words(&error));
        let mut file = open(&path).map_err(failed)?;
        let read = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let pattern = Regex::new(&probe.pattern)
            .map_err(|_| format!("`{}` is not a regular expression", probe.pattern))?;
        // Lines that nobody wants to see, unless something else is said.
        let expect = ExpectValue::new(expect)?.or(0.into())?;
        Ok(LogLook {
            path,
            pattern,
            expect,
            follow: RefCell::new(Follow { file, line: Vec::new(), read, untold: 0 }),
        })
    }

    /// Counts the matching lines since the last look.
    pub(super) fn look(&self) -> Seen {
        let begun = Instant::now();
        match self.follow.borrow_mut().matches(&self.path, &self.pattern) {
            Ok(count) => self.expect.judge(&Found::Typed(count.into()), begun.elapsed()),
            Err(error) => Seen::unclear(format!("`{}`: {}", self.path.display(), words(&error))),
        }
    }
}

/// Regular files only: a pipe or a terminal would wait, and has nothing to go back to.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

impl Follow {
    fn matches(&mut self, path: &Path, pattern: &Regex) -> io::Result<u64> {
        let mut room = MOST;
        self.read_on(pattern, &mut room)?;
        // Only now: what was written to the old file until it was replaced is read.
        let now = std::fs::metadata(path)?;
        let own = self.file.metadata()?;
        if (now.dev(), now.ino()) != (own.dev(), own.ino()) {
            self.read_on(pattern, &mut room)?;
            *self = Follow { file: open(path)?, line: Vec::new(), read: 0, untold: self.untold };
            self.read_on(pattern, &mut room)?;
        }
        Ok(std::mem::take(&mut self.untold))
    }

    /// Reads to the end, or until there is no more room: then the next look goes on there.
    fn read_on(&mut self, pattern: &Regex, room: &mut usize) -> io::Result<()> {
        if self.file.metadata()?.len() < self.read {
            // Emptied in place, as logrotate's `copytruncate` does.
            self.file.seek(SeekFrom::Start(0))?;
            self.read = 0;
            self.line.clear();
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            if *room == 0 {
                return Err(io::Error::other("more than 16 MiB were written since the last look"));
            }
            let most = buffer.len().min(*room);
            let length = self.file.read(&mut buffer[..most])?;
            if length == 0 {
                return Ok(());
            }
            self.read += length as u64;
            *room -= length;
            for part in buffer[..length].split_inclusive(|byte| *byte == b'\n') {
                let keep = LONGEST_LINE.saturating_sub(self.line.len()).min(part.len());
                self.line.extend_from_slice(&part[..keep]);
                if part.ends_with(b"\n") {
                    let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
                    self.untold += u64::from(pattern.is_match(line));
                    self.line.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn counted(look: &LogLook) -> u64 {
        look.follow.borrow_mut().matches(&look.path, &look.pattern).unwrap()
    }

    #[test]
    fn lines_are_counted_once_whatever_becomes_of_the_file() {
        let folder = std::env::temp_dir().join(format!("squall-log-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("shop.log");
        fs::write(&path, "error: before\n").unwrap();
        let probe = LogProbe { file: path.display().to_string(), pattern: "^error".to_owned(), user: None };
        let look = LogLook::new(&probe, &Expect::default()).unwrap();
        assert_eq!(counted(&look), 0, "what was there before is not counted");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"error: 1\nfine\nerr").unwrap();
        assert_eq!(counted(&look), 1);
        assert_eq!(counted(&look), 0);
        file.write_all(b"or: 2\n\xff\xfe\x00 error\n").unwrap();
        assert_eq!(counted(&look), 1, "a line counts when it is finished");
        // Renamed, written on, replaced.
        fs::rename(&path, folder.join("shop.log.1")).unwrap();
        file.write_all(b"error: 3\n").unwrap();
        fs::write(&path, "error: 4\nerror: 5\n").unwrap();
        assert_eq!(counted(&look), 3);
        // Emptied in place.
        fs::write(&path, "error: 6\n").unwrap();
        assert_eq!(counted(&look), 1);
        // A line without an end is not gathered for ever.
        fs::write(&path, "x".repeat(LONGEST_LINE * 3)).unwrap();
        assert_eq!(counted(&look), 0);
        assert!(look.follow.borrow().line.len() <= LONGEST_LINE);
        // Renamed, and the new one is not there yet: what was read meanwhile is told later.
        fs::write(&path, "").unwrap();
        assert_eq!(counted(&look), 0);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"error: 7\n").unwrap();
        fs::remove_file(&path).unwrap();
        assert!(look.look().unclear, "a file that is gone says nothing");
        fs::write(&path, "error: 8\n").unwrap();
        assert_eq!(counted(&look), 2);
        // More than one look reads is told by the next ones.
        fs::write(&path, "").unwrap();
        assert_eq!(counted(&look), 0);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&b"error: many\n".repeat(MOST / 12 + 1000)).unwrap();
        assert!(look.look().unclear, "it cannot have read all of it");
        assert_eq!(counted(&look), (MOST / 12 + 1000) as u64);
        fs::remove_file(&path).unwrap();
        assert!(LogLook::new(&probe, &Expect::default()).is_err(), "a file that never was is refused");
        fs::remove_dir_all(&folder).unwrap();
    }
}
