//! What a run's own log tells a game day: when its fault began and ended as measured there, and how it ended.

use std::collections::{BTreeMap, BTreeSet};

use super::record::Event;
use crate::exit::Exit;
use crate::muster::{FleetEvent, Line, What};
use crate::name::Name;
use crate::run::{Event as OfRun, Record};

/// Something in a run's log that concerns its game day. Moments are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The first change was made on a host.
    FaultBegan(u64),
    /// Nothing is changed on any host any more.
    FaultEnded(u64),
    /// The hypothesis held again, on all hosts that were looked at after the revert.
    WellAgain(u64),
    /// The run has ended.
    Ended(Exit, String),
}

impl Seen {
    /// As an event of a step and its run.
    pub fn event(self, step: &Name, run: &str) -> Event {
        let (step, run) = (step.clone(), run.to_owned());
        match self {
            Seen::FaultBegan(moment) => Event::FaultBegan { step, run, moment },
            Seen::FaultEnded(moment) => Event::FaultEnded { step, run, moment },
            Seen::WellAgain(moment) => Event::WellAgain { step, run, moment },
            Seen::Ended(exit, sentence) => Event::RunEnded { step, run, exit, sentence },
        }
    }
}

/// Reads the log of one run, line after line.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// When the run began: milliseconds since 1970. Its lines count from there.
    began: u64,
    /// Whether something was changed.
    injected: bool,
    /// The parts that are live, by host.
    live: BTreeSet<(String, u32)>,
    /// When the look after the revert began, by host, where it has not succeeded.
    recovering: BTreeMap<String, u64>,
    /// When the last host was well again.
    well: Option<u64>,
}

impl Watch {
    /// A log that begins about that time, should it not say so itself.
    pub fn from(began: u64) -> Self {
        Watch { began, ..Watch::default() }
    }

    /// What a line says, in the order in which it is to be told.
    pub fn line(&mut self, line: &Line) -> Vec<Seen> {
        match &line.what {
            What::OnHost { host, record } => self.on_host(host, record).into_iter().collect(),
            What::Fleet { event: FleetEvent::Began(began), .. } => {
                self.began = began.at.unwrap_or(self.began);
                Vec::new()
            }
            What::Fleet { event: FleetEvent::Finished { exit, sentence, .. }, .. } => {
                let well = self.well.take().filter(|_| self.recovering.is_empty()).map(Seen::WellAgain);
                well.into_iter().chain([Seen::Ended(*exit, sentence.clone())]).collect()
            }
            What::Fleet { .. } => Vec::new(),
        }
    }

    fn on_host(&mut self, host: &str, record: &Record) -> Option<Seen> {
        let at = |ms: u64| self.began.saturating_add(ms);
        match &record.event {
            OfRun::Injected { part, applied } => {
                // The instant of the change itself, where it is known on the clock of whoever drives the run.
                let ms = applied.began.map_or(record.at_ms, |began| began.at_us / 1000);
                let seen = Seen::FaultBegan(at(ms));
                self.live.insert((host.to_owned(), *part));
                (!std::mem::replace(&mut self.injected, true)).then_some(seen)
            }
            OfRun::Lifted { part, lifted, .. } if lifted.stuck.is_empty() => {
                let seen = Seen::FaultEnded(at(record.at_ms));
                let before = self.live.len();
                self.live.retain(|(on, live)| on != host || part.is_some_and(|part| part != *live));
                (before > 0 && self.live.is_empty()).then_some(seen)
            }
            OfRun::RecoveryBegan => {
                let began = at(record.at_ms);
                self.recovering.insert(host.to_owned(), began);
                None
            }
            OfRun::WellAgain { after_ms } => {
                let began = self.recovering.remove(host)?;
                let well = began.saturating_add(*after_ms);
                self.well = Some(self.well.map_or(well, |known| known.max(well)));
                None
            }
            _ => None,
        }
    }
}
