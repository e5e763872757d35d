//! How much may fail before a run is stopped, counted and not estimated.

use std::fmt;
use std::str::FromStr;

use crate::quantity::{QuantityError, as_text};

/// So many requests, or looks, may be without the expected answer: `200 failed`. When they are, the run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(pub u64);

impl FromStr for Budget {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let help = "write for example `200 failed`";
        let number = text.trim().strip_suffix("failed").unwrap_or(text).trim();
        let count: u64 = number
            .parse()
            .map_err(|_| QuantityError::new(format!("`{text}` is not a number of failures"), help))?;
        if number.len() == text.trim().len() {
            let meant = format!("did you mean `{count} failed`?");
            return Err(QuantityError::new(format!("`{text}` does not say what is counted"), meant));
        }
        match count {
            0 => Err(QuantityError::new(format!("`{text}` is spent before anything is done"), help)),
            count => Ok(Budget(count)),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.0)
    }
}

as_text!(Budget, "budget", "string", ["200 failed"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_read_and_print() {
        for text in ["1 failed", "200 failed"] {
            assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
        }
        let wrong = |text: &str| {
            let error = text.parse::<Budget>().unwrap_err();
            (error.what, error.help.unwrap_or_default())
        };
        let example = "write for example `200 failed`".to_owned();
        assert_eq!(
            wrong("200"),
            ("`200` does not say what is counted".into(), "did you mean `200 failed`?".into())
        );
        assert_eq!(
            wrong("0 failed"),
            ("`0 failed` is spent before anything is done".into(), example.clone())
        );
        assert_eq!(wrong("2% failed"), ("`2% failed` is not a number of failures".into(), example.clone()));
        assert_eq!(wrong("failed").1, example);
    }
}
