//! What a bad network does to packets: delay, loss, duplication, corruption, reordering.
//!
//! Every share is the long-run share, with correlation and in bursts too: where netem's `correlation` changes how much
//! is lost, here it only changes which packets are.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Bandwidth, Percent, Period, Size};

/// Packets a second that a backlog is sized for.
const EXPECTED_RATE: u32 = 50_000;
/// A smaller backlog would overflow at the first burst.
const FEWEST_HELD: u32 = 4096;
/// What a host can hold without harm: about 150 MB of full-sized packets.
pub const MOST_HELD: u32 = 65_536;

/// What is done to the packets of one flow, in this order: lose, duplicate, corrupt, wait for the bottleneck, delay or
/// reorder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Impairment {
    /// Some are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossModel>,
    /// Some arrive twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Chance>,
    /// Some have one bit flipped, behind their network header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Chance>,
    /// All share a line that carries little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck: Option<Bottleneck>,
    /// All are late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Some are overtaken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
}

/// Which packets: a share, and how much each resembles the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Chance {
    /// The share of packets.
    pub percent: Percent,
    /// The correlation between one packet and the next (lag 1); the share stays what it is.
    #[serde(default)]
    pub correlation: Percent,
}

/// How packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossModel {
    /// Each with the same chance.
    Random(Chance),
    /// In bursts.
    GilbertElliott(GilbertElliott),
}

/// A network that is well or bad for a while: a Markov chain with two states, asked once for every packet.
///
/// Source: Gilbert, "Capacity of a burst-noise channel", 1960; Elliott, "Estimates of error rates for codes on
/// burst-noise channels", 1963. netem calls it `gemodel p r 1-h 1-k`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GilbertElliott {
    /// The chance, at each packet, that a good network turns bad.
    pub p: Percent,
    /// The chance, at each packet, that a bad network turns good: bursts last `100 / r` packets on average.
    pub r: Percent,
    /// The share that is lost while the network is bad (1-h).
    #[serde(default = "everything")]
    pub bad_loss: Percent,
    /// The share that is lost while the network is good (1-k).
    #[serde(default)]
    pub good_loss: Percent,
}

fn everything() -> Percent {
    Percent::ALL
}

/// A line with little bandwidth in front of which packets wait: a token bucket with a first-in first-out queue.
///
/// Sizes are those of IP packets, without what the link adds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bottleneck {
    /// What the line carries.
    pub rate: Bandwidth,
    /// How much may pass at once after a pause.
    pub burst: Size,
    /// The longest that a packet waits for its turn: what would wait longer is lost, as in a full router.
    pub buffer: Period,
}

/// How late packets are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Delay {
    /// The mean, as long as `jitter` is not more than it.
    pub delay: Period,
    /// The spread: half the width of a uniform distribution, the standard deviation of the others.
    #[serde(default)]
    pub jitter: Period,
    /// The shape of the spread.
    #[serde(default)]
    pub distribution: Distribution,
    /// The chance that a packet is exactly as late as the one before it.
    #[serde(default)]
    pub correlation: Percent,
    /// Whether jitter may let packets of one connection overtake each other.
    #[serde(default)]
    pub reordering: bool,
}

/// The shape of a delay's spread. Negative delays are cut to zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Everything within `delay` ± `jitter` is equally likely.
    #[default]
    Uniform,
    /// The bell curve.
    Normal,
    /// Mostly a little early, sometimes very late: a heavy tail with exponent 3.
    Pareto,
    /// A quarter `normal`, three quarters `pareto`: the shape of many measured networks.
    ParetoNormal,
}

/// Which packets are overtaken, and by how much they are late.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reorder {
    /// Which.
    pub chance: Chance,
    /// How much later than the others they arrive: what comes within this time overtakes them.
    pub late: Period,
}

impl Impairment {
    /// What the fault is called that does only this; several at once are `degrade`.
    pub fn fault(&self) -> &'static str {
        let Impairment { loss, duplicate, corrupt, bottleneck, delay, reorder } = self;
        let all = [
            ("loss", loss.is_some()),
            ("duplicate", duplicate.is_some()),
            ("corrupt", corrupt.is_some()),
            ("bandwidth", bottleneck.is_some()),
            ("latency", delay.is_some()),
            ("reorder", reorder.is_some()),
        ];
        let mut asked = all.into_iter().filter_map(|(name, asked)| asked.then_some(name));
        match (asked.next(), asked.next()) {
            (Some(one), None) => one,
            _ => "degrade",
        }
    }

    /// Whether packets are only held, never lost or altered.
    pub fn only_delays(&self) -> bool {
        self.loss.is_none()
            && self.duplicate.is_none()
            && self.corrupt.is_none()
            && self.reorder.is_none()
            && self.bottleneck.is_none()
    }

    /// Whether packets are held.
    pub fn holds(&self) -> bool {
        self.delay.is_some() || self.reorder.is_some() || self.bottleneck.is_some()
    }

    /// How many packets the engine holds at most, without another wish: twice what arrives at 50,000 packets a second while
    /// the slowest is held.
    pub fn backlog(&self) -> u32 {
        let packets = self.longest().get().as_secs_f64() * 2.0 * f64::from(EXPECTED_RATE);
        (packets as u32).clamp(FEWEST_HELD, MOST_HELD)
    }

    /// The longest that a packet is usually held: the mean and four times the spread.
    pub fn longest(&self) -> Period {
        let delay = self.delay.map_or(std::time::Duration::ZERO, |delay| {
            let spread = if delay.distribution == Distribution::Uniform { 1 } else { 4 };
            delay.delay.get() + delay.jitter.get() * spread
        });
        let late = self.reorder.map_or(std::time::Duration::ZERO, |reorder| reorder.late.get());
        let wait = self.bottleneck.map_or(std::time::Duration::ZERO, |line| line.buffer.get());
        (delay + late + wait).into()
    }
}

impl LossModel {
    /// The share of packets that is lost in the long run, from 0 to 1.
    pub fn share(&self) -> f64 {
        match self {
            LossModel::Random(chance) => chance.percent.fraction(),
            LossModel::GilbertElliott(GilbertElliott { p, r, bad_loss, good_loss }) => {
                let turns = p.get() + r.get();
                let bad = if turns == 0.0 { 0.0 } else { p.get() / turns };
                bad * bad_loss.fraction() + (1.0 - bad) * good_loss.fraction()
            }
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Distribution::Uniform => "uniform",
            Distribution::Normal => "normal",
            Distribution::Pareto => "pareto",
            Distribution::ParetoNormal => "paretonormal",
        })
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.percent)?;
        if self.correlation.get() > 0.0 {
            write!(f, " (correlation {})", self.correlation)?;
        }
        Ok(())
    }
}

impl fmt::Display for LossModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LossModel::Random(chance) => write!(f, "{chance}"),
            LossModel::GilbertElliott(GilbertElliott { p, r, bad_loss, good_loss }) => write!(
                f,
                "in bursts (Gilbert-Elliott p {p}, r {r}, loses {bad_loss} while bad and {good_loss} while good)"
            ),
        }
    }
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit to {} (bursts of {}, waiting at most {})", self.rate, self.burst, self.buffer)
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(loss) = &self.loss {
            parts.push(format!("lose {loss}"));
        }
        if let Some(chance) = &self.duplicate {
            parts.push(format!("duplicate {chance}"));
        }
        if let Some(chance) = &self.corrupt {
            parts.push(format!("corrupt {chance}"));
        }
        if let Some(line) = &self.bottleneck {
            parts.push(line.to_string());
        }
        if let Some(delay) = &self.delay {
            let mut text = format!("delay by {}", delay.delay);
            if !delay.jitter.is_zero() {
                text += &format!(" ± {} ({})", delay.jitter, delay.distribution);
            }
            if delay.correlation.get() > 0.0 {
                text += &format!(", correlation {}", delay.correlation);
            }
            if delay.reordering {
                text += ", in any order";
            }
            parts.push(text);
        }
        if let Some(reorder) = &self.reorder {
            parts.push(format!("let {} arrive {} late", reorder.chance, reorder.late));
        }
        f.write_str(&parts.join(", "))
    }
}
