//! What the worker says to the proxy of an outage, and what that answers. One message each, as JSON.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use squall_experiments::ailment::{Ailment, Material};

/// How long the proxy carries connections on once its fault is over.
pub const CARRIES_ON_MS: u64 = 30_000;

/// What the proxy is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Carry what comes to the socket that is attached. Not answered.
    Carry {
        /// To where.
        upstream: SocketAddr,
        /// Where the socket is bound.
        listen: SocketAddr,
        /// What to do to it.
        task: Task,
    },
    /// Answer questions that come to the datagram socket that is attached. Not answered.
    Hear {
        /// Whom they are for.
        upstream: SocketAddr,
        /// What to do to them.
        task: Task,
    },
    /// Write what is seen of connections and requests into the memory that is attached. Not answered.
    Write,
    /// Ask for the processes behind connections over the line that is attached. Not answered.
    Ask,
    /// Lookups of these names are meant, too. Not answered.
    Mean {
        /// In all their forms.
        names: Vec<String>,
    },
    /// Say what was carried.
    Count,
    /// Do nothing to connections any more, and end with the last of them, or after [`CARRIES_ON_MS`].
    Heal,
    /// Reset what is left, and end.
    End,
}

/// What to do to what comes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Task {
    /// What happens to it.
    pub ailment: Ailment,
    /// To which share of connections or requests, from 0 to 1.
    pub share: f32,
    /// With which certificate TLS is spoken with callers, or which one they are shown.
    pub tls: Option<Material>,
}

/// What the proxy answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It has given up every privilege, and listens to orders.
    Ready,
    /// It ends.
    Failed {
        /// Why.
        why: String,
    },
    /// What was carried so far.
    Counted(Counts),
}

/// Connections, and requests where those are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// How many came.
    pub came: u64,
    /// To how many something was done.
    pub harmed: u64,
    /// How many could not be made to the dependency, or found no room in the proxy.
    pub unreached: u64,
    /// How many are open.
    pub open: u64,
    /// How many requests came.
    pub requests: u64,
    /// To how many of them something was done.
    pub requests_harmed: u64,
    /// How many connections did not speak HTTP or TLS where that was to be understood.
    pub foreign: u64,
    /// How many lookups were of other names.
    pub passed: u64,
    /// How many callers completed a handshake although they were shown a certificate that is wrong.
    pub believed: u64,
}
