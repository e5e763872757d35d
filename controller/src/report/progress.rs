//! What whoever waits sees of a run: on standard error, lines as they happen and one that lives.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use squall_experiments::run::{Event, Record, Seen, State};
use squall_experiments::summary::line;
use squall_experiments::verdict::{Phase, Tally};

use super::{Paint, printable};
use crate::conductor::Tell;

/// Writes progress. On anything but a terminal only notes are written.
#[derive(Debug)]
pub struct Progress<W> {
    out: W,
    live: bool,
    paint: Paint,
    parts: BTreeMap<u32, String>,
    tallies: Vec<Watched>,
    phase: Phase,
    /// Whether the living line stands on the terminal.
    standing: bool,
}

/// A hypothesis in the phase that goes on.
#[derive(Debug)]
struct Watched {
    name: String,
    tally: Tally,
    /// The p99 latency of the last sample of a load.
    latency: Option<String>,
}

impl<W: Write + IsTerminal> Progress<W> {
    /// On a stream; `quiet` keeps even a terminal to notes.
    pub fn on(out: W, quiet: bool) -> Self {
        let paint = Paint::on(&out);
        let live = out.is_terminal() && !quiet;
        Progress::new(out, live, paint)
    }
}

impl<W: Write> Progress<W> {
    pub(super) fn new(out: W, live: bool, paint: Paint) -> Self {
        Progress {
            out,
            live,
            paint,
            parts: BTreeMap::new(),
            tallies: Vec::new(),
            phase: Phase::Baseline,
            standing: false,
        }
    }

    /// Takes what happened. A stream that is gone is no reason to stop: nothing is written then.
    pub fn tell(&mut self, tell: &Tell<'_>) {
        match tell {
            Tell::Note(text) => self.note(text),
            Tell::Event(record, state) => {
                if let Event::Injecting { part, name, .. } = &record.event {
                    self.parts.insert(*part, name.clone());
                }
                if self.live {
                    self.event(record, state);
                }
            }
        }
        let _ = self.out.flush();
    }

    /// Writes a line that everybody gets, terminal or not.
    pub fn note(&mut self, text: &str) {
        self.clear();
        let _ = writeln!(self.out, "{}", printable::text(text));
    }

    fn event(&mut self, record: &Record, state: &State) {
        if let Event::Sample(seen) = &record.event {
            if seen.phase != self.phase {
                self.phase = seen.phase;
                self.tallies.clear();
            }
            if !seen.guard && seen.is_whole() {
                self.watched(seen);
            }
        }
        let parts = &self.parts;
        let name =
            |part: u32| parts.get(&part).map_or_else(|| format!("part {part}"), |name| format!("`{name}`"));
        let said = line(&record.event, name);
        self.clear();
        let seconds = record.at_ms as f64 / 1000.0;
        if let Some(said) = said {
            let at = self.paint.dim(&format!("{seconds:>8.1} s"));
            let _ = writeln!(self.out, "{at}  {}", printable::text(&said));
        }
        if state.is_over() {
            return;
        }
        let phase = match self.phase {
            Phase::Baseline => "baseline",
            Phase::During => "during",
            Phase::Between => "",
            Phase::Recovery => "recovery",
        };
        let tallies = self.tallies.iter().map(|watched| {
            let latency = watched.latency.as_deref().unwrap_or_default();
            format!("{} {}/{}{latency}", watched.name, watched.tally.good, watched.tally.total())
        });
        let tallies: Vec<String> = tallies.collect();
        let mut living = format!("{seconds:>8.1} s  {phase}  {}", tallies.join(", "));
        // A line that wraps could not be taken back.
        if let Some((cut, _)) = living.char_indices().nth(78) {
            living.truncate(cut);
        }
        let _ = write!(self.out, "{}", self.paint.dim(&printable::text(&living)));
        self.standing = true;
    }

    fn watched(&mut self, seen: &Seen) {
        let place = self.tallies.iter().position(|watched| watched.name == seen.name);
        let place = place.unwrap_or_else(|| {
            let (name, tally) = (seen.name.clone(), Tally::default());
            self.tallies.push(Watched { name, tally, latency: None });
            self.tallies.len() - 1
        });
        let watched = &mut self.tallies[place];
        watched.tally.add(seen.good);
        watched.latency = seen.load.as_ref().map(|load| match load.quantile(990) {
            Some(p99) => format!(" p99 {:.1} ms", p99.as_secs_f64() * 1000.0),
            None => " p99 no answer".to_owned(),
        });
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.standing) {
            let _ = write!(self.out, "\r\x1b[K");
        }
    }
}
