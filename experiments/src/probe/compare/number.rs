//! Numbers that are compared: whole ones exactly, others as IEEE 754 doubles.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// A number, never NaN.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A whole number, compared exactly with others of its kind: identifiers beyond 2^53 stay apart.
    Whole(i128),
    /// Any other, infinities included: Prometheus answers `+Inf` for a quantile beyond its last bucket.
    Real(f64),
}

/// Why a text is no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotANumber {
    /// A division of nothing by nothing.
    #[error("`{0}` is not a number that can be compared: nothing was divided by nothing")]
    Undefined(String),
    /// Anything else.
    #[error("`{0}` is not a number")]
    Other(String),
}

impl FromStr for Number {
    type Err = NotANumber;

    /// White space around it does not matter; nothing else may stand beside it, no unit either.
    fn from_str(text: &str) -> Result<Self, NotANumber> {
        let trimmed = text.trim();
        if let Ok(whole) = trimmed.parse() {
            return Ok(Number::Whole(whole));
        }
        match trimmed.parse::<f64>() {
            Ok(real) if real.is_nan() => Err(NotANumber::Undefined(trimmed.to_owned())),
            Ok(real) => Ok(Number::Real(real)),
            Err(_) => Err(NotANumber::Other(super::short(trimmed))),
        }
    }
}

impl Number {
    /// A JSON number; `None` for any other value.
    pub fn of(value: &Value) -> Option<Self> {
        let Value::Number(number) = value else { return None };
        number.to_string().parse().ok()
    }

    /// Whether it is neither infinite nor anything else that no bound can be.
    pub fn is_finite(self) -> bool {
        match self {
            Number::Whole(_) => true,
            Number::Real(real) => real.is_finite(),
        }
    }

    /// The nearest double.
    pub fn real(self) -> f64 {
        match self {
            Number::Whole(whole) => whole as f64,
            Number::Real(real) => real,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => Some(a.cmp(b)),
            _ => self.real().partial_cmp(&other.real()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(whole) => whole.fmt(f),
            Number::Real(real) => real.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        text.parse().unwrap()
    }

    #[test]
    fn whole_numbers_are_exact_and_others_are_not_confused_with_texts() {
        assert_ne!(number("9007199254740993"), number("9007199254740992"), "one double for both");
        assert_eq!(number(" 5.0\n"), number("5"));
        assert!(number("+Inf") > number("1e300") && number("-0.5") < number("0"));
        for text in ["", "5ms", "5,0", "0x10", "1_000", "5 6", "--1", "九"] {
            assert!(matches!(text.parse::<Number>(), Err(NotANumber::Other(_))), "{text}");
        }
        assert!(matches!("NaN".parse::<Number>(), Err(NotANumber::Undefined(_))));
        assert!(matches!("-nan".parse::<Number>(), Err(NotANumber::Undefined(_))));
    }
}
