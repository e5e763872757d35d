//! Which packets and sockets a network fault concerns.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::peer::{Peer, PeerHost};
use crate::scope::Scope;
use crate::witness::Verify;

/// A set of flows of one host. A packet belongs to it when a peer matches, the protocol matches and its socket is in
/// the scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Flow {
    /// Peers that this host calls: their address and *their* port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Peer>,
    /// Peers that call this host: their address and the *local* port that they come to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Peer>,
    /// Peers left out, read as `to` for who is called and as `from` for who calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Peer>,
    /// Which transport.
    #[serde(default)]
    pub protocol: Protocol,
    /// What becomes of connections that are there when the fault begins.
    #[serde(default)]
    pub established: Established,
    /// How the effect on it is shown.
    #[serde(default, skip_serializing_if = "by_counters")]
    pub verify: Verify,
    /// Whose sockets; `None` is the whole host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

fn by_counters(verify: &Verify) -> bool {
    *verify == Verify::Counters
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// All of them.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6, without neighbour discovery.
    Icmp,
}

/// What becomes of TCP connections that are established when the fault begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Established {
    /// The fault concerns them like new ones.
    #[default]
    Include,
    /// The fault leaves them alone: only connections made later are concerned.
    Keep,
    /// They are reset at once, then the fault concerns whoever comes back.
    Reset,
}

/// Which way packets go, seen from the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// In and out.
    #[default]
    Both,
    /// What leaves the host.
    Egress,
    /// What enters the host.
    Ingress,
}

impl Flow {
    /// The host names among its peers: they must be resolved before it can be aimed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.to.iter().chain(&self.from).chain(&self.except).filter_map(|peer| match &peer.host {
            PeerHost::Name(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether both go to dependencies that are known by names, and by different ones: whether those come to the same
    /// addresses only a host can tell.
    pub fn goes_by_another_name(&self, other: &Flow) -> bool {
        let named = |flow: &Flow| match &flow.to[..] {
            [Peer { host: PeerHost::Name(name), .. }] if flow.from.is_empty() => {
                Some(name.as_str().trim_end_matches('.').to_ascii_lowercase())
            }
            _ => None,
        };
        named(self).zip(named(other)).is_some_and(|(mine, theirs)| mine != theirs)
    }

    /// Whether both could concern the same packet; says yes when it cannot be known without looking at a host.
    pub fn overlaps(&self, other: &Flow) -> bool {
        self.meets(other, &Scope::apart).is_some()
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Both => "both directions",
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        })
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |peers: &[Peer]| peers.iter().map(Peer::to_string).collect::<Vec<_>>().join(", ");
        let mut parts = Vec::new();
        if !self.to.is_empty() {
            parts.push(format!("to {}", list(&self.to)));
        }
        if !self.from.is_empty() {
            parts.push(format!("from {}", list(&self.from)));
        }
        if !self.except.is_empty() {
            parts.push(format!("except {}", list(&self.except)));
        }
        if self.protocol != Protocol::Any {
            parts.push(format!("{:?} only", self.protocol).to_lowercase());
        }
        if let Some(scope) = &self.scope {
            parts.push(format!("of {scope}"));
        }
        match self.established {
            Established::Include => {}
            Established::Keep => parts.push("of new connections".to_owned()),
            Established::Reset => parts.push("after a reset of what is established".to_owned()),
        }
        f.write_str(&parts.join(" "))
    }
}
