//! How much may be reached.

use std::fmt;
use std::str::FromStr;

use super::{Percent, Period, QuantityError, as_text};

/// A value that must not be exceeded, written with its comparison: `<= 300ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AtMost<T>(pub T);

/// At most a share: `<= 1%`.
pub type MostPercent = AtMost<Percent>;

/// At most a time: `<= 300ms`.
pub type MostPeriod = AtMost<Period>;

impl<T: FromStr<Err = QuantityError> + fmt::Display> FromStr for AtMost<T> {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let trimmed = text.trim();
        if let Some(value) = trimmed.strip_prefix("<=").or_else(|| trimmed.strip_prefix('≤')) {
            return Ok(AtMost(value.trim().parse()?));
        }
        let bare = trimmed.trim_start_matches(['<', '>', '=', '≥', ' ']);
        // A value that is wrong by itself is the first thing to mend.
        let value: T = bare.parse()?;
        let what = match bare.len() == trimmed.len() {
            true => format!("`{text}` does not say how it is compared"),
            false => format!("`{text}` is not an upper bound"),
        };
        Err(QuantityError::new(what, format!("write `\"<= {value}\"`")))
    }
}

impl<T: fmt::Display> fmt::Display for AtMost<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<= {}", self.0)
    }
}

as_text!(MostPercent, "percent-bound", "string", ["<= 1%"]);
as_text!(MostPeriod, "period-bound", "string", ["<= 300ms"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_read_and_print() {
        assert_eq!("<=300ms".parse::<MostPeriod>().unwrap().to_string(), "<= 300ms");
        assert_eq!(" ≤ 1s".parse::<MostPeriod>().unwrap().to_string(), "<= 1s");
        assert_eq!("<= 0.5%".parse::<MostPercent>().unwrap().0.get(), 0.5);
    }

    #[test]
    fn a_bound_without_its_comparison_is_refused_with_the_right_one() {
        let wrong = |text: &str| {
            let error = text.parse::<MostPeriod>().unwrap_err();
            (error.what, error.help.unwrap_or_default())
        };
        let mended = "write `\"<= 300ms\"`".to_owned();
        assert_eq!(wrong("300ms"), ("`300ms` does not say how it is compared".to_owned(), mended.clone()));
        assert_eq!(wrong("< 300ms"), ("`< 300ms` is not an upper bound".to_owned(), mended.clone()));
        assert_eq!(wrong(">= 300ms"), ("`>= 300ms` is not an upper bound".to_owned(), mended));
        assert_eq!(wrong("300").1, "did you mean `300s` or `300ms`?");
        assert_eq!(wrong("<= 300").0, "`300` has no unit");
        assert_eq!(wrong("").0, "a period is missing");
        assert_eq!("1%".parse::<MostPercent>().unwrap_err().help.as_deref(), Some("write `\"<= 1%\"`"));
    }
}
