//! Single looks, and the counting rules that judge them.

use serde::{Deserialize, Serialize};

use super::{Judgement, Outcome, Standing};
use crate::quantity::Percent;

/// How many samples were good and bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Samples whose expectations all held.
    pub good: u64,
    /// All others.
    pub bad: u64,
}

/// Fewer samples than this during a fault say nothing.
pub const FEWEST: u64 = 3;

/// So many good samples in a row show that the system is well again.
pub const IN_A_ROW: u32 = 3;

impl Tally {
    /// Counts one sample.
    pub fn add(&mut self, good: bool) {
        if good {
            self.good += 1;
        } else {
            self.bad += 1;
        }
    }

    /// All samples.
    pub fn total(self) -> u64 {
        self.good + self.bad
    }

    /// Whether the share of bad samples is within what is tolerated; true without any sample.
    pub fn within(self, tolerate: Percent) -> bool {
        // Multiplied out, so that 1 bad sample of 10 is exactly 10 %.
        self.bad as f64 * 100.0 <= tolerate.get() * self.total() as f64
    }

    fn figures(self, tolerate: Percent) -> String {
        let allowed =
            if tolerate.get() == 0.0 { String::new() } else { format!(", {tolerate} bad tolerated") };
        format!("{} of {} samples bad{allowed}", self.bad, self.total())
    }
}

/// Judges the baseline: held or deviated, inconclusive without any sample.
pub fn before(tally: Tally, tolerate: Percent) -> Judgement {
    let outcome = match (tally.total(), tally.within(tolerate)) {
        (0, _) => Outcome::Inconclusive,
        (_, true) => Outcome::Held,
        (_, false) => Outcome::Deviated,
    };
    Judgement { outcome, why: tally.figures(tolerate) }
}

/// Judges what was seen during a fault. A single bad sample never decides, and neither do fewer than [`FEWEST`].
///
/// Without a fault there is nothing that the samples must be matched to: whatever was seen is judged, and nothing
/// seen is no objection.
pub fn during(tally: Tally, tolerate: Percent, fault: bool) -> Judgement {
    let figures = tally.figures(tolerate);
    let (outcome, why) = if fault && tally.total() < FEWEST {
        let why = format!("too few samples: {} while the fault was live, {FEWEST} needed", tally.total());
        let outcome = if tally.total() == 0 { Outcome::NoData } else { Outcome::Inconclusive };
        (outcome, why)
    } else if tally.total() == 0 {
        (Outcome::Held, "nothing was seen while the method ran".to_owned())
    } else if tally.within(tolerate) {
        (Outcome::Held, figures)
    } else if tally.bad >= 2 {
        (Outcome::Deviated, figures)
    } else {
        (Outcome::Inconclusive, format!("{figures}: one bad sample says too little"))
    };
    Judgement { outcome, why }
}

/// So many bad samples of [`IN_A_ROW`] say that they are no chance.
const CONFIRMED: usize = 2;

/// Watches for the first [`IN_A_ROW`] good samples in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    row: u32,
    since_ms: u64,
    /// Which of all samples were good.
    seen: Vec<bool>,
}

impl Again {
    /// Takes the next sample and the time when it was begun.
    pub fn add(&mut self, good: bool, begun_ms: u64) {
        if self.well().is_some() {
            return;
        }
        self.seen.push(good);
        match (good, self.row) {
            (false, _) => self.row = 0,
            (true, 0) => {
                self.row = 1;
                self.since_ms = begun_ms;
            }
            (true, _) => {
                self.row += 1;
                self.since_ms = self.since_ms.min(begun_ms);
            }
        }
    }

    /// When the first of the good samples was begun, once there are enough of them.
    pub fn well(&self) -> Option<u64> {
        (self.row >= IN_A_ROW).then_some(self.since_ms)
    }

    /// What is known; `over` says that no more samples come. *Unwell* is only who was bad in two of the last three samples,
    /// and in more of the last half of all than is tolerated: a single bad sample at the end says as little as anywhere.
    pub fn standing(&self, tolerate: Percent, over: bool) -> Standing {
        if let Some(since_ms) = self.well() {
            return Standing::Well(since_ms);
        }
        let bad = |seen: &[bool]| seen.iter().filter(|good| !**good).count();
        let last = &self.seen[self.seen.len().saturating_sub(IN_A_ROW as usize)..];
        let half = &self.seen[self.seen.len() / 2..];
        let mut tally = Tally::default();
        half.iter().for_each(|good| tally.add(*good));
        let unwell = last.len() == IN_A_ROW as usize && bad(last) >= CONFIRMED && !tally.within(tolerate);
        if over && unwell { Standing::Unwell } else { Standing::Open }
    }
}

/// When samples say that it held again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldAgain {
    /// When the first of [`IN_A_ROW`] good samples in a row was begun, after which it did not fail again.
    pub since_ms: u64,
    /// When the last bad sample before that was begun; `None` where there was none.
    pub bad_ms: Option<u64>,
    /// The same of the last bad one that is not the only one among three.
    pub sure_bad_ms: Option<u64>,
}

/// Finds it in samples in the order in which they were begun, each with that time and whether it was good. Two bad ones of three
/// are a failure, unless no more than is tolerated were bad in all since then; a single bad one is not. `None` where it did not
/// hold again.
pub fn held_again(looks: &[(u64, bool)], tolerate: Percent) -> Option<HeldAgain> {
    let three = IN_A_ROW as usize;
    let bad = |looks: &[(u64, bool)]| looks.iter().filter(|(_, good)| !good).count();
    let held = |from: &usize| {
        let since = &looks[*from..];
        let mut tally = Tally::default();
        since.iter().for_each(|(_, good)| tally.add(*good));
        let failed = since.windows(three).any(|three| bad(three) >= CONFIRMED);
        bad(&since[..three]) == 0 && (!failed || tally.within(tolerate))
    };
    let from = (0..(looks.len() + 1).saturating_sub(three)).find(held)?;
    let is_bad = |at: &usize| !looks[*at].1;
    let is_sure = |at: &usize| is_bad(at) && bad(&looks[at.saturating_sub(three - 1)..=*at]) >= CONFIRMED;
    let time = |at: usize| looks[at].0;
    Some(HeldAgain {
        since_ms: time(from),
        bad_ms: (0..from).rfind(is_bad).map(time),
        sure_bad_ms: (0..from).rfind(is_sure).map(time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(good: u64, bad: u64) -> Tally {
        Tally { good, bad }
    }

    fn percent(text: &str) -> Percent {
        text.parse().unwrap()
    }

    #[test]
    fn thresholds_during_a_fault() {
        for (good, bad, tolerate, expected) in [
            (0, 0, "0%", Outcome::NoData),
            (2, 0, "0%", Outcome::Inconclusive),
            (0, 2, "0%", Outcome::Inconclusive),
            (3, 0, "0%", Outcome::Held),
            (2, 1, "0%", Outcome::Inconclusive),
            (1, 2, "0%", Outcome::Deviated),
            (0, 3, "0%", Outcome::Deviated),
            (9, 1, "10%", Outcome::Held),
            (8, 1, "10%", Outcome::Inconclusive),
            (18, 2, "10%", Outcome::Held),
            (17, 2, "10%", Outcome::Deviated),
            (0, 50, "100%", Outcome::Held),
        ] {
            let judged = during(tally(good, bad), percent(tolerate), true);
            assert_eq!(judged.outcome, expected, "{good} good, {bad} bad, {tolerate}");
        }
    }

    #[test]
    fn without_a_fault_what_was_seen_is_judged() {
        assert_eq!(during(tally(0, 0), percent("0%"), false).outcome, Outcome::Held);
        assert_eq!(during(tally(1, 0), percent("0%"), false).outcome, Outcome::Held);
        assert_eq!(during(tally(0, 1), percent("0%"), false).outcome, Outcome::Inconclusive);
        assert_eq!(during(tally(0, 2), percent("0%"), false).outcome, Outcome::Deviated);
    }

    #[test]
    fn a_baseline_needs_a_sample_and_no_more_bad_ones_than_tolerated() {
        assert_eq!(before(tally(0, 0), percent("0%")).outcome, Outcome::Inconclusive);
        assert_eq!(before(tally(1, 0), percent("0%")).outcome, Outcome::Held);
        assert_eq!(before(tally(99, 1), percent("0%")).outcome, Outcome::Deviated);
        assert_eq!(before(tally(99, 1), percent("1%")).outcome, Outcome::Held);
    }

    #[test]
    fn reasons_carry_their_figures() {
        assert_eq!(during(tally(18, 2), percent("5%"), true).why, "2 of 20 samples bad, 5% bad tolerated");
        assert_eq!(
            during(tally(1, 1), percent("0%"), true).why,
            "too few samples: 2 while the fault was live, 3 needed"
        );
        assert_eq!(
            during(tally(4, 1), percent("0%"), true).why,
            "1 of 5 samples bad: one bad sample says too little"
        );
    }

    #[test]
    fn well_again_is_three_in_a_row_and_counts_from_the_first_of_them() {
        let mut again = Again::default();
        for (good, at) in [(true, 10), (true, 20), (false, 30), (true, 40), (true, 50)] {
            again.add(good, at);
            assert_eq!(again.well(), None);
        }
        again.add(true, 60);
        assert_eq!(again.well(), Some(40));
        again.add(false, 70);
        assert_eq!(again.well(), Some(40), "what was shown stays shown");
    }

    #[test]
    fn unwell_in_the_end_needs_more_than_one_bad_sample() {
        let standing = |samples: &str, tolerate: &str| {
            let mut again = Again::default();
            (0..).zip(samples.chars()).for_each(|(at, good)| again.add(good == '+', at));
            assert!(again.standing(percent(tolerate), false) != Standing::Unwell, "that is for the end");
            again.standing(percent(tolerate), true)
        };
        for (samples, tolerate, expected) in [
            ("", "0%", Standing::Open),
            ("++", "0%", Standing::Open),
            ("--", "0%", Standing::Open),
            ("---", "0%", Standing::Unwell),
            ("-+-", "0%", Standing::Unwell),
            ("--++", "0%", Standing::Open),
            ("+-++-++-++-", "0%", Standing::Open),
            ("-+-+-+-+", "50%", Standing::Open),
            ("+-+-+-+-", "50%", Standing::Open),
            ("+-+-----", "50%", Standing::Unwell),
            ("-+++--", "0%", Standing::Well(1)),
        ] {
            assert_eq!(standing(samples, tolerate), expected, "{samples} {tolerate}");
        }
    }

    #[test]
    fn one_bad_sample_later_takes_nothing_back_and_two_of_three_do() {
        let found = |samples: &str, tolerate: &str| {
            let looks: Vec<(u64, bool)> = (0..).zip(samples.chars().map(|good| good == '+')).collect();
            held_again(&looks, percent(tolerate))
                .map(|found| (found.since_ms, found.bad_ms, found.sure_bad_ms))
        };
        assert_eq!(found("", "0%"), None);
        assert_eq!(found("++", "0%"), None);
        assert_eq!(found("+++", "0%"), Some((0, None, None)));
        assert_eq!(found("--+++", "0%"), Some((2, Some(1), Some(1))));
        assert_eq!(found("+++++-+++++", "0%"), Some((0, None, None)));
        assert_eq!(found("+++++--+++", "0%"), Some((7, Some(6), Some(6))));
        assert_eq!(found("+++++-+-+++", "0%"), Some((8, Some(7), Some(7))));
        assert_eq!(found("++++++++--+++", "20%"), Some((0, None, None)));
        assert_eq!(found("++-+++", "0%"), Some((3, Some(2), None)));
        assert_eq!(found("--++-+++", "0%"), Some((5, Some(4), Some(1))));
        assert_eq!(found("+++--", "0%"), None);
    }
}
