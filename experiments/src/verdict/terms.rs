//! What is claimed of a rate, and how sure a verdict on it must be.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Percent, Period};

/// How errors are expected to come, and so what counts as one observation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each request: the quickest, and wrong where errors come in bursts.
    Fast,
    /// Blocks of 5 s: right for bursts of up to 2 s.
    #[default]
    Robust,
    /// Blocks of 15 s: right for bursts of up to 5 s; the slowest.
    Strict,
}

impl Mode {
    /// How long a block is, in milliseconds; `None` where each request counts.
    pub fn block_ms(self) -> Option<u64> {
        match self {
            Mode::Fast => None,
            Mode::Robust => Some(5_000),
            Mode::Strict => Some(15_000),
        }
    }
}

/// One thing that is claimed of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// At most this share of requests is without the expected answer.
    Errors(Percent),
    /// At most so many times the share of the baseline is.
    ErrorsOfBaseline(f64),
    /// At most so many times the share of the control group is, at the same time.
    ErrorsOfControl(f64),
    /// So many thousandths of the requests are answered within a time.
    Quantile {
        /// 990 is p99.
        thousandths: u64,
        /// Within this.
        within: Period,
    },
    /// At least this share of what was answered in the baseline is answered in the same time.
    Throughput(Percent),
    /// Answers are no slower than in the baseline, in general and at their slowest.
    Latency,
    /// Answers are no slower than the control group's at the same time, in general and at their slowest.
    LatencyOfControl,
}

impl Bound {
    /// The share of bad requests that is tolerated, where the bound alone says it.
    pub fn tolerated(self) -> Option<f64> {
        match self {
            Bound::Errors(share) => Some(share.fraction()),
            Bound::Quantile { thousandths, .. } => Some((1000 - thousandths.min(999)) as f64 / 1000.0),
            Bound::ErrorsOfBaseline(_)
            | Bound::ErrorsOfControl(_)
            | Bound::Throughput(_)
            | Bound::Latency
            | Bound::LatencyOfControl => None,
        }
    }
}

impl fmt::Display for Bound {
    /// As it is written in a file: `errors <= 1%`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Errors(share) => write!(f, "errors <= {share}"),
            Bound::ErrorsOfBaseline(times) => write!(f, "errors <= {times}x baseline"),
            Bound::ErrorsOfControl(times) => write!(f, "errors <= {times}x control"),
            Bound::Quantile { thousandths, within } => {
                let digits = format!("{thousandths:03}");
                write!(f, "p{} <= {within}", digits.strip_suffix('0').unwrap_or(&digits))
            }
            Bound::Throughput(share) => write!(f, "throughput >= {share} of baseline"),
            Bound::Latency => f.write_str("latency no worse than baseline"),
            Bound::LatencyOfControl => f.write_str("latency no worse than control"),
        }
    }
}

/// Everything that is claimed of one rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Terms {
    /// All of these must hold.
    pub bounds: Vec<Bound>,
    /// What counts as one observation.
    #[serde(default)]
    pub mode: Mode,
    /// How sure a verdict is: one minus the chance that it is wrong.
    pub confidence: Percent,
}

impl Terms {
    /// The chance of a wrong verdict that is accepted, between 0 and 1, both excluded.
    pub fn alpha(&self) -> f64 {
        (1.0 - self.confidence.fraction()).clamp(1e-9, 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_in_a_file() {
        let within = Period::from_secs(1);
        let names = [(500, "p50"), (900, "p90"), (990, "p99"), (999, "p999")];
        for (thousandths, name) in names {
            assert_eq!(Bound::Quantile { thousandths, within }.to_string(), format!("{name} <= 1s"));
        }
        assert_eq!(Bound::Errors("1%".parse().unwrap()).to_string(), "errors <= 1%");
        assert_eq!(Bound::Quantile { thousandths: 999, within }.tolerated(), Some(0.001));
    }
}
