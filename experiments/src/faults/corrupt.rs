use super::shaping::{chance, shaping};
use super::{Describe, Wrong};
use crate::change::Change;
use crate::impairment::Impairment;
use crate::quantity::Percent;
use crate::scope::Scope;

shaping! {
    /// Packets arrive with one flipped bit somewhere behind their network header. TCP and UDP find it by their
    /// checksums and throw the packet away: it is loss that is seen in the receiver's error counters.
    Corrupt {
        /// The share of packets that are corrupted.
        pub percent: Percent,
        /// The correlation between one packet and the next; the share stays what it is.
        #[serde(default)]
        pub correlation: Percent,
    }
}

impl Describe for Corrupt {
    const NAME: &'static str = "corrupt";
    const SUMMARY: &'static str = "packets arrive with one flipped bit, which their checksum finds";
    const ENGINE: &'static str = "a packet queue in Squall's own nftables table";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str =
        "- fault: { corrupt: { percent: 1%, to: [\"db.internal:5432\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
        chance(self.percent, self.correlation, wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let corrupt = Some(chance(self.percent, self.correlation, &mut Wrong::default()));
        vec![self.shape(self.direction, Impairment { corrupt, ..Impairment::default() }, scope)]
    }
}
