//! What a dependency does wrong to the connections that are led to the proxy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::quantity::{Bandwidth, Period, Size};

/// What happens to a connection on its way to a dependency. Bytes are counted from the dependency to its caller, each
/// connection by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ailment {
    /// Both ends see a reset, at the first byte of an answer that is more than so many.
    Reset {
        /// So many bytes of answers pass before.
        after: Size,
    },
    /// Nothing more of an answer comes, and the connection stays open.
    Hang {
        /// So many bytes of answers pass before.
        after: Size,
    },
    /// The connection is closed in an orderly way, in the middle of an answer.
    Close {
        /// So many bytes of answers pass before.
        after: Size,
    },
    /// Answers come slowly.
    Slow {
        /// So fast, in whole kilobytes (1000 bytes) a second.
        rate: Bandwidth,
    },
    /// Answers come late.
    Late {
        /// By so much, in whole milliseconds.
        delay: Period,
        /// More or less, evenly distributed.
        jitter: Period,
    },
}

impl Ailment {
    /// The longest that data is held before it goes on; `None` where it is not held for a time that is asked for.
    pub fn holds_for(&self) -> Option<Period> {
        match self {
            Ailment::Late { delay, jitter } => Some((delay.get() + jitter.get()).into()),
            Ailment::Reset { .. } | Ailment::Hang { .. } | Ailment::Close { .. } | Ailment::Slow { .. } => {
                None
            }
        }
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut after = |what: &str, after: &Size| match after.bytes() {
            0 => write!(f, "{what} at the first byte of an answer"),
            _ => write!(f, "{what} after {after} of answers"),
        };
        match self {
            Ailment::Reset { after: bytes } => after("reset", bytes),
            Ailment::Hang { after: bytes } => after("hang", bytes),
            Ailment::Close { after: bytes } => after("close", bytes),
            Ailment::Slow { rate } => write!(f, "slow down to {rate}"),
            Ailment::Late { delay, jitter } if jitter.is_zero() => write!(f, "delay by {delay}"),
            Ailment::Late { delay, jitter } => write!(f, "delay by {delay} ± {jitter}"),
        }
    }
}
