//! `squall run --controller`: the experiment goes to a controller, and its run is followed from here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::http::Method;
use serde_json::{Value, json};
use squall_controller::api::client::Remote;
use squall_controller::report::{self, Paint};
use squall_experiments::document::{self, Problems, Sources};
use squall_experiments::exit::Exit;
use squall_experiments::muster::Muster;
use squall_experiments::ramp::{Ladder, Ramp, Rung, Search};

use crate::cli::load::{self, Vars};
use crate::cli::{Common, Format, print, remote, watch};

/// Submits one file and follows its run to the end; the exit code is the run's. Ending this command does not end the run:
/// `squall halt --controller URL --run RUN` does.
pub fn run(
    remote: &Remote,
    files: &[PathBuf],
    vars: &Vars,
    seed: Option<u64>,
    build: Option<&str>,
    overrule: Option<&str>,
    common: &Common,
) -> anyhow::Result<Exit> {
    let [file] = files else {
        eprintln!("error: a controller is given one file at a time");
        return Ok(Exit::Usage);
    };
    let mut submission = match submission(file, vars, seed) {
        Ok(submission) => submission,
        Err(problems) => return Ok(load::refuse(&problems, common)),
    };
    // What is not said is left out: a controller that is older than this command knows nothing of it.
    if let Some(build) = build {
        submission["build"] = build.into();
    }
    if let Some(why) = overrule {
        submission["overrule"] = why.into();
    }
    match ramp(&submission, vars) {
        Some((title, ramp)) => climb(remote, &title, &ramp, submission, common),
        None => Ok(begin(remote, "/v1/runs", Some(&submission), common)?.1),
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

/// The steps of a ramp, each a run of the controller: it is told of the next one when the one before has ended.
fn climb(
    remote: &Remote,
    title: &str,
    ramp: &Ramp,
    mut submission: Value,
    common: &Common,
) -> anyhow::Result<Exit> {
    // All steps choose the same hosts.
    if submission["seed"].is_null() {
        submission["seed"] = rand::random::<u32>().into();
    }
    let (mut search, mut steps) = (Search::new(ramp), Vec::new());
    while let Some(level) = search.next() {
        let (number, most) = (steps.len() + 1, ramp.most());
        eprintln!("step {number} of at most {most}: {} at {level}", ramp.parameter);
        submission["vars"][&ramp.parameter] = level.to_string().into();
        let (run, exit) = begin(remote, "/v1/runs", Some(&submission), common)?;
        let Some(run) = run else {
            eprintln!("note: the step at {level} was not begun");
            if steps.is_empty() {
                return Ok(exit);
            }
            break;
        };
        let log = remote::lines(remote, &run)?;
        let muster = Muster::of(&log).context("the run of this step has no events")?;
        let step = Rung::of_all(level, &muster);
        search.tell(level, step.came());
        steps.push(step);
    }
    let ladder = Ladder::of(ramp, steps);
    print::result(&match common.format {
        Format::Human => report::ladder(title, &ladder, None, Paint::on(&std::io::stdout())),
        Format::Json => report::ladder_json(title, &ladder, None),
    })?;
    Ok(ladder.exit)
}

/// Begins the run of a plan that was approved, and follows it.
pub fn approved(
    remote: &Remote,
    hash: &str,
    build: Option<&str>,
    overrule: Option<&str>,
    common: &Common,
) -> anyhow::Result<Exit> {
    let mut order = json!({});
    for (key, text) in [("build", build), ("overrule", overrule)] {
        if let Some(text) = text {
            order[key] = text.into();
        }
    }
    Ok(begin(remote, &format!("/v1/plans/{}/run", remote::part(hash)), Some(&order), common)?.1)
}

/// A file as a controller takes it. What is too long, or no text, is for the controller to say: it reads it as every verb
/// does.
pub fn submission(file: &Path, vars: &Vars, seed: Option<u64>) -> Result<Value, Problems> {
    let (name, bytes) = load::bytes(file)?;
    let vars: BTreeMap<&String, &String> = vars.vars.iter().map(|(name, value)| (name, value)).collect();
    let document = String::from_utf8_lossy(&bytes);
    Ok(json!({ "document": document, "name": name, "vars": vars, "seed": seed }))
}

/// Begins a run and follows it: its name, where it was begun, and its exit code.
fn begin(
    remote: &Remote,
    path: &str,
    body: Option<&Value>,
    common: &Common,
) -> anyhow::Result<(Option<String>, Exit)> {
    let begun = match remote::ask(remote, Method::POST, path, body)? {
        Ok(begun) => begun,
        Err(exit) => return Ok((None, exit)),
    };
    let run = begun["id"].as_str().context("the controller began no run")?;
    eprintln!("run {} of plan {}", remote::plain(run), remote::text(&begun, "plan"));
    let exit = watch::follow(remote, run, common)?;
    if let Ok(shown) = remote::ask(remote, Method::GET, &format!("/v1/runs/{}", remote::part(run)), None)?
        && let Some(history) = shown["history"].as_str().filter(|history| !history.is_empty())
    {
        eprintln!("history: {}", remote::plain(history));
    }
    Ok((Some(run.to_owned()), exit))
}
