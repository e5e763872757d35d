//! Expectations of rates, as they are written.

use std::fmt;
use std::str::FromStr;

use crate::quantity::{MostPercent, MostPeriod, Percent, QuantityError, as_text};

/// The share of requests that may be without the expected answer: `<= 1%`, or by the baseline: `<= 1.5x baseline`, or by
/// a group without the fault at the same time: `<= 1.5x control`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ErrorsBound {
    /// At most this share.
    Share(MostPercent),
    /// At most so many times the share of the baseline.
    OfBaseline(f64),
    /// At most so many times the share of the control group.
    OfControl(f64),
}

impl Default for ErrorsBound {
    fn default() -> Self {
        ErrorsBound::Share(MostPercent::default())
    }
}

impl FromStr for ErrorsBound {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Ok(match multiple(text)? {
            Some((times, Whom::Baseline)) => ErrorsBound::OfBaseline(times),
            Some((times, Whom::Control)) => ErrorsBound::OfControl(times),
            None => ErrorsBound::Share(text.parse()?),
        })
    }
}

/// With what something is compared.
#[derive(Clone, Copy)]
enum Whom {
    Baseline,
    Control,
}

/// `<= 1.5x baseline`, `<= 1.5x control`; `None` for a text that compares with neither.
fn multiple(text: &str) -> Result<Option<(f64, Whom)>, QuantityError> {
    let bare = text.trim();
    let (rest, word, whom) = match (bare.strip_suffix("baseline"), bare.strip_suffix("control")) {
        (Some(rest), _) => (rest, "baseline", Whom::Baseline),
        (_, Some(rest)) => (rest, "control", Whom::Control),
        _ => return Ok(None),
    };
    let help = format!("write `\"<= 1.5x {word}\"`");
    let wrong = || QuantityError::new(format!("`{text}` is not a multiple of the {word}"), help.clone());
    let bare = rest.trim();
    let bare = bare.strip_prefix("<=").or_else(|| bare.strip_prefix('≤')).ok_or_else(wrong)?;
    let times = bare.trim().strip_suffix(['x', '×']).ok_or_else(wrong)?;
    let times: f64 = times.trim().parse().map_err(|_| wrong())?;
    if (1.0..=1000.0).contains(&times) {
        Ok(Some((times, whom)))
    } else {
        Err(QuantityError::new(format!("`{text}` is not between 1 and 1000 times the {word}"), help))
    }
}

impl fmt::Display for ErrorsBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorsBound::Share(most) => most.fmt(f),
            ErrorsBound::OfBaseline(times) => write!(f, "<= {times}x baseline"),
            ErrorsBound::OfControl(times) => write!(f, "<= {times}x control"),
        }
    }
}

as_text!(ErrorsBound, "errors-bound", "string", ["<= 1%", "<= 1.5x baseline", "<= 1.5x control"]);

/// The time within which a share of the requests is answered: `<= 300ms`, or by the baseline: `<= 1.5x baseline`, or by a group
/// without the fault at the same time: `<= 1.2x control`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QuantileBound {
    /// At most this time.
    Within(MostPeriod),
    /// At most so many times that of the baseline.
    OfBaseline(f64),
    /// At most so many times that of the control group.
    OfControl(f64),
}

impl FromStr for QuantileBound {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Ok(match multiple(text)? {
            Some((times, Whom::Baseline)) => QuantileBound::OfBaseline(times),
            Some((times, Whom::Control)) => QuantileBound::OfControl(times),
            None => QuantileBound::Within(text.parse()?),
        })
    }
}

impl fmt::Display for QuantileBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantileBound::Within(most) => most.fmt(f),
            QuantileBound::OfBaseline(times) => write!(f, "<= {times}x baseline"),
            QuantileBound::OfControl(times) => write!(f, "<= {times}x control"),
        }
    }
}

as_text!(QuantileBound, "quantile-bound", "string", ["<= 300ms", "<= 1.5x baseline", "<= 1.2x control"]);

/// How many requests must be answered as expected in a time, compared with the baseline: `>= 90% of baseline`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThroughputBound(pub Percent);

impl FromStr for ThroughputBound {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let help = "write `\">= 90% of baseline\"`";
        let wrong = || QuantityError::new(format!("`{text}` is not a share of the baseline"), help);
        let rest = text.trim();
        let rest = rest.strip_prefix(">=").or_else(|| rest.strip_prefix('≥')).ok_or_else(wrong)?;
        let share = rest.trim().strip_suffix("baseline").and_then(|rest| rest.trim_end().strip_suffix("of"));
        let share: Percent = share.ok_or_else(wrong)?.trim().parse()?;
        if share.get() > 0.0 && share.get() < 100.0 {
            Ok(ThroughputBound(share))
        } else {
            let what = format!("`{text}` is not between 0% and 100% of the baseline, both excluded");
            Err(QuantityError::new(what, help))
        }
    }
}

impl fmt::Display for ThroughputBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ">= {} of baseline", self.0)
    }
}

as_text!(ThroughputBound, "throughput-bound", "string", [">= 90% of baseline"]);

/// How fast answers must be, compared with the baseline, `no worse than baseline`, or with a group without the fault at the
/// same time, `no worse than control`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatencyBound {
    /// With the baseline.
    #[default]
    OfBaseline,
    /// With the control group.
    OfControl,
}

impl FromStr for LatencyBound {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        for bound in [LatencyBound::OfBaseline, LatencyBound::OfControl] {
            if text.split_whitespace().eq(bound.to_string().split(' ')) {
                return Ok(bound);
            }
        }
        let help = "write `no worse than baseline` or `no worse than control`; a limit of your own is `p99: \"<= 300ms\"`";
        Err(QuantityError::new(format!("`{text}` is not how latency is compared"), help))
    }
}

impl fmt::Display for LatencyBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LatencyBound::OfBaseline => "no worse than baseline",
            LatencyBound::OfControl => "no worse than control",
        })
    }
}

as_text!(LatencyBound, "latency-bound", "string", ["no worse than baseline", "no worse than control"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_read_and_print() {
        for text in ["<= 1%", "<= 1.5x baseline", "<= 2x control"] {
            assert_eq!(text.parse::<ErrorsBound>().unwrap().to_string(), text);
        }
        for text in ["<= 300ms", "<= 1.5x baseline", "<= 1.2x control"] {
            assert_eq!(text.parse::<QuantileBound>().unwrap().to_string(), text);
        }
        assert_eq!("≤2× baseline".parse::<ErrorsBound>().unwrap(), ErrorsBound::OfBaseline(2.0));
        assert_eq!(
            ">= 90%  of  baseline".parse::<ThroughputBound>().unwrap().to_string(),
            ">= 90% of baseline"
        );
        assert_eq!("no worse  than baseline".parse::<LatencyBound>().unwrap(), LatencyBound::OfBaseline);
        assert_eq!("no worse than control".parse::<LatencyBound>().unwrap(), LatencyBound::OfControl);
    }

    #[test]
    fn what_is_wrong_is_said_with_an_example() {
        let errors = |text: &str| text.parse::<ErrorsBound>().unwrap_err();
        assert_eq!(errors("1.5x baseline").what, "`1.5x baseline` is not a multiple of the baseline");
        assert_eq!(errors("<= 0.5x baseline").help.unwrap(), "write `\"<= 1.5x baseline\"`");
        assert_eq!(errors("1%").help.unwrap(), "write `\"<= 1%\"`");
        let quantile = |text: &str| text.parse::<QuantileBound>().unwrap_err();
        assert_eq!(quantile("1.2x control").what, "`1.2x control` is not a multiple of the control");
        assert_eq!(quantile("<= 0.9x control").help.unwrap(), "write `\"<= 1.5x control\"`");
        assert_eq!(quantile("300ms").help.unwrap(), "write `\"<= 300ms\"`");
        for text in
            ["90% of baseline", ">= 90%", ">= 100% of baseline", ">= 0% of baseline", ">= x% of baseline"]
        {
            assert!(text.parse::<ThroughputBound>().is_err(), "{text}");
        }
        assert!(
            "better".parse::<LatencyBound>().unwrap_err().help.unwrap().contains("no worse than baseline")
        );
    }
}
