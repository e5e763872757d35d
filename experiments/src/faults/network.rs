//! What all faults of traffic have in common: whose packets they concern.

use super::Wrong;
use crate::flow::Protocol;
use crate::peer::Peer;
use crate::scope::Scope;

/// Makes the struct of a network fault: its own parameters, those that say whose packets, and further ones.
macro_rules! network {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* } { $($more:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name {
            $($own)*
            /// Peers that the target calls, with their port: `payments.internal:443`.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1))]
            pub to: Vec<crate::peer::Peer>,
            /// Peers that call the target, with the local port that they come to: `10.0.0.0/8:8080`.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1))]
            pub from: Vec<crate::peer::Peer>,
            /// Peers that are left out, read as `to` for who is called and as `from` for who calls.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1))]
            pub except: Vec<crate::peer::Peer>,
            /// Which transport.
            #[serde(default)]
            pub protocol: crate::flow::Protocol,
            /// What becomes of TCP connections that are there when the fault begins.
            #[serde(default)]
            pub established: crate::flow::Established,
            $($more)*
        }

        impl $name {
            /// What every fault of traffic must have right.
            fn check_traffic(&self, scope: Option<&crate::scope::Scope>, wrong: &mut super::Wrong) {
                super::network::names_traffic(&self.to, &self.from, scope, wrong);
                super::network::ports_fit(self.protocol, [&self.to, &self.from, &self.except], scope, wrong);
                if self.protocol == crate::flow::Protocol::Udp || self.protocol == crate::flow::Protocol::Icmp {
                    super::network::has_connections(self.established, wrong);
                }
            }

            /// Whose packets.
            fn flow(&self, scope: Option<&crate::scope::Scope>) -> crate::flow::Flow {
                crate::flow::Flow {
                    to: self.to.clone(),
                    from: self.from.clone(),
                    except: self.except.clone(),
                    protocol: self.protocol,
                    established: self.established,
                    scope: scope.cloned(),
                }
            }
        }
    };
}
pub(super) use network;

/// A network fault names its traffic: peers, or a scope, or both.
pub(super) fn names_traffic(to: &[Peer], from: &[Peer], scope: Option<&Scope>, wrong: &mut Wrong) {
    if to.is_empty() && from.is_empty() && scope.is_none() {
        wrong.overall(
            "nothing says whose traffic is meant",
            "name peers with `to:` or `from:` (everything is spelt `to: [any]`), or a scope with `in:`",
        );
    }
}

/// ICMP has no ports.
pub(super) fn ports_fit(protocol: Protocol, peers: [&[Peer]; 3], scope: Option<&Scope>, wrong: &mut Wrong) {
    let ported = peers.into_iter().flatten().find(|peer| peer.ports.is_some()).map(Peer::to_string);
    let ported = ported.or_else(|| match scope {
        Some(Scope::Port(port)) => Some(format!("port: {port}")),
        _ => None,
    });
    if let (Protocol::Icmp, Some(ported)) = (protocol, ported) {
        let what = format!("ICMP has no ports, so `{ported}` would match nothing");
        wrong.with("protocol", what, "leave the port or the protocol out");
    }
}

/// Only TCP has established connections.
pub(super) fn has_connections(established: crate::flow::Established, wrong: &mut Wrong) {
    if established != crate::flow::Established::Include {
        let what = "this protocol has no connections that could be established";
        wrong.with("established", what, "leave it out, or write `protocol: tcp`");
    }
}
