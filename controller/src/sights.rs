//! What the proxies of outages have seen in the runs of this controller, for whoever asked for it: in memory, the newest only,
//! until the controller ends or later runs need the room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// What all runs together may take, in bytes of text.
const ALL: usize = 64 << 20;
/// What one of them may.
const ONE: usize = 16 << 20;
/// Of how many runs something is kept.
const RUNS: usize = 64;

/// A page of what was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Page {
    /// Each with the host on which it was seen.
    pub observations: Vec<Value>,
    /// `from` of the next page.
    pub next: u64,
    /// How many of those that were asked for are no longer kept.
    pub dropped: u64,
}

/// See the module. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Sights(Arc<Mutex<VecDeque<Seen>>>);

/// What was seen in one run.
#[derive(Debug)]
struct Seen {
    run: String,
    lines: VecDeque<String>,
    /// The number of the next one.
    next: u64,
    bytes: usize,
}

impl Seen {
    fn forget_oldest(&mut self) {
        if let Some(line) = self.lines.pop_front() {
            self.bytes -= line.len();
        }
    }
}

impl Sights {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is wanted of this run.
    pub fn begin(&self, run: &str) {
        let mut runs = self.lock();
        runs.push_back(Seen { run: run.to_owned(), lines: VecDeque::new(), next: 0, bytes: 0 });
        while runs.len() > RUNS {
            runs.pop_front();
        }
    }

    /// Keeps what was seen on a host; the oldest goes where there is no room, of this run first.
    pub fn add(&self, run: &str, host: &str, seen: Vec<Value>) {
        let mut runs = self.lock();
        let Some(mine) = runs.iter_mut().find(|seen| seen.run == run) else { return };
        for mut one in seen {
            if let Value::Object(fields) = &mut one {
                fields.insert("host".to_owned(), host.into());
            }
            let line = one.to_string();
            mine.next += 1;
            mine.bytes += line.len();
            mine.lines.push_back(line);
            while mine.bytes > ONE {
                mine.forget_oldest();
            }
        }
        let mut all: usize = runs.iter().map(|seen| seen.bytes).sum();
        while all > ALL
            && let Some(oldest) = runs.iter_mut().find(|seen| seen.bytes > 0)
        {
            all -= oldest.bytes;
            (oldest.lines, oldest.bytes) = (VecDeque::new(), 0);
        }
    }

    /// At most so many of those of a run from this number on; `None` where nobody asked for them, or this controller did not
    /// carry it out.
    pub fn page(&self, run: &str, from: u64, most: u64) -> Option<Page> {
        let runs = self.lock();
        let seen = runs.iter().find(|seen| seen.run == run)?;
        let first = seen.next - seen.lines.len() as u64;
        let begin = from.max(first);
        let chosen = seen.lines.iter().skip(usize::try_from(begin - first).unwrap_or(usize::MAX));
        let chosen = chosen.take(usize::try_from(most).unwrap_or(usize::MAX));
        let observations: Vec<Value> = chosen.filter_map(|line| serde_json::from_str(line).ok()).collect();
        let next = begin + observations.len() as u64;
        Some(Page { observations, next, dropped: first.saturating_sub(from) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn numbers(page: &Page) -> Vec<u64> {
        page.observations.iter().filter_map(|one| one["n"].as_u64()).collect()
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended_and_tell_hosts() {
        let sights = Sights::default();
        sights.add("r1", "web-1", vec![json!({ "n": 9 })]);
        assert_eq!(sights.page("r1", 0, 10), None, "nobody asked for it");
        sights.begin("r1");
        assert_eq!(sights.page("r1", 0, 10), Some(Page::default()));
        for n in 0..5 {
            sights.add("r1", "web-1", vec![json!({ "n": n })]);
        }
        let page = sights.page("r1", 0, 3).expect("it is kept");
        assert_eq!((numbers(&page), page.next, page.dropped), (vec![0, 1, 2], 3, 0));
        assert_eq!(page.observations[0]["host"], "web-1");
        let page = sights.page("r1", page.next, 3).expect("it is kept");
        assert_eq!((numbers(&page), page.next), (vec![3, 4], 5));
        assert_eq!(sights.page("r1", u64::MAX >> 1, 3).expect("it is kept").observations, [Value::Null; 0]);
    }

    #[test]
    fn memory_is_bounded_and_what_is_missing_is_counted() {
        let sights = Sights::default();
        sights.begin("r1");
        let text = "x".repeat(1 << 20);
        for n in 0..40 {
            sights.add("r1", "web-1", vec![json!({ "n": n, "text": text })]);
        }
        let page = sights.page("r1", 0, 1000).expect("it is kept");
        assert_eq!(page.dropped + page.observations.len() as u64, 40);
        assert!(page.dropped >= 25 && numbers(&page).last() == Some(&39), "{:?}", numbers(&page));
        for run in 2..8 {
            let run = format!("r{run}");
            sights.begin(&run);
            for n in 0..16 {
                sights.add(&run, "web-1", vec![json!({ "n": n, "text": text })]);
            }
        }
        assert_eq!(
            sights.page("r1", 0, 1000).map(|page| page.dropped),
            Some(40),
            "the oldest run makes room"
        );
        assert!(!sights.page("r7", 0, 1000).expect("it is kept").observations.is_empty());
        (0..RUNS).for_each(|run| sights.begin(&format!("later {run}")));
        assert_eq!(sights.page("r7", 0, 1), None);
    }
}
