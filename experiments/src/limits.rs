//! What the owner of a host allows to be done there, as far as a plan can be compared with it beforehand. The host's own word counts:
//! it looks again before each change, with all of its policy.

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::quantity::Period;

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
        let held = held(change).filter(|held| *held > self.max_delay)?;
        Some(format!(
            "to hold packets for {held} is longer than this host's policy allows (`max-delay`: {})",
            self.max_delay
        ))
    }
}

/// What a policy calls it.
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
}
