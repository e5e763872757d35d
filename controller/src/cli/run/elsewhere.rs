//! `squall run --controller`: the experiment goes to a controller, and its run is followed from here.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use axum::http::Method;
use serde_json::json;
use squall_controller::api::client::Remote;
use squall_experiments::document::LONGEST;
use squall_experiments::exit::Exit;

use crate::cli::load::Vars;
use crate::cli::{Common, remote, watch};

/// Submits one file and follows its run to the end; the exit code is the run's. Ending this command does not end the run:
/// `squall halt --controller URL --run RUN` does.
pub fn run(
    remote: &Remote,
    files: &[PathBuf],
    vars: &Vars,
    seed: Option<u64>,
    common: &Common,
) -> anyhow::Result<Exit> {
    let [file] = files else {
        eprintln!("error: a controller is given one file at a time");
        return Ok(Exit::Usage);
    };
    let name = file.display().to_string();
    let mut document = String::new();
    let source: Box<dyn Read> = match name.as_str() {
        "-" => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file).with_context(|| format!("cannot read `{name}`"))?),
    };
    // One byte more than is allowed shows that it is too long; the controller says so.
    let most = LONGEST as u64 + 1;
    source.take(most).read_to_string(&mut document).with_context(|| format!("cannot read `{name}`"))?;
    let vars: BTreeMap<&String, &String> = vars.vars.iter().map(|(name, value)| (name, value)).collect();
    let submission = json!({ "document": document, "name": name, "vars": vars, "seed": seed });
    let begun = match remote::ask(remote, Method::POST, "/v1/runs", Some(&submission))? {
        Ok(begun) => begun,
        Err(exit) => return Ok(exit),
    };
    let run = begun["id"].as_str().context("the controller began no run")?;
    eprintln!("run {} of plan {}", remote::plain(run), remote::text(&begun, "plan"));
    watch::follow(remote, run, common)
}
