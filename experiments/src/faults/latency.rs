use super::shaping::shaping;
use super::{Describe, Wrong};
use crate::change::Change;
use crate::flow::Direction;
use crate::impairment::{Delay, Distribution, Impairment};
use crate::quantity::{Percent, Period};
use crate::scope::Scope;

shaping! {
    /// Packets are late: the delay is added to every round trip, once. It is applied to what enters the target; with
    /// `direction: both` half of it each way. Plain `ping` does not show what enters late, because it reads the time at
    /// which the kernel received the answer; `ping -U` does.
    Latency {
        /// How much is added to the round trip.
        pub delay: Period,
        /// How much that varies: half the width of a uniform distribution, the standard deviation of the others. What
        /// would come out below zero is no delay. Packets of one connection stay in order, so on a busy connection many
        /// wait for one that is late, and the mean rises.
        #[serde(default)]
        pub jitter: Period,
        /// The shape of the variation.
        #[serde(default)]
        pub distribution: Distribution,
        /// The chance that a packet is exactly as late as the one before it.
        #[serde(default)]
        pub correlation: Percent,
        /// Whether jitter may let the packets of one connection overtake each other, as netem does.
        #[serde(default)]
        pub reordering: bool,
    }
}

impl Describe for Latency {
    const NAME: &'static str = "latency";
    const SUMMARY: &'static str = "packets are late: every round trip takes longer";
    const ENGINE: &'static str =
        "a packet queue in Squall's own nftables table; outbound packets are sent on by a raw socket";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str =
        "- fault: { latency: { delay: 200ms, jitter: 20ms, to: [\"payments.internal:443\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
        if self.delay.is_zero() && self.jitter.is_zero() {
            wrong.with("delay", "a delay of zero does nothing", "write a time such as `100ms`");
        }
        let varies =
            self.reordering || self.distribution != Distribution::Uniform || !self.correlation.is_zero();
        if self.jitter.is_zero() && varies {
            let help = "write how much the delay varies, such as `jitter: 10ms`, or leave the others out";
            wrong.with(
                "jitter",
                "without jitter there is no distribution, no correlation and nothing to reorder",
                help,
            );
        }
        if self.correlation.get() >= 100.0 {
            let help = "write less than `100%`: the chance that a packet is as late as the one before it";
            wrong.with("correlation", "with `100%` the first packet decides for all", help);
        }
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let (ways, share) = match self.direction {
            Direction::Both => ([Direction::Ingress, Direction::Egress].as_slice(), 2),
            Direction::Ingress => ([Direction::Ingress].as_slice(), 1),
            Direction::Egress => ([Direction::Egress].as_slice(), 1),
        };
        let delay = Delay {
            delay: (self.delay.get() / share).into(),
            jitter: (self.jitter.get() / share).into(),
            distribution: self.distribution,
            correlation: self.correlation,
            reordering: self.reordering,
        };
        let impairment = Impairment { delay: Some(delay), ..Impairment::default() };
        ways.iter().map(|way| self.shape(*way, impairment.clone(), scope)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_share_the_delay() {
        let latency = Latency {
            delay: Period::from_millis(100),
            jitter: Period::from_millis(20),
            direction: Direction::Both,
            to: vec!["any".parse().unwrap()],
            ..Latency::default()
        };
        let changes = latency.changes(None);
        let words: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            words,
            [
                "delay by 50ms ± 10ms (uniform) of the packets to any (ingress)",
                "delay by 50ms ± 10ms (uniform) of the packets to any (egress)"
            ]
        );
    }
}
