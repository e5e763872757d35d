//! All runs, the newest first, each with what became of its experiment before.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use squall_experiments::exit::Exit;

use super::run::path;
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::Api;
use crate::api::problem::Problem;
use crate::conductor::date_of;
use crate::report::html::markup::Markup;
use crate::store::{Ended, RunRow};

/// How many a page holds.
const PAGE: u64 = 50;
/// How many runs of an experiment its history is told by.
const HISTORY: u64 = 200;

/// The page.
pub(super) async fn list(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let after = visit.query.get("after").map(String::as_str);
    let found = api.store.runs(after, PAGE).await?;
    let mut stories: BTreeMap<&str, String> = BTreeMap::new();
    for run in &found.runs {
        if !stories.contains_key(run.title.as_str()) {
            stories.insert(&run.title, story(&api.store.ended(&run.title, HISTORY).await?));
        }
    }
    let head =
        Head { title: "Runs", who: visit.who.as_ref(), here: "/runs", live: None, proof: &visit.proof };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], "Runs");
        if found.runs.is_empty() {
            page.text("p", &[], "There are none.");
        }
        rows(page, &found.runs, |title| stories.get(title).map_or("", String::as_str));
        page.element("nav", &[("class", "pager"), ("aria-label", "Pages of the list")], |page| {
            if after.is_some() {
                page.text("a", &[("class", "button"), ("href", "/runs")], "The newest");
            }
            if let Some(next) = &found.next {
                let query =
                    form_urlencoded::Serializer::new(String::new()).append_pair("after", next).finish();
                page.text("a", &[("class", "button"), ("href", &format!("/runs?{query}"))], "Older ones");
            }
        });
    }))
}

/// Runs as a list: on a telephone a table of five columns would have to be pushed about.
pub(super) fn rows<'a>(page: &mut Markup, runs: &[RunRow], story: impl Fn(&str) -> &'a str) {
    if runs.is_empty() {
        return;
    }
    page.element("ul", &[("class", "runs")], |page| {
        for run in runs {
            page.element("li", &[], |page| {
                shell::badge(page, &run.state);
                page.element("div", &[("class", "what")], |page| {
                    page.element("a", &[("href", &format!("/runs/{}", path(&run.id)))], |page| {
                        page.text("bdi", &[], &run.title);
                    });
                    let story = story(&run.title);
                    if !story.is_empty() {
                        page.text("p", &[("class", "soft")], story);
                    }
                });
                page.element("p", &[("class", "soft when")], |page| {
                    shell::time(page, run.at);
                    page.words(" by ");
                    page.text("bdi", &[], run.by.split(" (").next().unwrap_or(&run.by));
                });
            });
        }
    });
}

/// `held 12 times, deviated since 2026-11-20`: what became of the runs of an experiment, the newest first.
fn story(runs: &[Ended]) -> String {
    let conclusive: Vec<&Ended> =
        runs.iter().filter(|run| matches!(exit(&run.state), Exit::Held | Exit::Deviated)).collect();
    let unclear = runs.len() - conclusive.len();
    let mut parts = Vec::new();
    if let Some(last) = conclusive.first() {
        let series = conclusive.iter().take_while(|run| run.state == last.state).count();
        let others = conclusive.iter().filter(|run| run.state != last.state).count();
        let since = |at: usize| date_of(conclusive[at].at)[..10].to_owned();
        let other = if last.state == "held" { "deviated" } else { "held" };
        match others {
            0 => parts.push(format!("{} {} since {}", last.state, times(series), since(series - 1))),
            others => {
                parts.push(format!("{other} {}", times(others)));
                parts.push(format!("{} since {}", last.state, since(series - 1)));
            }
        }
    }
    if unclear > 0 {
        parts.push(format!("without a verdict {}", times(unclear)));
    }
    parts.join(", ")
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// What the state of a run that has ended stands for.
pub(super) fn exit(state: &str) -> Exit {
    let known = [Exit::Held, Exit::Refused, Exit::Deviated, Exit::Interrupted, Exit::Modified, Exit::Bug];
    known.into_iter().find(|exit| exit.meaning() == state).unwrap_or(Exit::Inconclusive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_what_held_and_since_when_it_does_not() {
        let day = 86_400_000;
        let told = |states: &[&str]| {
            let ended =
                |(at, state): (u64, &&str)| Ended { at: 20_000 * day - at * day, state: (*state).to_owned() };
            story(&(0..).zip(states).map(ended).collect::<Vec<_>>())
        };
        assert_eq!(told(&[]), "");
        assert_eq!(told(&["held"]), "held once since 2024-10-04");
        assert_eq!(told(&["held", "held", "held"]), "held 3 times since 2024-10-02");
        assert_eq!(told(&["deviated", "deviated", "held", "held"]), "held twice, deviated since 2024-10-03");
        assert_eq!(
            told(&["held", "refused", "deviated"]),
            "deviated once, held since 2024-10-04, without a verdict once"
        );
        assert_eq!(told(&["interrupted"]), "without a verdict once");
    }
}
