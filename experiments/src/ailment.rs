//! What a dependency does wrong to the connections that are led to the proxy.

use std::fmt;
use std::net::IpAddr;

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
        /// Where HTTP is spoken in plain text it happens to requests, each by itself, and elsewhere to connections.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_request: bool,
    },
    /// Requests of HTTP are answered with an error; the dependency does not hear of them.
    Errors {
        /// The status of the answer.
        status: u16,
        /// The status of gRPC with which its calls are answered instead.
        grpc: u16,
        /// The body of the answer; empty is none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
        /// Which requests.
        of: Requests,
    },
    /// The handshake of TLS fails; what is inside is never seen.
    Handshake(Handshake),
    /// Lookups of a name are answered wrongly; this is about its name servers, whoever they are.
    Lookup {
        /// The name, in all its forms.
        names: Vec<String>,
        /// What is answered.
        answer: Answered,
    },
    /// Answers of HTTP break off in their body, and with them the connection (in HTTP/2 the stream).
    Truncate {
        /// So many bytes of the body pass before.
        after: Size,
        /// The answers to which requests.
        of: Requests,
    },
}

/// What is answered to the lookup of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answered {
    /// There is no such name.
    Nxdomain,
    /// The server could not find out.
    Servfail,
    /// Nothing.
    Timeout,
    /// This address; of the other family there is none.
    Wrong(IpAddr),
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answered::Nxdomain => f.write_str("answer that there is no such name to"),
            Answered::Servfail => f.write_str("answer that the server has failed to"),
            Answered::Timeout => f.write_str("leave without an answer"),
            Answered::Wrong(address) => write!(f, "answer {address} to"),
        }
    }
}

/// How a handshake of TLS fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handshake {
    /// It ends with an alert.
    Refused,
    /// A certificate of the right name is shown that nobody has signed whom a caller trusts.
    Untrusted,
    /// The certificate that is given is shown, which has expired, or an authority issues one.
    Expired,
    /// The same of one that is of another name.
    WrongName,
}

/// A certificate that callers trust, and its key; or an authority that they trust, and its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Material {
    /// The certificate, and those that lead to one that callers trust, as PEM.
    pub cert: String,
    /// Its key, as PEM: `"${secret:NAME}"`.
    pub key: String,
    /// Who has signed the dependency's own certificate, as PEM; whom the system trusts without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// `cert` is the certificate of an authority that callers trust, and `key` its key: a certificate is issued for the
    /// name that a caller asks for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub authority: bool,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// Which requests of HTTP: all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Requests {
    /// Their path is like this, where `*` stands for any text and `?` for one character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Their method is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

impl Ailment {
    /// The longest that data is held before it goes on; `None` where it is not held for a time that is asked for.
    pub fn holds_for(&self) -> Option<Period> {
        match self {
            Ailment::Late { delay, jitter, .. } => Some((delay.get() + jitter.get()).into()),
            _ => None,
        }
    }

    /// Whether it happens to lookups of a name, not to connections.
    pub fn is_of_lookups(&self) -> bool {
        matches!(self, Ailment::Lookup { .. })
    }

    /// Whether it happens only to what can be read: requests of HTTP, or handshakes of TLS.
    pub fn is_of_what_is_read(&self) -> bool {
        self.is_of_requests() || matches!(self, Ailment::Handshake(_))
    }

    /// Whether it happens to requests where HTTP is spoken, and else to connections.
    pub fn is_of_either(&self) -> bool {
        matches!(self, Ailment::Late { by_request: true, .. })
    }

    /// Whether it happens to requests of HTTP, not to connections.
    pub fn is_of_requests(&self) -> bool {
        matches!(self, Ailment::Errors { .. } | Ailment::Truncate { .. })
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.method, &self.path) {
            (None, None) => f.write_str("requests"),
            (Some(method), None) => write!(f, "{method} requests"),
            (None, Some(path)) => write!(f, "requests of {path}"),
            (Some(method), Some(path)) => write!(f, "{method} requests of {path}"),
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
            Ailment::Late { delay, jitter, by_request } => {
                write!(f, "delay by {delay}")?;
                if !jitter.is_zero() {
                    write!(f, " ± {jitter}")?;
                }
                f.write_str(if *by_request { ", request by request where HTTP is spoken" } else { "" })
            }
            Ailment::Errors { status, grpc, of, .. } => {
                write!(f, "answer {of} with status {status} (gRPC {grpc})")
            }
            Ailment::Lookup { names, answer } => {
                write!(f, "{answer} lookups of {}", names.first().map_or("", String::as_str))
            }
            Ailment::Handshake(Handshake::Refused) => write!(f, "refuse the handshake of TLS"),
            Ailment::Handshake(Handshake::Untrusted) => write!(f, "show a certificate that nobody trusts"),
            Ailment::Handshake(Handshake::Expired) => write!(f, "show a certificate that has expired"),
            Ailment::Handshake(Handshake::WrongName) => write!(f, "show a certificate of another name"),
            Ailment::Truncate { after, of } => {
                write!(f, "break answers to {of} off after {after} of their body")
            }
        }
    }
}
