use super::bandwidth::{bottleneck, usual_buffer};
use super::shaping::{chance, shaping};
use super::{Describe, Wrong};
use crate::change::Change;
use crate::impairment::{Delay, Distribution, Impairment, LossModel, Reorder};
use crate::quantity::{Bandwidth, Percent, Period};
use crate::scope::Scope;

shaping! {
    /// The network is bad in several ways at once, for the same packets: any of delay, loss, duplication, corruption,
    /// reordering and a line that carries little. Each way (`direction`) is as bad as is written; `latency`, `loss` and
    /// the others have more parameters for one of them.
    Degrade {
        /// How late packets are.
        #[serde(default)]
        pub delay: Period,
        /// How much that varies: half the width of a uniform distribution, the standard deviation of the others.
        #[serde(default)]
        pub jitter: Period,
        /// The shape of the variation.
        #[serde(default)]
        pub distribution: Distribution,
        /// The share of packets that are lost.
        #[serde(default)]
        pub loss: Percent,
        /// The share of packets that arrive twice.
        #[serde(default)]
        pub duplicate: Percent,
        /// The share of packets that arrive with a flipped bit.
        #[serde(default)]
        pub corrupt: Percent,
        /// The share of packets that arrive 10 ms later than the others.
        #[serde(default)]
        pub reorder: Percent,
        /// What the line carries.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub rate: Option<Bandwidth>,
    }
}

impl Degrade {
    fn impairment(&self, wrong: &mut Wrong) -> Impairment {
        let mut some =
            |percent: Percent| (percent.get() > 0.0).then(|| chance(percent, Percent::default(), wrong));
        let loss = some(self.loss).map(LossModel::Random);
        let duplicate = some(self.duplicate);
        let corrupt = some(self.corrupt);
        let late = Period::from_millis(10);
        let reorder = some(self.reorder).map(|chance| Reorder { chance, late });
        let delay = (!self.delay.is_zero() || !self.jitter.is_zero()).then_some(Delay {
            delay: self.delay,
            jitter: self.jitter,
            distribution: self.distribution,
            correlation: Percent::default(),
            reordering: false,
        });
        let bottleneck = bottleneck(self.rate, None, usual_buffer(), wrong);
        Impairment { loss, duplicate, corrupt, bottleneck, delay, reorder }
    }
}

impl Describe for Degrade {
    const NAME: &'static str = "degrade";
    const SUMMARY: &'static str =
        "the network is bad in several ways at once: delay, loss, a thin line and more";
    const ENGINE: &'static str =
        "one packet queue in Squall's own nftables table, or one `netem`, for all of it";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str = "- fault: { degrade: { delay: 80ms, jitter: 20ms, loss: 1%, rate: 5Mbit/s, to: [\"api.internal:443\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
        if self.impairment(wrong) == Impairment::default() {
            let help = "write at least one of `delay`, `jitter`, `loss`, `duplicate`, `corrupt`, `reorder` and `rate`";
            wrong.overall("nothing says how the network is bad", help);
        }
        if self.jitter.is_zero() && self.distribution != Distribution::Uniform {
            let help = "write how much the delay varies, such as `jitter: 10ms`";
            wrong.with("distribution", "without jitter there is no distribution", help);
        }
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        vec![self.shape(self.direction, self.impairment(&mut Wrong::default()), scope)]
    }
}
