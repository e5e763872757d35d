use super::shaping::{chance, shaping};
use super::{Describe, Wrong};
use crate::change::Change;
use crate::impairment::Impairment;
use crate::quantity::Percent;
use crate::scope::Scope;

shaping! {
    /// Packets arrive twice, the copy right behind the first.
    Duplicate {
        /// The share of packets that arrive twice.
        pub percent: Percent,
        /// The correlation between one packet and the next; the share stays what it is.
        #[serde(default)]
        pub correlation: Percent,
    }
}

impl Describe for Duplicate {
    const NAME: &'static str = "duplicate";
    const SUMMARY: &'static str = "packets arrive twice";
    const ENGINE: &'static str =
        "a packet queue in Squall's own nftables table; copies are sent by a raw socket";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str =
        "- fault: { duplicate: { percent: 5%, to: [\"metrics.internal:8125\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
        chance(self.percent, self.correlation, wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let duplicate = Some(chance(self.percent, self.correlation, &mut Wrong::default()));
        vec![self.shape(self.direction, Impairment { duplicate, ..Impairment::default() }, scope)]
    }
}
