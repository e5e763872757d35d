//! Lengths of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{QuantityError, as_text};

/// A length of time, zero or more: `250ms`, `1m30s`, `2h`, `1.5s`, `100us`.
///
/// Units: `ns`, `us`, `ms`, `s`, `m`, `h`, `d`. Resolution one nanosecond, at most 365 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

impl Period {
    /// No time at all.
    pub const ZERO: Period = Period(Duration::ZERO);

    /// A period of whole milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Period(Duration::from_millis(ms))
    }

    /// A period of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Period(Duration::from_secs(seconds))
    }

    /// As the standard library's duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Whole milliseconds, rounded up, so that a period that is not zero never becomes zero.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for Period {
    fn from(duration: Duration) -> Self {
        Period(duration)
    }
}

impl FromStr for Period {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let example = "write it as `250ms`, `30s`, `1m30s` or `2h`";
        let trimmed = text.trim();
        if trimmed.starts_with('-') {
            return Err(QuantityError::new(format!("`{text}` is negative"), example));
        }
        if trimmed.is_empty() {
            return Err(QuantityError::new("a period is missing", example));
        }
        if trimmed.parse::<f64>().is_ok() {
            return Err(QuantityError::new(
                format!("`{text}` has no unit"),
                format!("did you mean `{trimmed}s` or `{trimmed}ms`?"),
            ));
        }
        let mut nanos = 0u128;
        let mut rest = trimmed;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let scale = UNITS.iter().find(|(name, _)| *name == unit || (*name == "us" && unit == "µs"));
            let (Some((_, scale)), Ok(value)) = (scale, number.parse::<f64>()) else {
                let what = match number.parse::<f64>() {
                    Ok(_) if !unit.is_empty() => format!("`{unit}` in `{text}` is not a unit of time"),
                    _ => format!("`{text}` is not a period"),
                };
                return Err(QuantityError::new(
                    what,
                    "write it as `250ms`, `30s`, `1m30s` or `2h` (units: ns, us, ms, s, m, h, d)",
                ));
            };
            let scaled = value * *scale as f64;
            if scaled > LONGEST.as_nanos() as f64 {
                return Err(QuantityError::new(format!("`{text}` is longer than 365 days"), example));
            }
            nanos += scaled.round() as u128;
            rest = tail.trim_start();
        }
        let period = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        if period > LONGEST {
            return Err(QuantityError::new(format!("`{text}` is longer than 365 days"), example));
        }
        Ok(Period(period))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in UNITS.iter().rev() {
            if rest >= *scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

as_text!(Period, "period", "string", ["250ms", "30s", "1m30s"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_and_print() {
        for (text, nanos) in
            [("250ms", 250_000_000), ("1m30s", 90_000_000_000), ("1.5s", 1_500_000_000), ("0s", 0)]
        {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.get().as_nanos(), nanos, "{text}");
            assert_eq!(period.to_string().parse::<Period>().unwrap(), period, "{text}");
        }
    }

    #[test]
    fn periods_without_unit_or_sense_are_refused() {
        for text in ["", "60", "-5s", "5 parsecs", "1e400s", "s", "5s7", "400d", "1.2.3s", "NaNs"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        let error = "60".parse::<Period>().unwrap_err();
        assert_eq!(error.help.as_deref(), Some("did you mean `60s` or `60ms`?"));
    }
}
