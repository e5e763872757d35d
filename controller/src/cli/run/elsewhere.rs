//! `squall run --controller`: the experiment goes to a controller, and its run is followed from here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::http::Method;
use serde_json::{Value, json};
use squall_controller::api::client::Remote;
use squall_experiments::document::Problems;
use squall_experiments::exit::Exit;

use crate::cli::load::{self, Vars};
use crate::cli::{Common, remote, watch};

/// Submits one file and follows its run to the end; the exit code is the run's. Ending this command does not end the run:
/// `squall halt --controller URL --run RUN` does.
pub fn run(
    remote: &Remote,
    files: &[PathBuf],
    vars: &Vars,
    seed: Option<u64>,
    build: Option<&str>,
    common: &Common,
) -> anyhow::Result<Exit> {
    let [file] = files else {
        eprintln!("error: a controller is given one file at a time");
        return Ok(Exit::Usage);
    };
    match submission(file, vars, seed) {
        Ok(mut submission) => {
            submission["build"] = build.into();
            begin(remote, "/v1/runs", Some(&submission), common)
        }
        Err(problems) => Ok(load::refuse(&problems, common)),
    }
}

/// Begins the run of a plan that was approved, and follows it.
pub fn approved(remote: &Remote, hash: &str, build: Option<&str>, common: &Common) -> anyhow::Result<Exit> {
    begin(remote, &format!("/v1/plans/{}/run", remote::part(hash)), Some(&json!({ "build": build })), common)
}

/// A file as a controller takes it. What is too long, or no text, is for the controller to say: it reads it as every verb
/// does.
pub fn submission(file: &Path, vars: &Vars, seed: Option<u64>) -> Result<Value, Problems> {
    let (name, bytes) = load::bytes(file)?;
    let vars: BTreeMap<&String, &String> = vars.vars.iter().map(|(name, value)| (name, value)).collect();
    let document = String::from_utf8_lossy(&bytes);
    Ok(json!({ "document": document, "name": name, "vars": vars, "seed": seed }))
}

fn begin(remote: &Remote, path: &str, body: Option<&Value>, common: &Common) -> anyhow::Result<Exit> {
    let begun = match remote::ask(remote, Method::POST, path, body)? {
        Ok(begun) => begun,
        Err(exit) => return Ok(exit),
    };
    let run = begun["id"].as_str().context("the controller began no run")?;
    eprintln!("run {} of plan {}", remote::plain(run), remote::text(&begun, "plan"));
    let exit = watch::follow(remote, run, common)?;
    if let Ok(shown) = remote::ask(remote, Method::GET, &format!("/v1/runs/{}", remote::part(run)), None)?
        && let Some(history) = shown["history"].as_str().filter(|history| !history.is_empty())
    {
        eprintln!("history: {}", remote::plain(history));
    }
    Ok(exit)
}
