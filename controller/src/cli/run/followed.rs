//! What a command writes of runs that a controller carries out: their events, reports, and marks in a pipeline.

use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

use axum::http::Method;
use serde_json::json;
use squall_controller::api::client::Remote;
use squall_controller::conductor::date;
use squall_controller::report::{self, Paint};
use squall_experiments::document::Document;
use squall_experiments::muster::{Line, Muster};
use squall_experiments::protocol::Refusal;
use squall_experiments::ramp::Ladder;
use squall_experiments::suite::{Subject, Suite, Tested};

use super::outputs::Outputs;
use super::pipeline::Pipeline;
use super::{Options, show};
use crate::cli::remote::{self, Refused};
use crate::cli::{Common, Format};

/// Everything in hand that is needed for it.
#[derive(Debug)]
pub struct Followed {
    pub pipeline: Pipeline,
    paint: Paint,
    outputs: Outputs,
    subject: Subject,
    date: String,
    began: Instant,
    /// Whether any run was begun.
    any: bool,
    steps: Vec<Tested>,
}

impl Followed {
    /// Opens every file that was asked for, before anything is begun. `document` is the experiment as far as it can be read here,
    /// `file` what the command line calls it.
    pub fn prepare(
        options: &Options,
        file: &std::path::Path,
        document: Option<&Document>,
    ) -> Result<Followed, Refusal> {
        let pipeline = Pipeline::of(options.ci);
        let subject = document.map_or_else(Subject::default, |document| Subject {
            title: document.redactor.redact(&document.experiment.title).into_owned(),
            file: pipeline.in_repository(file),
            hash: document.hash.clone(),
            weight: document.experiment.weight,
            places: document.places.clone(),
        });
        let ramp = document.is_some_and(|document| document.experiment.ramp.is_some());
        let opened = Outputs::open(options, ramp, &[], &pipeline);
        let outputs = opened.inspect_err(|refusal| {
            let help = refusal.help.as_ref().map_or_else(String::new, |help| format!("\nhelp: {help}"));
            pipeline.tell(&report::annotation(&format!("{refusal}{help}")));
        })?;
        Ok(Followed {
            paint: if options.ci { Paint::OFF } else { Paint::on(&io::stdout()) },
            pipeline,
            outputs,
            subject,
            date: date(),
            began: Instant::now(),
            any: false,
            steps: Vec::new(),
        })
    }

    /// Keeps a run that has ended, with its log. `step` names which step of a ramp it is, if it is one.
    pub fn ended(
        &mut self,
        muster: &Muster,
        log: &[Line],
        step: Option<&str>,
        options: &Options,
        common: &Common,
    ) {
        if let (Some(_), Some(events)) = (&options.events, &mut self.outputs.events)
            && let Some((path, mut file)) = events.of(&muster.began.run, common)
        {
            let lines: Vec<String> = log.iter().filter_map(|line| serde_json::to_string(line).ok()).collect();
            if let Err(error) = file.write_all((lines.join("\n") + "\n").as_bytes()) {
                eprintln!("error: cannot write `{}`: {error}", path.display());
            }
        }
        let mut suite = muster.as_suite();
        self.places(&mut suite);
        if let Some(step) = step {
            for mut tested in suite.experiments {
                tested.subject.title = format!("{}, {step}", tested.subject.title);
                // What all steps come to is said of the whole.
                tested.subject.weight = 0;
                self.steps.push(tested);
            }
        } else {
            self.show(&format!("\n{}", report::fleet(muster, self.paint)), common);
            self.outputs.write(&suite, &self.pipeline);
        }
        self.any = true;
    }

    /// Writes what the proxies of a run's outages saw, where that is wanted. What cannot be had is said, and changes no verdict.
    pub fn observed(&mut self, remote: &Remote, run: &str) {
        let Some(file) = &mut self.outputs.observations else { return };
        if let Err(error) = observations(remote, run, file) {
            eprintln!("error: what proxies saw in the run is not written to its end: {error:#}");
        }
    }

    /// Writes what the steps of a ramp come to.
    pub fn climbed(mut self, ladder: Ladder) {
        let steps = std::mem::take(&mut self.steps);
        let suite = Suite::of(steps, &self.date, self.took_ms(), None, None).climbed(ladder);
        self.outputs.write(&suite, &self.pipeline);
    }

    /// Says that a run was not begun, and why. Where nothing was, that is what the reports say.
    pub fn refused(&mut self, refused: &Refused) {
        let _ = write!(io::stderr(), "{}", self.pipeline.harmless(&refused.why));
        if self.any {
            self.pipeline.tell(&report::annotation(refused.why.trim_end()));
            return;
        }
        let why = refused.why.trim_end();
        let tested = Tested {
            subject: self.subject.clone(),
            repeats: 1,
            verdict: refused.exit.meaning().to_owned(),
            exit: Some(refused.exit),
            sentence: why.strip_prefix("error: ").unwrap_or(why).to_owned(),
            runs: Vec::new(),
            story: None,
        };
        let suite = Suite::of(vec![tested], &self.date, self.took_ms(), None, None);
        self.outputs.write(&suite, &self.pipeline);
    }

    /// A report behind the log, where that is one for people.
    fn show(&self, text: &str, common: &Common) {
        if common.format == Format::Human {
            show(&self.pipeline.harmless(text));
        }
    }

    fn places(&self, suite: &mut Suite) {
        for tested in &mut suite.experiments {
            tested.subject.file.clone_from(&self.subject.file);
            tested.subject.hash.clone_from(&self.subject.hash);
            tested.subject.places = self.subject.places.clone();
        }
    }

    fn took_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Writes what a controller has kept of it, a JSON object a line; what it has not is told as a gap.
fn observations(remote: &Remote, run: &str, file: &mut File) -> anyhow::Result<()> {
    let mut from = 0;
    loop {
        let path = format!("/v1/runs/{}/observations?limit=1000&from={from}", remote::part(run));
        let page = match remote::attempt(remote, Method::GET, &path, None)? {
            Ok(page) => page,
            Err(refused) => anyhow::bail!("{}", refused.why.trim_end().trim_start_matches("error: ")),
        };
        let mut lines = String::new();
        if let Some(dropped @ 1..) = page["dropped"].as_u64() {
            lines += &format!("{}\n", json!({ "run": run, "kind": "gap", "dropped": dropped }));
        }
        let seen = page["observations"].as_array().map_or(&[][..], Vec::as_slice);
        seen.iter().for_each(|one| lines += &format!("{one}\n"));
        file.write_all(lines.as_bytes())?;
        if seen.is_empty() {
            return Ok(());
        }
        from = page["next"].as_u64().unwrap_or(from + seen.len() as u64);
    }
}
