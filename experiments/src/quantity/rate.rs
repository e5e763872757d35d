//! How often something is done.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{QuantityError, as_text};

/// How often something is done: `50/s`, `3000/m`. A whole number, at least one a minute and at most [`Rate::MOST`] a
/// second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    per: Per,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
}

impl Per {
    fn nanos(self) -> u64 {
        match self {
            Per::Second => 1_000_000_000,
            Per::Minute => 60_000_000_000,
        }
    }

    fn seconds(self) -> u32 {
        match self {
            Per::Second => 1,
            Per::Minute => 60,
        }
    }
}

impl Rate {
    /// The fastest, in times a second.
    pub const MOST: u32 = 20_000;

    /// From the first to the `nth` of them, counted from 0; exact to the nanosecond, without a drift.
    ///
    /// ```
    /// # use squall_experiments::quantity::Rate;
    /// let rate: Rate = "3/s".parse().unwrap();
    /// assert_eq!(rate.offset(2).as_nanos(), 666_666_666);
    /// assert_eq!(rate.offset(3).as_secs(), 1);
    /// ```
    pub fn offset(self, nth: u64) -> Duration {
        let nanos = u128::from(nth) * u128::from(self.per.nanos()) / u128::from(self.count);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many of them begin within a time, the first one at its begin.
    pub fn within(self, time: Duration) -> u64 {
        let count = (time.as_nanos() * u128::from(self.count)).div_ceil(u128::from(self.per.nanos()));
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

impl FromStr for Rate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let help = "write it as `50/s` or `3000/m`";
        let wrong = |what: String| QuantityError::new(what, help);
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(wrong("a rate is missing".to_owned()));
        }
        let Some((number, unit)) = trimmed.split_once('/') else {
            return Err(match trimmed.parse::<f64>() {
                Ok(_) => QuantityError::new(
                    format!("`{text}` has no unit"),
                    format!("did you mean `{trimmed}/s` or `{trimmed}/m`?"),
                ),
                Err(_) => wrong(format!("`{text}` is not a rate")),
            });
        };
        let per = match unit.trim() {
            "s" => Per::Second,
            "m" => Per::Minute,
            other => {
                return Err(wrong(format!("`{other}` in `{text}` is not a unit of rates (units: s, m)")));
            }
        };
        let number: f64 = match number.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => number,
            _ => return Err(wrong(format!("`{text}` is not a rate"))),
        };
        if number < 0.0 {
            return Err(wrong(format!("`{text}` is negative")));
        }
        if number == 0.0 {
            return Err(wrong(format!("`{text}` never happens")));
        }
        if number > f64::from(Rate::MOST * per.seconds()) {
            let most = Rate { count: Rate::MOST, per: Per::Second };
            return Err(QuantityError::new(
                format!("`{text}` is more than one machine sends"),
                format!("write at most `{most}`"),
            ));
        }
        if number.fract() != 0.0 {
            let minutes = number * 60.0;
            return Err(match (per, minutes.fract() == 0.0) {
                (Per::Second, true) => {
                    QuantityError::new(format!("`{text}` is not whole"), format!("write `{minutes}/m`"))
                }
                _ => QuantityError::new(
                    format!("`{text}` is not whole"),
                    "write a whole number, as in `50/s` or `3000/m`",
                ),
            });
        }
        // Whole, and between 1 and the largest that was let through.
        Ok(Rate { count: number as u32, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per {
            Per::Second => "s",
            Per::Minute => "m",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

as_text!(Rate, "rate", "string", ["50/s", "3000/m"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_and_print() {
        for text in ["50/s", "3000/m", "1/m", "20000/s", "1200000/m"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!(" 2e3 / s ".parse::<Rate>().unwrap().to_string(), "2000/s");
    }

    #[test]
    fn what_is_no_rate_is_refused_with_a_reason() {
        for (text, what, help) in [
            ("", "a rate is missing", "write it as `50/s` or `3000/m`"),
            ("50", "`50` has no unit", "did you mean `50/s` or `50/m`?"),
            ("50rps", "`50rps` is not a rate", "write it as `50/s` or `3000/m`"),
            ("NaN/s", "`NaN/s` is not a rate", "write it as `50/s` or `3000/m`"),
            ("inf/s", "`inf/s` is not a rate", "write it as `50/s` or `3000/m`"),
            ("0/s", "`0/s` never happens", "write it as `50/s` or `3000/m`"),
            ("-0/s", "`-0/s` never happens", "write it as `50/s` or `3000/m`"),
            ("-5/s", "`-5/s` is negative", "write it as `50/s` or `3000/m`"),
            ("1e9/s", "`1e9/s` is more than one machine sends", "write at most `20000/s`"),
            ("1200001/m", "`1200001/m` is more than one machine sends", "write at most `20000/s`"),
            ("0.5/s", "`0.5/s` is not whole", "write `30/m`"),
            ("0.001/s", "`0.001/s` is not whole", "write a whole number, as in `50/s` or `3000/m`"),
            ("5/h", "`h` in `5/h` is not a unit of rates (units: s, m)", "write it as `50/s` or `3000/m`"),
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert_eq!((error.what.as_str(), error.help.as_deref()), (what, Some(help)), "{text}");
        }
    }

    #[test]
    fn starts_do_not_drift() {
        let rate: Rate = "7/s".parse().unwrap();
        assert_eq!(rate.offset(7 * 86_400).as_nanos(), 86_400_000_000_000);
        assert_eq!(rate.within(Duration::from_secs(10)), 70);
        assert_eq!(rate.within(Duration::from_nanos(1)), 1, "the first is at the begin");
        assert_eq!(rate.within(Duration::ZERO), 0);
        assert_eq!("3000/m".parse::<Rate>().unwrap().offset(50), Duration::from_secs(1));
    }
}
