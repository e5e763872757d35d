//! What is active now, on which hosts; what blocks new runs; what ran last.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use squall_experiments::protocol::Active;

use super::live::{self, Source};
use super::run::{path, piece};
use super::runs;
use super::shell::{self, Head};
use super::visit::Visit;
use crate::api::Api;
use crate::api::halts::{self, Blocked};
use crate::api::problem::Problem;
use crate::report::html::Piece;
use crate::report::html::markup::Markup;
use crate::store::{LIVE, Role, RunRow};

/// How many hosts that hold something are shown, and how many of the last runs.
const HOLDING: usize = 100;
const LAST: u64 = 8;

/// What is active now.
pub(super) struct Now {
    blocked: Option<Blocked>,
    running: Vec<RunRow>,
    holds: Vec<(String, bool, Active)>,
    hosts: usize,
    connected: usize,
    last: Vec<RunRow>,
}

impl Now {
    /// Asks the store and the hosts' connections.
    pub(super) async fn of(api: &Api) -> Result<Now, Problem> {
        let live = api.engine.hosts().await;
        let known: Vec<_> =
            api.store.hosts().await?.into_iter().filter(|host| host.revoked_at.is_none()).collect();
        let connected = |name: &str| live.iter().any(|host| host.connected && host.name == name);
        Ok(Now {
            blocked: halts::state(api).await?,
            running: api.store.runs_in(&LIVE).await?,
            hosts: known.len(),
            connected: live
                .iter()
                .filter(|host| host.connected && known.iter().any(|row| row.name == host.name))
                .count(),
            holds: live
                .iter()
                .flat_map(|host| host.holds.iter().map(|active| (host.name.clone(), active.clone())))
                .map(|(host, active)| (host.clone(), connected(&host), active))
                .collect(),
            last: api.store.runs(None, LAST).await?.runs,
        })
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
    let stuck = now.holds.iter().filter(|(.., active)| active.stuck).count();
    let (tone, word, rest) = match (stuck, now.holds.len(), now.running.len()) {
        (0, 0, 0) => ("held", "Calm", "Nothing is injected anywhere, and no run goes on.".to_owned()),
        (0, 0, runs) => ("going", "Running", format!("{} on; nothing is injected right now.", goes(runs))),
        (0, holds, _) => ("going", "Faults are live", format!("{holds} on the hosts below.")),
        (stuck, ..) => (
            "deviated",
            "Not everything could be undone",
            format!("{stuck} of the hosts' faults. They are tried again; look at the hosts."),
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
    page.element("dl", &[("class", "facts")], |page| {
        page.fact("hosts connected", &format!("{} of {}", now.connected, now.hosts));
        page.fact("runs going on", &now.running.len().to_string());
        page.fact("faults live", &now.holds.len().to_string());
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
            for (host, connected, active) in now.holds.iter().take(HOLDING) {
                page.element("li", &[], |page| card(page, host, *connected, active));
            }
        });
        if now.holds.len() > HOLDING {
            page.text("p", &[], &format!("and {} more", now.holds.len() - HOLDING));
        }
    });
}

/// What a host holds.
pub(super) fn card(page: &mut Markup, host: &str, connected: bool, active: &Active) {
    page.element("h3", &[], |page| {
        page.element("a", &[("href", &format!("/hosts/{}", path(host)))], |page| page.text("bdi", &[], host));
        page.words(" ");
        match (active.stuck, connected) {
            (true, _) => shell::badge(page, "a host is still modified"),
            (false, true) => page.text("span", &[("class", "badge going")], "live"),
            (false, false) => {
                page.text("span", &[("class", "badge unclear")], "not connected: it reverts by its lease")
            }
        }
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
    page.text("p", &[("class", "soft")], &format!("reverted in any case within {} s", active.expires_s));
}
