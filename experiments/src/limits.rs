//! What the owner of a host allows to be done there, as far as a plan can be compared with it beforehand. The host's own word counts:
//! it looks again before each change, with all of its policy.

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::peer::{Peer, PeerHost, Ports};
use crate::quantity::Period;
use crate::scope::{ProcessSelector, Scope};

/// Limits on changes. Keys of a newer agent are passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// Whether anything may be injected at all.
    pub enabled: bool,
    /// The longest that one change may last.
    pub max_duration: Period,
    /// The longest that packets may be held.
    pub max_delay: Period,
    /// When faults may be live, in words; at any time where there are none.
    pub windows: Vec<String>,
    /// Which kinds of changes are allowed.
    pub allow: Vec<String>,
    /// Units that no fault touches.
    #[serde(default)]
    pub protect_units: Vec<String>,
    /// Users whose processes and traffic no fault touches.
    #[serde(default)]
    pub protect_users: Vec<String>,
    /// Ports of the host itself at which no fault touches traffic.
    #[serde(default)]
    pub protect_ports: Vec<Ports>,
}

impl Limits {
    /// Why a change would be refused that lasts so long, whenever it begins.
    pub fn objection(&self, change: &Change, lasts: Period) -> Option<String> {
        if !self.enabled {
            return Some("this host's policy allows no injection".to_owned());
        }
        let kind = kind(change);
        if !self.allow.iter().any(|allowed| allowed == kind) {
            return Some(format!("this host's policy does not allow `{kind}`"));
        }
        if lasts > self.max_duration {
            return Some(format!("{lasts} is longer than this host's policy allows ({})", self.max_duration));
        }
        if let Some(held) = held(change).filter(|held| *held > self.max_delay) {
            return Some(format!(
                "to hold packets for {held} is longer than this host's policy allows (`max-delay`: {})",
                self.max_delay
            ));
        }
        self.protected(change).map(|what| format!("this host's policy protects {what}"))
    }

    /// What is protected of that which a change asks for by name. Who belongs to it now, only the host can see.
    fn protected(&self, change: &Change) -> Option<String> {
        let scope = change.scope();
        let asked = match scope {
            Some(Scope::Port(ports)) => Some(*ports),
            Some(Scope::Process(ProcessSelector { listening: Some(port), .. })) => {
                Some(Ports { first: *port, last: *port })
            }
            _ => None,
        };
        let called = change.flow().into_iter().flat_map(|flow| &flow.from).filter_map(|peer| peer.ports);
        let own = change.flow().into_iter().flat_map(|flow| &flow.to).filter(is_of_this_host);
        let own = own.filter_map(|peer| peer.ports);
        for Ports { first, last } in asked.into_iter().chain(called).chain(own) {
            let meets = |own: &&Ports| first <= own.last && own.first <= last;
            if let Some(own) = self.protect_ports.iter().find(meets) {
                return Some(format!("the local port {own}"));
            }
        }
        let unit = |name: &str| self.protect_units.iter().find(|unit| *unit == name);
        match scope {
            Some(Scope::Unit(name)) => unit(name).map(|unit| format!("the unit `{unit}`")),
            Some(Scope::Cgroup(path)) => {
                let mut names = path.split('/').map(|name| name.strip_prefix('_').unwrap_or(name));
                names.find_map(unit).map(|unit| format!("the unit `{unit}`"))
            }
            Some(Scope::User(name)) => {
                let user = self.protect_users.iter().find(|user| *user == name);
                user.map(|user| format!("the user `{user}`"))
            }
            None | Some(Scope::Port(_) | Scope::Interface(_)) => self.among_everybody(),
            Some(Scope::Process(_) | Scope::Container(_) | Scope::Netns(_)) => None,
        }
    }

    /// Whose traffic is in that of everybody, from which nothing tells it.
    fn among_everybody(&self) -> Option<String> {
        let units = self.protect_units.iter().map(|unit| format!("the unit `{unit}`"));
        let all: Vec<String> =
            units.chain(self.protect_users.iter().map(|user| format!("the user `{user}`"))).collect();
        (!all.is_empty()).then(|| {
            format!(
                "{}, whose traffic is among that of everybody: `in:` must say whose processes are meant",
                all.join(" and ")
            )
        })
    }
}

/// Whether a peer that is called is the host itself.
fn is_of_this_host(peer: &&Peer) -> bool {
    matches!(peer.host, PeerHost::Net(address, _) if address.is_loopback())
}

/// What a policy may allow: every kind of change, as it calls them.
pub const KINDS: [&str; 6] = ["block", "shape", "redirect", "disconnect", "signal", "pause"];

/// What a policy calls it: one of [`KINDS`].
fn kind(change: &Change) -> &'static str {
    match change {
        Change::Block(_) => "block",
        Change::Shape(_) => "shape",
        Change::Redirect(_) => "redirect",
        Change::Disconnect(_) => "disconnect",
        Change::Signal(_) => "signal",
        Change::Pause(_) => "pause",
    }
}

/// For how long it holds packets at most.
fn held(change: &Change) -> Option<Period> {
    match change {
        Change::Shape(shape) => {
            let late = shape.impairment.reorder.map(|reorder| reorder.late);
            shape.impairment.delay.map(|delay| delay.delay).max(late)
        }
        Change::Redirect(redirect) => redirect.ailment.holds_for(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Block, Verdict};
    use crate::flow::{Direction, Flow};

    #[test]
    fn what_would_be_refused_is_said_with_the_reason_and_keys_of_a_newer_agent_are_passed_over() {
        let text = r#"{"enabled": true, "max-duration": "1m", "max-delay": "2s", "windows": [], "allow": ["shape"], "new": 1}"#;
        let limits: Limits = serde_json::from_str(text).unwrap();
        let block = Change::Block(Block {
            flow: Flow::default(),
            direction: Direction::Ingress,
            verdict: Verdict::Drop,
        });
        let why = |limits: &Limits, seconds| limits.objection(&block, Period::from_secs(seconds));
        assert!(why(&limits, 1).unwrap().contains("does not allow `block`"));
        let wide = Limits { allow: vec!["block".to_owned()], ..limits };
        assert_eq!(why(&wide, 60), None);
        assert!(why(&wide, 61).unwrap().contains("1m"));
        assert!(why(&Limits { enabled: false, ..wide }, 1).unwrap().contains("no injection"));
    }

    #[test]
    fn a_change_that_names_what_is_protected_would_be_refused() {
        let limits = |protect: &str| -> Limits {
            let text = format!(
                r#"{{"enabled": true, "max-duration": "1m", "max-delay": "2s", "windows": [],
                     "allow": ["block", "signal", "pause"], {protect}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let block = |flow: &str| -> Change {
            let text = format!(r#"{{"block": {{"flow": {flow}, "direction": "both", "verdict": "drop"}}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let kill = |scope: &str| -> Change {
            let text = format!(r#"{{"signal": {{"scope": {scope}, "pick": "all", "signal": "KILL"}}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let why = |limits: &Limits, change: &Change| limits.objection(change, Period::from_secs(1));
        let told = |limits: &Limits, change: Change, word: &str| {
            let said = why(limits, &change).unwrap_or_else(|| panic!("{change:?} is not refused"));
            assert!(said.contains(word), "{said}");
        };
        let ports = limits(r#""protect-ports": ["5432", "8000-8100"]"#);
        told(&ports, block(r#"{"from": ["any:5000-6000"]}"#), "the local port 5432");
        told(
            &ports,
            block(r#"{"to": ["any:1"], "scope": {"port": "8100-9000"}}"#),
            "the local port 8000-8100",
        );
        told(&ports, block(r#"{"to": ["127.0.0.1:5432"]}"#), "the local port 5432");
        told(&ports, kill(r#"{"process": {"listening": 5432}}"#), "the local port 5432");
        // Of somebody else, or of everything that comes: at the port itself nothing is touched then.
        for flow in [r#"{"to": ["db:5432"]}"#, r#"{"from": ["10.0.0.1"]}"#, r#"{"from": ["any:5433"]}"#] {
            assert_eq!(why(&ports, &block(flow)), None, "{flow}");
        }
        let named = limits(r#""protect-units": ["db.service"], "protect-users": ["postgres"]"#);
        told(&named, kill(r#"{"unit": "db.service"}"#), "the unit `db.service`");
        told(&named, kill(r#"{"cgroup": "/system.slice/db.service/worker"}"#), "the unit `db.service`");
        told(&named, kill(r#"{"user": "postgres"}"#), "the user `postgres`");
        for everybody in
            [r#"{"to": ["any"]}"#, r#"{"scope": {"interface": "eth0"}}"#, r#"{"scope": {"port": "80"}}"#]
        {
            told(&named, block(everybody), "`in:` must say whose");
        }
        for other in
            [r#"{"unit": "my-db.service"}"#, r#"{"user": "shop"}"#, r#"{"process": {"name": "shop"}}"#]
        {
            assert_eq!(why(&named, &kill(other)), None, "{other}");
            assert_eq!(why(&named, &block(&format!(r#"{{"scope": {other}}}"#))), None, "{other}");
        }
    }
}
