//! How the steady state is looked at, and what is expected: the entries of `hypothesis:` and `stop-when:`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Percent, Period};

/// One claim about the steady state: a probe with an expectation. Exactly one of `http`, `tcp`, `process` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hypothesis {
    /// What is claimed, in words; unique in the file.
    pub name: String,
    /// Ask an HTTP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// Open a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// Run a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessProbe>,
    /// Take a sample this often.
    #[serde(default = "every_second")]
    pub every: Period,
    /// What a good sample looks like.
    #[serde(default)]
    pub expect: Expect,
}

fn every_second() -> Period {
    Period::from_secs(1)
}

/// An HTTP request. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpProbe {
    /// An absolute `http://` or `https://` address.
    pub url: String,
    /// The request method.
    #[serde(default = "get")]
    pub method: String,
    /// Request headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The request body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// After this time, connecting and body included, the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
    /// Whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

fn get() -> String {
    "GET".to_owned()
}

fn two_seconds() -> Period {
    Period::from_secs(2)
}

/// Whom an `https` probe trusts; without it the certificates of the system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tls {
    /// A file with trusted certificates (PEM) instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Accept every certificate: only for test systems.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

/// A TCP connection that is opened and closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TcpProbe {
    /// Host and port: `db.internal:5432`.
    pub address: String,
    /// After this time the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
}

/// A program, run without a shell and with a clean environment, never as root unless asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessProbe {
    /// The program by absolute path or by name in `/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin`, then its arguments.
    pub argv: Vec<String>,
    /// Its environment; nothing else is inherited but `PATH`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The user to run as, by name; `nobody` when squall runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// After this time the program and everything that it started is killed, and the sample is bad.
    #[serde(default = "ten_seconds")]
    pub timeout: Period,
}

fn ten_seconds() -> Period {
    Period::from_secs(10)
}

/// What a good sample looks like: all that is given must hold. Without any: HTTP 2xx, a connection, exit code 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expect {
    /// HTTP: the status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// HTTP: headers that must be present with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// HTTP: a regular expression found in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// HTTP: JSONPath (RFC 9535) to the value that the first match must equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, serde_json::Value>,
    /// Process: the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Process: a regular expression found in standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The answer arrives within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
    /// The share of bad samples that is still steady.
    #[serde(default)]
    pub tolerate: Percent,
}

/// What a probe does, without its claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// See [`HttpProbe`].
    Http(HttpProbe),
    /// See [`TcpProbe`].
    Tcp(TcpProbe),
    /// See [`ProcessProbe`].
    Process(ProcessProbe),
}

impl Hypothesis {
    /// The one probe; `None` where none or several are given, which `check` reports.
    pub fn probe(&self) -> Option<Probe> {
        match (&self.http, &self.tcp, &self.process) {
            (Some(http), None, None) => Some(Probe::Http(http.clone())),
            (None, Some(tcp), None) => Some(Probe::Tcp(tcp.clone())),
            (None, None, Some(process)) => Some(Probe::Process(process.clone())),
            _ => None,
        }
    }
}

/// One look at the system: what a prober reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sample {
    /// Which probe, by the number that the asker gave it.
    pub probe: u32,
    /// When it was begun: nanoseconds on the boot clock.
    pub begun_ns: u64,
    /// How long it took.
    pub took_ns: u64,
    /// Whether all expectations held.
    pub good: bool,
    /// What was seen, short: `200`, `timed out after 2s`, `exit 1`.
    pub seen: String,
}

/// What a prober is told, one JSON line each, on its standard input. End of file ends it, and everything it started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProberRequest {
    /// Know a probe under a number.
    Load {
        /// The number that samples carry.
        probe: u32,
        /// What to do.
        what: Probe,
        /// What is good.
        expect: Expect,
    },
    /// Take one sample now.
    Once {
        /// Which.
        probe: u32,
    },
    /// Take samples, the first at once, until [`ProberRequest::Stop`]. A sample never waits for an earlier one.
    Every {
        /// Which.
        probe: u32,
        /// From start to start.
        period: Period,
    },
    /// No new samples of this probe; those under way are still reported.
    Stop {
        /// Which.
        probe: u32,
    },
}

/// What a prober says, one JSON line each, on its standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProberReply {
    /// A sample.
    Sample(Sample),
    /// A probe cannot be run at all: a program that is not there, a certificate file that cannot be read.
    Unusable {
        /// Which.
        probe: u32,
        /// Why.
        why: String,
    },
}
