//! Game days: what is practised now, what people press, and the report in the end.

mod controls;

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderValue, Response, StatusCode};

use super::live::{self, Source};
use super::run::{path, piece};
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::problem::Problem;
use crate::api::{Api, gamedays};
use crate::gameday::Day;
use crate::report::gameday::gameday_pieces;
use crate::report::html::Piece;
use crate::report::html::markup::Markup;
use crate::report::{GameDayReport, gameday_html, gameday_markdown};
use crate::store::{GameDayRow, Role};
use controls::{controls, turn};

pub(super) use controls::{go, mark, no_go, note, stop, take_back};

/// How many the list shows.
const MOST: u64 = 200;

/// What who looks may do, and what forms bring back.
#[derive(Clone, Debug)]
pub(super) struct Hand {
    /// Whether buttons are there.
    pub(super) operator: bool,
    /// What forms bring back.
    pub(super) proof: String,
}

impl Hand {
    fn of(visit: &Visit) -> Self {
        Hand { operator: visit.may(Role::Operator), proof: visit.proof.clone() }
    }
}

/// All game days, the newest first.
pub(super) async fn list(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let days = api.store.game_days(None, MOST).await?;
    let head = Head {
        title: "Game days",
        who: visit.who.as_ref(),
        here: "/game-days",
        live: None,
        proof: &visit.proof,
    };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], "Game days");
        if days.is_empty() {
            page.prosaic("p", &[], "There are none. `squall gameday run FILE` begins one.");
            return;
        }
        page.element("ul", &[("class", "runs")], |page| days.iter().for_each(|day| row(page, day)));
    }))
}

fn row(page: &mut Markup, day: &GameDayRow) {
    page.element("li", &[], |page| {
        state(page, &day.state);
        page.element("div", &[("class", "what")], |page| {
            page.element("a", &[("href", &format!("/game-days/{}", path(&day.id)))], |page| {
                page.text("bdi", &[], &day.title);
            });
            page.text("p", &[("class", "soft")], &day.name);
        });
        page.element("p", &[("class", "soft when")], |page| {
            shell::time(page, day.at);
            page.words(" by ");
            page.text("bdi", &[], day.by.split(" (").next().unwrap_or(&day.by));
        });
    });
}

fn state(page: &mut Markup, state: &str) {
    let tone = if matches!(state, "open" | "stopping") { "going" } else { "plain" };
    page.text("span", &[("class", &format!("badge {tone}"))], state);
}

/// One day. It goes on by itself; what one types stands where nothing is renewed.
pub(super) async fn page(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let report = report(&api, &visit.part("id")).await?;
    let (id, over) = (path(&report.id), report.course.phase.is_over());
    let live = format!("/game-days/{id}/live");
    let title = format!("Game day: {}", report.day.title);
    let head = Head {
        title: &title,
        who: visit.who.as_ref(),
        here: "/game-days",
        live: (!over).then_some(live.as_str()),
        proof: &visit.proof,
    };
    let hand = Hand::of(&visit);
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("p", &[("class", "kicker")], "Game day");
        page.element("h1", &[], |page| page.text("bdi", &[], &report.day.title));
        if let Some(description) = &report.day.description {
            page.text("p", &[], description);
        }
        if !report.day.roles.is_empty() {
            page.element("dl", &[("class", "facts")], |page| {
                report.day.roles.iter().for_each(|(role, who)| page.fact(role, who));
            });
        }
        let mut pieces = pieces(&report, &hand).into_iter();
        if let Some((name, markup)) = pieces.next() {
            piece(page, name, &markup);
        }
        if hand.operator {
            controls(page, &report, &hand);
        }
        pieces.for_each(|(name, markup)| piece(page, name, &markup));
        page.element("p", &[("class", "pager")], |page| {
            for (kind, word) in [("html", "As one HTML file"), ("md", "As Markdown"), ("json", "As JSON")] {
                let to = format!("/game-days/{id}/report?as={kind}");
                page.text("a", &[("class", "button"), ("href", &to)], word);
            }
        });
    }))
}

/// Its pieces as they change.
pub(super) async fn live(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let id = gamedays::named(&api, &visit.part("id")).await?.id;
    live::of(&api, &visit, Source::GameDay { id, hand: Hand::of(&visit) })
}

/// What a live page shows, and whether the day is over.
pub(super) async fn shown(api: &Api, id: &str, hand: &Hand) -> Result<(Vec<Piece>, bool), Problem> {
    let report = api.views.game_day(api, id).await?;
    Ok((pieces(&report, hand), report.course.phase.is_over()))
}

fn pieces(report: &GameDayReport, hand: &Hand) -> Vec<Piece> {
    let mut state = Markup::piece("state");
    turn(&mut state, report, hand);
    let mut pieces = vec![("state", state.finish())];
    pieces.extend(gameday_pieces(report));
    pieces
}

/// The report as a file: `as=html` or `md` for people, `as=json` what the interface tells programs.
pub(super) async fn file(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let day = Day::read(&api.store, gamedays::named(&api, &visit.part("id")).await?).await?;
    let id = day.row.id.clone();
    let (kind, text, end) = match visit.query.get("as").map(String::as_str) {
        Some("md") => {
            ("text/markdown; charset=utf-8", gameday_markdown(&gamedays::report(&api, day).await?), "md")
        }
        Some("html") => {
            ("text/html; charset=utf-8", gameday_html(&gamedays::report(&api, day).await?), "html")
        }
        Some("json") => {
            let told = serde_json::to_string_pretty(&gamedays::told(&api, day).await?);
            ("application/json", told.unwrap_or_default(), "json")
        }
        _ => {
            let help = "ask for `as=html`, `as=md` or `as=json`";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "there is no such report", help));
        }
    };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // A name has letters, digits and `-` alone, and so has what was added to it.
    if let Ok(named) = HeaderValue::from_str(&format!("attachment; filename=\"{id}.{end}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, named);
    }
    Ok(response)
}

/// Everything that is known of a day.
pub(super) async fn report(api: &Api, id: &str) -> Result<GameDayReport, Problem> {
    let day = Day::read(&api.store, gamedays::named(api, id).await?).await?;
    gamedays::report(api, day).await
}
