//! What all faults of traffic have in common: whose packets they concern.

use super::Wrong;
use crate::change::Change;
use crate::flow::Protocol;
use crate::peer::Peer;
use crate::scope::Scope;
use crate::witness::{Effect, SHOWN_LOSS};

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
            /// How the effect is shown. With `probe` the agent also tries connections of its own to the peers, from the
            /// target's side, before and during the fault.
            #[serde(default)]
            pub verify: crate::witness::Verify,
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
                if self.verify == crate::witness::Verify::Probe {
                    let changes = <Self as super::Describe>::changes(self, scope);
                    super::network::can_be_probed(&changes, self.protocol, wrong);
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
                    verify: self.verify,
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

/// A probe must be able to show the effect: with connection attempts and pings, some hundred of them.
pub(super) fn can_be_probed(changes: &[Change], protocol: Protocol, wrong: &mut Wrong) {
    let help = "leave `verify` out: the counters show the effect";
    if protocol == Protocol::Udp {
        wrong.with("verify", "UDP cannot be probed without sending data to strangers", help);
    }
    for effect in changes.iter().map(Effect::of) {
        match effect {
            None => return wrong.with("verify", "single small packets do not show this fault", help),
            Some(Effect::Lost(share)) if share < SHOWN_LOSS => {
                let least = SHOWN_LOSS * 100.0;
                let what = format!("a loss of less than {least}% is not shown by some hundred probes");
                return wrong.with("verify", what, help);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bandwidth, Describe, Latency, Loss, Partition};
    use super::*;
    use crate::quantity::Period;
    use crate::witness::Verify;

    fn wrong(fault: &impl Describe) -> Vec<String> {
        let mut wrong = Wrong::default();
        fault.check(None, &mut wrong);
        wrong.into_findings().into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn only_what_a_probe_can_show_is_probed() {
        let to = || vec!["10.0.0.7:443".parse().unwrap()];
        let verify = Verify::Probe;
        let loss = |percent: &str| Loss {
            percent: Some(percent.parse().unwrap()),
            to: to(),
            verify,
            ..Loss::default()
        };
        assert!(wrong(&loss("5%")).is_empty());
        assert_eq!(wrong(&loss("4.9%")), ["a loss of less than 5% is not shown by some hundred probes"]);
        let latency = Latency { delay: Period::from_millis(5), to: to(), verify, ..Latency::default() };
        assert!(wrong(&latency).is_empty());
        let udp = Partition { protocol: Protocol::Udp, to: to(), verify, ..Partition::default() };
        assert_eq!(wrong(&udp), ["UDP cannot be probed without sending data to strangers"]);
        let line =
            Bandwidth { rate: Some("5Mbit/s".parse().unwrap()), to: to(), verify, ..Bandwidth::default() };
        assert_eq!(wrong(&line)[0], "single small packets do not show this fault");
    }
}
