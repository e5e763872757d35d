use super::shaping::shaping;
use super::{Describe, Wrong};
use crate::change::Change;
use crate::impairment::{Bottleneck, Impairment};
use crate::quantity::{Bandwidth as Rate, Period, Size};
use crate::scope::Scope;

shaping! {
    /// The line carries little: what comes faster waits, and what would wait too long is lost, as in a full router. All
    /// packets of the fault share one line; with `direction: both` there is one each way.
    Bandwidth {
        /// What the line carries, of IP packets without what the link adds.
        #[schemars(required)]
        pub rate: Option<Rate>,
        /// How much may pass at once after a pause. Without it, what the line carries in 10 ms, at least `16kB`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub burst: Option<Size>,
        /// The longest that a packet waits for its turn: what would wait longer is lost.
        #[serde(default = "usual_buffer")]
        pub buffer: Period,
    }
}

/// What many routers hold.
pub(super) fn usual_buffer() -> Period {
    Period::from_millis(200)
}

/// The line, where its parameters are right.
pub(super) fn bottleneck(
    rate: Option<Rate>,
    burst: Option<Size>,
    buffer: Period,
    wrong: &mut Wrong,
) -> Option<Bottleneck> {
    /// One packet of any link, or a few of an Ethernet.
    const LEAST_BURST: u64 = 16_000;
    let usual = |rate: Rate| rate.within(std::time::Duration::from_millis(10)).max(LEAST_BURST);
    let rate = rate?;
    if burst.is_some_and(|burst| burst.bytes() < 1500) {
        wrong.with("burst", "a burst below one packet (1500B) lets nothing pass", "write at least `1500B`");
    }
    if buffer.is_zero() {
        wrong.with("buffer", "without a buffer nearly everything is lost", "write a time such as `200ms`");
    }
    let burst = burst.unwrap_or_else(|| Size::from_bytes(usual(rate)));
    Some(Bottleneck { rate, burst, buffer })
}

impl Describe for Bandwidth {
    const NAME: &'static str = "bandwidth";
    const SUMMARY: &'static str = "the line carries little: what comes faster waits, or is lost";
    const ENGINE: &'static str = "a token bucket in Squall's own packet engine, or `htb` where the kernel's queueing disciplines are used";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str =
        "- fault: { bandwidth: { rate: 1Mbit/s, to: [\"storage.internal:9000\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
        if self.rate.is_none() {
            wrong.with("rate", "nothing says what the line carries", "write a bandwidth such as `10Mbit/s`");
        }
        bottleneck(self.rate, self.burst, self.buffer, wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let bottleneck = bottleneck(self.rate, self.burst, self.buffer, &mut Wrong::default());
        vec![self.shape(self.direction, Impairment { bottleneck, ..Impairment::default() }, scope)]
    }
}
