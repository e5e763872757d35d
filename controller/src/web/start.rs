//! Starting a run: the document, what is wrong with it or what it would do, and only then the run.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::json;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::Refusal;

use super::halt::value;
use super::run::path;
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::engine::{Planned, Submission};
use crate::api::problem::Problem;
use crate::api::{Api, halts, runs};
use crate::report::html::markup::Markup;

/// What is shown below the form.
enum Said {
    Nothing,
    Refused(Problem),
    Planned(Planned),
}

/// The empty form.
pub(super) async fn form(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    shown(&api, &visit, StatusCode::OK, &Said::Nothing).await
}

/// Reads, checks and plans the document; nothing is done.
pub(super) async fn check(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let said = match planned(&api, &visit).await {
        Ok((_, planned)) => Said::Planned(planned),
        Err(problem) => Said::Refused(problem),
    };
    let status = match &said {
        Said::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::OK,
    };
    shown(&api, &visit, status, &said).await
}

async fn planned(api: &Api, visit: &Visit) -> Result<(Submission, Planned), Problem> {
    let submission = submission(visit)?;
    let planned = api.engine.plan(&submission).await?;
    Ok((submission, planned))
}

fn submission(visit: &Visit) -> Result<Submission, Problem> {
    let mut vars = BTreeMap::new();
    for line in visit.field("vars").lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once('=') else {
            let detail = format!("`{line}` is no variable: write each as `name=value` on a line of its own");
            return Err(Problem::from(Refusal { exit: Exit::Invalid as u8, ..Refusal::bare(detail) }));
        };
        vars.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    let seed = visit.field("seed");
    let document = visit.field("document");
    Ok(Submission { document, vars, seed: seed.trim().parse().ok(), ..Submission::default() })
}

/// Begins the run that was shown, if it is still the same.
pub(super) async fn run(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let (mut submission, planned) = match planned(&api, &visit).await {
        Ok(planned) => planned,
        Err(problem) => return shown(&api, &visit, StatusCode::CONFLICT, &Said::Refused(problem)).await,
    };
    if planned.hash != visit.field("plan") {
        let mut preview = planned;
        preview.preview.warnings.insert(
            0,
            "The hosts changed since the plan was shown: this is the plan as it is now.".to_owned(),
        );
        return shown(&api, &visit, StatusCode::CONFLICT, &Said::Planned(preview)).await;
    }
    submission.seed = Some(planned.seed);
    let begun = runs::submit(Arc::clone(&api), visit.call(&json!(submission))).await;
    match begun {
        Ok(answer) => {
            let run = value(answer).await;
            Ok(shell::redirect(&format!("/runs/{}", path(run["id"].as_str().unwrap_or_default()))))
        }
        Err(problem) => shown(&api, &visit, StatusCode::CONFLICT, &Said::Refused(problem)).await,
    }
}

async fn shown(api: &Api, visit: &Visit, status: StatusCode, said: &Said) -> Result<Response<Body>, Problem> {
    let blocked = halts::state(&api.store).await?;
    let (document, vars) = (visit.field("document"), visit.field("vars"));
    let head = Head {
        title: "Start a run",
        who: visit.who.as_ref(),
        here: "/start",
        live: None,
        proof: &visit.proof,
    };
    Ok(shell::page(status, &head, |page| {
        page.text("h1", &[], "Start a run");
        if let Some(blocked) = &blocked {
            page.element("p", &[("class", "notice unclear")], |page| {
                page.words("New runs are blocked by a halt: ");
                page.text("bdi", &[], &blocked.reason);
            });
        }
        match said {
            Said::Nothing => page.text(
                "p",
                &[("class", "soft")],
                "First it is checked and planned. Nothing is done before you have seen the plan.",
            ),
            Said::Refused(problem) => refused(page, problem),
            Said::Planned(planned) => plan(page, visit, planned),
        }
        page.element("form", &[("method", "post"), ("action", "/start"), ("class", "card")], |page| {
            shell::proof(page, &visit.proof);
            page.text("label", &[("for", "document")], "Experiment (YAML or JSON)");
            let field = [
                ("id", "document"),
                ("name", "document"),
                ("rows", "18"),
                ("required", "required"),
                ("spellcheck", "false"),
                ("autocapitalize", "off"),
                ("autocomplete", "off"),
            ];
            // A line end directly behind the tag is not part of the text.
            page.element("textarea", &field, |page| {
                page.raw("\n");
                page.words(&document);
            });
            page.element("p", &[("class", "script"), ("hidden", "hidden")], |page| {
                page.text("label", &[("for", "file")], "or take a file");
                page.void(
                    "input",
                    &[
                        ("type", "file"),
                        ("id", "file"),
                        ("accept", ".yaml,.yml,.json"),
                        ("data-fills", "document"),
                    ],
                );
            });
            page.element("details", if vars.is_empty() { &[] } else { &[("open", "open")] }, |page| {
                page.text("summary", &[], "Variables");
                page.text("label", &[("for", "vars")], "One on a line: name=value");
                let field = [
                    ("id", "vars"),
                    ("name", "vars"),
                    ("rows", "4"),
                    ("spellcheck", "false"),
                    ("autocomplete", "off"),
                ];
                page.element("textarea", &field, |page| {
                    page.raw("\n");
                    page.words(&vars);
                });
            });
            page.text("button", &[("class", "button first")], "Check and plan");
        });
    }))
}

fn refused(page: &mut Markup, problem: &Problem) {
    page.element("section", &[("class", "notice deviated"), ("role", "alert")], |page| {
        let title = match problem.status {
            422 => "The document cannot be run as it is",
            _ => "It cannot be run now",
        };
        page.text("h2", &[("class", "small")], title);
        page.element("pre", &[("tabindex", "0")], |page| page.text("code", &[], problem.detail.trim_end()));
        if let Some(help) = &problem.help {
            page.prosaic("p", &[], help);
        }
    });
}

fn plan(page: &mut Markup, visit: &Visit, planned: &Planned) {
    let preview = &planned.preview;
    page.element("section", &[("class", "card plan"), ("aria-labelledby", "plan")], |page| {
        page.text("h2", &[("class", "small"), ("id", "plan")], "The plan");
        page.element("p", &[], |page| page.text("bdi", &[], &planned.title));
        for (hosts, steps) in &preview.done {
            page.element("h3", &[], |page| {
                page.words("On ");
                page.text("bdi", &[], &hosts.join(", "));
            });
            page.element("pre", &[("tabindex", "0")], |page| page.text("code", &[], steps.trim_end()));
        }
        if !preview.warnings.is_empty() {
            page.element("div", &[("class", "notice unclear")], |page| page.list(&preview.warnings));
        }
        page.element("dl", &[("class", "pairs")], |page| {
            page.fact("watched on", &preview.watching.join(", "));
            page.fact("not connected", &preview.unconnected.join(", "));
            page.fact("never hit", &preview.never_hit.join("; "));
            page.fact(
                "reverted",
                &format!("{} after the first injection, whatever happens", preview.expires),
            );
            page.fact("seed", &planned.seed.to_string());
            page.fact("plan", &planned.hash);
        });
        page.element("form", &[("method", "post"), ("action", "/start/run")], |page| {
            shell::proof(page, &visit.proof);
            for (name, value) in [
                ("document", visit.field("document")),
                ("vars", visit.field("vars")),
                ("seed", planned.seed.to_string()),
                ("plan", planned.hash.clone()),
            ] {
                page.void("input", &[("type", "hidden"), ("name", name), ("value", &value)]);
            }
            page.text("button", &[("class", "button first")], "Run it now");
        });
    });
}
