//! A load goes on by itself: it is told when to begin, when a new sample begins, and when to stop.

use squall_experiments::probe::ProberRequest;
use squall_experiments::quantity::Period;

/// A load between its begin and its end.
#[derive(Debug, Default)]
pub(super) struct Pace {
    going: bool,
    /// To be told: begin, or begin a new sample.
    begin: bool,
    /// To be told: stop.
    stop: bool,
    /// How often it was told to stop and has not yet said that everything is reported.
    stopping: u32,
}

impl Pace {
    /// It begins; where it is going on, a new sample begins.
    pub(super) fn begin(&mut self) {
        self.going = true;
        self.begin = true;
    }

    /// It stops, if it is going on, or if it was asked for a few samples `at_once` that are still under way.
    pub(super) fn rest(&mut self, at_once: bool) {
        if std::mem::take(&mut self.going) || at_once {
            self.begin = false;
            self.stop = true;
        }
    }

    /// Whether it goes on until it is stopped.
    pub(super) fn is_going(&self) -> bool {
        self.going
    }

    /// Whether it was stopped and still has something to report.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop || self.stopping > 0
    }

    /// It has reported everything that it began before it was stopped.
    pub(super) fn rested(&mut self) {
        self.stopping = self.stopping.saturating_sub(1);
    }

    /// What it must be told to do what was asked of it since the last time.
    pub(super) fn orders(&mut self, probe: u32, period: Period) -> Vec<ProberRequest> {
        let mut orders = Vec::new();
        if std::mem::take(&mut self.stop) {
            self.stopping += 1;
            orders.push(ProberRequest::Stop { probe });
        }
        if std::mem::take(&mut self.begin) {
            orders.push(ProberRequest::Every { probe, period });
        }
        orders
    }
}

#[cfg(test)]
mod tests {
    use squall_experiments::probe::{Load, Sample};
    use squall_experiments::verdict::{IN_A_ROW, Tally};

    use super::super::sampling::Sampling;
    use super::*;

    fn sampling() -> Sampling {
        let mut sampling = Sampling::new(true);
        let load = serde_json::json!({ "name": "l", "load": { "url": "http://127.0.0.1/", "rate": "5/s" } });
        sampling.watch(&serde_json::from_value(load).unwrap(), false);
        sampling
    }

    /// What the load is told: its words.
    fn told(sampling: &mut Sampling) -> Vec<&'static str> {
        let word = |order: &ProberRequest| match order {
            ProberRequest::Every { probe: 0, .. } => "every",
            ProberRequest::Stop { probe: 0 } => "stop",
            other => panic!("{other:?}"),
        };
        sampling.orders().iter().map(word).collect()
    }

    #[test]
    fn it_goes_on_by_itself_and_begins_a_sample_when_a_phase_does() {
        let mut sampling = sampling();
        sampling.look_now();
        assert_eq!((told(&mut sampling), told(&mut sampling)), (vec!["every"], vec![]));
        assert!(sampling.next_due().is_none(), "it is never asked for a sample");
        sampling.look_on();
        assert!(told(&mut sampling).is_empty(), "it goes on");
        sampling.look_now();
        assert_eq!(told(&mut sampling), ["every"], "a fault began");
        assert!(!sampling.watches[0].is_owed());
        sampling.rest(false);
        sampling.rest(false);
        assert!(sampling.watches[0].is_owed(), "it has not said that everything is reported");
        assert_eq!(told(&mut sampling), ["stop"]);
        assert!(sampling.watches[0].is_owed());
        sampling.look_on();
        assert_eq!(told(&mut sampling), ["every"]);
        sampling.rested(0);
        assert!(!sampling.watches[0].is_owed());
    }

    fn sample(good: bool) -> Sample {
        Sample { probe: 0, begun_ns: 5, took_ns: 1, good, unclear: false, seen: String::new(), load: None }
    }

    #[test]
    fn it_gives_a_few_samples_at_once_like_any_probe_and_then_goes_on() {
        let mut sampling = sampling();
        assert_eq!(sampling.burst(), [0; IN_A_ROW as usize]);
        assert!(told(&mut sampling).is_empty());
        for _ in 0..IN_A_ROW {
            assert!(sampling.watches[0].is_owed());
            sampling.count(0, &sample(true), 0);
        }
        assert!(!sampling.watches[0].is_owed());
        sampling.look_on();
        assert_eq!(told(&mut sampling), ["every"]);

        let mut interrupted = self::sampling();
        interrupted.burst();
        interrupted.rest(false);
        assert_eq!(told(&mut interrupted), ["stop"]);
    }

    #[test]
    fn what_was_cut_off_early_is_no_sample() {
        let mut sampling = sampling();
        let mut short = sample(false);
        short.load = Some(Load { short: true, ..Load::default() });
        sampling.count(0, &short, 0);
        sampling.count(0, &sample(true), 0);
        assert_eq!(sampling.watches[0].guarding.all(), Tally { good: 1, bad: 0 });
    }
}
