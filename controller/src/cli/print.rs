//! Where words go: results to standard output, talk to standard error.

use std::io::IsTerminal;

pub use squall_agent::say::result;
use squall_controller::report::Paint;

/// Writes a value as one JSON document to standard output.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(result(&(serde_json::to_string_pretty(value)? + "\n"))?)
}

/// Whether colours reach a terminal that wants them.
pub fn colour(stream: &impl IsTerminal) -> bool {
    Paint::on(stream) != Paint::OFF
}
