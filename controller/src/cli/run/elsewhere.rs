//! `squall run --controller`: the experiment goes to a controller, and its run is followed from here.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::http::Method;
use serde_json::{Value, json};
use squall_controller::api::client::Remote;
use squall_controller::report::{self, Paint};
use squall_experiments::document::{self, Problems, Sources};
use squall_experiments::exit::Exit;
use squall_experiments::muster::{Line, Muster};
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::ramp::{Ladder, Ramp, Rung, Search};
use squall_experiments::suite::Suite;

use super::Options;
use super::outputs::Outputs;
use super::pipeline::Pipeline;
use crate::cli::host::refused;
use crate::cli::load::{self, Vars};
use crate::cli::{Common, Format, print, remote, watch};

/// A run on the hosts of a controller, or those of a ramp. Ending this command does not end a run:
/// `squall halt --controller URL --run RUN` does. The exit code is the run's.
pub struct Elsewhere<'a> {
    /// The controller.
    pub remote: Remote,
    /// Of the command; those that are only for runs of this host are not looked at.
    pub options: &'a Options,
    /// Why gates and budget do not count.
    pub overrule: Option<&'a str>,
    /// Of every command.
    pub common: &'a Common,
    /// The pipeline that it is in.
    pub pipeline: Pipeline,
}

impl Elsewhere<'_> {
    /// Submits one file and follows its run to the end, or the runs of its ramp.
    pub fn run(&self, files: &[PathBuf], vars: &Vars) -> anyhow::Result<Exit> {
        let [file] = files else {
            eprintln!("error: a controller is given one file at a time");
            return Ok(Exit::Usage);
        };
        let mut submission = match submission(file, vars, self.options.seed) {
            Ok(submission) => submission,
            Err(problems) => return Ok(load::refuse(&problems, self.common)),
        };
        self.add_to(&mut submission);
        let ramp = ramp(&submission, vars);
        let mut outputs = match self.outputs(ramp.is_some()) {
            Ok(outputs) => outputs,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        match ramp {
            Some((title, ramp)) => self.climb(&title, &ramp, submission, &mut outputs),
            None => self.single("/v1/runs", &submission, &mut outputs),
        }
    }

    /// Begins the run of a plan that was approved, and follows it.
    pub fn approved(&self, hash: &str) -> anyhow::Result<Exit> {
        let mut order = json!({});
        self.add_to(&mut order);
        let mut outputs = match self.outputs(false) {
            Ok(outputs) => outputs,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        self.single(&format!("/v1/plans/{}/run", remote::part(hash)), &order, &mut outputs)
    }

    /// What is not said is left out: a controller that is older than this command knows nothing of it.
    fn add_to(&self, order: &mut Value) {
        let build = self.options.build.as_deref().or(self.pipeline.build());
        for (key, text) in [("build", build), ("overrule", self.overrule)] {
            if let Some(text) = text {
                order[key] = text.into();
            }
        }
    }

    fn outputs(&self, several: bool) -> Result<Outputs, Refusal> {
        Outputs::open(self.options, several, &[], &self.pipeline).inspect_err(|refusal| {
            let help = refusal.help.as_ref().map_or_else(String::new, |help| format!("\nhelp: {help}"));
            self.pipeline.tell(&report::annotation(&format!("{refusal}{help}")));
        })
    }

    fn single(&self, path: &str, order: &Value, outputs: &mut Outputs) -> anyhow::Result<Exit> {
        let (run, exit) = self.begin(path, order)?;
        let Some(run) = run else { return Ok(exit) };
        let muster = match self.log(&run, outputs) {
            Ok(muster) => muster,
            // What came out is known all the same.
            Err(error) => {
                eprintln!("error: there is no report of the run: {error:#}");
                return Ok(exit);
            }
        };
        if self.common.format == Format::Human {
            let text = report::fleet(&muster, self.paint());
            print::result(&format!("\n{}", self.pipeline.harmless(&text)))?;
        }
        outputs.write(&muster.as_suite(), &self.pipeline);
        Ok(exit)
    }

    /// The steps of a ramp, each a run of the controller: it is told of the next one when the one before has ended.
    fn climb(
        &self,
        title: &str,
        ramp: &Ramp,
        mut submission: Value,
        outputs: &mut Outputs,
    ) -> anyhow::Result<Exit> {
        // All steps choose the same hosts.
        if submission["seed"].is_null() {
            submission["seed"] = rand::random::<u32>().into();
        }
        let (mut search, mut steps) = (Search::new(ramp), Vec::new());
        let mut all: Option<Suite> = None;
        while let Some(level) = search.next() {
            let (number, most) = (steps.len() + 1, ramp.most());
            eprintln!("step {number} of at most {most}: {} at {level}", ramp.parameter);
            submission["vars"][&ramp.parameter] = level.to_string().into();
            let (run, exit) = self.begin("/v1/runs", &submission)?;
            let Some(run) = run else {
                eprintln!("note: the step at {level} was not begun");
                if steps.is_empty() {
                    return Ok(exit);
                }
                break;
            };
            let muster = self.log(&run, outputs)?;
            let step = Rung::of_all(level, &muster);
            search.tell(level, step.came());
            steps.push(step);
            let mut suite = muster.as_suite();
            for tested in &mut suite.experiments {
                tested.subject.title = format!("{}, {} at {level}", tested.subject.title, ramp.parameter);
            }
            all = Some(match all {
                None => suite,
                Some(mut all) => {
                    all.took_ms += suite.took_ms;
                    all.experiments.append(&mut suite.experiments);
                    all
                }
            });
        }
        let ladder = Ladder::of(ramp, steps);
        print::result(&match self.common.format {
            Format::Human => report::ladder(title, &ladder, None, self.paint()),
            Format::Json => report::ladder_json(title, &ladder, None),
        })?;
        let exit = ladder.exit;
        if let Some(all) = all {
            outputs.write(&all.climbed(ladder), &self.pipeline);
        }
        Ok(exit)
    }

    /// Begins a run and follows it: its name, where it was begun, and its exit code.
    fn begin(&self, path: &str, order: &Value) -> anyhow::Result<(Option<String>, Exit)> {
        let begun = match remote::ask(&self.remote, Method::POST, path, Some(order))? {
            Ok(begun) => begun,
            Err(exit) => return Ok((None, exit)),
        };
        let run = begun["id"].as_str().context("the controller began no run")?;
        eprintln!("run {} of plan {}", remote::plain(run), remote::text(&begun, "plan"));
        let exit = watch::follow(&self.remote, run, self.common)?;
        let shown = format!("/v1/runs/{}", remote::part(run));
        if let Ok(shown) = remote::ask(&self.remote, Method::GET, &shown, None)?
            && let Some(history) = shown["history"].as_str().filter(|history| !history.is_empty())
        {
            eprintln!("history: {}", remote::plain(history));
        }
        Ok((Some(run.to_owned()), exit))
    }

    /// The whole log of a run that is over, also written to the file that was asked for.
    fn log(&self, run: &str, outputs: &mut Outputs) -> anyhow::Result<Muster> {
        let log = remote::lines(&self.remote, run)?;
        if let Some(events) = outputs.events.as_mut().filter(|_| self.options.events.is_some())
            && let Some((path, mut file)) = events.of(&RunId(run.to_owned()), self.common)
        {
            let text: Result<Vec<String>, _> = log.iter().map(serde_json::to_string::<Line>).collect();
            let written = text
                .map_err(std::io::Error::from)
                .and_then(|lines| lines.iter().try_for_each(|line| writeln!(file, "{line}")));
            written.with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        Muster::of(&log).context("the run has no events")
    }

    fn paint(&self) -> Paint {
        if self.options.ci { Paint::OFF } else { Paint::on(&std::io::stdout()) }
    }
}

/// The ramp of a file, with its title, as far as that can be told without the secrets that only the controller has. What is
/// wrong with the file is for the controller to say.
fn ramp(submission: &Value, vars: &Vars) -> Option<(String, Ramp)> {
    let unknown = |_: &str| Ok(Some("not known here".to_owned()));
    let vars = vars.vars.iter().cloned().collect();
    let sources = Sources { vars, secret: &unknown, ..Sources::default() };
    let text = submission["document"].as_str()?;
    let experiment = document::read("the experiment", text.as_bytes(), &sources).ok()?.experiment;
    Some((experiment.title, experiment.ramp?))
}

/// A file as a controller takes it. What is too long, or no text, is for the controller to say: it reads it as every verb
/// does.
pub fn submission(file: &Path, vars: &Vars, seed: Option<u64>) -> Result<Value, Problems> {
    let (name, bytes) = load::bytes(file)?;
    let vars: BTreeMap<&String, &String> = vars.vars.iter().map(|(name, value)| (name, value)).collect();
    let document = String::from_utf8_lossy(&bytes);
    Ok(json!({ "document": document, "name": name, "vars": vars, "seed": seed }))
}
