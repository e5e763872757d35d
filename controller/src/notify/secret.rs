//! Secrets of a configuration: never in the file itself, read anew each time they are used.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a secret is: in a file, or in the environment of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Secret {
    /// The file; white space at its ends does not belong to it. A relative path begins at the configuration's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The name of a variable of the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

/// The value of a secret. Neither `Debug` nor anything else shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(String);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("‹secret›")
    }
}

impl Value {
    /// The secret itself, to be sent and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Both places, or none.
    #[error("a secret is in one place; help: give it either `file:` or `env:`")]
    Places,
    /// Its file.
    #[error("the secret in `{}` cannot be read: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// Its variable.
    #[error("the variable `{0}` is not set in the environment of the controller")]
    Environment(String),
    /// There is nothing in it.
    #[error("the secret is empty")]
    Empty,
}

impl Secret {
    /// Reads it.
    pub fn read(&self) -> Result<Value, SecretError> {
        let text = match (&self.file, &self.env) {
            (Some(path), None) => std::fs::read_to_string(path)
                .map_err(|cause| SecretError::File { path: path.clone(), cause })?,
            (None, Some(name)) => std::env::var(name).map_err(|_| SecretError::Environment(name.clone()))?,
            _ => return Err(SecretError::Places),
        };
        match text.trim() {
            "" => Err(SecretError::Empty),
            text => Ok(Value(text.to_owned())),
        }
    }

    /// Relative paths begin at a folder.
    pub(super) fn begin_at(&mut self, folder: &Path) {
        self.file.iter_mut().for_each(|path| *path = folder.join(&*path));
    }
}
