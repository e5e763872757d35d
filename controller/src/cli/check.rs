//! `squall check`.

use std::path::PathBuf;

use squall_experiments::document::{Document, Problems};
use squall_experiments::exit::Exit;
use squall_experiments::plan::Plan;

use super::load::{self, Vars};
use super::run::named;
use super::{Common, Format, print};

/// Options of `squall check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Experiment files; of a directory all `.yaml`, `.yml` and `.json` files below it; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    vars: Vars,
}

impl Check {
    /// Says everything that is wrong with each file. Reads nothing but the files and their secrets.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let colour = print::colour(&std::io::stdout());
        let mut reports = Vec::new();
        let mut text = String::new();
        let mut problems_in_all = 0;
        for (name, read) in &self.documents() {
            match read {
                Ok(document) => {
                    text.push_str(&format!("{name}: valid, {}\n", contents(document)));
                    reports.push(serde_json::json!({ "file": name, "valid": true, "problems": [] }));
                }
                Err(problems) => {
                    problems_in_all += problems.list().len();
                    text.push_str(&problems.render(colour));
                    reports.push(serde_json::json!({ "file": name, "valid": false, "problems": problems }));
                }
            }
        }
        match common.format {
            Format::Json => print::json(&serde_json::json!({ "files": reports }))?,
            Format::Human => print::result(&text)?,
        }
        if problems_in_all == 0 {
            return Ok(Exit::Held);
        }
        if common.format == Format::Human {
            eprintln!("{}", counted(problems_in_all, "problem"));
        }
        Ok(Exit::Invalid)
    }

    /// Every file with what it holds; where they cannot be told, what was named and why.
    fn documents(&self) -> Vec<(String, Result<Document, Problems>)> {
        match named(&self.files) {
            Ok(files) => {
                files.iter().map(|file| (file.display().to_string(), load::read(file, &self.vars))).collect()
            }
            Err(wrong) => {
                wrong.into_iter().map(|problems| (problems.name().to_owned(), Err(problems))).collect()
            }
        }
    }
}

fn contents(document: &Document) -> String {
    let experiment = &document.experiment;
    let plan = Plan::of(experiment, 0, &[], "none");
    let claims = counted(experiment.hypothesis.len(), "claim");
    let guards = counted(experiment.stop_when.len(), "guard");
    let load =
        plan.loads.iter().map(|load| format!(", load of {} (at most {} requests)", load.rate, load.requests));
    let load: String = load.collect();
    let ramp = experiment.ramp.as_ref().map(|ramp| format!(", a ramp of at most {} steps", ramp.most()));
    format!(
        "{claims}, {guards}, {}{load}{}",
        counted(plan.faults().count(), "fault"),
        ramp.unwrap_or_default()
    )
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
