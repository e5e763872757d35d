//! What whoever waits sees of a run: on standard error, lines as they happen and one that lives.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use squall_experiments::run::{Event, Record, Seen, State};
use squall_experiments::summary::line;
use squall_experiments::verdict::{Phase, Tally};

use super::{Paint, harmless, printable};
use crate::conductor::Tell;

/// Writes progress. On anything but a terminal only notes are written, unless a log was asked for.
#[derive(Debug)]
pub struct Progress<W> {
    out: W,
    shown: Shown,
    /// Which run this is, where several are shown at the same time.
    label: String,
    /// Whether a reader of the log may take a line for a command.
    guard: bool,
    paint: Paint,
    parts: BTreeMap<u32, String>,
    tallies: Vec<Watched>,
    phase: Phase,
    /// Whether the living line stands on the terminal.
    standing: bool,
}

/// How much of it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Notes,
    /// What happens, a line each.
    Log,
    /// The same, and a line that lives.
    Living,
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
        let shown = if out.is_terminal() && !quiet { Shown::Living } else { Shown::Notes };
        Progress::new(out, shown, paint)
    }
}

impl<W: Write> Progress<W> {
    /// A plain log on a stream: what happens, a line each. `guard` keeps lines from being commands to a runner of GitHub.
    pub fn log(out: W, guard: bool) -> Self {
        Progress { guard, ..Progress::new(out, Shown::Log, Paint::OFF) }
    }

    /// Begins every line with the name of the run.
    pub fn label(&mut self, name: &str) {
        self.label = format!("[{}] ", printable::text(name).replace('\n', " "));
    }

    pub(super) fn new(out: W, shown: Shown, paint: Paint) -> Self {
        Progress {
            out,
            shown,
            label: String::new(),
            guard: false,
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
                if self.shown != Shown::Notes {
                    self.event(record, state);
                }
            }
        }
        let _ = self.out.flush();
    }

    /// Writes a line that everybody gets, terminal or not.
    pub fn note(&mut self, text: &str) {
        self.clear();
        self.line("", text);
    }

    /// Writes a line; `lead` may be painted.
    fn line(&mut self, lead: &str, text: &str) {
        let text = format!("{}{lead}{}", self.label, printable::text(text));
        let text = if self.guard { harmless(&text) } else { text.into() };
        let _ = writeln!(self.out, "{text}");
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
            self.line(&format!("{at}  "), &said);
        }
        if state.is_over() || self.shown != Shown::Living {
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
