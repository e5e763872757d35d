//! How else a run is told: as a page, and beside an earlier run.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use squall_controller::report;
use squall_experiments::document::Document;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::run::{Event, Origin, Record, Stated};
use squall_experiments::summary::{Incomparable, Regression, Summary, comparable};

use super::events;
use super::written::create;

// Not a documentation comment: it would become the description of every command that flattens these options.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Telling {
    /// Also write the report as one HTML file that needs no network; a directory gets a file for each run, and several
    /// runs need one.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Compare with an earlier run of the same experiment, by its events: what is worse beyond noise has deviated.
    #[arg(long, value_name = "EVENTS")]
    baseline: Option<PathBuf>,
}

/// What the runs of a command need for it.
#[derive(Debug)]
pub struct Tellings {
    first: Option<Ready>,
    directory: Option<PathBuf>,
}

impl Tellings {
    /// What a run needs. A page that cannot be opened now is said, and changes no verdict.
    pub fn of(&mut self, run: &RunId) -> Ready {
        let mut ready = self.first.take().unwrap_or_default();
        if let Some(directory) = &self.directory {
            let path = directory.join(format!("{run}.html"));
            match create(&path) {
                Ok(file) => ready.page = Some((path, file)),
                Err(refusal) => drop(writeln!(io::stderr(), "error: {refusal}")),
            }
        }
        ready
    }
}

/// Everything in hand that telling a run otherwise needs.
#[derive(Debug, Default)]
pub struct Ready {
    page: Option<(PathBuf, File)>,
    earlier: Option<(PathBuf, Vec<Record>)>,
    log: Vec<Record>,
}

impl Telling {
    /// Whether anything is asked for.
    pub fn is_asked_for(&self) -> bool {
        self.html.is_some() || self.baseline.is_some()
    }

    /// Opens what is asked for, before anything is done. The earlier run must be one of the document; several runs have
    /// pages in a directory, and nothing to be compared with.
    pub fn prepare(&self, document: Option<&Document>) -> Result<Tellings, Refusal> {
        let directory = self.html.as_ref().filter(|path| document.is_none() || path.is_dir());
        if let Some(directory) = directory {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|error| {
                let help = "nothing was injected; name a directory; it gets a file for each run";
                Refusal::new(format!("cannot make `{}`: {error}", directory.display()), help)
            })?;
        }
        let single = Telling { html: self.html.clone().filter(|_| directory.is_none()), ..self.clone() };
        let first = match document {
            Some(document) => {
                let stated: Vec<Stated> = document.experiment.hypothesis.iter().map(Into::into).collect();
                single.open(&document.experiment.title, Some(&document.content()), &stated)?
            }
            None if self.baseline.is_some() => {
                return Err(Refusal::new(
                    "several runs cannot be compared with one",
                    "nothing was injected; `--baseline` is for one file and without `--repeat`",
                ));
            }
            None => Ready::default(),
        };
        Ok(Tellings { first: Some(first), directory: directory.cloned() })
    }

    /// The same for a run that is over.
    pub fn ready_for(&self, log: &[Record]) -> Result<Ready, Refusal> {
        let Some(Event::Started(started)) = log.first().map(|record| &record.event) else {
            return Err(Refusal::bare(Incomparable::NoRun.to_string()));
        };
        let content = started.origin.as_ref().and_then(|origin| origin.content.as_deref());
        self.open(&started.title, content, &started.hypotheses)
    }

    fn open(&self, title: &str, content: Option<&str>, claims: &[Stated]) -> Result<Ready, Refusal> {
        let earlier = self.baseline.as_ref().map(|path| {
            let log = events::read(path).map_err(|error| {
                Refusal::new(
                    format!("no baseline: {error:#}"),
                    "nothing was injected; name the event file of an earlier run (`--events FILE`)",
                )
            })?;
            comparable(&log, title, content, claims).map_err(|why| not_comparable(path, &why))?;
            Ok((path.clone(), log))
        });
        let earlier = earlier.transpose()?;
        let page = self.html.as_ref().map(|path| Ok((path.clone(), create(path)?))).transpose()?;
        Ok(Ready { page, earlier, log: Vec::new() })
    }
}

impl Ready {
    /// Keeps an event, where somebody will ask for it.
    pub fn keep(&mut self, record: &Record) {
        if self.page.is_some() || self.earlier.is_some() {
            self.log.push(record.clone());
        }
    }

    /// The summary beside that of the earlier run, and the page, of the events that were kept. `path` says where all of
    /// them are.
    pub fn tell(self, mut summary: Summary, path: Option<&Path>) -> Summary {
        if let Some((earlier, then)) = &self.earlier {
            match Regression::of(then, &self.log) {
                Ok(regression) => summary = summary.compared(regression),
                Err(why) => {
                    let refusal = not_comparable(earlier, &why);
                    let _ = writeln!(io::stderr(), "error: {refusal}");
                    summary.exit = summary.exit.worse(Exit::Refused);
                }
            }
        }
        if let Some((page, mut file)) = self.page {
            let text = report::html(&summary, &self.log, path);
            if let Err(error) = file.write_all(text.as_bytes()) {
                let _ = writeln!(io::stderr(), "error: cannot write `{}`: {error}", page.display());
            }
        }
        summary
    }
}

fn not_comparable(path: &Path, why: &Incomparable) -> Refusal {
    Refusal::new(
        format!("cannot compare with `{}`: {why}", path.display()),
        "nothing was injected; name the events of a run of the same file with the same variables; `squall verdict` shows whose \
         they are",
    )
}

/// How this run was started. `arguments` are those of the command line, without the name of the program.
pub fn origin(
    document: &Document,
    seed: u64,
    build: Option<String>,
    arguments: impl Iterator<Item = String>,
) -> Origin {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    Origin {
        content: Some(document.content()),
        command: Some(again(arguments, seed)),
        build,
        step: document.step.clone(),
        system: release.map(|release| format!("Linux {} ({})", release.trim(), std::env::consts::ARCH)),
    }
}

/// Options that say where something is written: they are no part of what is repeated.
const WRITTEN: [&str; 9] = [
    "--events",
    "--junit",
    "--markdown",
    "--code-quality",
    "--history",
    "--build",
    "--html",
    "--baseline",
    "--seed",
];

/// The command that repeats a run with its seed, as one types it.
fn again(arguments: impl Iterator<Item = String>, seed: u64) -> String {
    let mut words = vec!["squall".to_owned()];
    let mut arguments = arguments;
    while let Some(word) = arguments.next() {
        if WRITTEN.contains(&word.as_str()) {
            arguments.next();
        } else if !WRITTEN.iter().any(|option| word.starts_with(&format!("{option}="))) {
            words.push(report::quoted(&word));
        }
    }
    words.extend(["--seed".to_owned(), seed.to_string()]);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_repeated_with_its_seed_and_without_its_files() {
        let again = |line: &[&str]| again(line.iter().map(|word| (*word).to_owned()), 7);
        let line = ["run", "my shop.yaml", "--events", "e", "--var", "a=b", "--html=r.html", "--seed", "3"];
        assert_eq!(again(&line), "squall run 'my shop.yaml' --var a=b --seed 7");
        assert_eq!(again(&["inject", "kill", "--seed=9"]), "squall inject kill --seed 7");
    }
}
