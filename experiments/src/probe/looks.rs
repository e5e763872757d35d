//! When a claim is looked at, and how many looks make a sample.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Period, QuantityError, as_text};

/// What makes a sample, where one look is not enough: looks follow each other until enough of them were good, or cannot
/// be any more. Of everything that is given the first to be reached ends the sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Looks {
    /// At most so many looks; the first good one makes the sample good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Option<u32>,
    /// So many of so many looks must be good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<Quota>,
    /// It must become good within this time, from the beginning of the first look; a look under way is then broken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
    /// From the end of one look to the beginning of the next.
    #[serde(default = "one_second")]
    pub pause: Period,
}

fn one_second() -> Period {
    Period::from_secs(1)
}

impl Looks {
    /// How many looks must be good, and the most that are taken; `u32::MAX` where only the time ends them.
    pub fn quota(&self) -> Quota {
        let most = match (self.attempts, self.within) {
            (Some(attempts), _) => attempts,
            (None, Some(_)) => u32::MAX,
            (None, None) => 1,
        };
        self.at_least.unwrap_or(Quota { good: 1, of: most })
    }

    /// The longest time that a sample takes whose looks take up to `timeout` each.
    pub fn longest(&self, timeout: Period) -> Period {
        let looks = self.quota().of;
        let all =
            timeout.get().saturating_mul(looks).saturating_add(self.pause.get().saturating_mul(looks - 1));
        self.within.map_or(all, |within| within.get().min(all)).into()
    }
}

/// So many of so many, written `3 of 5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many must be good, at least one.
    pub good: u32,
    /// How many are looked at.
    pub of: u32,
}

impl FromStr for Quota {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let error = |what: String| QuantityError::new(what, "write for example `3 of 5`".to_owned());
        let parts = text.split_once(" of ").map(|(good, of)| (good.trim().parse(), of.trim().parse()));
        let Some((Ok(good), Ok(of))) = parts else {
            return Err(error(format!("`{text}` does not say how many of how many")));
        };
        match (good, of) {
            (0, _) => Err(error(format!("`{text}` claims nothing"))),
            (good, of) if good > of => Err(error(format!("`{text}` can never be reached"))),
            (_, 1001..) => Err(error(format!("`{text}` is more than 1000 looks"))),
            (good, of) => Ok(Quota { good, of }),
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.good, self.of)
    }
}

as_text!(Quota, "quota", "string", ["3 of 5"]);

/// A part of a run in which a claim is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// In the baseline.
    Before,
    /// While a fault is live.
    During,
    /// After everything was undone.
    After,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(json: serde_json::Value) -> Looks {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_sample_is_one_look_unless_more_is_asked_for() {
        let one = Quota { good: 1, of: 1 };
        assert_eq!(looks(serde_json::json!({})).quota(), one);
        assert_eq!(looks(serde_json::json!({ "attempts": 3 })).quota(), Quota { good: 1, of: 3 });
        assert_eq!(looks(serde_json::json!({ "at-least": "3 of 5" })).quota(), Quota { good: 3, of: 5 });
        assert_eq!(looks(serde_json::json!({ "within": "30s" })).quota().of, u32::MAX);
    }

    #[test]
    fn the_longest_sample_is_all_looks_or_the_time() {
        let longest = |json| looks(json).longest(Period::from_secs(2));
        assert_eq!(longest(serde_json::json!({})), Period::from_secs(2));
        assert_eq!(longest(serde_json::json!({ "attempts": 3 })), Period::from_secs(8));
        assert_eq!(longest(serde_json::json!({ "attempts": 3, "pause": "0s" })), Period::from_secs(6));
        assert_eq!(longest(serde_json::json!({ "within": "30s" })), Period::from_secs(30));
        assert_eq!(longest(serde_json::json!({ "within": "30s", "attempts": 3 })), Period::from_secs(8));
    }

    #[test]
    fn quotas_read_and_print() {
        assert_eq!("3 of 5".parse::<Quota>().unwrap().to_string(), "3 of 5");
        for wrong in ["3", "3/5", "0 of 5", "6 of 5", "-1 of 5", "1 of 5000", "a of b"] {
            assert!(wrong.parse::<Quota>().is_err(), "{wrong}");
        }
    }
}
