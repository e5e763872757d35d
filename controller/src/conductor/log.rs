//! The event log of a run: the state, the file, and whoever watches.

use std::fs::File;
use std::io::{self, Write};

use squall_experiments::run::{Event, Illegal, Record, State, next};

use super::clock::Clock;

/// What a watcher of a run is told.
#[derive(Debug)]
pub enum Tell<'a> {
    /// Something happened.
    Event(&'a Record, &'a State),
    /// Something that the person in front of it should know at once.
    Note(&'a str),
}

/// Somebody who watches a run. Is called while the run goes on and must not block.
pub type Watcher<'a> = Box<dyn FnMut(Tell<'_>) + 'a>;

/// Changes every text of an event before anybody sees it: secrets are taken out here.
pub type Redact<'a> = Box<dyn Fn(&str) -> String + 'a>;

/// Is told what the proxies of a run's outages have seen of connections and requests. After an error it is told no more.
pub type Sights<'a> = Box<dyn FnMut(Vec<serde_json::Value>) -> io::Result<()> + 'a>;

/// Sights that go to a file, a JSON object a line.
pub fn into_file(mut file: File) -> Sights<'static> {
    Box::new(move |seen| {
        let lines: Vec<u8> = seen.iter().flat_map(super::lines::line).collect();
        file.write_all(&lines)
    })
}

pub(super) struct Log<'a> {
    clock: Clock,
    state: State,
    records: Vec<Record>,
    file: Option<File>,
    redact: Option<Redact<'a>>,
    watcher: Watcher<'a>,
    illegal: Option<Illegal>,
    /// Who is told what proxies have seen.
    pub(super) sights: Option<Sights<'a>>,
}

impl<'a> Log<'a> {
    pub(super) fn new(
        clock: Clock,
        file: Option<File>,
        redact: Option<Redact<'a>>,
        watcher: Watcher<'a>,
    ) -> Self {
        let records = Vec::new();
        Log { clock, state: State::New, records, file, redact, watcher, illegal: None, sights: None }
    }

    /// Appends an event, unless it cannot happen now: that is a bug, which is kept for the end, because the revert
    /// goes before everything.
    pub(super) fn record(&mut self, event: Event) {
        match next(self.state.clone(), &event) {
            Ok(state) => self.state = state,
            Err(illegal) => {
                self.note(&format!("bug: {illegal}"));
                self.illegal.get_or_insert(illegal);
                return;
            }
        }
        let at_ms = self.clock.now_ms();
        let record = self.redacted(Record { at_ms, event });
        if let Some(file) = &mut self.file {
            let written = file.write_all(&super::lines::line(&record));
            if let Err(error) = written {
                self.file = None;
                self.note(&format!("warning: the event file ends here: {error}"));
            }
        }
        (self.watcher)(Tell::Event(&record, &self.state));
        self.records.push(record);
    }

    /// Tells what proxies have seen.
    pub(super) fn saw(&mut self, mut seen: Vec<serde_json::Value>) {
        let Some(sights) = &mut self.sights else { return };
        for one in &mut seen {
            self.redact.iter().for_each(|redact| walk(one, redact));
        }
        if let Err(error) = sights(seen) {
            self.sights = None;
            self.note(&format!("warning: the file of observations ends here: {error}"));
        }
    }

    /// Says something to whoever watches.
    pub(super) fn note(&mut self, text: &str) {
        match &self.redact {
            Some(redact) => (self.watcher)(Tell::Note(&redact(text))),
            None => (self.watcher)(Tell::Note(text)),
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn illegal(&self) -> Option<&Illegal> {
        self.illegal.as_ref()
    }

    /// Whether a person or a signal already stopped the run.
    pub(super) fn was_interrupted(&self) -> bool {
        self.records.iter().any(|record| matches!(record.event, Event::Interrupted { .. }))
    }

    /// Whether the system is worth a look after the revert: something was done to it, and nobody waits for the end.
    pub(super) fn wants_recovery(&self) -> bool {
        let mut done = false;
        for record in &self.records {
            match record.event {
                Event::Interrupted { .. } | Event::AgentLost { .. } | Event::Blind { .. } => return false,
                Event::Injected { .. }
                | Event::ActionBegan { .. }
                | Event::GaveWay { .. }
                | Event::MethodEnded => done = true,
                _ => {}
            }
        }
        done
    }

    /// Whether the undo of a step was played after so many events.
    pub(super) fn undo_since(&self, events: usize, step: &str) -> bool {
        let later = self.records.iter().skip(events);
        let mut played = later.filter_map(|record| match &record.event {
            Event::UndoPlayed { step, .. } => Some(step),
            _ => None,
        });
        played.any(|played| played == step)
    }

    fn redacted(&self, record: Record) -> Record {
        let Some(redact) = &self.redact else { return record };
        let Ok(mut value) = serde_json::to_value(&record) else {
            return record;
        };
        walk(&mut value, redact);
        serde_json::from_value(value).unwrap_or(record)
    }
}

/// Keys whose values are words of Squall's own: a secret that happens to be one of them must not break the log.
const FIXED: [&str; 7] = ["event", "phase", "unit", "run", "date", "tolerate", "rate"];

fn walk(value: &mut serde_json::Value, redact: &Redact<'_>) {
    match value {
        serde_json::Value::String(text) => *text = redact(text),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| walk(item, redact)),
        serde_json::Value::Object(map) => {
            let free = map.iter_mut().filter(|(key, _)| !FIXED.contains(&key.as_str()));
            free.for_each(|(_, value)| walk(value, redact));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn an_impossible_event_is_a_bug_that_is_kept_and_not_written() {
        let notes = RefCell::new(Vec::new());
        let watcher = Box::new(|tell: Tell<'_>| match tell {
            Tell::Note(note) => notes.borrow_mut().push(note.to_owned()),
            Tell::Event(..) => panic!("it must not be told"),
        });
        let mut log = Log::new(Clock::since(None), None, None, watcher);
        log.record(Event::BaselineMet);
        assert_eq!(log.illegal().unwrap().to_string(), "`BaselineMet` cannot happen while the run is `new`");
        assert!(log.records().is_empty());
        drop(log);
        assert_eq!(notes.into_inner().len(), 1);
    }

    #[test]
    fn redaction_leaves_the_words_of_the_log_alone() {
        let redact: Redact<'_> = Box::new(|text| text.replace("blind", "‹secret›").replace("o", "‹secret›"));
        let mut value = serde_json::json!({ "event": "blind", "why": "blind", "deep": [{ "seen": "o" }] });
        walk(&mut value, &redact);
        let expected =
            serde_json::json!({ "event": "blind", "why": "‹secret›", "deep": [{ "seen": "‹secret›" }] });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_full_disk_ends_the_file_and_not_the_run() {
        let notes = RefCell::new(Vec::new());
        let watcher = Box::new(|tell: Tell<'_>| {
            if let Tell::Note(note) = tell {
                notes.borrow_mut().push(note.to_owned());
            }
        });
        // Every write to it fails with "no space left on device".
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut log = Log::new(Clock::since(None), Some(full), None, watcher);
        let started = include_str!("../report/tests/run.ndjson").lines().next().unwrap();
        log.record(serde_json::from_str::<Record>(started).unwrap().event);
        log.record(Event::BaselineMet);
        assert_eq!(log.records().len(), 2);
        drop(log);
        let notes = notes.into_inner();
        assert_eq!(notes.len(), 1, "said once: {notes:?}");
        assert!(notes[0].starts_with("warning: the event file ends here"));
    }
}
