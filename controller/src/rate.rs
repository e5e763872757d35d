//! How often somebody may ask: generous, so that only what runs wild meets it. A halt is never made to wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many requests a second an address may send for long, and how many more at once: the people and pipelines behind one
/// proxy share an address.
pub(crate) const OF_AN_ADDRESS: Pace = Pace { each: Duration::from_millis(2), burst: 5_000 };
/// The same for a token.
pub(crate) const OF_A_TOKEN: Pace = Pace { each: Duration::from_millis(10), burst: 1_000 };
/// The same for hosts that want to join, by their address: a whole rack may stand behind one, and who tries out tokens waits.
pub(crate) const OF_JOINS: Pace = if cfg!(test) {
    Pace { each: Duration::from_secs(1), burst: 20 }
} else {
    Pace { each: Duration::from_millis(50), burst: 1_000 }
};
/// Of how many callers it is known how often they asked; when there are more, those that asked least are forgotten.
const CALLERS: usize = 10_000;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// One request each so often.
    each: Duration,
    /// So many more at once, for whoever was quiet.
    burst: u32,
}

impl Pace {
    /// How many requests somebody may send at once who was quiet.
    #[cfg(test)]
    pub(crate) fn at_once(self) -> u32 {
        self.burst + 1
    }
}

/// Callers and how often they asked. One moment is kept of each (the generic cell rate algorithm of ITU-T I.371): when all
/// their requests would have been due, had they kept the pace.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    pace: Pace,
    due: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash + Clone> Rates<K> {
    pub(crate) fn new(pace: Pace) -> Self {
        Rates { pace, due: Mutex::default() }
    }

    /// One more request. An error is how long it has to wait; it does not count then.
    pub(crate) fn one_more(&self, who: K, now: Instant) -> Result<(), Duration> {
        let Pace { each, burst } = self.pace;
        let mut all = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let due = all.get(&who).copied().unwrap_or(now).max(now);
        let ahead = due.saturating_duration_since(now);
        if let Some(wait) = ahead.checked_sub(each * burst).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        if all.len() >= CALLERS && !all.contains_key(&who) {
            all.retain(|_, due| *due > now);
            if all.len() >= CALLERS {
                let least = all.iter().min_by_key(|(_, due)| **due).map(|(who, _)| who.clone());
                least.and_then(|least| all.remove(&least));
            }
        }
        all.insert(who, due + each);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Pace = Pace { each: Duration::from_secs(1), burst: 2 };

    #[test]
    fn who_was_quiet_may_ask_at_once_and_then_in_the_pace() {
        let (rates, start) = (Rates::new(SLOW), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        for _ in 0..SLOW.at_once() {
            assert_eq!(rates.one_more("a", at(0)), Ok(()));
        }
        assert_eq!(rates.one_more("a", at(0)), Err(Duration::from_secs(1)));
        assert_eq!(rates.one_more("b", at(0)), Ok(()), "another caller has a pace of its own");
        assert_eq!(rates.one_more("a", at(400)), Err(Duration::from_millis(600)));
        assert_eq!(rates.one_more("a", at(1000)), Ok(()), "what was refused does not count");
        assert_eq!(rates.one_more("a", at(1000)), Err(Duration::from_secs(1)));
        for _ in 0..SLOW.at_once() {
            assert_eq!(rates.one_more("a", at(60_000)), Ok(()));
        }
        assert!(rates.one_more("a", at(60_000)).is_err());
    }

    #[test]
    fn many_callers_do_not_fill_the_memory_and_do_not_free_the_busiest() {
        let (rates, now) = (Rates::new(SLOW), Instant::now());
        for _ in 0..SLOW.at_once() {
            assert_eq!(rates.one_more(0, now), Ok(()));
        }
        for caller in 1..CALLERS + 100 {
            assert_eq!(rates.one_more(caller, now), Ok(()));
        }
        assert!(rates.due.lock().unwrap().len() <= CALLERS);
        assert!(rates.one_more(0, now).is_err());
    }
}
