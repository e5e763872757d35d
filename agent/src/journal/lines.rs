//! The text of a journal: one line per entry, each with a checksum of its own and that of the line before it.
//!
//! `checksum, blank, checksum of the line before, blank, JSON`; a checksum is sixteen hexadecimal digits of BLAKE3 over all
//! that follows it in its line. So each line can be trusted or not by itself, and a line that was lost, doubled or moved
//! is noticed by the next one.

use super::{Entry, VERSION};

/// Digits of a checksum.
const DIGITS: usize = 16;
/// What the first line names as the one before it.
const NONE: &str = "0000000000000000";

/// What is wrong with a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// The last line's checksum, which the next one names.
#[derive(Clone, Debug)]
pub struct Chain(String);

impl Default for Chain {
    fn default() -> Self {
        Chain(NONE.to_owned())
    }
}

impl Chain {
    /// The lines of some entries; the chain goes on behind them.
    pub fn lines(&self, entries: &[Entry]) -> serde_json::Result<(String, Chain)> {
        let mut chain = self.clone();
        let mut lines = String::new();
        for entry in entries {
            let rest = format!("{} {}", chain.0, serde_json::to_string(entry)?);
            chain = Chain(checksum(&rest));
            lines.push_str(&format!("{} {rest}\n", chain.0));
        }
        Ok((lines, chain))
    }
}

fn checksum(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..DIGITS].to_owned()
}

/// Reads a whole journal. Only a last line that was torn off is left out; a line that is whole but for its end counts.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Flaw> {
    let mut entries = Vec::new();
    let mut last = NONE.to_owned();
    let mut rest = bytes;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let flaw = |what: String| Flaw { line: number, what };
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        let read = match read(line) {
            Ok(read) => read,
            Err(_) if end.is_none() && number > 1 && is_torn(line) => break,
            Err(what) => return Err(flaw(if number == 1 { older(line).unwrap_or(what) } else { what })),
        };
        if number == 1 {
            match &read.entry {
                Entry::Header { version: VERSION, .. } => {}
                Entry::Header { version, .. } => return Err(flaw(other_version(*version))),
                _ => return Err(flaw("the header is missing".to_owned())),
            }
        }
        if read.before != last {
            return Err(flaw(
                "it does not follow the line before it: lines are missing, or not in order".to_owned(),
            ));
        }
        last = read.sum;
        entries.push(read.entry);
        rest = &rest[line.len() + usize::from(end.is_some())..];
    }
    if entries.is_empty() {
        return Err(Flaw {
            line: 1,
            what: "it is empty, and a journal is never made without its header".to_owned(),
        });
    }
    Ok(entries)
}

/// Every entry of a damaged journal whose own line is whole. What is missing between them is not known.
pub fn salvage(bytes: &[u8]) -> Vec<Entry> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| Some(read(line).ok()?.entry)).collect()
}

/// One line that is whole.
struct Read {
    sum: String,
    before: String,
    entry: Entry,
}

fn read(line: &[u8]) -> Result<Read, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not text".to_owned())?;
    let (sum, rest) = text.split_once(' ').ok_or("it has no checksum")?;
    if checksum(rest) != sum {
        return Err("its checksum does not match".to_owned());
    }
    let (before, json) = rest.split_once(' ').ok_or("it does not name the line before it")?;
    let entry = serde_json::from_str(json).map_err(|error| format!("it is not understood ({error})"))?;
    Ok(Read { sum: sum.to_owned(), before: before.to_owned(), entry })
}

/// Whether what stands behind the last end of a line is the beginning of one. A whole line behind which something else
/// stands than its end is not: it was written, and synced, and counts.
fn is_torn(tail: &[u8]) -> bool {
    let text = match std::str::from_utf8(tail) {
        Ok(text) => text,
        // A character may be torn too.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&tail[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let mut parts = text.splitn(3, ' ');
    let digits = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (sum, before, json) = (parts.next(), parts.next(), parts.next());
    let whole = |part: Option<&str>, next: Option<&str>| {
        part.is_none_or(|part| {
            digits(part) && if next.is_some() { part.len() == DIGITS } else { part.len() <= DIGITS }
        })
    };
    // An entry's JSON is an object, and has no bare control characters.
    let begins = json
        .is_none_or(|json| (json.is_empty() || json.starts_with('{')) && !json.chars().any(char::is_control));
    let ends = tail.iter().enumerate().filter(|(_, byte)| **byte == b'}').map(|(at, _)| at + 1);
    whole(sum, before)
        && whole(before, json)
        && begins
        && !ends.into_iter().any(|end| read(&tail[..end]).is_ok())
}

fn other_version(version: u32) -> String {
    format!("its version is {version}, and this build reads {VERSION}")
}

/// What a first line says that was written by version 1, whose lines did not name the one before.
fn older(line: &[u8]) -> Option<String> {
    let (sum, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let header: serde_json::Value = serde_json::from_str(json).ok().filter(|_| checksum(json) == sum)?;
    let version = header.get("header")?.get("version")?.as_u64()?;
    Some(other_version(u32::try_from(version).ok()?))
}
