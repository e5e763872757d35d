//! What became of the requests that began within one stretch of time.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::time::Duration;

use squall_experiments::distribution::Distribution;
use squall_experiments::probe::{Count, Expect, Group, Load, QUANTILES};

use super::super::expect::readable;
use super::clock::Clock;

/// More kinds of errors than this are counted together: the text of an answer may be different each time.
const KINDS: usize = 16;
const OTHERS: &str = "other errors";

/// One stretch of time, counted while its requests are answered.
pub(super) struct Tick {
    /// When it began, on the clock of its load.
    pub(super) begun: Duration,
    load: RefCell<Load>,
    /// Requests that are not answered yet.
    open: Cell<usize>,
    closed: Cell<bool>,
    /// When it began, on the boot clock: what it is known by.
    begun_ns: OnceCell<u64>,
    failures: Cell<Failures>,
}

/// How many requests failed, and how many of them somebody knows of.
#[derive(Clone, Copy, Default)]
struct Failures {
    all: u64,
    told: u64,
    /// Somebody is about to tell.
    telling: bool,
    /// It is reported, which tells everything.
    reported: bool,
}

impl Tick {
    pub(super) fn new(begun: Duration) -> Self {
        Tick {
            begun,
            load: RefCell::default(),
            open: Cell::new(0),
            closed: Cell::new(false),
            begun_ns: OnceCell::new(),
            failures: Cell::default(),
        }
    }

    /// What is counted of a group.
    fn load(&self, group: Group) -> RefMut<'_, Load> {
        RefMut::map(self.load.borrow_mut(), |load| match group {
            Group::Tested => load,
            Group::Control => load.control.get_or_insert_default(),
        })
    }

    /// A request whose time is this is on its way.
    pub(super) fn begins(&self, at: Duration, group: Group) {
        self.open.set(self.open.get() + 1);
        let mut load = self.load(group);
        load.requests += 1;
        load.slot(at.saturating_sub(self.begun)).requests += 1;
    }

    /// A request was due, and could not be sent any more.
    pub(super) fn not_sent(&self, group: Group) {
        self.load(group).unsent += 1;
    }

    /// It was sent so much later than it should have been.
    pub(super) fn sent(&self, late: Duration, group: Group) {
        self.load(group).late.add(late);
    }

    /// It was answered as expected; the bounds of quantiles say what is slow.
    pub(super) fn answered(&self, at: Duration, took: Duration, expect: &Expect, group: Group) {
        let mut load = self.load(group);
        load.latency.add(took);
        let slot = load.slot(at.saturating_sub(self.begun));
        for (name, _, bound) in expect.quantiles() {
            if let Some(place) = QUANTILES.iter().position(|(known, _)| *known == name) {
                slot.slow[place] += u32::from(<Distribution>::is_beyond(took, bound.0.get()));
            }
        }
        self.open.set(self.open.get() - 1);
    }

    /// It was not.
    pub(super) fn failed(&self, at: Duration, why: &str, group: Group) {
        let mut load = self.load(group);
        load.slot(at.saturating_sub(self.begun)).failed += 1;
        let errors = &mut load.errors;
        let known = errors.len() < KINDS || errors.iter().any(|count| count.seen == why);
        Count::add(errors, if known { why } else { OTHERS }, 1);
        self.open.set(self.open.get() - 1);
        // The control group has no budget: it is not what is tested.
        self.update(|failures| failures.all += u64::from(group == Group::Tested));
    }

    fn update<T>(&self, change: impl FnOnce(&mut Failures) -> T) -> T {
        let mut failures = self.failures.get();
        let result = change(&mut failures);
        self.failures.set(failures);
        result
    }

    /// When it began, in nanoseconds on the boot clock; always the same.
    pub(super) fn begun_ns(&self, clock: &Clock) -> u64 {
        *self.begun_ns.get_or_init(|| clock.boot_ns(self.begun))
    }

    /// Whether requests failed of which nobody knows, nor is about to: the caller is then.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.update(|failures| {
            let new = failures.all > failures.told && !failures.telling && !failures.reported;
            failures.telling |= new;
            new
        })
    }

    /// What is to be told now; `None` where its sample has told it.
    pub(super) fn told(&self) -> Option<u64> {
        self.update(|failures| {
            failures.telling = false;
            failures.told = failures.all;
            (!failures.reported).then_some(failures.all)
        })
    }

    /// Nothing begins in it any more.
    pub(super) fn close(&self, short: bool) {
        self.load.borrow_mut().short = short;
        self.closed.set(true);
    }

    /// Whether everything that can become of it has, and nobody has reported it.
    pub(super) fn is_settled(&self) -> bool {
        self.closed.get() && self.open.get() == 0 && !self.failures.get().reported
    }

    /// It is not to be reported. Whether it would have been: once reported or abandoned, there is nothing left to do.
    pub(super) fn abandon(&self) -> bool {
        self.update(|failures| !std::mem::replace(&mut failures.reported, true))
    }

    /// What it came to. A tick without a request is no sample.
    pub(super) fn take(&self) -> Load {
        self.update(|failures| failures.reported = true);
        let mut load = self.load.take();
        load.short |= load.requests == 0;
        Count::sort(&mut load.errors);
        if let Some(control) = &mut load.control {
            Count::sort(&mut control.errors);
        }
        load
    }
}

/// `50 requests, 3 errors (3 × connection refused), p99 12.1 ms (expected errors <= 1%)`.
pub(super) fn words(load: &Load, expect: &Expect) -> String {
    let mut text = format!("{}, {}", Count::of(load.requests, "request"), Count::of(load.failed(), "error"));
    if !load.errors.is_empty() {
        let most = &load.errors[..load.errors.len().min(3)];
        text.push_str(&format!(" ({})", Count::in_words(most)));
    }
    let mut quantiles: Vec<(&str, u64)> =
        expect.quantiles().map(|(name, thousandths, _)| (name, thousandths)).collect();
    if quantiles.is_empty() {
        quantiles.push(("p99", 990));
    }
    for (name, thousandths) in quantiles {
        let time = load.quantile(thousandths).map_or_else(|| "no answer".to_owned(), readable);
        text.push_str(&format!(", {name} {time}"));
    }
    if load.unsent > 0 {
        text.push_str(&format!(", {} never sent: the load generator was late", load.unsent));
    }
    if !load.missed.is_empty() {
        text.push_str(&format!(" (expected {})", load.missed.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use squall_experiments::probe::Slot;

    use super::*;

    #[test]
    fn it_is_settled_when_it_is_closed_and_everything_is_answered() {
        let tick = Tick::new(Duration::ZERO);
        let expect = serde_json::from_str(r#"{ "errors": "<= 1%", "p50": "<= 10ms" }"#).unwrap();
        tick.begins(Duration::ZERO, Group::Tested);
        tick.begins(Duration::from_millis(150), Group::Tested);
        tick.sent(Duration::from_micros(20), Group::Tested);
        tick.answered(Duration::from_millis(150), Duration::from_millis(12), &expect, Group::Tested);
        tick.close(false);
        assert!(!tick.is_settled());
        tick.failed(Duration::ZERO, "connection refused", Group::Tested);
        assert!(tick.is_settled());
        let mut load = tick.take();
        let expected = [
            Slot { requests: 1, failed: 1, slow: [0; 4] },
            Slot { requests: 1, failed: 0, slow: [1, 0, 0, 0] },
        ];
        assert_eq!(load.slots, expected);
        let expect = serde_json::from_str(r#"{ "errors": "<= 1%", "p50": "<= 20ms" }"#).unwrap();
        load.judge(&expect);
        let text = words(&load, &expect);
        assert_eq!(text, "2 requests, 1 error (1 × connection refused), p50 12.1 ms (expected errors <= 1%)");
        assert!(Tick::new(Duration::ZERO).take().short, "nothing was seen");
    }

    #[test]
    fn failures_are_told_early_once_and_not_after_the_sample() {
        let tick = Tick::new(Duration::ZERO);
        (0..3).for_each(|_| tick.begins(Duration::ZERO, Group::Tested));
        assert!(!tick.is_to_be_told(), "nothing failed");
        tick.failed(Duration::ZERO, "503", Group::Tested);
        assert!(tick.is_to_be_told());
        tick.failed(Duration::ZERO, "503", Group::Tested);
        assert!(!tick.is_to_be_told(), "somebody is about to");
        assert_eq!(tick.told(), Some(2));
        assert!(!tick.is_to_be_told());
        tick.failed(Duration::ZERO, "503", Group::Tested);
        assert!(tick.is_to_be_told());
        tick.close(false);
        assert!(tick.is_settled());
        tick.take();
        assert!(!tick.is_settled(), "it is reported once");
        assert_eq!(tick.told(), None);
        let clock = Clock::start();
        assert_eq!(tick.begun_ns(&clock), tick.begun_ns(&clock));
    }

    #[test]
    fn two_groups_are_counted_apart() {
        let tick = Tick::new(Duration::ZERO);
        let groups = [Group::Tested, Group::Control];
        groups.iter().for_each(|group| tick.begins(Duration::ZERO, *group));
        tick.failed(Duration::ZERO, "503", Group::Control);
        assert!(!tick.is_to_be_told(), "it is not what is tested");
        tick.answered(Duration::ZERO, Duration::from_millis(1), &Expect::default(), Group::Tested);
        tick.close(false);
        assert!(tick.is_settled());
        let load = tick.take();
        let control = load.control.as_ref().unwrap();
        assert_eq!((load.requests, load.failed(), control.requests, control.failed()), (1, 0, 1, 1));
    }

    #[test]
    fn a_server_that_says_something_new_each_time_does_not_fill_the_memory() {
        let tick = Tick::new(Duration::ZERO);
        for number in 0..1000 {
            tick.begins(Duration::ZERO, Group::Tested);
            tick.failed(Duration::ZERO, &format!("`$.n` is {number} (expected 0)"), Group::Tested);
        }
        let load = tick.take();
        assert_eq!((load.errors.len(), load.failed()), (KINDS + 1, 1000));
        assert_eq!((load.errors[0].seen.as_str(), load.errors[0].times), (OTHERS, 984));
    }
}
