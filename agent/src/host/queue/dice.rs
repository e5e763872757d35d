//! What befalls the n-th packet. Pure: depends on the impairment, the seed and n, and on nothing else.
//!
//! Every packet takes the same number of draws whatever comes out, so that what befalls one never shifts the others.

use std::f64::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use squall_experiments::impairment::{Chance, Delay, Distribution, GilbertElliott, Impairment, LossModel};

/// Where the heavy tail of [`Distribution::Pareto`] is cut, in multiples of the smallest value: one packet in a thousand
/// meets it.
const TAIL: f64 = 10.0;

/// What befalls one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// It is lost.
    pub lost: bool,
    /// It arrives twice.
    pub duplicated: bool,
    /// One of its bits is flipped: a number from which to choose which.
    pub corrupted: Option<u64>,
    /// How long it is held, in nanoseconds.
    pub delay: u64,
    /// Others may overtake it.
    pub late: bool,
}

/// The dice of one engine.
#[derive(Debug)]
pub struct Dice {
    random: ChaCha12Rng,
    /// Whether there is anything to choose.
    idle: bool,
    loss: Loss,
    duplicate: Markov,
    corrupt: Markov,
    delay: Option<Spread>,
    reorder: Markov,
    late: u64,
}

/// The draws of one packet, each from 0 (included) to 1 (excluded), by what they are for.
struct Draws {
    turn: f64,
    loss: f64,
    duplicate: f64,
    corrupt: f64,
    bit: u64,
    repeat: f64,
    spread: [f64; 2],
    tail: f64,
    reorder: f64,
}

impl Dice {
    /// Dice for an engine.
    pub fn new(impairment: &Impairment, seed: [u8; 32]) -> Self {
        let mut random = ChaCha12Rng::from_seed(seed);
        let first = Draws::from(&mut random);
        let markov =
            |chance: Option<Chance>, draw| chance.map_or(Markov::never(), |chance| Markov::new(chance, draw));
        let reorder = impairment.reorder;
        Dice {
            random,
            idle: impairment.only_delays() && impairment.delay.is_none_or(|delay| delay.jitter.is_zero()),
            loss: match impairment.loss {
                None => Loss::Random(Markov::never()),
                Some(LossModel::Random(chance)) => Loss::Random(Markov::new(chance, first.loss)),
                Some(LossModel::GilbertElliott(model)) => Loss::Bursts(Bursts::new(model, first.turn)),
            },
            duplicate: markov(impairment.duplicate, first.duplicate),
            corrupt: markov(impairment.corrupt, first.corrupt),
            delay: impairment.delay.map(|delay| Spread { delay, last: None }),
            reorder: markov(reorder.map(|reorder| reorder.chance), first.reorder),
            late: reorder.map_or(0, |reorder| nanos(reorder.late.get())),
        }
    }

    /// What befalls the next packet.
    pub fn next(&mut self) -> Fate {
        let draws = if self.idle { Draws::none() } else { Draws::from(&mut self.random) };
        let late = self.reorder.hits(draws.reorder);
        let delay = self.delay.as_mut().map_or(0, |delay| delay.next(&draws));
        Fate {
            lost: match &mut self.loss {
                Loss::Random(markov) => markov.hits(draws.loss),
                Loss::Bursts(bursts) => bursts.hits(draws.turn, draws.loss),
            },
            duplicated: self.duplicate.hits(draws.duplicate),
            corrupted: self.corrupt.hits(draws.corrupt).then_some(draws.bit),
            delay: delay.saturating_add(if late { self.late } else { 0 }),
            late,
        }
    }

    /// So many packets were not seen: whatever would have befallen them, the next one meets its own fate.
    pub fn skip(&mut self, packets: u32) {
        if !self.idle {
            for _ in 0..packets {
                self.next();
            }
        }
    }
}

impl Draws {
    fn from(random: &mut ChaCha12Rng) -> Self {
        // In one go: packets may come by the hundred thousand a second.
        let mut bytes = [0; 80];
        random.fill_bytes(&mut bytes);
        let (words, _) = bytes.as_chunks();
        let word = |index: usize| u64::from_le_bytes(words[index]);
        let unit = |index| (word(index) >> 11) as f64 / (1u64 << 53) as f64;
        Draws {
            turn: unit(0),
            loss: unit(1),
            duplicate: unit(2),
            corrupt: unit(3),
            bit: word(4),
            repeat: unit(5),
            spread: [unit(6), unit(7)],
            tail: unit(8),
            reorder: unit(9),
        }
    }

    fn none() -> Self {
        Draws {
            turn: 0.5,
            loss: 0.5,
            duplicate: 0.5,
            corrupt: 0.5,
            bit: 0,
            repeat: 0.5,
            spread: [0.5; 2],
            tail: 0.5,
            reorder: 0.5,
        }
    }
}

/// A chance that remembers its last outcome. The share of hits is the chance's whatever the correlation, and the lag-1
/// autocorrelation is the correlation.
#[derive(Debug)]
struct Markov {
    after_hit: f64,
    after_miss: f64,
    hit: bool,
}

impl Markov {
    fn new(chance: Chance, draw: f64) -> Self {
        let (share, correlation) = (chance.percent.fraction(), chance.correlation.fraction());
        Markov {
            after_hit: share + correlation * (1.0 - share),
            after_miss: share * (1.0 - correlation),
            // The packet before the first, so that the first has its share, too.
            hit: draw < share,
        }
    }

    fn never() -> Self {
        Markov { after_hit: 0.0, after_miss: 0.0, hit: false }
    }

    fn hits(&mut self, draw: f64) -> bool {
        self.hit = draw < if self.hit { self.after_hit } else { self.after_miss };
        self.hit
    }
}

#[derive(Debug)]
enum Loss {
    Random(Markov),
    Bursts(Bursts),
}

/// A Gilbert-Elliott channel. Begins good or bad with the shares of the long run.
#[derive(Debug)]
struct Bursts {
    model: GilbertElliott,
    bad: bool,
}

impl Bursts {
    fn new(model: GilbertElliott, draw: f64) -> Self {
        let (p, r) = (model.p.fraction(), model.r.fraction());
        Bursts { model, bad: p > 0.0 && draw < p / (p + r) }
    }

    fn hits(&mut self, turn: f64, loss: f64) -> bool {
        let GilbertElliott { p, r, bad_loss, good_loss } = self.model;
        let lost = loss < if self.bad { bad_loss } else { good_loss }.fraction();
        self.bad ^= turn < if self.bad { r } else { p }.fraction();
        lost
    }
}

/// How late packets are.
#[derive(Debug)]
struct Spread {
    delay: Delay,
    /// The last deviation, in units of the jitter.
    last: Option<f64>,
}

impl Spread {
    fn next(&mut self, draws: &Draws) -> u64 {
        let jitter = nanos(self.delay.jitter.get()) as f64;
        let mean = nanos(self.delay.delay.get());
        if jitter == 0.0 {
            return mean;
        }
        let repeated = self.last.filter(|_| draws.repeat < self.delay.correlation.fraction());
        let deviation = repeated.unwrap_or_else(|| match self.delay.distribution {
            Distribution::Uniform => 2.0 * draws.spread[0] - 1.0,
            Distribution::Normal => normal(draws.spread),
            Distribution::Pareto => pareto(draws.tail),
            // Independent, so that the variances add up; divided by their sum the spread is the jitter again.
            Distribution::ParetoNormal => {
                (0.25 * normal(draws.spread) + 0.75 * pareto(draws.tail)) / 0.25f64.hypot(0.75)
            }
        });
        self.last = Some(deviation);
        // A cast from a float saturates, so that less than nothing becomes nothing.
        (mean as f64 + jitter * deviation) as u64
    }
}

/// Mean 0, standard deviation 1. Source: Box and Muller, "A note on the generation of random normal deviates", 1958.
fn normal([radius, angle]: [f64; 2]) -> f64 {
    (-2.0 * (1.0 - radius).ln()).sqrt() * (TAU * angle).cos()
}

/// Mean 0, standard deviation 1: from 0.66 below the mean to 11.3 above it. A Pareto distribution with exponent 3 and
/// smallest value 1 whose tail is cut at [`TAIL`], where what is beyond it is gathered.
pub(in crate::host) fn pareto(draw: f64) -> f64 {
    let value = (1.0 - draw).powf(-1.0 / 3.0).min(TAIL);
    // The integrals of the surviving share, x^-3, and of 2x times it, from 1 to the cut.
    let mean = 1.0 + (1.0 - TAIL.powi(-2)) / 2.0;
    let square = 3.0 - 2.0 / TAIL;
    (value - mean) / (square - mean * mean).sqrt()
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
