//! What schedules did and will do, day by day, and the schedules themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use squall_experiments::schedule::Schedule;

use super::run::path;
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::problem::Problem;
use crate::api::{Api, schedules};
use crate::conductor::date_of;
use crate::report::html::markup::Markup;
use crate::scheduler::calendar::{Line, Pages, refused};
use crate::store::{Role, ScheduleRow};

/// How many days a page shows.
const DAYS: i64 = 14;
/// How many lines it shows at most.
const MOST: usize = 500;
/// How many entries of one schedule and one state a day shows: what runs every minute must not hide all else.
const ALIKE: usize = 6;

/// The page: from yesterday on, or from the day that is asked for.
pub(super) async fn page(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let now = Timestamp::now();
    let asked = visit.query.get("from").and_then(|day| format!("{day}T00:00:00Z").parse().ok());
    let from: Timestamp = asked.unwrap_or_else(|| day_of(days(now, -1)));
    let to = days(from, DAYS);
    if let Some(why) = refused(from, to, now) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, why, "`/calendar` begins with yesterday"));
    }
    let pages = api.scheduler.calendar(None, from, to, now).await?;
    let rows = api.store.schedules().await?;
    let head = Head {
        title: "Calendar",
        who: visit.who.as_ref(),
        here: "/calendar",
        live: None,
        proof: &visit.proof,
    };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], "Calendar");
        page.text(
            "p",
            &[("class", "soft")],
            "What schedules did and will do. Days are those of UTC; times are by the clocks of each schedule.",
        );
        if let Some(why) = &pages.blocked {
            page.element("p", &[("class", "notice unclear")], |page| {
                page.words("Nothing begins before the halt is lifted: ");
                page.text("bdi", &[], why);
            });
        }
        for problem in &pages.problems {
            page.element("p", &[("class", "notice deviated")], |page| {
                page.prose(problem);
                page.words("; nothing that depends on it runs before that is mended");
            });
        }
        freezes(page, &pages);
        entries(page, &pages, now);
        page.element("nav", &[("class", "pager"), ("aria-label", "Other days")], |page| {
            let to_day = |day: Timestamp| format!("/calendar?from={}", day.strftime("%Y-%m-%d"));
            page.text("a", &[("class", "button"), ("href", &to_day(days(from, -DAYS)))], "Earlier");
            if asked.is_some() {
                page.text("a", &[("class", "button"), ("href", "/calendar")], "Now");
            }
            page.text("a", &[("class", "button"), ("href", &to_day(to))], "Later");
        });
        all(page, &rows, &visit);
    }))
}

/// So many days later; at the ends of time, there.
fn days(at: Timestamp, count: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_hours(24 * count)).unwrap_or(at)
}

/// The midnight of UTC before an instant.
fn day_of(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    Timestamp::from_second(second - second.rem_euclid(86_400)).unwrap_or(at)
}

fn freezes(page: &mut Markup, pages: &Pages) {
    for freeze in &pages.freezes {
        page.element("p", &[("class", "notice unclear")], |page| {
            page.words("Change freeze, in which nothing begins: ");
            page.text("bdi", &[], &freeze.why);
            page.words(", from ");
            shell::time(page, freeze.from);
            page.words(" to ");
            shell::time(page, freeze.to);
            page.words(" UTC");
        });
    }
}

fn entries(page: &mut Markup, pages: &Pages, now: Timestamp) {
    if pages.entries.is_empty() {
        page.text("p", &[], "Nothing is scheduled in these days.");
    }
    let today = date_of(u64::try_from(now.as_millisecond()).unwrap_or(0))[..10].to_owned();
    let mut left = MOST;
    for of_day in pages.entries.chunk_by(|a, b| a.at / 86_400_000 == b.at / 86_400_000) {
        if left == 0 {
            break;
        }
        let day = date_of(of_day[0].at)[..10].to_owned();
        let title = if day == today { format!("{day}, today") } else { day };
        page.text("h2", &[], &title);
        let mut alike: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        page.element("ul", &[("class", "runs")], |page| {
            for line in of_day {
                let count = alike.entry((line.schedule.as_str(), line.state.as_str())).or_default();
                *count += 1;
                if *count <= ALIKE && left > 0 {
                    left -= 1;
                    entry(page, line);
                }
            }
        });
        for ((schedule, state), count) in alike.into_iter().filter(|(_, count)| *count > ALIKE) {
            page.element("p", &[("class", "soft")], |page| {
                page.words(&format!("and {} more {state} of ", count - ALIKE));
                page.text("bdi", &[], schedule);
            });
        }
    }
    if pages.more || left == 0 {
        page.text("p", &[("class", "soft")], "There are more: `squall calendar` has them all.");
    }
}

fn entry(page: &mut Markup, line: &Line) {
    page.element("li", &[], |page| {
        let tone = match line.state.as_str() {
            "refused" | "missed" => "unclear",
            "fired" | "claimed" => "begun",
            _ => "plain",
        };
        page.text("span", &[("class", &format!("badge {tone}"))], &line.state);
        page.element("div", &[("class", "what")], |page| {
            page.element("a", &[("href", &format!("#schedule-{}", line.schedule))], |page| {
                page.text("bdi", &[], &line.schedule);
            });
            if !line.group.is_empty() {
                page.words(" ");
                page.text("bdi", &[("class", "soft")], &line.group);
            }
            if let Some(why) = &line.why {
                page.prosaic("p", &[("class", "soft")], why);
            }
            if let Some(run) = &line.run {
                page.element("p", &[("class", "soft")], |page| {
                    page.words("run ");
                    page.text("a", &[("href", &format!("/runs/{}", path(run)))], run);
                });
            }
        });
        page.element("p", &[("class", "soft when")], |page| {
            page.text("time", &[("datetime", &date_of(line.at))], &line.local);
        });
    });
}

fn all(page: &mut Markup, rows: &[ScheduleRow], visit: &Visit) {
    page.text("h2", &[], "Schedules");
    if rows.is_empty() {
        page.prosaic("p", &[], "There are none. `squall schedule add FILE` adds one.");
        return;
    }
    page.element("ul", &[("class", "cards")], |page| {
        for row in rows {
            page.element("li", &[("id", &format!("schedule-{}", row.name))], |page| card(page, row, visit));
        }
    });
}

fn card(page: &mut Markup, row: &ScheduleRow, visit: &Visit) {
    page.text("h3", &[], &row.name);
    match serde_json::from_str::<Schedule>(&row.document) {
        Ok(schedule) => {
            if let Some(description) = &schedule.description {
                page.text("p", &[], description);
            }
            page.text("p", &[], &format!("{}, by the clocks of {}", schedule.when, schedule.zone));
            if schedule.leashed {
                page.text("p", &[], "Leashed: it goes through everything and injects nothing.");
            }
        }
        Err(error) => page.text("p", &[("class", "notice deviated")], &format!("It cannot be read: {error}")),
    }
    page.element("p", &[("class", "soft")], |page| {
        page.words("added by ");
        page.text("bdi", &[], row.by.split(" (").next().unwrap_or(&row.by));
        page.words(" at ");
        shell::time(page, row.at);
        match &row.approved {
            Some(approved) => {
                page.words(", approved by ");
                page.text("bdi", &[], &approved.by);
            }
            None => page.words(", not approved"),
        }
        page.words(&format!(", seed {}", row.seed));
    });
    if let Some(paused) = &row.paused {
        page.element("p", &[("class", "notice unclear")], |page| {
            page.words("Paused by ");
            page.text("bdi", &[], paused.by.split(" (").next().unwrap_or(&paused.by));
            page.words(": ");
            page.text("bdi", &[], &paused.why);
        });
    }
    if !visit.may(Role::Operator) {
        return;
    }
    let (verb, word) = if row.paused.is_some() { ("resume", "Resume") } else { ("pause", "Pause") };
    let to = format!("/schedules/{}/{verb}", path(&row.name));
    page.element("form", &[("method", "post"), ("action", &to)], |page| {
        shell::proof(page, &visit.proof);
        let id = format!("reason-{}", row.name);
        page.text("label", &[("for", &id)], &format!("Why {verb} {}?", row.name));
        page.void(
            "input",
            &[("id", &id), ("name", "reason"), ("required", "required"), ("maxlength", "500")],
        );
        page.text("button", &[], word);
    });
}

/// Pauses a schedule, and shows the calendar.
pub(super) async fn pause(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    schedules::pause(api, visit.call(&json!({ "reason": visit.field("reason") }))).await?;
    Ok(shell::redirect("/calendar"))
}

/// Lets a schedule run again, and shows the calendar.
pub(super) async fn resume(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    schedules::resume(api, visit.call(&json!({ "reason": visit.field("reason") }))).await?;
    Ok(shell::redirect("/calendar"))
}
