//! One day with its record, read from the store and added to.

use squall_experiments::gameday::{Course, Event, GameDay, Phase, Record, Refused};

use crate::notify::Happening;
use crate::store::{GameDayRow, Store, StoreError, now_ms};

/// How many events are read at a time.
const PAGE: u64 = 1000;
/// How often something is tried again because somebody else was quicker.
const TRIES: u32 = 50;

/// A game day as it stands.
#[derive(Clone, Debug)]
pub struct Day {
    /// As it is kept.
    pub row: GameDayRow,
    /// Its document.
    pub document: GameDay,
    /// What happened, in its order.
    pub records: Vec<Record>,
    /// Where it stands.
    pub course: Course,
}

/// Why something did not happen on a day.
#[derive(Debug, thiserror::Error)]
pub enum DayError {
    /// It cannot happen now.
    #[error("{0}")]
    Refused(Refused),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An event as it is kept, of this moment.
pub(super) fn line(by: &str, event: Event) -> String {
    let record = Record { at: now_ms(), by: by.to_owned(), event };
    // It holds nothing that JSON cannot say.
    serde_json::to_string(&record).unwrap_or_default()
}

impl Day {
    /// A day as it is kept, with all of its events.
    pub async fn read(store: &Store, row: GameDayRow) -> Result<Self, StoreError> {
        let document: GameDay =
            serde_json::from_str(&row.document).map_err(|error| StoreError::Strange(error.to_string()))?;
        let course = Course::of(&document);
        let mut day = Day { row, document, records: Vec::new(), course };
        day.refresh(store).await?;
        Ok(day)
    }

    /// Takes in what was added since.
    pub async fn refresh(&mut self, store: &Store) -> Result<(), StoreError> {
        loop {
            let from = self.records.len() as u64;
            let page = store.game_day_events(&self.row.id, from, PAGE).await?;
            let all = (page.len() as u64) < PAGE;
            for (seq, text) in page {
                let strange = |why: String| {
                    StoreError::Strange(format!("event {seq} of game day `{}`: {why}", self.row.id))
                };
                let record: Record =
                    serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
                self.course.take(&record).map_err(|refused| strange(refused.what))?;
                self.records.push(record);
            }
            if all {
                (self.row.events, self.row.state) =
                    (self.records.len() as u64, state(self.course.phase).to_owned());
                return Ok(());
            }
        }
    }

    /// Adds an event, if it can happen after everything that was added before it. `epoch` is that of whoever drives the day.
    pub async fn add(
        &mut self,
        store: &Store,
        epoch: Option<u64>,
        by: &str,
        event: Event,
    ) -> Result<(), DayError> {
        for _ in 0..TRIES {
            let record = Record { at: now_ms(), by: by.to_owned(), event: event.clone() };
            let mut after = self.course.clone();
            after.take(&record).map_err(DayError::Refused)?;
            let text = serde_json::to_string(&record).unwrap_or_default();
            let seq = self.records.len() as u64;
            match store.add_game_day_event(&self.row.id, epoch, seq, &text, state(after.phase)).await {
                Ok(()) => {
                    self.course = after;
                    self.told_of(store, &record.event);
                    self.records.push(record);
                    (self.row.events, self.row.state) = (seq + 1, state(self.course.phase).to_owned());
                    return Ok(());
                }
                // Somebody was quicker: it may still happen after what he added, or not.
                Err(StoreError::Gap { .. }) => self.refresh(store).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Away("others add to the game day without end".to_owned()).into())
    }
}

impl Day {
    /// What people may want to be told of, besides those who look at its page.
    fn told_of(&self, store: &Store, event: &Event) {
        let (day, title) = (self.row.id.clone(), self.row.title.clone());
        match event {
            Event::Asked { step, why } => {
                let (step, why) = (step.to_string(), why.clone());
                store.tell(Happening::GameDayAsks { day, title, step, why });
            }
            Event::Stopped { why } => {
                store.tell(Happening::GameDayEnded { day, title, stopped: Some(why.clone()) });
            }
            Event::Ended if self.course.stopped.is_none() => {
                store.tell(Happening::GameDayEnded { day, title, stopped: None });
            }
            _ => {}
        }
    }
}

/// How far a day is, as the store has it.
fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::New | Phase::Open => "open",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
        Phase::Ended => "ended",
    }
}
