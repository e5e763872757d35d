//! Shares of a whole.

use std::fmt;
use std::str::FromStr;

use super::{QuantityError, as_text};

/// A share of a whole, from 0 to 100: `0.1%`, `50%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// Everything.
    pub const ALL: Percent = Percent(100.0);
    /// How sure one is when nobody says otherwise.
    pub const USUALLY_SURE: Percent = Percent(95.0);

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

    /// Nothing of it.
    pub fn is_zero(&self) -> bool {
        self.0 == 0.0
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

as_text!(Percent, "percent", "string", ["0.1%", "50%"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_stay_between_0_and_100() {
        assert_eq!("0.1%".parse::<Percent>().unwrap().get(), 0.1);
        for text in ["101%", "-1%", "NaN%", "50", "half", "%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
