//! What the requests of a load came to in one phase.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::closing::seconds;
use crate::probe::{Count, Load};

/// The figures of a phase. Quantiles are over all requests: an error is slower than any answer, and `None` is a
/// quantile that lies among the errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadFigures {
    /// Requests that began.
    pub requests: u64,
    /// Those without the expected answer.
    pub failed: u64,
    /// The same by kind, the most frequent first, at most five.
    pub errors: Vec<Count>,
    /// Requests that the load generator was too late to send at all.
    pub unsent: u64,
    /// The median latency, in microseconds.
    pub p50_us: Option<u64>,
    /// The latency that 90 % kept, in microseconds.
    pub p90_us: Option<u64>,
    /// The latency that 99 % kept, in microseconds.
    pub p99_us: Option<u64>,
    /// The latency that 99.9 % kept, in microseconds.
    pub p999_us: Option<u64>,
    /// The longest latency of an answer, in microseconds.
    pub slowest_us: Option<u64>,
    /// How late the load generator sent half of the requests at most, in microseconds.
    pub late_p50_us: Option<u64>,
    /// How late it sent 99 % of them at most, in microseconds.
    pub late_p99_us: Option<u64>,
    /// How late it sent the last of them, in microseconds.
    pub latest_us: Option<u64>,
    /// Whether that lateness is a part of the figures worth a word.
    pub generator_was_late: bool,
    /// What the same requests came to in the control group, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Box<LoadFigures>>,
}

impl From<&Load> for LoadFigures {
    fn from(load: &Load) -> Self {
        let us = |time: Option<Duration>| {
            time.map(|time| u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX))
        };
        let quantile = |thousandths| us(load.quantile(thousandths));
        LoadFigures {
            requests: load.requests,
            failed: load.failed(),
            errors: load.errors.iter().take(5).cloned().collect(),
            unsent: load.unsent,
            p50_us: quantile(500),
            p90_us: quantile(900),
            p99_us: quantile(990),
            p999_us: quantile(999),
            slowest_us: us(load.latency.longest()),
            late_p50_us: us(load.late.quantile(500, 0)),
            late_p99_us: us(load.late.quantile(990, 0)),
            latest_us: us(load.late.longest()),
            generator_was_late: load.generator_was_late(),
            control: load.control.as_deref().map(|control| Box::new(control.into())),
        }
    }
}

impl fmt::Display for LoadFigures {
    /// `750 requests, 3 errors (3 × connection refused); p50 0.4 ms, p90 0.6 ms, p99 1.1 ms, max 3.0 ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", Count::of(self.requests, "request"), Count::of(self.failed, "error"))?;
        if !self.errors.is_empty() {
            write!(f, " ({})", Count::in_words(&self.errors))?;
        }
        let quantiles = [("p50", self.p50_us), ("p90", self.p90_us), ("p99", self.p99_us)];
        for (at, (name, us)) in quantiles.into_iter().enumerate() {
            let before = if at == 0 { "; " } else { ", " };
            write!(f, "{before}{name} {}", us.map_or_else(|| "no answer".to_owned(), in_words))?;
        }
        if let Some(us) = self.slowest_us {
            write!(f, ", max {}", in_words(us))?;
        }
        if self.generator_was_late {
            write!(f, "; the load generator itself was late: ")?;
            if let (Some(late), Some(latest)) = (self.late_p99_us, self.latest_us) {
                write!(f, "p99 {}, max {}", in_words(late), in_words(latest))?;
            }
            if self.unsent > 0 {
                write!(f, ", {} never sent", Count::of(self.unsent, "request"))?;
            }
        }
        match &self.control {
            Some(control) => write!(f, "; control group: {control}"),
            None => Ok(()),
        }
    }
}

/// A latency in microseconds for a sentence: `0.42 ms`, `3.1 ms`, `312 ms`, `1.2 s`.
pub fn in_words(us: u64) -> String {
    match us {
        0..1_000 => format!("{:.2} ms", us as f64 / 1000.0),
        1_000..100_000 => format!("{:.1} ms", us as f64 / 1000.0),
        _ => seconds(us / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_what_was_sent_and_how_it_went() {
        let mut load = Load { requests: 100, ..Load::default() };
        (0..97).for_each(|at| load.latency.add(Duration::from_micros(1500 + at)));
        (0..100).for_each(|_| load.late.add(Duration::from_micros(30)));
        Count::add(&mut load.errors, "connection refused", 3);
        let words = LoadFigures::from(&load).to_string();
        let expected = "100 requests, 3 errors (3 × connection refused); p50 1.6 ms, p90 1.6 ms, p99 no answer, max 1.6 ms";
        assert_eq!(words, expected);
        load.unsent = 7;
        let words = LoadFigures::from(&load).to_string();
        let late = "; the load generator itself was late: p99 0.03 ms, max 0.03 ms, 7 requests never sent";
        assert_eq!(words, format!("{expected}{late}"));
        let both = Load {
            requests: 1,
            control: Some(Box::new(Load { requests: 1, ..Load::default() })),
            ..Load::default()
        };
        let words = LoadFigures::from(&both).to_string();
        assert!(
            words.ends_with(
                "; control group: 1 request, 0 errors; p50 no answer, p90 no answer, p99 no answer"
            ),
            "{words}"
        );
    }
}
