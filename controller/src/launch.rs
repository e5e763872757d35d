//! How a run begins, whoever wants it: a person, a pipeline or a schedule. Planned, asked of every gate, let in by the budget,
//! kept, and only then begun.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::timeout;

use crate::api::Approvals;
use crate::api::engine::{Engine, Planned, Submission};
use crate::api::problem::Problem;
use crate::conductor::run_id;
use crate::config::Config;
use crate::gates::{Gates, Outcome};
use crate::runs::keeping;
use crate::scheduler::Scheduler;
use crate::store::{Admission, EntryKey, NewRun, RunRow, Store, Tested};

/// How long whoever was refused waits until that is kept.
const SOON: Duration = Duration::from_secs(1);

/// Begins runs. A clone is the same.
#[derive(Clone)]
pub struct Launch {
    config: Arc<Config>,
    approvals: Approvals,
    store: Store,
    engine: Arc<dyn Engine>,
    gates: Gates,
}

/// A run that somebody wants.
pub struct Wanted<'a> {
    /// The experiment.
    pub submission: Submission,
    /// Who wants it.
    pub by: &'a str,
    /// The hash of the plan whose approval it uses up.
    pub approved: Option<String>,
    /// What was looked at before: it stands first in the record.
    pub before: Vec<Outcome>,
    /// The entry of a schedule whose run it is, claimed.
    pub entry: Option<EntryKey>,
    /// It gives way to what schedules are about to begin.
    pub beside: Option<&'a Scheduler>,
    /// Why gates and budget do not count this time; a halt and a missing approval always do.
    pub overruled: Option<String>,
}

impl<'a> Wanted<'a> {
    /// One that needs no approval, and overrules nothing.
    pub fn new(submission: Submission, by: &'a str) -> Self {
        let before = Vec::new();
        Wanted { submission, by, approved: None, before, entry: None, beside: None, overruled: None }
    }
}

/// How a run began, or why it did not.
pub struct Begun {
    /// What it was called, whether or not it is known any more.
    pub id: String,
    /// The run as it is kept, also where it was refused.
    pub run: Option<RunRow>,
    /// Why it did not begin.
    pub refused: Option<Problem>,
}

impl Launch {
    /// Over a store and an engine, under a configuration; `approvals` is whether runs need one.
    pub fn new(config: Config, approvals: Approvals, store: Store, engine: Arc<dyn Engine>) -> Self {
        let config = Arc::new(config);
        let gates = Gates::new(Arc::clone(&config), store.clone(), Arc::clone(&engine));
        Launch { config, approvals, store, engine, gates }
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Whether runs need an approval.
    pub fn approvals(&self) -> Approvals {
        self.approvals
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Begins a run. One that a gate or the budget refused is kept, with every reason.
    ///
    /// Errors: what keeps it from being planned, before anything is kept of it.
    pub async fn begin(&self, wanted: Wanted<'_>) -> Result<Begun, Problem> {
        let Wanted { mut submission, by, approved, before, entry, beside, overruled } = wanted;
        crate::api::blocked(&self.store).await?;
        if submission.build.as_ref().is_some_and(|build| build.chars().count() > 200) {
            return Err(Problem::bare(StatusCode::BAD_REQUEST, "`build` has at most 200 characters"));
        }
        let planned = self.engine.plan(&submission).await?;
        if approved.as_ref().is_some_and(|approved| *approved != planned.hash) {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "the hosts changed after this plan was approved: it would do something else now",
                "submit it again, and have it approved again",
            ));
        }
        submission.seed = Some(planned.seed);
        let id = run_id().0;
        let mut outcomes = before;
        outcomes.extend(self.gates.ask(&planned, Timestamp::now()).await);
        let coming = match beside {
            Some(scheduler) => scheduler.coming(Timestamp::now(), planned.seconds).await,
            None => Ok(Vec::new()),
        };
        let coming = coming.unwrap_or_else(|error| {
            let why = format!("what schedules are about to begin cannot be told: {error}");
            outcomes.push(Outcome::refuses("budget", why));
            Vec::new()
        });
        let run = NewRun {
            id: id.clone(),
            title: planned.title,
            document: submission.document.clone(),
            plan: planned.hash,
            by: by.to_owned(),
            tested: Tested {
                build: submission.build.clone().filter(|build| !build.is_empty()),
                weight: planned.weight,
                content: planned.content,
                tags: planned.tags,
            },
        };
        if let Some(why) = &overruled {
            // It is written down before anything is done.
            self.store
                .audit(by, json!({ "did": "overruled gates and budget", "run": id, "because": why }))
                .await?;
        }
        let admission = Admission {
            run,
            uses: planned.uses,
            outcomes,
            entry,
            coming,
            overruled,
            approval: approved.as_ref().map(|_| self.approvals.eyes()),
        };
        let admitted = self.store.admit(admission, self.config.budget.clone()).await?;
        if !admitted.begins {
            let no = admitted.outcomes.iter().filter(|outcome| !outcome.passed);
            let why: Vec<String> = no.map(|outcome| format!("{}: {}", outcome.gate, outcome.why)).collect();
            self.store.audit(by, json!({ "did": "was refused a run", "run": id, "because": why })).await?;
            let problem = Problem::new(
                StatusCode::CONFLICT,
                admitted.refusal(),
                "wait until it lets pass; an administrator can overrule it with a reason",
            );
            return Ok(Begun { run: self.store.run(&id).await?, id, refused: Some(problem) });
        }
        if let Err(problem) = self.engine.start(&id, submission).await {
            let refused = keeping::refused(self.store.clone(), id.clone(), approved.is_some());
            // Whoever looks at once sees it; where the store does not answer, why nothing began is told all the same.
            let _ = timeout(SOON, tokio::spawn(refused)).await;
            let run = self.store.run(&id).await.unwrap_or_default();
            return Ok(Begun { run, id, refused: Some(problem) });
        }
        Ok(Begun { run: self.store.run(&id).await?, id, refused: None })
    }

    /// Goes through everything that a run goes through before it begins, and begins nothing. Gives what every gate says, the
    /// budget last.
    pub async fn rehearse(&self, submission: &Submission) -> Result<(Planned, Vec<Outcome>), Problem> {
        crate::api::blocked(&self.store).await?;
        let planned = self.engine.plan(submission).await?;
        let mut outcomes = self.gates.ask(&planned, Timestamp::now()).await;
        outcomes.extend(self.store.room(planned.uses.clone(), self.config.budget.clone()).await?);
        Ok((planned, outcomes))
    }
}
