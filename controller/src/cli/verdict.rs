//! `squall verdict`: the report of a run, made again from its events.

use std::path::PathBuf;

use squall_controller::report::{self, Paint};
use squall_experiments::exit::Exit;
use squall_experiments::run::{Event, Record};
use squall_experiments::summary::Summary;

use super::host::refused;
use super::telling::Telling;
use super::{Common, Format, events, print};

/// Make the report of a run again from its events, and say whether it is the same.
///
/// Every figure is computed anew; nothing else is read, and nothing is touched. The exit code is that of the run.
#[derive(Debug, clap::Args)]
pub struct Verdict {
    /// The event file of a run.
    file: PathBuf,
    #[command(flatten)]
    telling: Telling,
}

impl Verdict {
    /// The exit code of the run, or why the file says nothing.
    pub fn run(self, common: &Common) -> anyhow::Result<Exit> {
        let log = match events::read(&self.file) {
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
        let mut ready = match self.telling.ready_for(&log) {
            Ok(ready) => ready,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        log.iter().for_each(|record| ready.keep(record));
        let summary = ready.tell(summary, Some(&self.file));
        let text = match common.format {
            Format::Human => report::human(&summary, Some(&self.file), Paint::on(&std::io::stdout())),
            Format::Json => report::json(&summary, Some(&self.file), None),
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
