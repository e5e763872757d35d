//! A run, while it goes and afterwards: the same page, which is the report in the end.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use squall_experiments::exit::Exit;
use squall_experiments::muster::{Line, Muster, What};
use squall_experiments::run::{Event, Record};
use squall_experiments::summary::{Summary, seconds};

use super::live::{self, Source};
use super::shell::{self, Head};
use super::view::{Shown, host};
use super::visit::Visit;
use crate::api::problem::Problem;
use crate::api::{Api, runs};
use crate::report::html::markup::Markup;
use crate::report::html::{self, Piece};
use crate::standing::{exit, story};
use crate::store::{Role, RunRow};

/// How many hosts the table of hosts shows.
const HOSTS: usize = 200;

/// A run as it is now.
pub(super) async fn shown(api: &Api, id: &str, host: &str) -> Result<Arc<Shown>, Problem> {
    let row = runs::named(api, id).await?;
    api.views.of(api, &row, host).await
}

/// The page.
pub(super) async fn page(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let row = runs::named(&api, &visit.part("id")).await?;
    let gates = api.store.outcomes(&row.id).await?;
    let wanted = visit.query.get("host").cloned().unwrap_or_default();
    let shown = api.views.of(&api, &row, &wanted).await?;
    let history = story(&api.store, &row.title).await?;
    let id = path(&row.id);
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("host", &wanted).finish();
    let live = format!("/runs/{id}/live?{query}");
    let title = format!("{}: {}", row.state, row.title);
    let head = Head {
        title: &title,
        who: visit.who.as_ref(),
        here: "/runs",
        live: (!shown.ended).then_some(live.as_str()),
        proof: &visit.proof,
    };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("p", &[("class", "kicker")], "Run");
        page.element("h1", &[], |page| page.text("bdi", &[], &row.title));
        if !shown.ended && visit.may(Role::Operator) {
            let halt = format!("/runs/{id}/halt");
            page.element("p", &[("class", "while-live")], |page| {
                page.text("a", &[("class", "button stop"), ("href", &halt)], "Halt this run");
            });
        }
        for (name, markup) in &shown.pieces {
            piece(page, name, markup);
        }
        page.element("section", &[], |page| {
            page.text("h2", &[], "The run");
            page.element("dl", &[("class", "pairs")], |page| {
                page.fact("name", &row.id);
                page.fact("begun by", &row.by);
                page.fact("plan", &row.plan);
                page.fact("build", row.build.as_deref().unwrap_or_default());
                page.fact("history", &history);
            });
            let rows = gates.iter().map(|gate| {
                let word = if gate.passed { "passed" } else { "refused" };
                vec![gate.gate.clone(), word.to_owned(), gate.why.clone()]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            if !rows.is_empty() {
                page.table("What was looked at before it began", &["gate", "said", "why"], &rows);
            }
            page.element("details", &[], |page| {
                page.text("summary", &[], "The experiment as it was given");
                page.element("pre", &[("tabindex", "0")], |page| page.text("code", &[], &row.document));
            });
        });
    }))
}

/// A piece in its place. States are told to who cannot see them; curves are looked at when one wants to.
pub(super) fn piece(page: &mut Markup, name: &str, markup: &str) {
    let id = format!("piece-{name}");
    let quiet = [("id", id.as_str())];
    let told = [("id", id.as_str()), ("aria-live", "polite")];
    page.element("div", if name == "state" { &told } else { &quiet }, |page| page.raw(markup));
}

/// Its pieces as they change.
pub(super) async fn live(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let id = runs::named(&api, &visit.part("id")).await?.id;
    let host = visit.query.get("host").cloned().unwrap_or_default();
    live::of(&api, &visit, Source::Run { id, host })
}

/// A name as part of a path.
pub(super) fn path(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

/// The host whose course is shown: the one that is asked for, else the first on which something is claimed.
pub(super) fn chosen(lines: &[Line], wanted: &str) -> Option<String> {
    let all = || lines.iter().filter_map(host);
    let claims = |line: &&Line| match &line.what {
        What::OnHost { record: Record { event: Event::Started(started), .. }, .. } => {
            !started.hypotheses.is_empty()
        }
        _ => false,
    };
    let found = all().find(|host| *host == wanted);
    let found = found.or_else(|| lines.iter().find(claims).and_then(host)).or_else(|| all().next());
    found.map(str::to_owned)
}

/// What is shown of a run, piece by piece.
pub(super) fn pieces(row: &RunRow, lines: &[Line], host: Option<&str>, ended: bool) -> Vec<Piece> {
    let muster = Muster::of(lines);
    let own: Vec<Record> = lines
        .iter()
        .filter_map(|line| match &line.what {
            What::OnHost { host: on, record } if Some(on.as_str()) == host => Some(record.clone()),
            _ => None,
        })
        .collect();
    let summary = Summary::of(&own);
    let mut state = Markup::piece("state");
    let mut facts = Markup::piece("facts");
    match (&muster, ended) {
        (Some(muster), true) => verdict(&mut state, row, muster),
        (_, true) => {
            state.element("p", &[], |page| shell::badge(page, &row.state));
            state.text("p", &[], "It was not begun: it has no events.");
        }
        (_, false) => going(&mut state, row, summary.as_ref(), &own),
    }
    self::facts(&mut facts, row, muster.as_ref(), summary.as_ref(), ended);
    let mut pieces = vec![("state", state.finish()), ("facts", facts.finish())];
    if let Some(muster) = muster.as_ref().filter(|muster| muster.hosts.len() > 1) {
        let mut hosts = Markup::piece("hosts");
        self::hosts(&mut hosts, row, muster, host, ended);
        pieces.push(("hosts", hosts.finish()));
    }
    if let Some(summary) = &summary {
        pieces.extend(html::pieces(summary, &own, ended));
    }
    pieces
}

fn verdict(page: &mut Markup, row: &RunRow, muster: &Muster) {
    // The store's word is the one that counts: a log may have been closed by another controller.
    let exit = if row.state == muster.exit.meaning() { muster.exit } else { exit(&row.state) };
    let tone = match exit {
        Exit::Held => "held",
        Exit::Deviated | Exit::Modified | Exit::Bug => "deviated",
        _ => "unclear",
    };
    let sign = match tone {
        "held" => "✓",
        "deviated" => "✗",
        _ => "?",
    };
    page.element("p", &[("class", &format!("verdict {tone}"))], |page| {
        page.text("strong", &[], &format!("{sign} {}", row.state));
        let rest = muster.sentence.strip_prefix(muster.exit.meaning()).unwrap_or(&muster.sentence);
        page.prosaic("span", &[("dir", "auto")], rest.trim_start_matches([':', ' ']));
    });
    if let Some(stopped) = &muster.stopped {
        page.prosaic("p", &[("class", "meaning")], &format!("It was stopped: {stopped}"));
    }
    if let Some(head) = &muster.audit {
        page.element("dl", &[("class", "pairs")], |page| page.fact("audit log", &head.to_string()));
    }
}

fn going(page: &mut Markup, row: &RunRow, summary: Option<&Summary>, own: &[Record]) {
    page.element("p", &[("class", "verdict going")], |page| {
        page.text("strong", &[], &row.state);
        page.text("span", &[], &phase(summary, own));
    });
}

/// Where it is, in words.
fn phase(summary: Option<&Summary>, own: &[Record]) -> String {
    let Some(summary) = summary else { return "waiting for its first host".to_owned() };
    let live: Vec<&str> = summary
        .parts
        .iter()
        .filter(|part| part.injected_at_ms.is_some() && part.lifted_at_ms.is_none())
        .map(|part| part.name.as_str())
        .collect();
    let turn = own.iter().rev().find_map(|record| match &record.event {
        Event::RecoveryBegan => Some("everything is undone; it is watched until it holds again"),
        Event::MethodEnded => Some("the method has ended; what is left is undone"),
        Event::GuardTripped { .. } => Some("a guard tripped; everything is undone"),
        Event::GaveWay { .. } => Some("the hypothesis failed before a further stage; everything is undone"),
        Event::Interrupted { .. } => Some("it was stopped; everything is undone"),
        Event::BaselineMet => Some("the method goes on"),
        Event::Started(_) => Some("the baseline is taken; nothing is injected"),
        _ => None,
    });
    match live.as_slice() {
        [] => turn.unwrap_or("it goes on").to_owned(),
        [one] => format!("a fault is live: {one}"),
        [first, rest @ ..] => format!("{} faults are live: {first}, {}", live.len(), rest.join(", ")),
    }
}

fn facts(page: &mut Markup, row: &RunRow, muster: Option<&Muster>, summary: Option<&Summary>, ended: bool) {
    page.element("dl", &[("class", "facts")], |page| {
        page.fact("began", &crate::conductor::date_of(row.at).replace('T', " ").replace('Z', " UTC"));
        if let Some(muster) = muster {
            page.fact(if ended { "took" } else { "so far" }, &seconds(muster.took_ms));
            page.fact("hosts", &muster.hosts.len().to_string());
        }
        if let Some(summary) = summary.filter(|summary| !summary.parts.is_empty()) {
            let measured = summary.parts.iter().filter(|part| part.measured).count();
            page.fact("faults measured", &format!("{measured} of {}", summary.parts.len()));
        }
        if let Some(muster) = muster.filter(|_| ended) {
            let compared = muster.hosts.iter().filter_map(|on| on.summary.as_ref()?.host.as_ref());
            let (all, left) = compared.fold((0, 0), |(all, left), host| (all + 1, left + host.ours));
            let word = match (all, left) {
                (0, _) => "not compared".to_owned(),
                (_, 0) => format!("{all} as before"),
                (_, left) => format!("{left} things LEFT"),
            };
            page.fact("hosts afterwards", &word);
            page.fact("exit code", &(muster.exit as u8).to_string());
        }
    });
}

fn hosts(page: &mut Markup, row: &RunRow, muster: &Muster, host: Option<&str>, ended: bool) {
    page.element("section", &[], |page| {
        page.text("h2", &[], "Hosts");
        page.element("ul", &[("class", "tiles")], |page| {
            for on in muster.hosts.iter().take(HOSTS) {
                let query =
                    form_urlencoded::Serializer::new(String::new()).append_pair("host", &on.host).finish();
                let to = format!("/runs/{}?{query}", path(&row.id));
                let here: &[(&str, &str)] = if Some(on.host.as_str()) == host {
                    &[("href", &to), ("aria-current", "true")]
                } else {
                    &[("href", &to)]
                };
                page.element("li", &[], |page| {
                    page.element("a", here, |page| {
                        page.text("bdi", &[], &on.host);
                        if ended {
                            page.words(" ");
                            shell::badge(page, &on.verdict);
                        }
                    });
                });
            }
        });
        if let Some(host) = host {
            page.prosaic("p", &[("class", "soft")], &format!("What follows is the course on `{host}`."));
        }
    });
}
