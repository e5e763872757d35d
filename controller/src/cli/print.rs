//! Where words go: results to standard output, talk to standard error. A reader that has gone away is no failure.

use std::io::{self, ErrorKind, IsTerminal, Write};

use squall_controller::report::Paint;

/// Writes a result to standard output.
pub fn result(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a value as one JSON document to standard output.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(result(&(serde_json::to_string_pretty(value)? + "\n"))?)
}

/// Whether colours reach a terminal that wants them.
pub fn colour(stream: &impl IsTerminal) -> bool {
    Paint::on(stream) != Paint::OFF
}
