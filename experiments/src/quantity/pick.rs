//! How many of several things.

use std::fmt;
use std::str::FromStr;

use super::{Percent, QuantityError, as_text};

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

as_text!(Pick, "pick", ["string", "integer"], ["all", "50%"]);

#[cfg(test)]
mod tests {
    use super::*;

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
