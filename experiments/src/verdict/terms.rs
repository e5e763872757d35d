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
    /// A quantile of the latencies is at most so many times that of the baseline.
    QuantileOfBaseline(Multiple),
    /// A quantile of the latencies is at most so many times that of the control group, at the same time.
    QuantileOfControl(Multiple),
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
            | Bound::QuantileOfBaseline(_)
            | Bound::QuantileOfControl(_)
            | Bound::Throughput(_)
            | Bound::Latency
            | Bound::LatencyOfControl => None,
        }
    }
}

impl Bound {
    /// Whether it compares latencies with other latencies: then no share of requests is bad by itself.
    pub fn compares_latencies(self) -> bool {
        let quantile = matches!(self, Bound::QuantileOfBaseline(_) | Bound::QuantileOfControl(_));
        quantile || matches!(self, Bound::Latency | Bound::LatencyOfControl)
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
                write!(f, "{} <= {within}", quantile_name(*thousandths))
            }
            Bound::QuantileOfBaseline(Multiple { thousandths, times }) => {
                write!(f, "{} <= {times}x baseline", quantile_name(*thousandths))
            }
            Bound::QuantileOfControl(Multiple { thousandths, times }) => {
                write!(f, "{} <= {times}x control", quantile_name(*thousandths))
            }
            Bound::Throughput(share) => write!(f, "throughput >= {share} of baseline"),
            Bound::Latency => f.write_str("latency no worse than baseline"),
            Bound::LatencyOfControl => f.write_str("latency no worse than control"),
        }
    }
}

/// A quantile of latencies as so many times another one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Multiple {
    /// 990 is p99.
    pub thousandths: u64,
    /// At most so many times the other one; 1 and more.
    pub times: f64,
}

/// As a file names it: 990 thousandths are `p99`.
pub(super) fn quantile_name(thousandths: u64) -> String {
    let digits = format!("{thousandths:03}");
    format!("p{}", digits.strip_suffix('0').unwrap_or(&digits))
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
        let of_control = Bound::QuantileOfControl(Multiple { thousandths: 990, times: 1.2 });
        assert_eq!(of_control.to_string(), "p99 <= 1.2x control");
        let of_baseline = Bound::QuantileOfBaseline(Multiple { thousandths: 500, times: 2.0 });
        assert_eq!(of_baseline.to_string(), "p50 <= 2x baseline");
        assert_eq!(Bound::Quantile { thousandths: 999, within }.tolerated(), Some(0.001));
    }
}
