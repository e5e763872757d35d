//! Event files of earlier runs.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use squall_experiments::protocol::LONGEST_LINE;
use squall_experiments::run::Record;

/// The events of a file. A torn last line is a run that was cut off while it wrote.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut log = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let most = LONGEST_LINE as u64 * 16;
        let read = Read::take(&mut reader, most).read_until(b'\n', &mut line);
        let whole = read.with_context(|| format!("cannot read `{}`", path.display()))?;
        if whole == 0 || line.last() != Some(&b'\n') && (whole as u64) < most {
            break;
        }
        let record = serde_json::from_slice(&line)
            .with_context(|| format!("line {number} of `{}` is not an event", path.display()))?;
        log.push(record);
    }
    Ok(log)
}
