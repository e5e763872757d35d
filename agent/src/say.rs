//! Results, on standard output. A reader that has gone away is no failure.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use squall_experiments::exit::Exit;

/// Writes a result.
pub fn result(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a line of a result at once. Where that is not possible the process ends, and says why: nobody would know of
/// what it finds.
pub fn line(words: impl Display) {
    if let Err(error) = result(&format!("{words}\n")) {
        eprintln!("error: standard output cannot be written: {error}");
        std::process::exit(Exit::Bug as i32);
    }
}

/// Writes a value as one JSON document.
pub fn json(value: &impl serde::Serialize) {
    line(serde_json::to_string_pretty(value).unwrap_or_default());
}
