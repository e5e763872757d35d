//! Plans: submitted, shown, approved, run.

use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine::Submission;
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, halts, runs};
use crate::store::{NewPlan, PlanRow};

/// Whether runs need an approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Approvals {
    /// They may have one, of anybody.
    #[default]
    Optional,
    /// They need one, of somebody else than who submitted the plan.
    Required,
}

/// The newest plans.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Plans {
    plans: Vec<PlanRow>,
}

/// An approval.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    /// What is to be remembered about it.
    #[serde(default)]
    note: Option<String>,
}

/// The person whose token this is: the second pair of eyes is another person's, not another token.
fn person(call: &Call) -> String {
    call.who.as_ref().map(|who| who.name.clone()).unwrap_or_default()
}

fn refused(what: impl Into<String>, help: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, what, help)
}

/// Refuses to begin a run that nobody approved, where that is needed.
pub(super) fn unapproved(api: &Api) -> Result<(), Problem> {
    match api.approvals {
        Approvals::Optional => Ok(()),
        Approvals::Required => Err(refused(
            "runs of this controller need an approved plan",
            "submit it (`squall plan --submit FILE`), and let another person approve it (`squall approve HASH`)",
        )),
    }
}

pub(super) async fn list(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    Answer::ok(&Plans { plans: api.store.plans(runs::limit(&call)?).await? })
}

pub(super) async fn show(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    Answer::ok(&api.store.plan(&call.part("id")).await?)
}

pub(super) async fn submit(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let submission: Submission = call.value()?;
    let planned = api.engine.plan(&submission).await?;
    let Submission { document, name, vars, .. } = submission;
    let (hash, seed, shown) = (planned.hash, planned.seed, planned.shown);
    let new = NewPlan { hash, title: planned.title, document, name, vars, seed, shown, by: person(&call) };
    Answer::json(StatusCode::CREATED, &api.store.submit_plan(new).await?)
}

pub(super) async fn approve(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Approval { note } = if call.body.is_empty() { Approval::default() } else { call.value()? };
    if note.as_ref().is_some_and(|note| note.len() > 2000) {
        return Err(Problem::bare(StatusCode::BAD_REQUEST, "`note` has at most 2000 characters"));
    }
    let plan = api.store.plan(&call.part("id")).await?;
    let who = person(&call);
    if plan.is_over() {
        return Err(refused("this plan is over", "submit it again: it is planned anew"));
    }
    if api.approvals == Approvals::Required && plan.submitted_by == who {
        return Err(refused(
            format!("`{who}` has submitted this plan"),
            "another person approves it: with a token of another name",
        ));
    }
    let approved = api.store.approve_plan(&plan.hash, &who, note.clone()).await?;
    let what = serde_json::json!({ "approved": plan.hash, "submitted-by": plan.submitted_by, "note": note });
    api.store.audit(&call.name(), what).await?;
    Answer::ok(&approved)
}

/// What is said of the run of an approved plan.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Begun {
    /// The version that is tested, as the history calls it.
    #[serde(default)]
    build: Option<String>,
}

pub(super) async fn run(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Begun { build } = if call.body.is_empty() { Begun::default() } else { call.value()? };
    halts::blocked(&api).await?;
    let plan = api.store.plan(&call.part("id")).await?;
    let submission = Submission {
        document: plan.document,
        name: plan.name,
        vars: plan.vars,
        seed: Some(plan.seed),
        build,
    };
    let planned = api.engine.plan(&submission).await?;
    if planned.hash != plan.hash {
        return Err(refused(
            "the hosts changed after this plan was approved: it would do something else now",
            "submit it again, and have it approved again",
        ));
    }
    runs::begin(&api, &call, submission, planned, true).await
}
