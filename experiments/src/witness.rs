//! Whether a fault is felt: what probes of Squall's own, and connections that were there, show of it.
//!
//! Counters say what a rule did to the packets that it met. A probe asks from the target's side, and so also finds out
//! where traffic goes that the rule does not meet.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::change::{Change, Verdict};

/// How the effect of a fault is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// By the counters of the rules and the engine that do it.
    #[default]
    Counters,
    /// By those, and by connection attempts of the agent's own to the peers, before and during the fault.
    Probe,
}

/// The smallest share of lost packets that some hundred attempts show for certain, from 0 to 1.
pub const SHOWN_LOSS: f64 = 0.05;

/// What a probe meets while a change is live.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// No answer.
    Silence,
    /// No answer, or a refusal.
    Refusal,
    /// An answer that is so many microseconds later on average.
    Later(u64),
    /// No answer to a share of the attempts, at least.
    Lost(f64),
}

impl Effect {
    /// What a probe would meet; `None` where single small packets show nothing.
    pub fn of(change: &Change) -> Option<Effect> {
        match change {
            Change::Block(block) if block.verdict == Verdict::Drop => Some(Effect::Silence),
            Change::Block(_) => Some(Effect::Refusal),
            Change::Shape(shape) => {
                let delay = shape.impairment.delay.map_or(0, |delay| delay.delay.get().as_micros() as u64);
                let lost = shape.impairment.loss.map(|loss| Effect::Lost(loss.share()));
                if delay > 0 { Some(Effect::Later(delay)) } else { lost }
            }
            Change::Redirect(_) | Change::Disconnect(_) | Change::Signal(_) | Change::Pause(_) => None,
        }
    }
}

/// What became of attempts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Looks {
    /// How many ended: answered, refused or without an answer in time.
    pub tried: u32,
    /// How many were answered.
    pub answered: u32,
    /// How many were refused by somebody.
    pub refused: u32,
    /// The median time to an answer or a refusal, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_us: Option<u64>,
}

/// What the kernel knows of connections that were there when the fault began (`tcp_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Connections {
    /// How many there were.
    pub before: u32,
    /// How many of them are still there.
    pub during: u32,
    /// The median of their smoothed round-trip times before, in microseconds.
    pub rtt_before_us: u64,
    /// The same while the fault was live.
    pub rtt_during_us: u64,
    /// How many segments they have sent again since.
    pub sent_again: u64,
}

/// What can be said of an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// It was felt.
    Yes,
    /// It was not, although it would have been.
    No,
    /// Neither can be said.
    #[default]
    Unknown,
}

/// What was asked and seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Testimony {
    /// Who was asked, and how: `TCP 10.0.0.7:443`, `ping 10.0.0.7`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
    /// Before the fault.
    pub before: Looks,
    /// While it was live.
    pub during: Looks,
    /// Connections that were there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Whether the effect was felt.
    pub shown: Shown,
    /// Why, a lowercase fragment with figures.
    pub why: String,
}

impl Testimony {
    /// The same, judged. Attempts decide; where none could be made, connections do.
    pub fn judged(self, effect: Effect) -> Self {
        let (shown, why) = match self.asked.is_empty() {
            true => self.by_connections(effect),
            false => self.by_attempts(effect),
        };
        Testimony { shown, why, ..self }
    }

    fn noun(&self) -> &'static str {
        let pings = self.asked.iter().filter(|asked| asked.starts_with("ping")).count();
        match pings {
            0 => "a probe connection",
            all if all == self.asked.len() => "a probe ping",
            _ => "a probe",
        }
    }

    fn by_attempts(&self, effect: Effect) -> (Shown, String) {
        let (noun, before, during) = (self.noun(), &self.before, &self.during);
        let Some(took) = before.median_us else {
            let asked = self.asked.join(", ");
            return (Shown::Unknown, format!("{noun} had no answer even before the fault ({asked})"));
        };
        let took = millis(took);
        if during.tried == 0 {
            return (
                Shown::Unknown,
                format!("{noun} took {took} before, and none had ended during the fault"),
            );
        }
        let reached = during.answered + during.refused;
        match effect {
            Effect::Silence | Effect::Refusal if effect == Effect::Refusal && before.answered == 0 => {
                (Shown::Unknown, format!("{noun} was refused even before the fault"))
            }
            Effect::Silence | Effect::Refusal => {
                let passed = if effect == Effect::Silence { reached } else { during.answered };
                let how = match (effect, during.refused) {
                    (Effect::Refusal, 1..) => format!(", {} refused", during.refused),
                    _ => String::new(),
                };
                let shown = if passed == 0 { Shown::Yes } else { Shown::No };
                let count = match passed {
                    0 => format!("none of {}", during.tried),
                    passed => format!("{passed} of {}", during.tried),
                };
                (shown, format!("{noun} took {took} before; {count} got through during{how}"))
            }
            Effect::Later(by) => match during.median_us {
                None => (
                    Shown::Unknown,
                    format!("{noun} took {took} before, and none was answered in time during"),
                ),
                Some(now) => {
                    let late = now >= before.median_us.unwrap_or(0) + by / 2;
                    let shown = if late { Shown::Yes } else { Shown::No };
                    (shown, format!("{noun} took {took} before and {} during", millis(now)))
                }
            },
            Effect::Lost(share) => {
                let lost = during.tried - reached;
                let counts = format!("{lost} of {} probes were lost during", during.tried);
                let lost_before = before.tried - before.answered - before.refused;
                if lost_before > 0 {
                    (Shown::Unknown, format!("{counts}, and {lost_before} of {} before", before.tried))
                } else if lost > 0 {
                    (Shown::Yes, counts)
                } else if (1.0 - share).powi(i32::try_from(during.tried).unwrap_or(i32::MAX)) < UNLIKELY {
                    (Shown::No, counts)
                } else {
                    (
                        Shown::Unknown,
                        format!("{counts}, and more are needed to tell: let the fault last longer"),
                    )
                }
            }
        }
    }

    fn by_connections(&self, effect: Effect) -> (Shown, String) {
        let Some(known) = self.connections else {
            return (Shown::Unknown, "no connection was there that could show it".to_owned());
        };
        let shown = match effect {
            Effect::Later(by) => known.rtt_during_us >= known.rtt_before_us + by / 2,
            Effect::Silence | Effect::Refusal => known.sent_again > 0 || known.during < known.before,
            Effect::Lost(_) => known.sent_again > 0,
        };
        // That a connection shows nothing may mean that nothing was sent over it.
        (if shown { Shown::Yes } else { Shown::Unknown }, known.to_string())
    }
}

/// A chance that is taken for none.
const UNLIKELY: f64 = 0.001;

fn millis(us: u64) -> String {
    match us {
        0..1_000 => format!("{:.2} ms", us as f64 / 1000.0),
        1_000..20_000 => format!("{:.1} ms", us as f64 / 1000.0),
        _ => format!("{:.0} ms", us as f64 / 1000.0),
    }
}

impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let were = if self.before == 1 { "connection that was" } else { "connections that were" };
        write!(f, "{} {were} there: a round trip of {} before, ", self.before, millis(self.rtt_before_us))?;
        match self.during {
            0 => write!(f, "none left during"),
            left if left < self.before => {
                write!(f, "{} during on the {left} that are left", millis(self.rtt_during_us))
            }
            _ => write!(f, "{} during", millis(self.rtt_during_us)),
        }?;
        write!(f, "; {} segments sent again", self.sent_again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(answered: u32, refused: u32, silent: u32, median_us: u64) -> Looks {
        let median_us = (answered + refused > 0).then_some(median_us);
        Looks { tried: answered + refused + silent, answered, refused, median_us }
    }

    fn judged(effect: Effect, before: Looks, during: Looks) -> (Shown, String) {
        let asked = vec!["TCP 10.0.0.7:443".to_owned()];
        let testimony = Testimony { asked, before, during, ..Testimony::default() }.judged(effect);
        (testimony.shown, testimony.why)
    }

    #[test]
    fn a_delay_is_shown_by_half_of_it() {
        let late = |us| judged(Effect::Later(50_000), looks(5, 0, 0, 200), looks(7, 0, 0, us));
        let words = "a probe connection took 0.20 ms before and 51 ms during";
        assert_eq!(late(51_000), (Shown::Yes, words.to_owned()));
        assert_eq!(late(25_200).0, Shown::Yes);
        assert_eq!(late(25_199).0, Shown::No);
        let none = judged(Effect::Later(50_000), looks(5, 0, 0, 200), looks(0, 0, 3, 0));
        assert_eq!(none.0, Shown::Unknown);
    }

    #[test]
    fn one_that_gets_through_a_partition_shows_that_it_is_not_felt() {
        let cut = |during| judged(Effect::Silence, looks(5, 0, 0, 200), during);
        let words = "a probe connection took 0.20 ms before; none of 4 got through during";
        assert_eq!(cut(looks(0, 0, 4, 0)), (Shown::Yes, words.to_owned()));
        assert_eq!(cut(looks(1, 0, 3, 200)).0, Shown::No);
        assert_eq!(cut(looks(0, 1, 3, 200)).0, Shown::No, "somebody has refused it");
        assert_eq!(cut(looks(0, 0, 0, 0)).0, Shown::Unknown);
        let refused = judged(Effect::Refusal, looks(5, 0, 0, 200), looks(0, 4, 0, 90));
        let words = "a probe connection took 0.20 ms before; none of 4 got through during, 4 refused";
        assert_eq!(refused, (Shown::Yes, words.to_owned()));
    }

    #[test]
    fn who_did_not_answer_before_shows_nothing() {
        let mute = judged(Effect::Silence, looks(0, 0, 3, 0), looks(0, 0, 4, 0));
        let words = "a probe connection had no answer even before the fault (TCP 10.0.0.7:443)";
        assert_eq!(mute, (Shown::Unknown, words.to_owned()));
        assert_eq!(judged(Effect::Refusal, looks(0, 5, 0, 90), looks(0, 4, 0, 90)).0, Shown::Unknown);
        assert_eq!(judged(Effect::Silence, looks(0, 5, 0, 90), looks(0, 0, 4, 0)).0, Shown::Yes);
    }

    #[test]
    fn no_loss_is_said_only_of_enough_attempts() {
        let lossy = |during| judged(Effect::Lost(0.1), looks(5, 0, 0, 200), during).0;
        assert_eq!(lossy(looks(60, 0, 1, 200)), Shown::Yes);
        // 0.9 to the 65th is above a thousandth, to the 66th below.
        assert_eq!(lossy(looks(65, 0, 0, 200)), Shown::Unknown);
        assert_eq!(lossy(looks(66, 0, 0, 200)), Shown::No);
        let already = judged(Effect::Lost(0.1), looks(4, 0, 1, 200), looks(60, 0, 6, 200)).0;
        assert_eq!(already, Shown::Unknown);
    }

    #[test]
    fn connections_decide_where_nobody_can_be_asked() {
        let of = |connections, effect| Testimony { connections, ..Testimony::default() }.judged(effect);
        let known =
            Connections { before: 2, during: 2, rtt_before_us: 300, rtt_during_us: 50_100, sent_again: 3 };
        let late = of(Some(known), Effect::Later(50_000));
        let words = "2 connections that were there: a round trip of 0.30 ms before, 50 ms during; 3 segments sent again";
        assert_eq!((late.shown, late.why.as_str()), (Shown::Yes, words));
        let idle = Connections { rtt_during_us: 300, sent_again: 0, ..known };
        assert_eq!(of(Some(idle), Effect::Later(50_000)).shown, Shown::Unknown);
        assert_eq!(of(Some(idle), Effect::Silence).shown, Shown::Unknown);
        assert_eq!(of(Some(Connections { during: 1, ..idle }), Effect::Refusal).shown, Shown::Yes);
        assert_eq!(of(None, Effect::Silence).shown, Shown::Unknown);
    }
}
