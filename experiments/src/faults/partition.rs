use super::network::network;
use super::{Describe, Wrong};
use crate::change::{Block, Change, Verdict};
use crate::flow::Direction;
use crate::scope::Scope;

network! {
    /// Packets to and from peers vanish: connections hang until somebody's time-out.
    Partition {} {
        /// Which way packets vanish.
        #[serde(default)]
        pub direction: Direction,
    }
}

impl Describe for Partition {
    const NAME: &'static str = "partition";
    const SUMMARY: &'static str =
        "packets to and from peers vanish: connections hang until somebody's time-out";
    const ENGINE: &'static str = "nftables drop in Squall's own table, owned by the agent's socket";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str = "- fault: { partition: { to: [\"payments.internal:443\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let flow = self.flow(scope);
        vec![Change::Block(Block { flow, direction: self.direction, verdict: Verdict::Drop })]
    }
}
