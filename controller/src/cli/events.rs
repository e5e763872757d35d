//! Event files of earlier runs.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;
use squall_experiments::muster::{FleetEvent, Line, What};
use squall_experiments::protocol::LONGEST_LINE;
use squall_experiments::run::Record;

/// What an event file is about.
pub enum Log {
    /// One run on one host.
    Run(Vec<Record>),
    /// One run over several hosts.
    Fleet(Vec<Line>),
}

/// The events of a file, whichever kind of run it is of: the first line of a log of several hosts says so.
pub fn either(path: &Path) -> anyhow::Result<Log> {
    let begin: Vec<serde_json::Value> = lines(path, 1)?;
    let first = begin.into_iter().next().and_then(|line| serde_json::from_value::<Line>(line).ok());
    match first.map(|line| line.what) {
        Some(What::Fleet { event: FleetEvent::Began(_), .. }) => Ok(Log::Fleet(lines(path, usize::MAX)?)),
        _ => Ok(Log::Run(read(path)?)),
    }
}

/// The events of a file. A torn last line is a run that was cut off while it wrote.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    lines(path, usize::MAX)
}

/// The first lines of a file, at most so many.
fn lines<T: DeserializeOwned>(path: &Path, most: usize) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut log = Vec::new();
    let mut line = Vec::new();
    for number in 1..=most {
        line.clear();
        let longest = LONGEST_LINE as u64 * 16;
        let read = Read::take(&mut reader, longest).read_until(b'\n', &mut line);
        let whole = read.with_context(|| format!("cannot read `{}`", path.display()))?;
        if whole == 0 || line.last() != Some(&b'\n') && (whole as u64) < longest {
            break;
        }
        let record = serde_json::from_slice(&line)
            .with_context(|| format!("line {number} of `{}` is not an event", path.display()))?;
        log.push(record);
    }
    Ok(log)
}
