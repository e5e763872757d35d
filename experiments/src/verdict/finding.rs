//! What is found about each bound of each claim, all of them together.

use serde::{Deserialize, Serialize};

use super::course::Course;
use super::interval::{anytime_share, upper_share};
use super::recovery::WellAgain;
use super::several::e_holm;
use super::terms::{Bound, Mode};
use super::{Judgement, Outcome};

/// The verdict on one bound, with everything that it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// The bound as it is written: `errors <= 1%`.
    pub bound: String,
    /// What can be said, and why.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// What counted as one observation.
    pub mode: Mode,
    /// Requests while the fault was live.
    pub requests: u64,
    /// The bad ones: failed, or slower than the bound.
    pub bad: u64,
    /// The share of bad ones that is tolerated, from 0 to 1; of a bound by the baseline, what follows from that.
    pub tolerated: f64,
    /// The shares of bad ones that are not excluded, from here, if each request counts by itself.
    pub low: f64,
    /// To here.
    pub high: f64,
    /// The largest evidence against the bound at any moment, corrected for all that was claimed. It decides at 1/α.
    pub against: f64,
    /// The evidence for the bound at the end. It decides at 1/α.
    pub keeps: f64,
    /// α: the chance of a wrong verdict that is accepted.
    pub alpha: f64,
    /// Requests to the control group at the same time, and the bad ones among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<(u64, u64)>,
    /// Whether there was an outage, which needs no evidence: see [`super::outage`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outage: bool,
    /// How long after the fault began it was sure that the bound is broken, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sure_after_ms: Option<u64>,
    /// About how many requests more would have shown that it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
    /// When it was kept again after the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub well_again: Option<WellAgain>,
}

/// One bound with its evidence, before the others are known.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is claimed.
    pub bound: Bound,
    /// What counts as one observation.
    pub mode: Mode,
    /// The chance of a wrong verdict that is accepted.
    pub alpha: f64,
    /// When the window began, on the clock of the counts.
    pub from_ms: u64,
    /// The evidence; `None` where there is no baseline to compare with.
    pub course: Option<Course>,
}

/// The findings on all bounds of a run, in their order. The chance that even one of them is said to be broken and is
/// not is at most the largest α of them.
pub fn findings(asked: &[Asked]) -> Vec<Finding> {
    let courses: Vec<&Course> = asked.iter().filter_map(|asked| asked.course.as_ref()).collect();
    let mut times: Vec<u64> =
        courses.iter().flat_map(|course| course.against.iter().map(|(at, _)| *at)).collect();
    times.sort_unstable();
    times.dedup();
    let mut most = vec![1.0_f64; courses.len()];
    let mut sure: Vec<Option<u64>> = vec![None; courses.len()];
    let alphas: Vec<f64> =
        asked.iter().filter(|asked| asked.course.is_some()).map(|asked| asked.alpha).collect();
    for time in times {
        let now: Vec<f64> = courses.iter().map(|course| course.at(time)).collect();
        for (at, evidence) in e_holm(&now).into_iter().enumerate() {
            let enough = courses[at].enough_ms.is_some_and(|enough| enough <= time);
            if enough {
                most[at] = most[at].max(evidence);
                if evidence >= 1.0 / alphas[at] {
                    sure[at].get_or_insert(time);
                }
            }
        }
    }
    let mut corrected = most.into_iter().zip(sure);
    let finding = |asked: &Asked| match &asked.course {
        Some(course) => {
            let (against, sure) = corrected.next().unwrap_or((1.0, None));
            Finding::of(asked, course, against, sure)
        }
        None => Finding::without_baseline(asked),
    };
    asked.iter().map(finding).collect()
}

impl Finding {
    fn of(asked: &Asked, course: &Course, against: f64, sure: Option<u64>) -> Finding {
        let sure_ms = [sure, course.outage_ms].into_iter().flatten().min();
        let sure_after_ms = sure_ms.map(|at| at.saturating_sub(asked.from_ms));
        let outcome = if course.all == 0 {
            Outcome::NoData
        } else if sure_ms.is_some() {
            Outcome::Deviated
        } else if course.keeps >= 1.0 / asked.alpha && course.keeps_late {
            Outcome::Held
        } else {
            Outcome::Inconclusive
        };
        let (low, high) = anytime_share(course.all, course.bad, asked.alpha);
        let why = asked.in_words(course, outcome, sure_after_ms);
        Finding {
            bound: asked.bound.to_string(),
            judgement: Judgement { outcome, why },
            mode: asked.mode,
            requests: course.all,
            bad: course.bad,
            tolerated: course.tolerated,
            low,
            high,
            against,
            keeps: course.keeps,
            alpha: asked.alpha,
            control: course.control,
            outage: course.outage_ms.is_some(),
            sure_after_ms,
            missing: course.missing.filter(|_| outcome == Outcome::Inconclusive),
            well_again: None,
        }
    }

    fn without_baseline(asked: &Asked) -> Finding {
        let whom = match asked.bound {
            Bound::ErrorsOfControl(_) | Bound::QuantileOfControl(_) | Bound::LatencyOfControl => {
                "control group"
            }
            _ => "baseline",
        };
        let why = format!("`{}`: the {whom} has no requests to compare with", asked.bound);
        Finding {
            bound: asked.bound.to_string(),
            judgement: Judgement { outcome: Outcome::NoData, why },
            mode: asked.mode,
            requests: 0,
            bad: 0,
            tolerated: 0.0,
            low: 0.0,
            high: 1.0,
            against: 1.0,
            keeps: 1.0,
            alpha: asked.alpha,
            control: None,
            outage: false,
            sure_after_ms: None,
            missing: None,
            well_again: None,
        }
    }
}

impl Asked {
    /// `7.9 % of 2,412 requests failed, at most 1 % allowed; sure after 3.0 s`.
    fn in_words(&self, course: &Course, outcome: Outcome, sure_after_ms: Option<u64>) -> String {
        if course.all == 0 {
            return "no requests began while it was watched".to_owned();
        }
        if let Some(figures) = course.figures(self.bound) {
            return match (outcome, sure_after_ms) {
                (Outcome::Deviated, Some(ms)) => {
                    format!("{figures}; sure after {}", crate::summary::seconds(ms))
                }
                (Outcome::Inconclusive, _) => format!("{figures}: {}", self.doubt(course)),
                _ => figures,
            };
        }
        let what = match self.bound {
            Bound::Errors(_) | Bound::ErrorsOfBaseline(_) | Bound::ErrorsOfControl(_) => "failed".to_owned(),
            Bound::Throughput(_) => "were not served".to_owned(),
            Bound::Quantile { within, .. } => format!("failed or took longer than {within}"),
            Bound::QuantileOfBaseline(_) | Bound::QuantileOfControl(_) => {
                "were slower than may be".to_owned()
            }
            Bound::Latency => "were slower than the slowest hundredth of the baseline".to_owned(),
            Bound::LatencyOfControl => {
                "were slower than the slowest hundredth of the control group".to_owned()
            }
        };
        if let Some((effect, most)) = course.effect.filter(|_| !course.tail) {
            let whom = match self.bound {
                Bound::LatencyOfControl => "those to the control group in the same sample",
                _ => "the baseline's usual ones",
            };
            let figures = format!(
                "{} of {} requests were slower than {whom}, at most {} allowed (there are too few of those to know their slowest \
                 hundredth)",
                percent(effect),
                thousands(course.all),
                percent(most)
            );
            return match (outcome, sure_after_ms) {
                (Outcome::Deviated, Some(ms)) => {
                    format!("{figures}; sure after {}", crate::summary::seconds(ms))
                }
                (Outcome::Inconclusive, _) => format!("{figures}: too few to be sure"),
                _ => figures,
            };
        }
        let seen = percent(course.bad as f64 / course.all as f64);
        let requests = thousands(course.all);
        let allowed = match self.bound {
            _ if course.tolerated <= 0.0 => "none allowed".to_owned(),
            Bound::Errors(_) | Bound::Quantile { .. } => {
                format!("at most {} allowed", percent(course.tolerated))
            }
            Bound::ErrorsOfControl(times) => {
                let (all, bad) = course.control.unwrap_or_default();
                let share = percent(bad as f64 / all.max(1) as f64);
                let all = thousands(all);
                format!(
                    "and {share} of {all} in the control group at the same time, at most {times} times that allowed"
                )
            }
            Bound::Latency => {
                let (effect, most) = course.effect.unwrap_or((0.5, 0.5));
                format!(
                    "at most {} allowed, and {} slower than its usual ones, at most {} allowed",
                    percent(course.tolerated),
                    percent(effect),
                    percent(most)
                )
            }
            Bound::LatencyOfControl => {
                let (effect, most) = course.effect.unwrap_or((0.5, 0.5));
                format!(
                    "at most {} allowed, and {} slower than those to the control group in the same sample, at most {} allowed",
                    percent(course.tolerated),
                    percent(effect),
                    percent(most)
                )
            }
            bound => format!("at most {} allowed ({bound})", percent(course.tolerated)),
        };
        let figures = format!("{seen} of {requests} requests {what}, {allowed}");
        match (outcome, sure_after_ms) {
            (Outcome::Deviated, Some(ms)) => format!("{figures}; sure after {}", crate::summary::seconds(ms)),
            (Outcome::Held, _) if course.tolerated <= 0.0 => {
                let bound = percent(upper_share(course.all, 0, self.alpha));
                format!("{figures} (so few requests show no more than: at most {bound} do)")
            }
            (Outcome::Inconclusive, _) => format!("{figures}: {}", self.doubt(course)),
            _ => figures,
        }
    }

    /// Why nothing can be said, and what would help.
    fn doubt(&self, course: &Course) -> String {
        match course.missing {
            _ if course.tolerated <= 0.0 => "one bad request says too little".to_owned(),
            _ if course.quantiles.is_some() && !course.tail => {
                "there are too few to compare with to know what their quantile may be".to_owned()
            }
            Some(missing) if course.keeps < 1.0 / self.alpha => {
                format!("too few to be sure; about {} more as good as these would do", thousands(missing))
            }
            Some(_) => "its last third was worse than allowed".to_owned(),
            None => match self.mode.block_ms() {
                Some(ms) => format!(
                    "more than allowed, but it may be one burst: a longer fault would tell, with blocks of {} s",
                    ms / 1000
                ),
                None => "too few to be sure; a longer fault would tell".to_owned(),
            },
        }
    }
}

/// What is less is not told apart, in percent.
const SMALLEST: f64 = 1e-6;

/// A share from 0 to 1 for a sentence: `7.9 %`, `0.04 %`, `0.00083 %`, `100 %`; two digits that say something.
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    let text = match value {
        value if (99.95..100.0).contains(&value) => ">99.9".to_owned(),
        value if value >= 1.0 => format!("{value:.1}"),
        value if value >= SMALLEST => format!("{value:.*}", 1 + (-value.log10()).ceil().max(1.0) as usize),
        value if value > 0.0 => format!("<{SMALLEST}"),
        _ => "0".to_owned(),
    };
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{} %", if short.is_empty() { "0" } else { short })
}

/// A count for a sentence: `2,412`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Counts;
    use super::*;

    fn asked(bound: &str, mode: Mode, seconds: u64, rate: u64, bad: impl Fn(u64) -> u64) -> Asked {
        let mut counts = Counts::default();
        (0..seconds).for_each(|second| counts.add(5000 + second * 1000, rate, bad(second)));
        let bound = Bound::Errors(bound.parse().unwrap());
        let course = Course::of(&counts, bound.tolerated().unwrap(), mode, Some(seconds * 1000), 0.05);
        Asked { bound, mode, alpha: 0.05, from_ms: 5000, course: Some(course) }
    }

    #[track_caller]
    fn judged(asked: Asked, outcome: Outcome, why: &str) {
        let found = &findings(&[asked])[0];
        assert_eq!((found.judgement.outcome, found.judgement.why.as_str()), (outcome, why), "{found:?}");
    }

    #[test]
    fn verdicts_are_sentences_with_figures() {
        let ten_percent = |_| 5;
        judged(
            asked("1%", Mode::Fast, 30, 50, ten_percent),
            Outcome::Deviated,
            "10 % of 1,500 requests failed, at most 1 % allowed; sure after 1.0 s",
        );
        judged(
            asked("1%", Mode::Robust, 30, 50, ten_percent),
            Outcome::Deviated,
            "10 % of 1,500 requests failed, at most 1 % allowed; sure after 15.0 s",
        );
        judged(
            asked("1%", Mode::Robust, 8, 50, |_| 0),
            Outcome::Held,
            "0 % of 400 requests failed, at most 1 % allowed",
        );
        judged(
            asked("1%", Mode::Robust, 4, 50, |_| 0),
            Outcome::Inconclusive,
            "0 % of 200 requests failed, at most 1 % allowed: too few to be sure; about 309 more as good as these would do",
        );
        judged(
            asked("1%", Mode::Robust, 10, 50, |second| 5 * u64::from(second < 2)),
            Outcome::Inconclusive,
            "2 % of 500 requests failed, at most 1 % allowed: more than allowed, but it may be one burst: a longer fault would tell, with blocks of 5 s",
        );
        judged(
            asked("0%", Mode::Robust, 10, 50, |_| 0),
            Outcome::Held,
            "0 % of 500 requests failed, none allowed (so few requests show no more than: at most 0.6 % do)",
        );
        judged(
            asked("0%", Mode::Robust, 10, 50, |second| u64::from(second == 3)),
            Outcome::Inconclusive,
            "0.2 % of 500 requests failed, none allowed: one bad request says too little",
        );
        judged(
            asked("1%", Mode::Robust, 0, 50, |_| 0),
            Outcome::NoData,
            "no requests began while it was watched",
        );
    }

    #[test]
    fn claims_together_need_more_evidence_each() {
        let strong = || asked("1%", Mode::Fast, 30, 50, |second| 2 * u64::from(second < 5));
        let alone = findings(&[strong()])[0].against;
        let weak = || asked("1%", Mode::Fast, 30, 50, |_| 0);
        let together = findings(&[strong(), weak(), weak()]);
        assert!(together[0].against < alone, "{} {alone}", together[0].against);
        assert_eq!(together[1].judgement.outcome, Outcome::Held);
    }

    #[test]
    fn numbers_in_words() {
        assert_eq!(
            [0.0, 0.079, 0.0004, 1.0, 0.5, 0.9999].map(percent),
            ["0 %", "7.9 %", "0.04 %", "100 %", "50 %", ">99.9 %"]
        );
        assert_eq!([7, 999, 2412, 1_234_567].map(thousands), ["7", "999", "2,412", "1,234,567"]);
        assert_eq!(percent(1.0 / 120_000.0), "0.00083 %", "what is not nothing is never written as nothing");
        assert_eq!([percent(1e-12), percent(0.009_96)], ["<0.000001 %", "1 %"]);
    }
}
