//! What a command writes beside its report: opened before anything is started, written when all is over.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use squall_agent::state;
use squall_controller::conductor::run_id;
use squall_controller::report;
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::suite::{History, Suite};

use super::super::Common;
use super::super::written::{create, unwritable};
use super::Options;
use super::pipeline::Pipeline;
use super::prepared::Prepared;
use super::session::Opened;

/// The longest history that is read, in bytes: some hundred thousand entries.
const LONGEST_HISTORY: u64 = 64 << 20;

/// Makes the text of a report.
type Render = fn(&Suite) -> io::Result<String>;

/// Open files, each with what belongs into it.
#[derive(Debug)]
pub struct Outputs {
    /// Where the events of each run go.
    pub events: Option<Events>,
    /// What proxies see.
    pub observations: Option<File>,
    /// What came before.
    pub history: Option<History>,
    history_file: Option<Opened>,
    reports: Vec<(PathBuf, File, Render)>,
}

/// Where event files are made.
#[derive(Debug)]
pub enum Events {
    /// The one that was asked for.
    File(Option<Opened>),
    /// One for each run in a directory that was asked for.
    Directory(PathBuf),
    /// One for each run where nobody asked for it: a run goes on without it.
    Default,
}

impl Outputs {
    /// Opens everything that was asked for. What cannot be written is refused before anything is done.
    pub fn open(
        options: &Options,
        suite: bool,
        experiments: &[Rc<Prepared>],
        pipeline: &Pipeline,
    ) -> Result<Outputs, Refusal> {
        let events = match &options.events {
            None => Events::Default,
            Some(path) if suite || path.is_dir() => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
                made.map_err(|error| {
                    unwritable(path, &error, "name a directory; it gets a file for each run")
                })?;
                Events::Directory(path.clone())
            }
            Some(path) => Events::File(Some((path.clone(), create(path)?))),
        };
        let observations = options.observations.as_deref().map(create).transpose()?;
        let asked: [(&Option<PathBuf>, Render); 3] = [
            (&options.junit, report::junit),
            (&options.markdown, |suite| Ok(report::markdown(suite))),
            (&options.code_quality, |suite| Ok(report::code_quality(suite))),
        ];
        let mut reports = Vec::new();
        for (path, render) in asked {
            if let Some(path) = path {
                reports.push((path.clone(), create(path)?, render));
            }
        }
        if let Some(path) = &pipeline.summary {
            let opened = OpenOptions::new().append(true).create(true).open(path);
            let file =
                opened.map_err(|error| unwritable(path, &error, "it is named by `GITHUB_STEP_SUMMARY`"))?;
            reports.push((path.clone(), file, |suite| Ok(report::markdown(suite))));
        }
        let (history, history_file) = match &options.history {
            Some(path) => open_history(path, experiments)?,
            None => (None, None),
        };
        Ok(Outputs { events: Some(events), observations, history, history_file, reports })
    }

    /// Writes all of it, and points a pipeline at what did not hold. What cannot be written is said, and changes no verdict.
    pub fn write(&mut self, suite: &Suite, pipeline: &Pipeline) {
        for (path, file, render) in &mut self.reports {
            say(path, render(suite).and_then(|text| file.write_all(text.as_bytes())));
        }
        if let (Some(history), Some((path, file))) = (&self.history, &mut self.history_file) {
            // A line that was cut off would be in the way of those that follow.
            let whole = file.metadata().and_then(|metadata| match metadata.len() > history.whole() {
                true if self_cut(path, history) => file.set_len(history.whole()),
                _ => Ok(()),
            });
            say(path, whole.and_then(|()| file.write_all(history.news().as_bytes())));
        }
        pipeline.tell(&report::annotations(suite));
    }
}

/// Whether what follows the whole lines that were read is still a line that was cut off, and not somebody else's news.
fn self_cut(path: &Path, history: &History) -> bool {
    let whole = usize::try_from(history.whole()).unwrap_or(usize::MAX);
    fs::read(path).is_ok_and(|bytes| bytes.get(whole..).is_some_and(|rest| !rest.contains(&b'\n')))
}

fn say(path: &Path, written: io::Result<()>) {
    if let Err(error) = written {
        let help =
            "the verdict stands; `squall verdict EVENTS` makes the report of a run again from its events";
        let _ = writeln!(io::stderr(), "error: cannot write `{}`: {error}\nhelp: {help}", path.display());
    }
}

impl Events {
    /// The same, with all runs in one directory of their own where nobody asked for one.
    pub fn together(self, common: &Common) -> Events {
        match self {
            Events::Default => {
                let name = format!("runs/ramp-{}", run_id());
                Events::Directory(state::root(common.state_dir.as_deref()).join(name))
            }
            asked => asked,
        }
    }

    /// The directory that holds all of them.
    pub fn directory(&self) -> Option<PathBuf> {
        match self {
            Events::Directory(directory) => Some(directory.clone()),
            Events::File(_) | Events::Default => None,
        }
    }

    /// The file of a run.
    pub fn of(&mut self, run: &RunId, common: &Common) -> Option<Opened> {
        let directory = match self {
            Events::File(file) => return file.take(),
            Events::Directory(directory) => directory.clone(),
            Events::Default => state::root(common.state_dir.as_deref()).join("runs"),
        };
        let path = directory.join(format!("{run}.ndjson"));
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        let opened =
            created.map_err(|error| Refusal::bare(format!("cannot make `{}`: {error}", directory.display())));
        match opened.and_then(|()| create(&path)) {
            Ok(file) => Some((path, file)),
            Err(refusal) => {
                let _ = writeln!(io::stderr(), "warning: no event file: {refusal}");
                None
            }
        }
    }
}

fn open_history(
    path: &Path,
    experiments: &[Rc<Prepared>],
) -> Result<(Option<History>, Option<Opened>), Refusal> {
    let titles: Vec<&str> = experiments.iter().map(|prepared| prepared.subject.title.as_str()).collect();
    if let Some((_, twice)) = titles.iter().enumerate().find(|(at, title)| titles[..*at].contains(title)) {
        return Err(Refusal::new(
            format!("two experiments have the title `{twice}`"),
            "nothing was injected; a history tells experiments apart by their titles",
        ));
    }
    let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let file = opened.map_err(|error| unwritable(path, &error, "name a file that can be written"))?;
    let long = file.metadata().is_ok_and(|metadata| metadata.len() > LONGEST_HISTORY);
    let text = match long {
        true => Err(io::Error::other(format!("it is longer than {LONGEST_HISTORY} bytes"))),
        false => fs::read(path),
    };
    let unreadable = |why: &dyn std::fmt::Display| {
        Refusal::new(
            format!("`{}` cannot be used as a history: {why}", path.display()),
            "nothing was injected; repair it, or name another file",
        )
    };
    let text = text.map_err(|error| unreadable(&error))?;
    let history = History::read(&text).map_err(|error| unreadable(&error))?;
    Ok((Some(history), Some((path.to_owned(), file))))
}
