//! Single looks, and the counting rules that judge them.

use serde::{Deserialize, Serialize};

use super::{Judgement, Outcome};
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

/// Watches for the first [`IN_A_ROW`] good samples in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    row: u32,
    since_ms: u64,
}

impl Again {
    /// Takes the next sample and the time when it was begun.
    pub fn add(&mut self, good: bool, begun_ms: u64) {
        if self.well().is_some() {
            return;
        }
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
}
