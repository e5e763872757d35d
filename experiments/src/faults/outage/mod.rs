mod check;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Describe, Wrong};
use crate::ailment::{Ailment, Answered, Handshake, Material, Requests};
use crate::change::{Block, Change, Redirect, Verdict};
use crate::flow::{Direction, Established, Flow, Protocol};
use crate::peer::{Peer, PeerHost, Ports};
use crate::quantity::{Bandwidth, Percent, Period, Size};
use crate::scope::Scope;

/// A dependency is out, in a way that its callers know from production. `refuse` and `blackhole` are the same as the faults
/// `refuse` and `partition`, done by the kernel alone. For all others the target's new connections to the dependency are led
/// through a proxy of Squall's on the same host, which is told what to do to them; the target sees the address that it asked
/// for. Connections that are there already cannot be led there: they are kept, or reset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outage {
    /// The dependency that the target calls, with its port: `payments.internal:443`.
    pub of: Peer,
    /// What is wrong with it.
    pub how: How,
    /// For `reset`, `hang` and `close-early`: so many bytes of the dependency's answers pass before, on each connection;
    /// for `truncate`: so many of the body of each answer. Without it none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Size>,
    /// For `slow`: how fast answers come, on each connection, in whole kilobytes (1000 bytes) a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Bandwidth>,
    /// For `latency` and `brownout`: how late answers come, in whole milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Period>,
    /// For `latency` and `brownout`: how much that varies, evenly to both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Period>,
    /// For `errors`: the status that is answered, from 200 to 599; 503 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// For `errors`: the status of gRPC, from 1 to 16, that calls of gRPC are answered with instead; 14 (unavailable)
    /// without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u16>,
    /// For `errors`: the body of the answer, a text; none without it. For gRPC it is the message of the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// For `errors` and `truncate`: only requests whose path is like this, where `*` stands for any text and `?` for one
    /// character: `/pay/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// For `errors` and `truncate`: only requests with this method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// For `tls`: `refused`, the handshake ends with an alert. It needs no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Refused>,
    /// For `tls`: what is wrong with the certificate that is shown. `untrusted` needs none; the others show the one that is
    /// given in `tls`, which must have expired, or be of another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// For `dns`: what lookups of the name are answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Lookup>,
    /// For `dns`, instead of `answer`: the address that lookups of the name are answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<IpAddr>,
    /// A certificate and its key. For `errors` and `truncate`: one that callers trust, so that requests inside TLS can be
    /// read; for `certificate`: the one that is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Material>,
    /// For `errors` and `truncate` at port 443, without `tls`: the dependency speaks HTTP there that is not inside TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
    /// Which share of the connections is concerned, for `errors` and `truncate` of the requests, for `brownout` of the
    /// requests where HTTP is spoken in plain text and else of the connections, drawn with the run's seed; the others pass
    /// through the proxy unharmed. `refuse` and `blackhole` concern all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Percent>,
    /// What becomes of TCP connections that are there when the fault begins: `include` is usual for `refuse` and `blackhole`,
    /// `keep` for all others, which cannot include them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established: Option<Established>,
}

/// What is wrong with a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It refuses connections at once, as when nothing listens.
    Refuse,
    /// Nothing comes back from it: connections hang until somebody's time-out.
    Blackhole,
    /// It resets the connection when it begins to answer, or in the middle of an answer (`after`).
    Reset,
    /// It accepts the connection and never answers, or stops in the middle of an answer (`after`).
    Hang,
    /// It answers slowly (`rate`).
    Slow,
    /// It closes the connection instead of answering, or in the middle of an answer (`after`).
    CloseEarly,
    /// It answers late (`delay`).
    Latency,
    /// Some of it is overloaded: a share (`share`) of the requests, or of the connections where no HTTP is spoken in plain
    /// text, is answered late (`delay`).
    Brownout,
    /// It answers requests of HTTP, in versions 1.1 and 2, with an error (`status`); inside TLS only with `tls`.
    Errors,
    /// Its answers of HTTP break off in their body (`after`), with the length promised.
    Truncate,
    /// Its handshakes of TLS fail (`handshake`, `certificate`).
    Tls,
    /// Lookups of its name go wrong (`answer`, `wrong`); `of` is the name, without a port.
    Dns,
}

/// What the lookup of a name is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Lookup {
    /// There is no such name.
    Nxdomain,
    /// The server could not find out.
    Servfail,
    /// Nothing.
    Timeout,
}

/// What becomes of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// It ends with an alert.
    Refused,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Certificate {
    /// Nobody has signed it whom callers trust; it is made by the agent, for the name that is asked for.
    Untrusted,
    /// It has expired.
    Expired,
    /// It is of another name.
    WrongName,
}

impl How {
    /// Whether the kernel does it alone.
    fn is_kernels(self) -> bool {
        matches!(self, How::Refuse | How::Blackhole)
    }

    fn breaks_off(self) -> bool {
        matches!(self, How::Reset | How::Hang | How::CloseEarly | How::Truncate)
    }

    /// Whether it happens to requests of HTTP.
    fn is_of_requests(self) -> bool {
        matches!(self, How::Errors | How::Truncate)
    }

    fn is_late(self) -> bool {
        matches!(self, How::Latency | How::Brownout)
    }
}

/// The port of name servers (RFC 1035).
const DNS: u16 = 53;
/// "Service Unavailable" (RFC 9110 section 15.6.4).
const UNAVAILABLE: u16 = 503;
/// "UNAVAILABLE" (gRPC, "Status codes and their use in gRPC").
const GRPC_UNAVAILABLE: u16 = 14;

impl Outage {
    fn flow(&self, scope: Option<&Scope>) -> Flow {
        let usual = if self.how.is_kernels() { Established::Include } else { Established::Keep };
        // Whom the target asks for names only its host knows.
        let servers = Peer { host: PeerHost::Any, ports: Some(Ports { first: DNS, last: DNS }) };
        let to = if self.how == How::Dns { servers } else { self.of.clone() };
        Flow {
            to: vec![to],
            protocol: if self.how.is_kernels() || self.how == How::Dns {
                Protocol::Any
            } else {
                Protocol::Tcp
            },
            established: self.established.unwrap_or(usual),
            scope: scope.cloned(),
            ..Flow::default()
        }
    }

    fn requests(&self) -> Requests {
        Requests { path: self.path.clone(), method: self.method.clone() }
    }

    fn ailment(&self) -> Option<Ailment> {
        let after = self.after.unwrap_or(Size::from_bytes(0));
        Some(match self.how {
            How::Refuse | How::Blackhole => return None,
            How::Reset => Ailment::Reset { after },
            How::Hang => Ailment::Hang { after },
            How::CloseEarly => Ailment::Close { after },
            How::Slow => Ailment::Slow { rate: self.rate? },
            How::Latency | How::Brownout => {
                let (delay, jitter) = (self.delay?, self.jitter.unwrap_or(Period::ZERO));
                Ailment::Late { delay, jitter, by_request: self.how == How::Brownout }
            }
            How::Errors => Ailment::Errors {
                status: self.status.unwrap_or(UNAVAILABLE),
                grpc: self.grpc_status.unwrap_or(GRPC_UNAVAILABLE),
                body: self.body.clone().unwrap_or_default(),
                of: self.requests(),
            },
            How::Dns => Ailment::Lookup {
                names: vec![self.of.host.to_string()],
                answer: match (self.answer, self.wrong) {
                    (_, Some(address)) => Answered::Wrong(address),
                    (Some(Lookup::Nxdomain), None) => Answered::Nxdomain,
                    (Some(Lookup::Timeout), None) => Answered::Timeout,
                    (Some(Lookup::Servfail) | None, None) => Answered::Servfail,
                },
            },
            How::Tls => Ailment::Handshake(match (self.handshake, self.certificate) {
                (Some(Refused::Refused), _) => Handshake::Refused,
                (None, Some(Certificate::Expired)) => Handshake::Expired,
                (None, Some(Certificate::WrongName)) => Handshake::WrongName,
                (None, _) => Handshake::Untrusted,
            }),
            How::Truncate => Ailment::Truncate { after, of: self.requests() },
        })
    }
}

impl Describe for Outage {
    const NAME: &'static str = "outage";
    const SUMMARY: &'static str = "a dependency is out: it refuses, hangs, resets, closes, is slow or late, answers with errors, fails at TLS, or its name does not resolve";
    const ENGINE: &'static str = "`refuse` and `blackhole`: nftables, as `refuse` and `partition`; all others: a BPF program on \
                                  connect(2), for `dns` also on sendmsg(2), that leads new connections to a proxy without privileges; both are gone when the \
                                  agent dies";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str = "- fault: { outage: { of: \"payments.internal:443\", how: hang } }\n  in: { unit: \
                                   checkout.service }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        if self.of.host == PeerHost::Any {
            wrong.with("of", "`any` is not one dependency", "name it: `payments.internal:443`");
        } else if !self.how.is_kernels() {
            self.check_redirect(scope, wrong);
        }
        self.check_parameters(wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let flow = self.flow(scope);
        let block = |flow, direction, verdict| vec![Change::Block(Block { flow, direction, verdict })];
        match (self.how, self.ailment()) {
            (How::Refuse, _) => block(flow, Direction::Egress, Verdict::Reset),
            (How::Blackhole, _) => block(flow, Direction::Both, Verdict::Drop),
            (_, Some(ailment)) => {
                let share = self.share.unwrap_or(Percent::ALL);
                vec![Change::Redirect(Redirect { flow, ailment, share, tls: self.tls.clone() })]
            }
            (_, None) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
