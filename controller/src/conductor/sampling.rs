//! Which samples are taken when, what they are about, and what they add up to so far.

use std::time::Duration;

use squall_experiments::experiment::Action;
use squall_experiments::guard::{Guarding, Stop, spends};
use squall_experiments::probe::{Expect, Hypothesis, Looks, Probe, ProberRequest, Sample, When};
use squall_experiments::protocol::Guard;
use squall_experiments::quantity::Percent;
use squall_experiments::run::Seen;
use squall_experiments::verdict::{Again, IN_A_ROW, Phase, Standing, Tally};
use tokio::time::Instant;

use super::pace::Pace;
use super::spans::Spans;

/// A probe that prober processes know under a number.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) purpose: Purpose,
    /// Which prober takes it: a place in the list of users.
    pub(super) place: usize,
    probe: Probe,
    expect: Expect,
    looks: Option<Looks>,
    /// Whether failures are told before their sample is complete: there is a budget.
    promptly: bool,
    /// How long a sample can take.
    pub(super) timeout: Duration,
    /// Why it cannot be taken at all.
    pub(super) unusable: Option<String>,
}

/// What a sample of a probe is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Purpose {
    /// A hypothesis or guard, by its place in [`Sampling::watches`].
    Watch(usize),
    /// The action of a step.
    Action(String),
    /// The undo of a step's action.
    Undo(String),
}

/// A hypothesis or a guard while it is looked at.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) name: String,
    pub(super) guard: bool,
    pub(super) tolerate: Percent,
    pub(super) every: Duration,
    /// In which parts of the run it is looked at; in all where none is named.
    when: Vec<When>,
    /// What begins so soon after a phase is not judged, in nanoseconds.
    delay_ns: u64,
    /// The number of its probe.
    pub(super) probe: u32,
    /// When the next sample is due; `None` while it is not looked at.
    pub(super) due: Option<Instant>,
    /// Samples that were asked for and not yet answered.
    outstanding: u32,
    /// How a load goes on by itself; `None` for what is looked at.
    pace: Option<Pace>,
    /// All samples of the baseline.
    pub(super) baseline: Tally,
    /// Everything that was seen, and whether it stops the run.
    pub(super) guarding: Guarding,
    pub(super) again: Again,
    /// What the last bad sample saw.
    pub(super) bad: Option<String>,
}

impl Watch {
    /// The next sample is taken after a while, and then at its interval. Of a load a new sample begins, and a load that
    /// rests begins.
    fn look(&mut self, after: Duration) {
        match &mut self.pace {
            Some(pace) => pace.begin(),
            None => self.due = Some(Instant::now() + after),
        }
    }

    /// No new samples.
    fn rest(&mut self) {
        self.due = None;
        // A few samples that were asked for at once go on until it is stopped.
        let at_once = self.outstanding > 0;
        self.pace.iter_mut().for_each(|pace| pace.rest(at_once));
    }

    /// Whether it is looked at in a part of the run.
    pub(super) fn is_for(&self, when: When) -> bool {
        self.when.is_empty() || self.when.contains(&when)
    }

    /// What is known of it since everything was undone: of a rate by evidence, and where none is claimed to be kept by several
    /// good samples in a row. `over` says that no more of them come.
    pub(super) fn standing(&self, over: bool) -> Standing {
        self.guarding.standing(over).unwrap_or_else(|| self.again.standing(self.tolerate, over))
    }

    /// Whether samples that were begun are not yet reported.
    pub(super) fn is_owed(&self) -> bool {
        self.outstanding > 0 || self.pace.as_ref().is_some_and(Pace::is_stopping)
    }
}

/// As whom the agent runs no program: such guards are looked at here.
const ROOT: &str = "root";

/// All probes of a run.
#[derive(Debug, Default)]
pub(super) struct Sampling {
    pub(super) loaded: Vec<Loaded>,
    pub(super) watches: Vec<Watch>,
    /// The users that probers run as, in the order of their first probe.
    pub(super) users: Vec<Option<String>>,
    /// Which time belongs to what.
    pub(super) spans: Spans,
}

impl Sampling {
    /// Every probe of an experiment and of its actions; `faults` says whether the plan makes changes.
    pub(super) fn new(faults: bool) -> Self {
        Sampling { spans: Spans::new(faults), ..Sampling::default() }
    }

    /// Adds a hypothesis or guard. One without exactly one probe, which `check` refuses, is left out.
    pub(super) fn watch(&mut self, hypothesis: &Hypothesis, guard: bool) {
        let Some(probe) = hypothesis.probe() else { return };
        let purpose = Purpose::Watch(self.watches.len());
        let pace = matches!(probe, Probe::Load { .. }).then(Pace::default);
        let probe = self.load(purpose, probe, hypothesis.expect.clone(), hypothesis.sample.clone());
        if let Some(loaded) = self.loaded.last_mut() {
            loaded.promptly = hypothesis.budget.is_some();
        }
        self.watches.push(Watch {
            name: hypothesis.name.clone(),
            guard,
            tolerate: hypothesis.expect.tolerate,
            every: hypothesis.every.get().max(Duration::from_millis(1)),
            when: hypothesis.when.clone(),
            delay_ns: u64::try_from(hypothesis.delay.get().as_nanos()).unwrap_or(u64::MAX),
            probe,
            due: None,
            outstanding: 0,
            pace,
            baseline: Tally::default(),
            guarding: Guarding::new(hypothesis, guard),
            again: Again::default(),
            bad: None,
        });
    }

    /// All bounds of the guards share one error, and all of the hypotheses another one: to be called when all are there.
    pub(super) fn share_error(&mut self) {
        for guards in [true, false] {
            let bounds = self.of(guards).map(|watch| watch.guarding.bounds()).sum();
            self.of(guards).for_each(|watch| watch.guarding.beside(bounds));
        }
    }

    /// Adds an action or its undo.
    pub(super) fn action(&mut self, purpose: Purpose, action: &Action) {
        let probe = match action {
            Action::Http(http) => Probe::Http(http.clone()),
            Action::Process(process) => Probe::Process(process.clone()),
        };
        self.load(purpose, probe, Expect::default(), None);
    }

    fn load(&mut self, purpose: Purpose, probe: Probe, expect: Expect, looks: Option<Looks>) -> u32 {
        let user = probe.user().map(str::to_owned);
        let one = probe.timeout();
        let timeout = looks.as_ref().map_or(one, |looks| looks.longest(one));
        let place = self.users.iter().position(|known| *known == user).unwrap_or_else(|| {
            self.users.push(user);
            self.users.len() - 1
        });
        self.loaded.push(Loaded {
            purpose,
            place,
            probe,
            expect,
            looks,
            promptly: false,
            timeout: timeout.get(),
            unusable: None,
        });
        u32::try_from(self.loaded.len() - 1).unwrap_or(u32::MAX)
    }

    /// What the prober at a place must know.
    pub(super) fn loads(&self, place: usize) -> impl Iterator<Item = ProberRequest> + '_ {
        let numbered = self.loaded.iter().zip(0u32..);
        numbered.filter(move |(loaded, _)| loaded.place == place).map(|(loaded, probe)| ProberRequest::Load {
            probe,
            what: loaded.probe.clone(),
            expect: Box::new(loaded.expect.clone()),
            looks: loaded.looks.clone(),
            promptly: loaded.promptly,
        })
    }

    /// The number of the probe for a purpose.
    pub(super) fn number(&self, purpose: &Purpose) -> Option<u32> {
        let place = self.loaded.iter().position(|loaded| loaded.purpose == *purpose)?;
        u32::try_from(place).ok()
    }

    pub(super) fn hypotheses(&self) -> impl Iterator<Item = &Watch> {
        self.watches.iter().filter(|watch| !watch.guard)
    }

    /// The hypotheses that must hold again when everything is undone.
    pub(super) fn watched_after(&self) -> impl Iterator<Item = &Watch> {
        self.hypotheses().filter(|watch| watch.is_for(When::After))
    }

    /// The worst of what is known of those, and of those that are well the last moment since when one is.
    pub(super) fn standing(&self, over: bool) -> Standing {
        self.watched_after().map(|watch| watch.standing(over)).max().unwrap_or(Standing::Open)
    }

    /// The next sample of every hypothesis is taken now, and then at its interval.
    pub(super) fn look_now(&mut self) {
        let when = self.spans.when();
        for watch in self.of(false) {
            if watch.is_for(when) { watch.look(Duration::ZERO) } else { watch.rest() }
        }
    }

    /// The next sample of every hypothesis is taken after its interval. A load goes on at once.
    pub(super) fn look_on(&mut self) {
        let when = self.spans.when();
        for watch in self.of(false) {
            match &watch.pace {
                _ if !watch.is_for(when) => watch.rest(),
                Some(pace) if pace.is_going() => {}
                Some(_) => watch.look(Duration::ZERO),
                None => watch.look(watch.every),
            }
        }
    }

    /// No new samples of the hypotheses, or of the guards.
    pub(super) fn rest(&mut self, guards: bool) {
        self.of(guards).for_each(Watch::rest);
    }

    /// The guards that the agent can look at in our stead, with what was seen of them: all but those that must be root.
    pub(super) fn guards(&self, stated: &[Hypothesis]) -> Vec<Guard> {
        let numbered = self.watches.iter().zip(0u32..).filter(|(watch, _)| watch.guard);
        let bounds: usize = numbered.clone().map(|(watch, _)| watch.guarding.bounds()).sum();
        let guard = |(watch, number): (&Watch, u32)| {
            let claim = stated.iter().find(|claim| claim.name == watch.name)?.clone();
            let so_far = watch.guarding.all();
            let own = claim.probe()?.user() == Some(ROOT);
            (!own).then_some(Guard { number, claim, so_far, bounds })
        };
        numbered.filter_map(guard).collect()
    }

    /// The agent looks at those guards from now on.
    pub(super) fn hand_over(&mut self) {
        let Sampling { watches, loaded, .. } = self;
        let own = |watch: &Watch| loaded[watch.probe as usize].probe.user() == Some(ROOT);
        watches.iter_mut().filter(|watch| watch.guard && !own(watch)).for_each(Watch::rest);
    }

    /// Guards are looked at from now on.
    pub(super) fn guard(&mut self) {
        self.of(true).for_each(|watch| watch.look(Duration::ZERO));
    }

    fn of(&mut self, guards: bool) -> impl Iterator<Item = &mut Watch> {
        self.watches.iter_mut().filter(move |watch| watch.guard == guards)
    }

    /// What loads must be told to do what was asked of them since the last time.
    pub(super) fn orders(&mut self) -> Vec<ProberRequest> {
        let of = |watch: &mut Watch| {
            let (probe, period) = (watch.probe, watch.every.into());
            watch.pace.as_mut().map_or_else(Vec::new, |pace| pace.orders(probe, period))
        };
        self.watches.iter_mut().flat_map(of).collect()
    }

    /// A load that was told to stop has reported everything.
    pub(super) fn rested(&mut self, probe: u32) {
        for watch in self.watches.iter_mut().filter(|watch| watch.probe == probe) {
            if let Some(pace) = &mut watch.pace {
                pace.rested();
                watch.outstanding = 0;
            }
        }
    }

    /// When the next sample is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.watches.iter().filter_map(|watch| watch.due).min()
    }

    /// The probes whose samples are due now, each once; late ones are not made up for.
    pub(super) fn take_due(&mut self) -> Vec<u32> {
        let now = Instant::now();
        let mut due = Vec::new();
        for watch in &mut self.watches {
            let Some(at) = watch.due.filter(|at| *at <= now) else {
                continue;
            };
            due.push(watch.probe);
            watch.outstanding += 1;
            let mut next = at + watch.every;
            while next <= now {
                next += watch.every;
            }
            watch.due = Some(next);
        }
        due
    }

    /// Several samples of every hypothesis at once: the probes to ask.
    pub(super) fn burst(&mut self) -> Vec<u32> {
        let when = self.spans.when();
        let mut due = Vec::new();
        for watch in self.watches.iter_mut().filter(|watch| !watch.guard && watch.is_for(when)) {
            watch.outstanding += IN_A_ROW;
            due.extend(std::iter::repeat_n(watch.probe, IN_A_ROW as usize));
        }
        due
    }

    /// Counts the sample of a watch: what it is about, and why it stops the run. `None` where nobody watches.
    pub(super) fn count(
        &mut self,
        place: usize,
        sample: &Sample,
        begun_ms: u64,
    ) -> Option<(Seen, Option<Stop>)> {
        let mut phase = self.spans.phase(sample.begun_ns);
        let since = self.spans.since(sample.begun_ns, phase);
        let watch = self.watches.get_mut(place)?;
        let early = |since: u64| sample.begun_ns - since < watch.delay_ns;
        if !watch.guard && since.is_some_and(early) {
            phase = Phase::Between;
        }
        watch.outstanding = watch.outstanding.saturating_sub(1);
        let seen = Seen {
            name: watch.name.clone(),
            guard: watch.guard,
            phase,
            good: sample.good,
            unclear: sample.unclear,
            begun_ms,
            took_us: sample.took_ns / 1000,
            seen: sample.seen.clone(),
            load: sample.load.clone(),
        };
        watch.guarding.add(&seen, sample.begun_ns);
        let short = sample.load.as_ref().is_some_and(|load| load.short);
        match phase {
            // What says nothing is counted as neither while a fault is live; before it, nothing is done without an answer.
            Phase::Baseline if !short => watch.baseline.add(sample.good),
            Phase::Recovery if seen.is_whole() => watch.again.add(sample.good, begun_ms),
            _ => {}
        }
        if !sample.good && !short {
            watch.bad = Some(sample.seen.clone());
        }
        let stop = watch.guarding.stop(&seen.seen);
        Some((seen, stop))
    }

    /// Requests of a sample under way have failed: says whose budget that spends, and why it stops the run.
    pub(super) fn failing(&mut self, probe: u32, begun_ns: u64, failed: u64) -> Option<(String, Stop)> {
        if !spends(self.spans.phase(begun_ns)) {
            return None;
        }
        let watch = self.watches.iter_mut().find(|watch| watch.probe == probe)?;
        watch.guarding.failing(begun_ns, failed);
        let last = watch.bad.clone().unwrap_or_default();
        Some((watch.name.clone(), watch.guarding.stop(&last)?))
    }

    /// Forgets the samples that the prober at a place still owes: it is gone.
    pub(super) fn forget(&mut self, place: usize) {
        for watch in &mut self.watches {
            if self.loaded[watch.probe as usize].place == place {
                watch.outstanding = 0;
                watch.pace = watch.pace.as_ref().map(|_| Pace::default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(json: serde_json::Value) -> Hypothesis {
        let mut whole = serde_json::json!({ "name": "a", "tcp": { "address": "127.0.0.1:1" } });
        whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    fn sample(begun_ns: u64, good: bool, unclear: bool) -> Sample {
        Sample { probe: 0, begun_ns, took_ns: 1, good, unclear, seen: "x".to_owned(), load: None }
    }

    #[test]
    fn a_claim_is_looked_at_when_it_is_asked_for() {
        let mut sampling = Sampling::new(true);
        sampling.watch(&claim(serde_json::json!({ "when": ["before", "after"] })), false);
        sampling.watch(&claim(serde_json::json!({ "name": "b", "when": ["during"] })), false);
        assert_eq!(sampling.burst(), [0; IN_A_ROW as usize]);
        sampling.look_now();
        assert_eq!(sampling.take_due(), [0]);
        sampling.spans.method_began(100);
        sampling.look_on();
        assert!(sampling.watches[0].due.is_none() && sampling.watches[1].due.is_some());
        sampling.spans.recovery_began(200);
        sampling.look_now();
        assert_eq!(sampling.take_due(), [0]);
        assert!(sampling.watches[1].due.is_none());
    }

    #[test]
    fn what_begins_within_the_delay_is_not_judged() {
        let mut sampling = Sampling::new(true);
        sampling.watch(&claim(serde_json::json!({ "delay": "1s" })), false);
        let second = 1_000_000_000;
        let phase = |sampling: &mut Sampling, at: u64, good: bool| {
            sampling.count(0, &sample(at, good, false), 0).unwrap().0.phase
        };
        assert_eq!(phase(&mut sampling, 5, true), Phase::Baseline);
        sampling.spans.method_began(10);
        sampling.spans.fault_began(10);
        assert_eq!(phase(&mut sampling, 11, false), Phase::Between);
        assert_eq!(phase(&mut sampling, 10 + second, false), Phase::During);
        sampling.spans.revert_began(20 * second);
        sampling.spans.recovery_began(21 * second);
        assert_eq!(phase(&mut sampling, 21 * second + 5, true), Phase::Between);
        assert_eq!(phase(&mut sampling, 22 * second, true), Phase::Recovery);
    }

    #[test]
    fn what_says_nothing_after_the_revert_is_no_failure() {
        let second = 1_000_000_000;
        for (looks, expected) in [
            ("?????", Standing::Open),
            ("+?+?+", Standing::Well(0)),
            ("++", Standing::Open),
            ("?-?-?-", Standing::Unwell),
        ] {
            let mut sampling = Sampling::new(true);
            sampling.watch(&claim(serde_json::json!({})), false);
            sampling.spans.method_began(10);
            sampling.spans.revert_began(20);
            sampling.spans.recovery_began(30);
            for (at, look) in (1..).zip(looks.chars()) {
                sampling.count(0, &sample(at * second, look == '+', look == '?'), at - 1);
            }
            assert_eq!(sampling.standing(true), expected, "{looks}");
        }
    }

    #[test]
    fn what_says_nothing_is_neither_good_nor_bad_but_no_baseline() {
        let mut sampling = Sampling::new(true);
        sampling.watch(&claim(serde_json::json!({})), false);
        sampling.count(0, &sample(5, false, true), 0);
        let watch = &sampling.watches[0];
        assert_eq!((watch.guarding.all().total(), watch.baseline.bad), (0, 1));
        sampling.count(0, &sample(6, true, false), 0);
        assert_eq!(sampling.watches[0].guarding.all().good, 1);
    }
}
