use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::network;
use super::{Describe, Wrong};
use crate::change::{Block, Change, Verdict};
use crate::flow::{Direction, Flow};
use crate::peer::Peer;
use crate::scope::Scope;

network! {
    /// Connections are refused at once, as when nothing listens; established ones break at their next packet.
    /// A sender of UDP gets an error at once (`EPERM`), and "connection refused" from its next call on. Whom the target
    /// calls (`to`), it sees refuse; who calls the target (`from`) sees the target refuse.
    Refuse {} {
        /// What the caller receives.
        #[serde(default)]
        pub with: RefuseHow,
    }
}

/// What a refused caller receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RefuseHow {
    /// A TCP reset ("connection refused"); ICMP port unreachable for everything but TCP.
    #[default]
    Reset,
    /// ICMP port unreachable ("connection refused").
    PortUnreachable,
    /// ICMP host unreachable ("no route to host").
    HostUnreachable,
    /// ICMP administratively prohibited, as firewalls answer.
    AdminProhibited,
}

impl Describe for Refuse {
    const NAME: &'static str = "refuse";
    const SUMMARY: &'static str = "connections are refused at once, as when nothing listens";
    const ENGINE: &'static str = "nftables reject in Squall's own table, owned by the agent's socket";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str = "- fault: { refuse: { to: [\"db.internal:5432\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
    }

    /// Callers are refused on their way out, called ports on the way in; with a scope alone, both.
    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let verdict = match self.with {
            RefuseHow::Reset => Verdict::Reset,
            RefuseHow::PortUnreachable => Verdict::PortUnreachable,
            RefuseHow::HostUnreachable => Verdict::HostUnreachable,
            RefuseHow::AdminProhibited => Verdict::AdminProhibited,
        };
        let block = |to: &[Peer], from: &[Peer], direction| {
            let flow = Flow { to: to.to_vec(), from: from.to_vec(), ..self.flow(scope) };
            Change::Block(Block { flow, direction, verdict })
        };
        match (self.to.is_empty(), self.from.is_empty()) {
            (true, true) => vec![block(&[], &[], Direction::Both)],
            (false, true) => vec![block(&self.to, &[], Direction::Egress)],
            (true, false) => vec![block(&[], &self.from, Direction::Ingress)],
            (false, false) => {
                vec![block(&self.to, &[], Direction::Egress), block(&[], &self.from, Direction::Ingress)]
            }
        }
    }
}
