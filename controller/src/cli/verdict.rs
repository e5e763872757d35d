//! `squall verdict`: the report of a run, made again from its events.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use squall_controller::report::{self, Paint};
use squall_experiments::exit::Exit;
use squall_experiments::protocol::LONGEST_LINE;
use squall_experiments::run::{Event, Record};
use squall_experiments::summary::Summary;

use super::print;
use super::{Common, Format};

/// Make the report of a run again from its events, and say whether it is the same.
///
/// Every figure is computed anew; nothing else is read, and nothing is touched. The exit code is that of the run.
#[derive(Debug, clap::Args)]
pub struct Verdict {
    /// The event file of a run.
    file: PathBuf,
}

impl Verdict {
    /// The exit code of the run, or why the file says nothing.
    pub fn run(self, common: &Common) -> anyhow::Result<Exit> {
        let log = match read(&self.file) {
            Ok(log) => log,
            Err(error) => {
                eprintln!("error: {error:#}");
                return Ok(Exit::Usage);
            }
        };
        let Some(summary) = Summary::of(&log) else {
            eprintln!("error: `{}` does not begin with the begin of a run", self.file.display());
            return Ok(Exit::Usage);
        };
        let text = match common.format {
            Format::Human => report::human(&summary, Some(&self.file), Paint::on(&std::io::stdout())),
            Format::Json => report::json(&summary, Some(&self.file)),
        };
        print::result(&text)?;
        match said(&log) {
            Some((exit, sentence)) if exit != summary.exit || sentence != summary.sentence => {
                eprintln!("note: the run itself said: {sentence} (exit {})", exit as u8);
            }
            Some(_) => eprintln!("note: the run itself said the same"),
            None => eprintln!("note: the run was cut off before its last event"),
        }
        Ok(summary.exit)
    }
}

/// What the run said at its end.
fn said(log: &[Record]) -> Option<(Exit, &str)> {
    match &log.last()?.event {
        Event::Finished { exit, sentence } => Some((*exit, sentence)),
        Event::Stuck { sentence, .. } => Some((Exit::Modified, sentence)),
        _ => None,
    }
}

/// The events of a file. A torn last line is a run that was cut off while it wrote.
fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut log = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let most = LONGEST_LINE as u64 * 16;
        let read = std::io::Read::take(&mut reader, most).read_until(b'\n', &mut line);
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
