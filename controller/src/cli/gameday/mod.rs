//! `squall gameday`.

mod file;
mod follow;
mod words;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::http::Method;
use clap::Subcommand;
use serde_json::{Value, json};
use squall_experiments::exit::Exit;
use squall_experiments::gameday::Mark;

use super::host::refused;
use super::remote::{self, At};
use super::written::create;
use super::{Common, Format, load, print};

/// Options of `squall gameday`.
#[derive(Debug, clap::Args)]
pub struct Gameday {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All game days, the newest first, which is also what `squall gameday` alone shows.
    List,
    /// Say everything that is wrong with a game day file and with its experiments; no controller is asked.
    Check {
        /// The game day file.
        file: PathBuf,
    },
    /// Begin a game day and follow it. On a terminal it asks for go, and takes `detected`, `acknowledged`, `mitigated`, `no-go WHY`,
    /// `stop WHY`, and any other line as a note. Ending this command leaves the day going.
    Run {
        /// The game day file; experiments that it names are read from beside it.
        file: PathBuf,
        /// Say go to every step when it is asked for the first time, and no-go when it is asked for again.
        #[arg(long)]
        go: bool,
    },
    /// One game day: where it stands, and what was measured.
    Show {
        /// Its id, or a name: then its newest.
        day: String,
        /// Also write the report as one HTML file that needs no network.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Also write the report as Markdown, with the skeleton of a post-mortem when the day is over.
        #[arg(long, value_name = "FILE")]
        markdown: Option<PathBuf>,
    },
    /// Say go to a step.
    Go {
        /// The game day.
        day: String,
        /// The step; without it the one that is asked for.
        step: Option<String>,
    },
    /// Say no-go to a step: it is skipped, or not tried again.
    NoGo {
        /// The game day.
        day: String,
        /// The step; without it the one that is asked for.
        step: Option<String>,
        /// Why: it stands in the report.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Press a mark: what was injected is detected, acknowledged or mitigated. The earliest counts.
    ///
    /// A tool that alerts presses it by a request, with a token of an operator: curl -X POST -H "Authorization: Bearer TOKEN"
    /// "http://127.0.0.1:8416/v1/game-days/NAME/alert?mark=detected". Any JSON is taken as its body; an alert that is resolved
    /// marks nothing.
    Mark {
        /// The game day.
        day: String,
        /// `detected`, `acknowledged` or `mitigated`.
        #[arg(value_parser = str::parse::<Mark>)]
        mark: Mark,
        /// The step; without it the last in which something was injected.
        #[arg(long, value_name = "STEP")]
        step: Option<String>,
        /// Take it back: it was pressed by mistake.
        #[arg(long)]
        take_back: bool,
    },
    /// Write something down, also after the day is over.
    Note {
        /// The game day.
        day: String,
        /// What.
        text: String,
        /// The step that it is about.
        #[arg(long, value_name = "STEP")]
        step: Option<String>,
    },
    /// Stop a game day: its run is halted, and nothing more begins.
    Stop {
        /// The game day.
        day: String,
        /// Why: it stands in the report.
        #[arg(long, value_name = "TEXT", default_value = "stopped from the command line")]
        reason: String,
    },
}

/// The path of a game day, or of something that is done to it.
fn path(day: &str, verb: &str) -> String {
    format!("/v1/game-days/{}{verb}", remote::part(day))
}

impl Gameday {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let says =
            |day: &str, verb: &str, body: Value| self.at.ask(Method::POST, &path(day, verb), Some(&body));
        let asked = match self.what.as_ref().unwrap_or(&What::List) {
            What::List => self.at.ask(Method::GET, "/v1/game-days", None)?,
            What::Check { file } => return Ok(file::check(file, common)),
            What::Run { file, go } => {
                let (name, day) = match file::read(file) {
                    Ok(read) => read,
                    Err(problems) => return Ok(load::refuse(&problems, common)),
                };
                return follow::run(&self.at, &name, &day, *go, common);
            }
            What::Show { day, html, markdown } => {
                for (file, kind) in [(html, "html"), (markdown, "md")] {
                    if let Some(file) = file
                        && let Some(exit) = self.write(day, kind, file)?
                    {
                        return Ok(exit);
                    }
                }
                self.at.ask(Method::GET, &path(day, ""), None)?
            }
            What::Go { day, step } => match self.step(day, step.as_deref())? {
                Ok(step) => says(day, "/go", json!({ "step": step }))?,
                Err(exit) => return Ok(exit),
            },
            What::NoGo { day, step, reason } => match self.step(day, step.as_deref())? {
                Ok(step) => says(day, "/no-go", json!({ "step": step, "reason": reason }))?,
                Err(exit) => return Ok(exit),
            },
            What::Mark { day, mark, step, take_back } => {
                let verb = if *take_back { "/take-back" } else { "/mark" };
                says(day, verb, json!({ "mark": mark, "step": step }))?
            }
            What::Note { day, text, step } => says(day, "/note", json!({ "text": text, "step": step }))?,
            What::Stop { day, reason } => says(day, "/stop", json!({ "reason": reason }))?,
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match (common.format, self.what.as_ref().unwrap_or(&What::List)) {
            (Format::Json, _) => print::json(&answer)?,
            (_, What::List) => print::result(&words::list(&answer))?,
            _ => print::result(&words::one(&answer))?,
        }
        Ok(Exit::Held)
    }

    /// Writes a report to a file; why not, where it cannot be.
    fn write(&self, day: &str, kind: &str, file: &Path) -> anyhow::Result<Option<Exit>> {
        let mut opened = match create(file) {
            Ok(opened) => opened,
            Err(refusal) => return Ok(Some(refused(&refusal))),
        };
        Ok(match self.at.ask(Method::GET, &path(day, &format!("/report?as={kind}")), None)? {
            Ok(report) => {
                let text = report["text"].as_str().unwrap_or_default();
                opened
                    .write_all(text.as_bytes())
                    .with_context(|| format!("cannot write `{}`", file.display()))?;
                None
            }
            Err(exit) => Some(exit),
        })
    }

    /// The step that is meant: where none is named, the one whose turn it is.
    fn step(&self, day: &str, step: Option<&str>) -> anyhow::Result<Result<String, Exit>> {
        if let Some(step) = step {
            return Ok(Ok(step.to_owned()));
        }
        let shown = match self.at.ask(Method::GET, &path(day, ""), None)? {
            Ok(shown) => shown,
            Err(exit) => return Ok(Err(exit)),
        };
        Ok(words::current(&shown).map(|step| words::said(step, "name")).ok_or_else(|| {
            eprintln!("error: every step of `{}` is over", remote::plain(day));
            Exit::Refused
        }))
    }
}
