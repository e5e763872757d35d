//! Values with units, as they stand in an experiment file.
//!
//! Each is one string with a unit; a bare number is an error that names the unit which was probably meant.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, zero or more: `250ms`, `1m30s`, `2h`, `1.5s`, `100us`.
///
/// Units: `ns`, `us`, `ms`, `s`, `m`, `h`, `d`. Resolution one nanosecond, at most 365 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

/// A share of a whole, from 0 to 100: `0.1%`, `50%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

/// How many of the matching things to take: `all`, a number, or a share that is rounded down, at least one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Pick {
    /// Every one that matches.
    #[default]
    All,
    /// Exactly so many; fewer matching is an error.
    Count(u32),
    /// A share, rounded down, at least one.
    Share(Percent),
}

/// Why a text is not the quantity that it should be: a lowercase fragment, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct QuantityError {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl QuantityError {
    /// An error with a suggestion.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        QuantityError { what: what.into(), help: Some(help.into()) }
    }
}

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

impl Percent {
    /// Everything.
    pub const ALL: Percent = Percent(100.0);

    /// A percentage from 0 to 100; anything else, NaN too, is an error.
    pub fn new(value: f64) -> Result<Self, QuantityError> {
        if (0.0..=100.0).contains(&value) {
            Ok(Percent(value))
        } else {
            Err(QuantityError::new(format!("`{value}%` is not between 0% and 100%"), "write it as `50%`"))
        }
    }

    /// From 0 to 100.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let help = "write it as `50%` or `0.1%`";
        let Some(number) = text.trim().strip_suffix('%') else {
            let what = match text.trim().parse::<f64>() {
                Ok(_) => format!("`{text}` has no unit"),
                Err(_) => format!("`{text}` is not a percentage"),
            };
            return Err(QuantityError::new(what, help));
        };
        let value: f64 = number
            .trim()
            .parse()
            .map_err(|_| QuantityError::new(format!("`{text}` is not a percentage"), help))?;
        Percent::new(value)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Pick {
    /// How many of `matching` things this takes; `None` where fewer match than are asked for, or none.
    ///
    /// ```
    /// # use squall_experiments::quantity::Pick;
    /// let half: Pick = "50%".parse().unwrap();
    /// assert_eq!(half.of(5), Some(2));
    /// assert_eq!(half.of(1), Some(1));
    /// assert_eq!(half.of(0), None);
    /// ```
    pub fn of(self, matching: usize) -> Option<usize> {
        let wanted = match self {
            Pick::All => matching,
            Pick::Count(count) => count as usize,
            Pick::Share(share) => ((matching as f64 * share.fraction()).floor() as usize).max(1),
        };
        (wanted > 0 && wanted <= matching).then_some(wanted)
    }
}

impl FromStr for Pick {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let trimmed = text.trim();
        if trimmed == "all" {
            return Ok(Pick::All);
        }
        if trimmed.ends_with('%') {
            let share: Percent = trimmed.parse()?;
            if share.get() == 0.0 {
                return Err(QuantityError::new(
                    "`0%` takes nothing",
                    "take at least one, or leave the step out",
                ));
            }
            return Ok(Pick::Share(share));
        }
        match trimmed.parse::<u32>() {
            Ok(0) => Err(QuantityError::new("`0` takes nothing", "take at least one, or leave the step out")),
            Ok(count) => Ok(Pick::Count(count)),
            Err(_) => Err(QuantityError::new(
                format!("`{text}` does not say how many"),
                "write `all`, a number such as `2`, or a share such as `50%`",
            )),
        }
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pick::All => f.write_str("all"),
            Pick::Count(count) => write!(f, "{count}"),
            Pick::Share(share) => write!(f, "{share}"),
        }
    }
}

/// Reads and writes a type through its `FromStr` and `Display`, and names its format in the schema, so that
/// one parser serves the file, the command line and the editor.
macro_rules! as_text {
    ($type:ty, $format:literal, $json:expr, $examples:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = crate::quantity::Text::deserialize(deserializer)?;
                text.0.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $json, "format": $format, "examples": $examples })
            }
        }
    };
}
pub(crate) use as_text;

/// A scalar as text, whether it was written as a string or as a number.
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl de::Visitor<'_> for Scalar {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

as_text!(Period, "period", "string", ["250ms", "30s", "1m30s"]);
as_text!(Percent, "percent", "string", ["0.1%", "50%"]);
as_text!(Pick, "pick", ["string", "integer"], ["all", "50%"]);

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

    #[test]
    fn percentages_stay_between_0_and_100() {
        assert_eq!("0.1%".parse::<Percent>().unwrap().get(), 0.1);
        for text in ["101%", "-1%", "NaN%", "50", "half", "%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pick_never_takes_none_and_never_more_than_there_are() {
        assert_eq!("30%".parse::<Pick>().unwrap().of(2), Some(1));
        assert_eq!("3".parse::<Pick>().unwrap().of(2), None);
        assert_eq!(Pick::All.of(0), None);
        assert!(
            "0".parse::<Pick>().is_err() && "0%".parse::<Pick>().is_err() && "some".parse::<Pick>().is_err()
        );
    }
}
