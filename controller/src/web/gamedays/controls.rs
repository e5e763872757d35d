//! What participants press.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::json;
use squall_experiments::gameday::{Mark, Phase, StepCourse, StepState, Through};
use squall_experiments::summary::seconds;

use super::Hand;
use crate::api::problem::Problem;
use crate::api::{Api, gamedays};
use crate::report::GameDayReport;
use crate::report::html::markup::Markup;
use crate::web::run::path;
use crate::web::shell;
use crate::web::visit::Visit;

/// Where the day stands, and what is asked now.
pub(super) fn turn(page: &mut Markup, report: &GameDayReport, hand: &Hand) {
    let course = &report.course;
    let Some(step) = course.current().filter(|_| !course.phase.is_over()) else {
        let word = match course.phase {
            Phase::Stopped => "The game day was stopped.",
            _ => "The game day is over.",
        };
        page.element("p", &[("class", "verdict unclear")], |page| page.text("strong", &[], word));
        return;
    };
    let at = course.steps.iter().position(|other| other.name == step.name).unwrap_or_default() + 1;
    page.element("div", &[("class", "verdict going")], |page| {
        page.text("strong", &[], &format!("Step {at} of {}: {}", course.steps.len(), step.name));
        page.element("p", &[], |page| where_it_is(page, step, course.phase));
    });
    let planned = report.day.step(&step.name);
    if let Some((role, who)) = planned.and_then(|planned| report.day.lead(planned)) {
        page.text("p", &[], &format!("Led by {who} ({role})."));
    }
    if let Some(notes) = planned.and_then(|planned| planned.notes.as_ref()) {
        page.text("p", &[], notes);
    }
    if hand.operator && course.phase == Phase::Open {
        page.element("div", &[("class", "choice")], |page| decide(page, report, step, hand));
    }
    marks(page, report, hand);
}

fn where_it_is(page: &mut Markup, step: &StepCourse, phase: Phase) {
    let run = |page: &mut Markup| {
        if let Some(attempt) = step.last() {
            page.words(" ");
            page.text("a", &[("href", &format!("/runs/{}", path(&attempt.run)))], "Its run");
        }
    };
    if phase == Phase::Stopping {
        page.words("It was stopped; what goes on is being undone.");
        return run(page);
    }
    match &step.state {
        StepState::Waiting => page.words("Its turn comes."),
        StepState::Paused { until } => {
            page.words("A pause until ");
            shell::time(page, *until);
            page.words(" UTC.");
        }
        StepState::Asked { why: Some(why) } => page.prose(&format!("Go or no-go? {why}")),
        StepState::Asked { why: None } => page.words("Go or no-go?"),
        StepState::Beginning => page.words("Its run is about to begin."),
        StepState::Running => {
            page.words("Its run goes on.");
            run(page);
        }
        StepState::Observing => {
            page.words("Its run has ended; what people did about it is waited for.");
            run(page);
        }
        StepState::Done | StepState::Skipped | StepState::Stopped => page.words("It is over."),
    }
}

/// Go, no-go, and on.
fn decide(page: &mut Markup, report: &GameDayReport, step: &StepCourse, hand: &Hand) {
    let hidden = |page: &mut Markup| {
        page.void("input", &[("type", "hidden"), ("name", "step"), ("value", step.name.as_str())]);
    };
    match &step.state {
        StepState::Asked { .. } => {
            form(page, report, hand, "go", |page| {
                hidden(page);
                page.text("button", &[("class", "button first")], "Go");
            });
            form(page, report, hand, "no-go", |page| {
                hidden(page);
                page.text("label", &[("for", "no-go-reason")], "Why not?");
                let field = [("id", "no-go-reason"), ("name", "reason"), ("required", "required")];
                page.void("input", &field);
                page.text("button", &[], "No-go");
            });
        }
        StepState::Observing => form(page, report, hand, "go", |page| {
            hidden(page);
            page.text("button", &[("class", "button first")], "Go on");
        }),
        _ => {}
    }
}

/// What was detected, acknowledged and mitigated, and the buttons for what was not.
fn marks(page: &mut Markup, report: &GameDayReport, hand: &Hand) {
    let Some(step) = report.course.in_question() else { return };
    let Some((attempt, began)) = step.injected().and_then(|attempt| Some((attempt, attempt.fault_began?)))
    else {
        return;
    };
    page.element("ul", &[("class", "cards marks")], |page| {
        for mark in Mark::ALL {
            page.element("li", &[], |page| {
                page.text("h3", &[], &format!("{}: {mark}", step.name));
                let verb = match attempt.pressed(mark) {
                    Some(pressed) => {
                        let after = seconds(pressed.moment.saturating_sub(began));
                        let by = pressed.by.split(" (").next().unwrap_or(&pressed.by);
                        page.text("p", &[], &format!("After {after}, by {by}"));
                        ("take-back", "Not so: take it back", "quiet")
                    }
                    None => ("mark", "Press when it is so", "button first"),
                };
                if !hand.operator || report.course.phase.is_over() {
                    return;
                }
                form(page, report, hand, verb.0, |page| {
                    let (step, mark) = (step.name.to_string(), mark.to_string());
                    for (name, value) in [("step", &step), ("mark", &mark)] {
                        page.void("input", &[("type", "hidden"), ("name", name), ("value", value)]);
                    }
                    let told = format!("{}: {mark} of {step}", verb.1);
                    page.text("button", &[("class", verb.2), ("aria-label", &told)], verb.1);
                });
            });
        }
    });
}

/// What can be written at any time.
pub(super) fn controls(page: &mut Markup, report: &GameDayReport, hand: &Hand) {
    form(page, report, hand, "note", |page| {
        page.text("label", &[("for", "note")], "A note for the report");
        let field = [("id", "note"), ("name", "text"), ("required", "required"), ("maxlength", "4000")];
        page.void("input", &field);
        page.text("button", &[], "Write it down");
    });
    if report.course.phase.is_over() {
        return;
    }
    page.element("details", &[("class", "while-live")], |page| {
        page.text("summary", &[], "Stop the game day");
        form(page, report, hand, "stop", |page| {
            page.text(
                "label",
                &[("for", "stop-reason")],
                "Why? What goes on is halted, and nothing more begins.",
            );
            let field = [("id", "stop-reason"), ("name", "reason"), ("required", "required")];
            page.void("input", &field);
            page.text("button", &[("class", "button stop")], "Stop it");
        });
    });
}

fn form(
    page: &mut Markup,
    report: &GameDayReport,
    hand: &Hand,
    verb: &str,
    fields: impl FnOnce(&mut Markup),
) {
    let to = format!("/game-days/{}/{verb}", path(&report.id));
    page.element("form", &[("method", "post"), ("action", &to)], |page| {
        shell::proof(page, &hand.proof);
        fields(page);
    });
}

/// Back to the page of the day.
fn back(visit: &Visit) -> Response<Body> {
    shell::redirect(&format!("/game-days/{}", path(&visit.part("id"))))
}

/// Says go.
pub(in crate::web) async fn go(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    gamedays::go(api, visit.call(&json!({ "step": visit.field("step") }))).await?;
    Ok(back(&visit))
}

/// Says no-go.
pub(in crate::web) async fn no_go(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let said = json!({ "step": visit.field("step"), "reason": visit.field("reason") });
    gamedays::no_go(api, visit.call(&said)).await?;
    Ok(back(&visit))
}

fn marked(visit: &Visit) -> Result<Mark, Problem> {
    visit.field("mark").parse().map_err(|error: String| Problem::bare(StatusCode::BAD_REQUEST, error))
}

/// Presses a mark.
pub(in crate::web) async fn mark(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let mark = marked(&visit)?;
    let step = visit.field("step").parse().ok();
    gamedays::press(&api, &visit.call(&json!({})), step, mark, None, Through::Page).await?;
    Ok(back(&visit))
}

/// Takes a mark back.
pub(in crate::web) async fn take_back(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let said = json!({ "step": visit.field("step"), "mark": marked(&visit)? });
    gamedays::take_back(api, visit.call(&said)).await?;
    Ok(back(&visit))
}

/// Writes something down.
pub(in crate::web) async fn note(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    gamedays::note(api, visit.call(&json!({ "text": visit.field("text") }))).await?;
    Ok(back(&visit))
}

/// Stops the day.
pub(in crate::web) async fn stop(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    gamedays::stop(api, visit.call(&json!({ "reason": visit.field("reason") }))).await?;
    Ok(back(&visit))
}
