//! What is active now, on which hosts; what blocks new runs; what ran last.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use squall_experiments::exit::Exit;
use squall_experiments::protocol::Active;

use super::live::{self, Source};
use super::run::{path, piece};
use super::runs;
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::Api;
use crate::api::halts::{self, Blocked};
use crate::api::problem::Problem;
use crate::notify::Standing;
use crate::report::html::Piece;
use crate::report::html::markup::Markup;
use crate::standing::exit;
use crate::store::{LIVE, Role, RunRow};

/// How many hosts that hold something are shown, and how many of the last runs.
const HOLDING: usize = 100;
const LAST: u64 = 8;

/// What is active now.
pub(super) struct Now {
    blocked: Option<Blocked>,
    running: Vec<RunRow>,
    holds: Vec<Held>,
    hosts: usize,
    connected: usize,
    last: Vec<RunRow>,
    /// Who does not take notices.
    unheard: Vec<Standing>,
}

impl Now {
    /// Asks the store and the hosts' connections.
    pub(super) async fn of(api: &Api) -> Result<Now, Problem> {
        let live = api.engine.hosts().await;
        let known: Vec<_> =
            api.store.hosts().await?.into_iter().filter(|host| host.revoked_at.is_none()).collect();
        let there =
            live.iter().filter(|host| host.connected && known.iter().any(|row| row.name == host.name));
        let connected = there.count();
        // Each run once: it may be held by all hosts.
        let mut over = BTreeMap::new();
        let mut holds = Vec::new();
        for host in &live {
            for active in &host.holds {
                let ended = match over.get(&active.run) {
                    Some(ended) => *ended,
                    None => *over.entry(active.run.clone()).or_insert(ended(api, &active.run.0).await?),
                };
                holds.push(Held::of(&host.name, host.connected, ended, active));
            }
        }
        Ok(Now {
            blocked: halts::state(&api.store).await?,
            running: api.store.runs_in(&LIVE).await?,
            hosts: known.len(),
            connected,
            holds,
            last: api.store.runs(None, LAST).await?.runs,
            unheard: (api.notifier.standing().await?.into_iter())
                .filter(|receiver| receiver.trouble.is_some())
                .collect(),
        })
    }
}

/// What a host holds, by its own last word, which may be some seconds old.
pub(super) struct Held {
    host: String,
    connected: bool,
    /// Whether its run has ended since, and left nothing.
    over: bool,
    active: Active,
}

/// Whether a run has ended and left nothing, as far as the controller knows.
pub(super) async fn ended(api: &Api, run: &str) -> Result<bool, Problem> {
    let run = api.store.run(run).await?;
    Ok(run.is_some_and(|run| !LIVE.contains(&run.state.as_str()) && exit(&run.state) != Exit::Modified))
}

impl Held {
    /// Compares the word of a host with whether the run has [`ended`].
    pub(super) fn of(host: &str, connected: bool, ended: bool, active: &Active) -> Held {
        let over = ended && !active.stuck;
        Held { host: host.to_owned(), connected, over, active: active.clone() }
    }
}

/// The page.
pub(super) async fn page(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    // Who has just halted is shown what is so now, not what others were shown a moment ago.
    let now = Now::of(&api).await?;
    let head = Head {
        title: "Overview",
        who: visit.who.as_ref(),
        here: "/",
        live: Some("/live"),
        proof: &visit.proof,
    };
    Ok(shell::page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], "Overview");
        for (name, markup) in pieces(&now, visit.may(Role::Operator)) {
            piece(page, name, &markup);
        }
    }))
}

/// Its pieces as they change.
pub(super) async fn live(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let may_lift = visit.may(Role::Operator);
    live::of(&api, &visit, Source::Overview { may_lift })
}

/// What is shown of it, piece by piece.
pub(super) fn pieces(now: &Now, may_lift: bool) -> Vec<Piece> {
    let mut state = Markup::piece("state");
    self::state(&mut state, now, may_lift);
    let mut active = Markup::piece("active");
    self::active(&mut active, now);
    let mut last = Markup::piece("last");
    last.element("section", &[], |page| {
        page.text("h2", &[], "Last runs");
        match now.last.is_empty() {
            true => page.text("p", &[], "Nothing was run yet."),
            false => runs::rows(page, &now.last, |_| ""),
        }
    });
    vec![("state", state.finish()), ("active", active.finish()), ("last", last.finish())]
}

fn state(page: &mut Markup, now: &Now, may_lift: bool) {
    let stuck = now.holds.iter().filter(|held| held.active.stuck).count();
    let live = now.holds.iter().filter(|held| !held.over).count();
    let (tone, word, rest) = match (stuck, live, now.running.len(), now.holds.len()) {
        (0, 0, 0, 0) => ("held", "Calm", "Nothing is injected anywhere, and no run goes on.".to_owned()),
        (0, 0, 0, _) => (
            "going",
            "Ending",
            "No run goes on; the hosts below have not said yet that they hold nothing.".to_owned(),
        ),
        (0, 0, runs, _) => ("going", "Running", format!("{} on; nothing is injected right now.", goes(runs))),
        (0, live, ..) => ("going", "Faults are live", format!("{live} on the hosts below.")),
        (stuck, ..) => (
            "deviated",
            "Not everything could be undone",
            format!("{stuck} of what hosts hold. It is tried again; look at the hosts."),
        ),
    };
    page.element("p", &[("class", &format!("verdict {tone}"))], |page| {
        page.text("strong", &[], word);
        page.text("span", &[], &rest);
    });
    if let Some(Blocked { reason, by, at }) = &now.blocked {
        page.element("div", &[("class", "notice unclear")], |page| {
            page.element("p", &[], |page| {
                page.text("strong", &[], "New runs are blocked");
                page.words(" by a halt of ");
                page.text("bdi", &[], by.split(" (").next().unwrap_or(by));
                page.words(", ");
                shell::time(page, *at);
                page.words(" UTC: ");
                page.text("bdi", &[], reason);
            });
            if may_lift {
                page.text("a", &[("class", "button"), ("href", "/lift")], "Lift the halt");
            }
        });
    }
    if !now.unheard.is_empty() {
        page.element("p", &[("class", "notice unclear")], |page| {
            page.text("strong", &[], "Not everybody is notified");
            for receiver in &now.unheard {
                let Some(trouble) = &receiver.trouble else { continue };
                page.words(": ");
                page.text("bdi", &[], &receiver.name);
                page.words(" (since ");
                shell::time(page, trouble.since);
                page.words(&format!(" UTC, {} wait): ", receiver.waiting));
                page.text("bdi", &[], &trouble.why);
            }
        });
    }
    page.element("dl", &[("class", "facts")], |page| {
        page.fact("hosts connected", &format!("{} of {}", now.connected, now.hosts));
        page.fact("runs going on", &now.running.len().to_string());
        page.fact("faults live", &live.to_string());
    });
}

fn goes(runs: usize) -> String {
    match runs {
        1 => "1 run goes".to_owned(),
        runs => format!("{runs} runs go"),
    }
}

fn active(page: &mut Markup, now: &Now) {
    page.element("section", &[], |page| {
        page.text("h2", &[], "Active now");
        if now.running.is_empty() && now.holds.is_empty() {
            page.text("p", &[("class", "soft")], "Nothing.");
        }
        runs::rows(page, &now.running, |_| "");
        if now.holds.is_empty() {
            return;
        }
        page.element("ul", &[("class", "cards")], |page| {
            for held in now.holds.iter().take(HOLDING) {
                page.element("li", &[], |page| card(page, held));
            }
        });
        if now.holds.len() > HOLDING {
            page.text("p", &[], &format!("and {} more", now.holds.len() - HOLDING));
        }
    });
}

/// What a host holds, as a card.
pub(super) fn card(page: &mut Markup, held: &Held) {
    let Held { host, connected, over, active } = held;
    page.element("h3", &[], |page| {
        page.element("a", &[("href", &format!("/hosts/{}", path(host)))], |page| page.text("bdi", &[], host));
        page.words(" ");
        let (tone, word) = match (active.stuck, *over, *connected) {
            (true, ..) => ("deviated", "✗ a host is still modified"),
            (_, _, false) => ("unclear", "not connected: it reverts by its lease"),
            (_, true, _) => ("unclear", "its run has ended; not confirmed yet"),
            (_, false, true) => ("going", "live"),
        };
        page.text("span", &[("class", &format!("badge {tone}"))], word);
    });
    page.element("p", &[], |page| {
        page.element("a", &[("href", &format!("/runs/{}", path(&active.run.0)))], |page| {
            page.text("bdi", &[], &active.title);
        });
    });
    let lines = active.changes.iter().map(|(what, evidence)| {
        let unit = format!("{:?}", evidence.unit).to_lowercase();
        format!("{what}: {} of {} {unit} impaired", evidence.impaired, evidence.matched)
    });
    page.list(&lines.collect::<Vec<_>>());
    page.text(
        "p",
        &[("class", "soft")],
        &format!("by its last word: reverted in any case within {} s", active.expires_s),
    );
}
