//! Which time of a run belongs to which phase.

use squall_experiments::probe::When;
use squall_experiments::verdict::Phase;

/// Which time belongs to which phase, in nanoseconds on the boot clock.
#[derive(Debug, Default)]
pub(super) struct Spans {
    faults: bool,
    method_from: Option<u64>,
    revert_from: Option<u64>,
    recovery_from: Option<u64>,
    /// While at least one fault was live; the last one may be open.
    live: Vec<(u64, Option<u64>)>,
    count: u32,
}

impl Spans {
    /// Nothing has begun; `faults` says whether the plan makes changes.
    pub(super) fn new(faults: bool) -> Self {
        Spans { faults, ..Spans::default() }
    }

    pub(super) fn method_began(&mut self, now_ns: u64) {
        self.method_from = Some(now_ns);
    }

    pub(super) fn fault_began(&mut self, now_ns: u64) {
        self.count += 1;
        if self.count == 1 {
            self.live.push((now_ns, None));
        }
    }

    pub(super) fn fault_ended(&mut self, now_ns: u64) {
        self.count = self.count.saturating_sub(1);
        if self.count == 0 {
            self.close(now_ns);
        }
    }

    pub(super) fn revert_began(&mut self, now_ns: u64) {
        self.revert_from = Some(now_ns);
        self.count = 0;
        self.close(now_ns);
    }

    pub(super) fn recovery_began(&mut self, now_ns: u64) {
        self.recovery_from = Some(now_ns);
    }

    fn close(&mut self, now_ns: u64) {
        if let Some((_, end @ None)) = self.live.last_mut() {
            *end = Some(now_ns);
        }
    }

    /// The part of the run that goes on.
    pub(super) fn when(&self) -> When {
        match (self.recovery_from, self.method_from) {
            (Some(_), _) => When::After,
            (None, Some(_)) => When::During,
            (None, None) => When::Before,
        }
    }

    /// When the phase began that a sample is about, where it has a beginning after that of the run.
    pub(super) fn since(&self, begun: u64, phase: Phase) -> Option<u64> {
        match phase {
            Phase::During if self.faults => {
                self.live.iter().map(|(from, _)| *from).filter(|from| *from <= begun).max()
            }
            Phase::During => self.method_from,
            Phase::Recovery => self.recovery_from,
            Phase::Baseline | Phase::Between => None,
        }
    }

    /// What a sample that was begun at this time is about.
    pub(super) fn phase(&self, begun: u64) -> Phase {
        let before = |from: Option<u64>| from.is_none_or(|from| begun < from);
        if before(self.method_from) && before(self.revert_from) {
            Phase::Baseline
        } else if !before(self.recovery_from) {
            Phase::Recovery
        } else if self.faults {
            let live = |(from, to): &(u64, Option<u64>)| *from <= begun && to.is_none_or(|to| begun < to);
            if self.live.iter().any(live) { Phase::During } else { Phase::Between }
        } else if before(self.revert_from) {
            Phase::During
        } else {
            Phase::Between
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_belongs_to_the_time_when_it_was_begun() {
        let mut spans = Spans::new(true);
        spans.method_began(100);
        spans.fault_began(110);
        spans.fault_began(120);
        spans.fault_ended(150);
        spans.fault_ended(160);
        spans.fault_began(200);
        spans.revert_began(220);
        spans.recovery_began(230);
        for (begun, phase) in [
            (99, Phase::Baseline),
            (100, Phase::Between),
            (110, Phase::During),
            (155, Phase::During),
            (160, Phase::Between),
            (200, Phase::During),
            (220, Phase::Between),
            (230, Phase::Recovery),
        ] {
            assert_eq!(spans.phase(begun), phase, "{begun}");
        }
    }

    #[test]
    fn without_faults_the_method_is_what_is_judged() {
        let mut spans = Spans::new(false);
        spans.method_began(100);
        assert_eq!(spans.phase(99), Phase::Baseline);
        assert_eq!(spans.phase(150), Phase::During);
        spans.revert_began(200);
        assert_eq!(spans.phase(199), Phase::During);
        assert_eq!(spans.phase(200), Phase::Between);
    }
}
