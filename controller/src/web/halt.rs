//! Halt and lift, each with a step in which one sees what it will do; both work without a script.

use std::sync::Arc;

use axum::body::{self, Body};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

use super::run::path;
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::problem::Problem;
use crate::api::routes::Answer;
use crate::api::{Api, halts, runs};
use crate::report::html::markup::Markup;

/// A step of confirmation.
struct Step<'a> {
    title: &'a str,
    what: &'a str,
    to: &'a str,
    button: &'a str,
    back: &'a str,
    /// Further fields that the form brings back unseen.
    carried: &'a [(&'a str, &'a str)],
}

fn confirm(visit: &Visit, here: &str, step: &Step<'_>) -> Response<Body> {
    let head = Head { title: step.title, who: visit.who.as_ref(), here, live: None, proof: &visit.proof };
    shell::page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], step.title);
        page.prosaic("p", &[], step.what);
        page.element("form", &[("method", "post"), ("action", step.to), ("class", "card narrow")], |page| {
            shell::proof(page, &visit.proof);
            for (name, value) in step.carried {
                page.void("input", &[("type", "hidden"), ("name", name), ("value", value)]);
            }
            page.text("label", &[("for", "reason")], "Why");
            let field = [
                ("id", "reason"),
                ("name", "reason"),
                ("maxlength", "2000"),
                ("autocomplete", "off"),
                ("aria-describedby", "reason-help"),
            ];
            page.void("input", &field);
            page.text(
                "p",
                &[("class", "soft"), ("id", "reason-help")],
                "For everybody who wonders later; the audit log keeps it.",
            );
            page.element("p", &[("class", "choice")], |page| {
                page.text("button", &[("class", "button stop"), ("autofocus", "autofocus")], step.button);
                page.text("a", &[("class", "button"), ("href", step.back)], "Back");
            });
        });
    })
}

/// Nobody who has to stop something should have to think of words first.
fn reason(visit: &Visit, usual: &str) -> String {
    let said = visit.field("reason");
    if said.trim().is_empty() { usual.to_owned() } else { said }
}

/// The step before everything is halted.
pub(super) async fn ask(_: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let step = Step {
        title: "Halt everything",
        what: "Every run is stopped, and every host undoes everything now. New runs are blocked until the halt is lifted.",
        to: "/halt",
        button: "Halt everything now",
        back: "/",
        carried: &[],
    };
    Ok(confirm(&visit, "/halt", &step))
}

/// The step before one run is halted.
pub(super) async fn ask_run(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let id = visit.part("id");
    let run = runs::named(&api, &id).await?;
    let (to, back) = (format!("/runs/{}/halt", path(&id)), format!("/runs/{}", path(&id)));
    let step = Step {
        title: "Halt this run",
        what: &format!(
            "`{}` is stopped, and its hosts undo everything of it now. Other runs go on.",
            run.title
        ),
        to: &to,
        button: "Halt this run now",
        back: &back,
        carried: &[],
    };
    Ok(confirm(&visit, "/runs", &step))
}

/// The step before a halt is lifted.
pub(super) async fn ask_lift(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let Some(blocked) = halts::state(&api.store).await? else { return Ok(shell::redirect("/")) };
    let step = Step {
        title: "Lift the halt",
        what: &format!(
            "{} halted everything: “{}”. Once it is lifted, new runs may begin again. Nothing that was stopped goes on.",
            blocked.by.split(" (").next().unwrap_or(&blocked.by),
            blocked.reason
        ),
        to: "/lift",
        button: "Lift the halt",
        back: "/",
        carried: &[("at", &blocked.at.to_string())],
    };
    Ok(confirm(&visit, "/", &step))
}

/// Halts one run, and shows it.
pub(super) async fn run(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let call = visit.call(&json!({ "reason": reason(&visit, "halted from its page") }));
    halts::run(Arc::clone(&api), call).await?;
    Ok(shell::redirect(&format!("/runs/{}", path(&visit.part("id")))))
}

/// Halts everything, and shows what each host answered.
pub(super) async fn all(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let call = visit.call(&json!({ "reason": reason(&visit, "halted from the pages") }));
    let done = value(halts::set(Arc::clone(&api), call).await?).await;
    let head =
        Head { title: "Halted", who: visit.who.as_ref(), here: "/halt", live: None, proof: &visit.proof };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], "Halted");
        page.element("div", &[("role", "status")], |page| said(page, &done));
        page.text("a", &[("class", "button"), ("href", "/")], "To the overview");
    }))
}

fn said(page: &mut Markup, done: &Value) {
    let hosts: Vec<(&String, &Value)> = done["hosts"].as_object().into_iter().flatten().collect();
    let words = |value: &Value| {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let bad =
        hosts.iter().filter(|(_, did)| !words(&did["stuck"]).is_empty() || !did["refused"].is_null()).count();
    let (tone, word) = match (hosts.len(), bad) {
        (0, _) => ("held", "No host is connected; what one may still hold ends by its lease.".to_owned()),
        (1, 0) => ("held", "The one host that is connected has undone everything.".to_owned()),
        (all, 0) => ("held", format!("All {all} hosts have undone everything.")),
        (all, bad) => ("deviated", format!("{bad} of {all} hosts did not say that everything is undone.")),
    };
    page.text("p", &[("class", &format!("notice {tone}"))], &word);
    let blocked = match done["blocked"] == true {
        true => "New runs are blocked until the halt is lifted.",
        false => "New runs are NOT blocked: the halt was lifted meanwhile, or could not be kept so far.",
    };
    page.text("p", &[], blocked);
    let rows = hosts.iter().map(|(name, did)| {
        let undone = match words(&did["undone"]) {
            lines if lines.is_empty() => "held nothing".to_owned(),
            lines => lines.join("; "),
        };
        let left = did["refused"].as_str().map_or_else(|| words(&did["stuck"]).join("; "), str::to_owned);
        let undone = if did["refused"].is_null() { undone } else { "-".to_owned() };
        vec![(*name).clone(), undone, if left.is_empty() { "-".to_owned() } else { left }]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        page.table("What each host answered", &["host", "undone", "still there, or not known"], &rows);
    }
}

/// Lifts the halt that was shown, and no later one.
pub(super) async fn lift(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let Ok(at) = visit.field("at").parse::<u64>() else {
        return Err(Problem::bare(StatusCode::BAD_REQUEST, "the form does not say which halt it lifts"));
    };
    let call = visit.call(&json!({ "reason": reason(&visit, "lifted from the pages"), "at": at }));
    halts::lift(Arc::clone(&api), call).await?;
    Ok(shell::redirect("/"))
}

/// An answer of the interface as a value.
pub(super) async fn value(answer: Answer) -> Value {
    match answer {
        Answer::Json(_, text) => serde_json::from_str(&text).unwrap_or_default(),
        Answer::Other(response) => {
            let body = body::to_bytes(response.into_body(), 1 << 20).await.unwrap_or_default();
            serde_json::from_slice(&body).unwrap_or_default()
        }
    }
}
