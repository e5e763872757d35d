//! `squall run --controller`: the experiment goes to a controller, and its run is followed from here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::http::Method;
use serde_json::{Value, json};
use squall_controller::api::client::Remote;
use squall_controller::report::{self, Paint};
use squall_experiments::document::{self, Document, Problems, Sources};
use squall_experiments::exit::Exit;
use squall_experiments::muster::Muster;
use squall_experiments::ramp::{Ladder, Ramp, Rung, Search};

use super::Options;
use super::followed::Followed;
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
}

/// A run that was begun and has ended.
struct Ran {
    exit: Exit,
    /// What its log says; none where the controller does not give it.
    muster: Option<Muster>,
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
        let document = read(&submission, vars);
        let mut followed = match Followed::prepare(self.options, file, document.as_ref()) {
            Ok(followed) => followed,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        self.add(&mut submission, &followed);
        match document.and_then(|document| Some((document.experiment.title, document.experiment.ramp?))) {
            Some((title, ramp)) => self.climb(&title, &ramp, submission, followed),
            None => Ok(match self.begin("/v1/runs", &submission, None, &mut followed)? {
                Ok(ran) => ran.exit,
                Err(exit) => exit,
            }),
        }
    }

    /// Begins the run of a plan that was approved, and follows it.
    pub fn approved(&self, hash: &str) -> anyhow::Result<Exit> {
        let mut followed = match Followed::prepare(self.options, Path::new(""), None) {
            Ok(followed) => followed,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        let mut order = json!({});
        self.add(&mut order, &followed);
        let path = format!("/v1/plans/{}/run", remote::part(hash));
        Ok(match self.begin(&path, &order, None, &mut followed)? {
            Ok(ran) => ran.exit,
            Err(exit) => exit,
        })
    }

    /// What is said beside the experiment. What is not said is left out: a controller that is older than this command knows
    /// nothing of it.
    fn add(&self, order: &mut Value, followed: &Followed) {
        let build = self.options.build.as_deref().or(followed.pipeline.build());
        for (key, text) in [("build", build), ("overrule", self.overrule)] {
            if let Some(text) = text {
                order[key] = text.into();
            }
        }
        if self.options.observations.is_some() {
            order["observe"] = true.into();
        }
    }

    /// The steps of a ramp, each a run of the controller: it is told of the next one when the one before has ended.
    fn climb(
        &self,
        title: &str,
        ramp: &Ramp,
        mut submission: Value,
        mut followed: Followed,
    ) -> anyhow::Result<Exit> {
        // All steps choose the same hosts.
        if submission["seed"].is_null() {
            submission["seed"] = rand::random::<u32>().into();
        }
        let (mut search, mut steps) = (Search::new(ramp), Vec::new());
        while let Some(level) = search.next() {
            let (number, most) = (steps.len() + 1, ramp.most());
            let step = format!("{} at {level}", ramp.parameter);
            eprintln!("step {number} of at most {most}: {step}");
            submission["vars"][&ramp.parameter] = level.to_string().into();
            let muster = match self.begin("/v1/runs", &submission, Some(&step), &mut followed)? {
                Ok(Ran { muster: Some(muster), .. }) => muster,
                Ok(Ran { exit, muster: None }) | Err(exit) => {
                    eprintln!("note: the step at {level} was not begun");
                    if steps.is_empty() {
                        return Ok(exit);
                    }
                    break;
                }
            };
            let step = Rung::of_all(level, &muster);
            search.tell(level, step.came());
            steps.push(step);
        }
        let ladder = Ladder::of(ramp, steps);
        let exit = ladder.exit;
        let paint = if self.options.ci { Paint::OFF } else { Paint::on(&std::io::stdout()) };
        print::result(&match self.common.format {
            Format::Human => {
                let text = report::ladder(title, &ladder, None, paint);
                followed.pipeline.harmless(&text).into_owned()
            }
            Format::Json => {
                // A line, as each event before it is one.
                let text: Value = serde_json::from_str(&report::ladder_json(title, &ladder, None))?;
                followed.pipeline.harmless_json(&format!("{text}\n")).into_owned()
            }
        })?;
        followed.climbed(ladder);
        Ok(exit)
    }

    /// Begins a run and follows it to its end; the exit code of what was not begun.
    fn begin(
        &self,
        path: &str,
        body: &Value,
        step: Option<&str>,
        followed: &mut Followed,
    ) -> anyhow::Result<Result<Ran, Exit>> {
        let begun = match remote::attempt(&self.remote, Method::POST, path, Some(body))? {
            Ok(begun) => begun,
            Err(refused) => {
                followed.refused(&refused);
                return Ok(Err(refused.exit));
            }
        };
        let run = begun["id"].as_str().context("the controller began no run")?;
        eprintln!("run {} of plan {}", remote::plain(run), remote::text(&begun, "plan"));
        let exit = watch::follow(&self.remote, run, self.common, &followed.pipeline)?;
        let of = format!("/v1/runs/{}", remote::part(run));
        if let Ok(shown) = remote::ask(&self.remote, Method::GET, &of, None)?
            && let Some(history) = shown["history"].as_str().filter(|history| !history.is_empty())
        {
            eprintln!("history: {}", followed.pipeline.harmless(&remote::plain(history)));
        }
        followed.observed(&self.remote, run);
        let log = match remote::lines(&self.remote, run) {
            Ok(log) => log,
            // What became of the run is known all the same.
            Err(error) if step.is_none() => {
                eprintln!("error: there is no report of the run: {error:#}");
                return Ok(Ok(Ran { exit, muster: None }));
            }
            Err(error) => return Err(error),
        };
        let muster = Muster::of(&log);
        match &muster {
            Some(muster) => followed.ended(muster, &log, step, self.options, self.common),
            None if step.is_none() => {
                let why = format!("error: the run {} has no events\n", remote::plain(run));
                followed.refused(&remote::Refused { exit, why });
            }
            None => {}
        }
        Ok(Ok(Ran { exit, muster }))
    }
}

/// A file as far as it can be read without the secrets that only the controller has. What is wrong with it is for the controller
/// to say.
fn read(submission: &Value, vars: &Vars) -> Option<Document> {
    let unknown = |_: &str| Ok(Some("not known here".to_owned()));
    let vars = vars.vars.iter().cloned().collect();
    let sources = Sources { vars, secret: &unknown, ..Sources::default() };
    let text = submission["document"].as_str()?;
    document::read("the experiment", text.as_bytes(), &sources).ok()
}

/// A file as a controller takes it. What is too long, or no text, is for the controller to say: it reads it as every verb
/// does.
pub fn submission(file: &Path, vars: &Vars, seed: Option<u64>) -> Result<Value, Problems> {
    let (name, bytes) = load::bytes(file, load::BEGIN)?;
    let vars: BTreeMap<&String, &String> = vars.vars.iter().map(|(name, value)| (name, value)).collect();
    let document = String::from_utf8_lossy(&bytes);
    Ok(json!({ "document": document, "name": name, "vars": vars, "seed": seed }))
}
