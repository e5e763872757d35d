//! `squall run --controller`: the experiment goes to a controller, and its run is followed from here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use axum::http::Method;
use serde_json::json;
use squall_controller::api::client::Remote;
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
    overrule: Option<&str>,
    common: &Common,
) -> anyhow::Result<Exit> {
    let [file] = files else {
        eprintln!("error: a controller is given one file at a time");
        return Ok(Exit::Usage);
    };
    // What is too long, or no text, is for the controller to say: it reads it as every verb does.
    let (name, document) = match load::bytes(file) {
        Ok((name, bytes)) => (name, String::from_utf8_lossy(&bytes).into_owned()),
        Err(problems) => return Ok(load::refuse(&problems, common)),
    };
    let vars: BTreeMap<&String, &String> = vars.vars.iter().map(|(name, value)| (name, value)).collect();
    let submission =
        json!({ "document": document, "name": name, "vars": vars, "seed": seed, "overrule": overrule });
    let begun = match remote::ask(remote, Method::POST, "/v1/runs", Some(&submission))? {
        Ok(begun) => begun,
        Err(exit) => return Ok(exit),
    };
    let run = begun["id"].as_str().context("the controller began no run")?;
    eprintln!("run {} of plan {}", remote::plain(run), remote::text(&begun, "plan"));
    watch::follow(remote, run, common)
}
