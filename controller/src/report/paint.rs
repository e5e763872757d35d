//! Colour, only where it is wanted.

use std::io::IsTerminal;

use squall_experiments::exit::Exit;

/// Colours text, or leaves it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// No colour.
    pub const OFF: Paint = Paint { on: false };

    /// Colour.
    #[cfg(test)]
    pub(super) const ON: Paint = Paint { on: true };

    /// Colour on a terminal that understands it, unless `NO_COLOR` says otherwise (<https://no-color.org>).
    pub fn on(stream: &impl IsTerminal) -> Paint {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Paint { on: stream.is_terminal() && !refused && !dumb }
    }

    /// For headings.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// For what matters less.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// For the verdict: green, red, or yellow where nothing can be said.
    pub fn verdict(self, exit: Exit, text: &str) -> String {
        self.with(
            match exit {
                Exit::Held => "1;32",
                Exit::Deviated | Exit::Modified | Exit::Bug => "1;31",
                _ => "1;33",
            },
            text,
        )
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
