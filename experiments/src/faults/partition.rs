use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Describe, Wrong, flow, needs_traffic, ports_fit};
use crate::change::{Block, Change, Verdict};
use crate::flow::{Direction, Protocol};
use crate::peer::Peer;
use crate::scope::Scope;

/// Packets to and from peers vanish: connections hang until somebody's time-out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Partition {
    /// Peers that the target calls, with their port: `payments.internal:443`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub to: Vec<Peer>,
    /// Peers that call the target, with the local port that they come to: `10.0.0.0/8:8080`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub from: Vec<Peer>,
    /// Which way packets vanish.
    #[serde(default)]
    pub direction: Direction,
    /// Which transport.
    #[serde(default)]
    pub protocol: Protocol,
}

impl Describe for Partition {
    const NAME: &'static str = "partition";
    const SUMMARY: &'static str =
        "packets to and from peers vanish: connections hang until somebody's time-out";
    const ENGINE: &'static str = "nftables drop in Squall's own table, owned by the agent's socket";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str = "- fault: { partition: { to: [\"payments.internal:443\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        needs_traffic(&self.to, &self.from, scope, wrong);
        ports_fit(self.protocol, &self.to, &self.from, scope, wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let flow = flow(&self.to, &self.from, self.protocol, scope);
        vec![Change::Block(Block { flow, direction: self.direction, verdict: Verdict::Drop })]
    }
}
