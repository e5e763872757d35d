//! Plans: submitted, shown, approved, run.

use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine::Submission;
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, runs};
use crate::gates::Outcome;
use crate::launch::Wanted;
use crate::store::{Eyes, NewPlan, PlanRow, StoreError};

/// Whether runs need an approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Approvals {
    /// They may have one, of anybody.
    #[default]
    Optional,
    /// They need one, of somebody else than who submitted the plan.
    Required,
}

impl Approvals {
    /// Whose approval counts.
    pub(crate) fn eyes(self) -> Eyes {
        match self {
            Approvals::Optional => Eyes::Any,
            Approvals::Required => Eyes::Second,
        }
    }
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
pub(super) fn person(call: &Call) -> String {
    call.who.as_ref().map(|who| who.name.clone()).unwrap_or_default()
}

fn refused(what: impl Into<String>, help: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, what, help)
}

/// Refuses to begin a run that nobody approved, where that is needed.
pub(super) fn unapproved(api: &Api) -> Result<(), Problem> {
    match api.launch.approvals() {
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
    if !planned.approvable {
        return Err(refused(
            "the plan has more hosts than one approval can be told to",
            "pick fewer, some thousands, and have each part approved",
        ));
    }
    let Submission { document, name, vars, only, overrule, observe, .. } = submission;
    if observe {
        let what = "whether a run is observed is said when it begins, not when its plan is submitted";
        return Err(Problem::new(StatusCode::BAD_REQUEST, what, "say `observe` with the order to run it"));
    }
    if !only.is_empty() || overrule.is_some() {
        let what = "a plan that is to be approved has neither `only` nor `overrule`";
        return Err(Problem::new(StatusCode::BAD_REQUEST, what, "name its hosts in the experiment's `on`"));
    }
    let (hash, seed, shown) = (planned.hash, planned.seed, planned.shown);
    let new = NewPlan { hash, title: planned.title, document, name, vars, seed, shown, by: person(&call) };
    match api.store.submit_plan(new).await {
        Ok(kept) => Answer::json(StatusCode::CREATED, &kept),
        Err(StoreError::Clash(why)) => Err(refused(
            format!("there is {why}, by which the hosts would do the same"),
            "look at that one (`squall approve HASH --show`); with another `--seed` yours is a plan of its own",
        )),
        Err(other) => Err(other.into()),
    }
}

pub(super) async fn approve(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Approval { note } = if call.body.is_empty() { Approval::default() } else { call.value()? };
    if note.as_ref().is_some_and(|note| note.len() > 2000) {
        return Err(Problem::bare(StatusCode::BAD_REQUEST, "`note` has at most 2000 characters"));
    }
    let (who, eyes) = (person(&call), api.launch.approvals().eyes());
    let (plan, done) = api.store.approve_plan(&call.part("id"), &who, note.clone(), eyes).await?;
    if !done {
        return Err(not_approved(&plan, &who, eyes));
    }
    let what = serde_json::json!({ "approved": plan.hash, "submitted-by": plan.submitted_by, "note": note });
    api.store.audit(&call.name(), what).await?;
    Answer::ok(&plan)
}

/// Why an approval did nothing.
fn not_approved(plan: &PlanRow, who: &str, eyes: Eyes) -> Problem {
    if plan.is_over() || plan.run.is_some() {
        let what = if plan.is_over() { "this plan is over" } else { "this plan was run" };
        return refused(what, "submit it again: it is planned anew");
    }
    if eyes == Eyes::Second && plan.submitted_by == who {
        return refused(
            format!("`{who}` has submitted this plan"),
            "another person approves it: with a token of another name",
        );
    }
    let by = plan.approved_by.as_deref().unwrap_or("somebody");
    refused(format!("`{by}` has approved this plan already"), "run it: `squall run --approved HASH`")
}

/// What may be said with the order to run an approved plan.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Why gates and budget do not count this time. Only an administrator may say so; it stands in the audit log.
    #[serde(default)]
    overrule: Option<String>,
    /// The version that is tested, as the history calls it: at most 200 characters.
    #[serde(default)]
    build: Option<String>,
    /// Whether it is kept what the proxies of its outages see of connections and requests.
    #[serde(default)]
    observe: bool,
}

pub(super) async fn run(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let Order { overrule, build, observe } =
        if call.body.is_empty() { Order::default() } else { call.value()? };
    let overruled = runs::overrules(&call, overrule)?;
    let plan = api.store.plan(&call.part("id")).await?;
    let mut before = Vec::new();
    if let Some(by) = &plan.approved_by {
        // What it comes to now has this very hash, or it does not begin.
        let why = format!("the plan is the one that {by} has approved");
        before.push(Outcome::passes("unchanged since approval", why));
    }
    let (document, vars, seed) = (plan.document, plan.vars, Some(plan.seed));
    let name = plan.name;
    let trace = call.trace;
    let submission =
        Submission { document, name, vars, seed, build, observe, trace, ..Submission::default() };
    let (by, approved, beside) = (&call.name(), Some(plan.hash), Some(&api.scheduler));
    runs::begin(&api, Wanted { approved, before, beside, overruled, ..Wanted::new(submission, by) }).await
}
