//! Carries game days on: begins their runs, waits for people, writes down what runs measure.
//!
//! What comes next follows from the document, the record and the time ([`squall_experiments::gameday`]). A day is driven by one
//! controller, which holds it as runs are held; where that one is gone another takes the day over, where it stood.
//!
//! | file | what it is for |
//! |---|---|
//! | `day` | one day with its record, read from the store and added to |
//! | `drive` | one day, from where it stands to its end |
//! | `step` | the run of one step: begun as everybody's, and followed |

mod day;
mod drive;
mod step;

use std::sync::Arc;
use std::time::Duration;

use squall_experiments::gameday::{Event, GameDay};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::conductor::run_id;
use crate::launch::Launch;
use crate::notify::Happening;
use crate::scheduler::Scheduler;
use crate::store::{GameDayRow, NewGameDay, Store, StoreError};

pub use day::{Day, DayError};

/// Who does what nobody in particular does.
pub const SQUALL: &str = "squall";
/// How often somebody looks for days that nobody holds.
const LOOK: Duration = Duration::from_secs(2);

/// The game days of a controller. A clone is the same.
#[derive(Clone)]
pub struct GameDays(Arc<Shared>);

struct Shared {
    launch: Launch,
    scheduler: Scheduler,
    store: Store,
    begun: mpsc::UnboundedSender<GameDayRow>,
    /// Held by whoever drives them.
    days: Mutex<mpsc::UnboundedReceiver<GameDayRow>>,
}

impl GameDays {
    /// Over a store; nothing is done before [`GameDays::run`]. Its runs give way to what a scheduler is about to begin.
    pub fn new(launch: Launch, scheduler: Scheduler, store: Store) -> Self {
        let (begun, days) = mpsc::unbounded_channel();
        GameDays(Arc::new(Shared { launch, scheduler, store, begun, days: Mutex::new(days) }))
    }

    /// Begins a day, whose document holds the texts of its experiments; its first step is asked for at once.
    pub async fn begin(&self, day: &GameDay, by: &str) -> Result<GameDayRow, StoreError> {
        let strange = |error: serde_json::Error| StoreError::Strange(error.to_string());
        let id = format!("{}-{}", day.name, run_id());
        let new = NewGameDay {
            id: id.clone(),
            name: day.name.to_string(),
            title: day.title.clone(),
            document: serde_json::to_string(day).map_err(strange)?,
            by: by.to_owned(),
            first: day::line(by, Event::Begun),
        };
        self.0.store.new_game_day(new).await?;
        let row = self.0.store.game_day(&id).await?;
        let row = row.ok_or_else(|| StoreError::Missing(format!("game day `{id}`")))?;
        let (title, by) = (row.title.clone(), by.to_owned());
        self.0.store.tell(Happening::GameDayBegun { day: id, title, by });
        // Where nobody drives here, another controller finds it when its lease is over.
        let _ = self.0.begun.send(row.clone());
        Ok(row)
    }

    /// Drives all days that begin here, or that nobody holds, until it is dropped: then others may take them.
    pub async fn run(&self) {
        let mut days = self.0.days.lock().await;
        let mut driven = JoinSet::new();
        let mut told = false;
        loop {
            tokio::select! {
                begun = days.recv() => {
                    if let Some(row) = begun {
                        driven.spawn(self.clone().drive(row));
                    }
                    continue;
                }
                Some(_) = driven.join_next(), if !driven.is_empty() => continue,
                () = sleep(LOOK) => {}
            }
            match self.0.store.take_game_day().await {
                Ok(Some(row)) => {
                    tracing::warn!(
                        day = row.id,
                        epoch = row.epoch,
                        "a game day is carried on from where it stood"
                    );
                    driven.spawn(self.clone().drive(row));
                    told = false;
                }
                Ok(None) => told = false,
                Err(error) if !std::mem::replace(&mut told, true) => {
                    tracing::warn!(%error, "nobody can say which game days are carried on");
                }
                Err(_) => {}
            }
        }
    }
}
