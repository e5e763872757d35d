//! Names of things that a controller keeps.

use std::fmt;
use std::str::FromStr;

use crate::quantity::{QuantityError, as_text};

/// The name of a schedule, of a game day or of one of its steps: lowercase letters, digits and `-`, at most 63.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > 63 || text.starts_with('-') || !text.chars().all(fits) {
            return Err(QuantityError::new(
                format!("`{text}` cannot be a name here"),
                "use lowercase letters, digits and `-`, 63 at most: `nightly-checkout`",
            ));
        }
        Ok(Name(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(Name, "name", "string", ["nightly-checkout"]);
