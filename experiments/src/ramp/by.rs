//! How a ramp gets from its mildest value to its hardest.

use std::fmt;
use std::str::FromStr;

use crate::quantity::{QuantityError, as_text};

/// How the next value is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    /// Each is so many times as hard as the one before.
    Factor(Factor),
    /// Both ends, and then the middle of what is left.
    Bisection,
}

/// So many times: more than 1, at most 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor(f64);

impl Factor {
    /// As a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Factor {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let number = text.trim().strip_suffix('x').and_then(|number| number.trim().parse::<f64>().ok());
        match number {
            Some(factor) if factor > 1.0 && factor <= 100.0 => Ok(Factor(factor)),
            Some(factor) if factor > 100.0 => {
                let help = "write at most `100x`, or the values themselves as `levels: [20ms, 4s]`";
                Err(QuantityError::new(format!("`{text}` is too large a step"), help))
            }
            Some(_) => {
                let help = "write more than `1x`, at most `100x`; what grows less is smaller: `to` may lie below `from`";
                Err(QuantityError::new(format!("`{text}` does not grow"), help))
            }
            None => Err(QuantityError::new(format!("`{text}` is no factor"), "write it as `2x` or `1.5x`")),
        }
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", self.0)
    }
}

as_text!(Factor, "factor", "string", ["2x", "1.5x"]);

impl FromStr for By {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match text.trim() {
            "bisection" => Ok(By::Bisection),
            text if text.ends_with('x') => text.parse().map(By::Factor),
            text => text.parse().map(By::Factor).map_err(|error: QuantityError| QuantityError {
                help: Some("write a factor such as `2x` or `1.5x`, or `bisection`".to_owned()),
                ..error
            }),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Factor(factor) => factor.fmt(f),
            By::Bisection => f.write_str("bisection"),
        }
    }
}

as_text!(By, "ramp-by", "string", ["2x", "1.5x", "bisection"]);
