//! The exit codes of every squall command.

use serde::{Deserialize, Serialize};

/// How a command ended. When several hold, the most serious one counts: see [`Exit::worse`]. Written as its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Exit {
    /// The hypothesis held, or the command did what it was asked.
    Held = 0,
    /// A bug in Squall, a panic too.
    Bug = 1,
    /// The command line is not understood.
    Usage = 2,
    /// The experiment is invalid.
    Invalid = 3,
    /// Refused: policy, privilege, engine, empty selector, claim, baseline not met.
    Refused = 4,
    /// The hypothesis did not hold, or a guard tripped.
    Deviated = 5,
    /// Interrupted by a person, a signal or a halt.
    Interrupted = 6,
    /// A host is still modified.
    Modified = 7,
    /// Nothing can be said: no measured effect, or too few samples.
    Inconclusive = 8,
}

impl Exit {
    /// The more serious of two: 7 > 6 > 5 > 8 > 4 > 0; a bug, a usage error and an invalid experiment come before all.
    pub fn worse(self, other: Exit) -> Exit {
        let rank = |exit: Exit| match exit {
            Exit::Modified => 9,
            Exit::Bug => 8,
            Exit::Usage => 7,
            Exit::Invalid => 6,
            Exit::Interrupted => 5,
            Exit::Deviated => 4,
            Exit::Inconclusive => 3,
            Exit::Refused => 2,
            Exit::Held => 0,
        };
        if rank(self) >= rank(other) { self } else { other }
    }

    /// What the code means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Held => "held",
            Exit::Bug => "bug in squall",
            Exit::Usage => "usage",
            Exit::Invalid => "invalid experiment",
            Exit::Refused => "refused",
            Exit::Deviated => "deviated",
            Exit::Interrupted => "interrupted",
            Exit::Modified => "a host is still modified",
            Exit::Inconclusive => "inconclusive",
        }
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit as u8
    }
}

impl TryFrom<u8> for Exit {
    type Error = String;

    /// The code with this number; a number that stands for nothing is an error.
    fn try_from(number: u8) -> Result<Self, String> {
        const ALL: [Exit; 9] = [
            Exit::Held,
            Exit::Bug,
            Exit::Usage,
            Exit::Invalid,
            Exit::Refused,
            Exit::Deviated,
            Exit::Interrupted,
            Exit::Modified,
            Exit::Inconclusive,
        ];
        let found = ALL.into_iter().find(|exit| *exit as u8 == number);
        found.ok_or_else(|| format!("`{number}` is not an exit code of squall"))
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn a_modified_host_outranks_everything_and_held_nothing() {
        assert_eq!(Exit::Interrupted.worse(Exit::Modified), Exit::Modified);
        assert_eq!(Exit::Deviated.worse(Exit::Interrupted), Exit::Interrupted);
        assert_eq!(Exit::Inconclusive.worse(Exit::Deviated), Exit::Deviated);
        assert_eq!(Exit::Refused.worse(Exit::Inconclusive), Exit::Inconclusive);
        assert_eq!(Exit::Held.worse(Exit::Refused), Exit::Refused);
    }

    #[test]
    fn every_code_is_read_back_from_its_number() {
        for number in 0..=8 {
            assert_eq!(Exit::try_from(number).map(u8::from), Ok(number));
        }
        assert!(Exit::try_from(9).is_err());
    }
}
