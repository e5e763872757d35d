//! How a run begins, whoever wants it: a person, a pipeline or a schedule. Planned, asked of every gate, let in by the budget,
//! kept, and only then begun.

use std::sync::Arc;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::json;

use crate::api::engine::{Engine, Planned, Submission};
use crate::api::problem::Problem;
use crate::conductor::run_id;
use crate::config::Config;
use crate::gates::{Gates, Outcome};
use crate::scheduler::Scheduler;
use crate::store::{Admission, NewRun, RunRow, Store};

/// Begins runs. A clone is the same.
#[derive(Clone)]
pub struct Launch {
    config: Arc<Config>,
    store: Store,
    engine: Arc<dyn Engine>,
    gates: Gates,
}

/// How a run began, or why it did not.
pub struct Begun {
    /// The run as it is kept, also where it was refused.
    pub run: Option<RunRow>,
    /// Why it did not begin.
    pub refused: Option<Problem>,
}

impl Launch {
    /// Over a store and an engine, under a configuration.
    pub fn new(config: Arc<Config>, store: Store, engine: Arc<dyn Engine>) -> Self {
        let gates = Gates::new(Arc::clone(&config), store.clone(), Arc::clone(&engine));
        Launch { config, store, engine, gates }
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Begins a run in somebody's name, in the room that is left `beside` what schedules are about to begin. `overruled` says why gates and budget do not count this
    /// time; a halt always does. A run that a gate refused is kept, with every reason.
    pub async fn begin(
        &self,
        mut submission: Submission,
        by: &str,
        beside: Option<&Scheduler>,
        overruled: Option<String>,
    ) -> Result<Begun, Problem> {
        crate::api::blocked(&self.store).await?;
        let planned = self.engine.plan(&submission).await?;
        submission.seed = Some(planned.seed);
        let id = run_id().0;
        let outcomes = self.gates.ask(&planned, Timestamp::now()).await;
        let coming = match beside {
            Some(scheduler) => scheduler.coming(planned.seconds).await,
            None => Vec::new(),
        };
        let run = NewRun {
            id: id.clone(),
            title: planned.title,
            document: submission.document.clone(),
            plan: planned.hash,
            by: by.to_owned(),
        };
        if let Some(why) = &overruled {
            // It is written down before anything is done.
            self.store
                .audit(by, json!({ "did": "overruled gates and budget", "run": id, "because": why }))
                .await?;
        }
        let overrules = overruled.is_some();
        let admission = Admission { run, uses: planned.uses, outcomes, coming, overruled };
        let outcomes = self.store.admit(admission, self.config.budget.clone()).await?;
        let no: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
        if !no.is_empty() && !overrules {
            let why: Vec<String> =
                no.iter().map(|outcome| format!("{}: {}", outcome.gate, outcome.why)).collect();
            self.store.audit(by, json!({ "did": "was refused a run", "run": id, "because": why })).await?;
            let problem = Problem::new(
                StatusCode::CONFLICT,
                format!("a gate refuses the run: {}", why.join("; ")),
                "wait until it lets pass; an administrator can overrule it with a reason",
            );
            return Ok(Begun { run: self.store.run(&id).await?, refused: Some(problem) });
        }
        // A halt that came while this was planned blocks it too: either it is seen here, or it finds the run begun.
        let begun = match crate::api::blocked(&self.store).await {
            Ok(()) => self.engine.start(&id, submission).await.map_err(Problem::from),
            Err(blocked) => Err(blocked),
        };
        if begun.is_err() {
            self.store.set_run_state(&id, "refused", 0).await?;
        }
        Ok(Begun { run: self.store.run(&id).await?, refused: begun.err() })
    }

    /// Goes through everything that a run goes through before it begins, and begins nothing. Gives what every gate says; the
    /// budget is not asked, since nothing is used.
    pub async fn rehearse(&self, submission: &Submission) -> Result<(Planned, Vec<Outcome>), Problem> {
        crate::api::blocked(&self.store).await?;
        let planned = self.engine.plan(submission).await?;
        let outcomes = self.gates.ask(&planned, Timestamp::now()).await;
        Ok((planned, outcomes))
    }
}
