use super::shaping::{chance, shaping};
use super::{Describe, Wrong};
use crate::change::Change;
use crate::impairment::{self, Impairment};
use crate::quantity::{Percent, Period};
use crate::scope::Scope;

shaping! {
    /// Some packets arrive late and are overtaken by those behind them; the others are not delayed.
    Reorder {
        /// The share of packets that are late.
        pub percent: Percent,
        /// How late they are: what comes within this time overtakes them.
        #[serde(default = "ten_milliseconds")]
        pub late: Period,
        /// The correlation between one packet and the next; the share stays what it is.
        #[serde(default)]
        pub correlation: Percent,
    }
}

fn ten_milliseconds() -> Period {
    Period::from_millis(10)
}

impl Describe for Reorder {
    const NAME: &'static str = "reorder";
    const SUMMARY: &'static str = "some packets arrive late and are overtaken by those behind them";
    const ENGINE: &'static str =
        "a packet queue in Squall's own nftables table; outbound packets are sent on by a raw socket";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str =
        "- fault: { reorder: { percent: 10%, late: 20ms, to: [\"10.0.0.7:5432\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
        chance(self.percent, self.correlation, wrong);
        if self.late.is_zero() {
            wrong.with("late", "a packet that is not late is not overtaken", "write a time such as `10ms`");
        }
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let chance = chance(self.percent, self.correlation, &mut Wrong::default());
        let reorder = Some(impairment::Reorder { chance, late: self.late });
        vec![self.shape(self.direction, Impairment { reorder, ..Impairment::default() }, scope)]
    }
}
