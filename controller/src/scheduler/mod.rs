//! Begins runs by itself: what the schedules of the store say, each entry once, by whichever controller is first.
//!
//! Nothing is planned ahead in the store: the entries of a stretch of time follow from schedule, seed and calendars
//! ([`squall_experiments::schedule`]), so what [`calendar`] shows is what will be. The store keeps what became of each, and
//! decides in one transaction who begins it and whether the run before is far enough away.
//!
//! | file | what it is for |
//! |---|---|
//! | [`calendar`] | what is coming, what was, and why something will not run |
//! | `outlook` | a schedule of the store with everything that decides its entries |
//! | `begin` | one entry: its run, or its rehearsal |

mod begin;
pub mod calendar;
mod outlook;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use squall_experiments::schedule::Entry;
use tokio::task::JoinHandle;

use crate::api::engine::Submission;
use crate::budget::Footprint;
use crate::launch::Launch;
use crate::store::{Due, EntryKey, EntryRow, ScheduleRow, Store, StoreError, states};
use outlook::{Around, Known};

/// How late an entry may be begun. Later it is missed, and never run.
pub const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How often a schedule is looked at although nothing of it is due: hosts and calendars may have changed.
const AGAIN: SignedDuration = SignedDuration::from_secs(20);
/// How often that is written down.
const NOTED: SignedDuration = SignedDuration::from_secs(300);
/// How long an entry that cannot be planned is looked at again: its hosts may be about to connect, or be connected to another
/// controller on the same database, which then begins it.
const SETTLES: SignedDuration = SignedDuration::from_secs(10);
/// How often it looks whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// After this time an entry that was claimed is not begun any more: whoever claimed it is gone.
const GIVEN_UP: SignedDuration = SignedDuration::from_secs(900);
/// How many entries of one schedule are decided at once.
const AT_ONCE: usize = 1000;
/// How many entries that are about to come are planned for the budget.
const COMING: usize = 20;
/// How many entries that are decided already are looked at for that.
const MOST_DUE: u64 = 10_000;

/// The scheduler. A clone is the same.
#[derive(Clone)]
pub struct Scheduler(Arc<Shared>);

struct Shared {
    launch: Launch,
    store: Store,
    /// How far each schedule was looked at, by its name.
    marks: Mutex<BTreeMap<String, Mark>>,
}

/// How far a schedule was looked at by this process.
#[derive(Clone, Copy)]
struct Mark {
    /// When the schedule was added: one that was added again begins anew.
    since: u64,
    /// Its entries before this are decided.
    to: Timestamp,
    /// When it has to be looked at again.
    again: Timestamp,
    /// What the store knows of `to`.
    noted: Timestamp,
}

impl Scheduler {
    /// Over a store; nothing is done before [`Scheduler::tick`] or [`Scheduler::run`].
    pub fn new(launch: Launch, store: Store) -> Self {
        Scheduler(Arc::new(Shared { launch, store, marks: Mutex::default() }))
    }

    /// Begins what is due, every second, until it is dropped. A store that does not answer is asked again.
    pub async fn run(&self) {
        let mut told = false;
        loop {
            match self.tick(Timestamp::now()).await {
                Ok(_) => told = false,
                Err(error) if !told => {
                    tracing::warn!(%error, "schedules cannot be looked at");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Decides every entry that is due at an instant, and begins those whose time it is, each in a task of its own.
    ///
    /// Errors: of the store; what was not decided is looked at again the next time.
    pub async fn tick(&self, now: Timestamp) -> Result<Vec<JoinHandle<EntryRow>>, StoreError> {
        let rows = self.0.store.schedules().await?;
        self.marks(|marks| marks.retain(|name, _| rows.iter().any(|row| row.name == *name)));
        let waiting = |row: &&ScheduleRow| self.mark(row).is_none_or(|mark| now >= mark.again);
        let rows: Vec<ScheduleRow> = rows.iter().filter(waiting).cloned().collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let before = now.checked_sub(GIVEN_UP).unwrap_or(Timestamp::MIN);
        self.0.store.give_up_entries(ms(before)).await?;
        let around = Around::now(&self.0.launch, &self.0.store).await?;
        let mut begun = Vec::new();
        for row in rows {
            match Known::of(&row) {
                Ok(known) => {
                    self.look(known, &around, now, &mut begun).await?;
                    // Thousands of schedules must not keep hosts and people waiting.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::error!(schedule = row.name, %error, "a schedule cannot be read");
                    let (to, again) = (instant(row.decided_to), now.checked_add(NOTED).unwrap_or(now));
                    let mark = Mark { since: row.at, to, again, noted: to };
                    self.marks(|marks| marks.insert(row.name.clone(), mark));
                }
            }
        }
        Ok(begun)
    }

    /// Decides what is due of one schedule.
    async fn look(
        &self,
        known: Known,
        around: &Around,
        now: Timestamp,
        begun: &mut Vec<JoinHandle<EntryRow>>,
    ) -> Result<(), StoreError> {
        let row = &known.row;
        let kept = instant(row.decided_to);
        let mark = self.mark(row);
        let from = mark.map_or(kept, |mark| mark.to.max(kept));
        // An entry of this very moment is due.
        let next = now.checked_add(SignedDuration::from_millis(1)).unwrap_or(now);
        let due = known.entries(around, from, next, AT_ONCE);
        // Where there are more than can be decided at once, the rest comes with the next look.
        let mut to = if due.len() < AT_ONCE { next } else { due.last().map_or(next, |last| last.at) };
        for entry in &due {
            let late = now.duration_since(entry.at) > GRACE;
            if entry.barred.is_none() && known.row.paused.is_none() && self.leaves(&known, entry, now).await {
                to = entry.at;
                break;
            }
            let decided = self.0.store.decide_entry(decision(&known, entry, late)).await?;
            if let Some(decided) = decided.filter(|decided| decided.state == states::CLAIMED) {
                let (scheduler, known) = (self.clone(), known.clone());
                let entry = entry.clone();
                begun.push(tokio::spawn(async move { scheduler.begin(&known, &entry, decided).await }));
            }
        }
        let noted = mark.map_or(kept, |mark| mark.noted);
        let noted = if !due.is_empty() || to.duration_since(noted) >= NOTED {
            self.0.store.decided_to(&row.name, row.at, ms(to)).await?;
            to
        } else {
            noted
        };
        let soon = to.checked_add(AGAIN).unwrap_or(to);
        let again = known.entries(around, to, soon, 1).first().map_or(soon, |entry| entry.at);
        let again = if to < next { now } else { again };
        self.marks(|marks| marks.insert(row.name.clone(), Mark { since: row.at, to, again, noted }));
        Ok(())
    }

    /// Whether an entry is left for a moment, because its hosts are not here.
    async fn leaves(&self, known: &Known, entry: &Entry, now: Timestamp) -> bool {
        let young = now.duration_since(entry.at) < SETTLES;
        young && self.0.launch.engine().plan(&known.submission(entry)).await.is_err()
    }

    /// What schedules are about to begin from now on within so many seconds, what is due and has not begun yet too, the first 20:
    /// whoever wants a run gives way to it. Nothing where no budget is set. What cannot be planned by this controller is left out.
    pub async fn coming(
        &self,
        now: Timestamp,
        seconds: u64,
    ) -> Result<Vec<(EntryKey, Footprint)>, StoreError> {
        if self.0.launch.config().budget.is_none() {
            return Ok(Vec::new());
        }
        let seconds = SignedDuration::from_secs(i64::try_from(seconds.min(86_400)).unwrap_or(0));
        let to = now.checked_add(seconds).unwrap_or(now);
        // Until an entry is too late it may begin; one that is claimed does so as soon as its gates have answered.
        let from = now.checked_sub(GRACE).unwrap_or(now);
        let due = self.0.store.entries(None, ms(from), ms(to), MOST_DUE).await?;
        let over = due.iter().filter(|entry| entry.state != states::CLAIMED).map(EntryRow::key);
        let over: BTreeSet<EntryKey> = over.collect();
        let around = Around::now(&self.0.launch, &self.0.store).await?;
        let mut coming = Vec::new();
        for row in self.0.store.schedules().await?.iter().filter(|row| row.paused.is_none()) {
            let Ok(known) = Known::of(row) else { continue };
            let entries = known.entries(&around, from, to, COMING + over.len());
            let runs = entries.into_iter().filter(|entry| entry.barred.is_none() && !known.schedule.leashed);
            let keyed = runs.map(|entry| (key(&known, &entry), known.clone(), entry));
            coming.extend(keyed.filter(|(key, ..)| !over.contains(key)));
        }
        coming.sort_by_key(|(key, ..)| key.at);
        let mut found = Vec::new();
        for (key, known, entry) in coming.into_iter().take(COMING) {
            if let Ok(planned) = self.0.launch.engine().plan(&known.submission(&entry)).await {
                let run = format!("schedule:{}", known.row.name);
                found.push((key, Footprint { run, live: false, uses: planned.uses }));
            }
        }
        Ok(found)
    }

    fn mark(&self, row: &ScheduleRow) -> Option<Mark> {
        self.marks(|marks| marks.get(&row.name).copied()).filter(|mark| mark.since == row.at)
    }

    fn marks<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Mark>) -> T) -> T {
        with(&mut self.0.marks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn key(known: &Known, entry: &Entry) -> EntryKey {
    EntryKey { schedule: known.row.name.clone(), at: ms(entry.at), group: entry.group.clone() }
}

fn decision(known: &Known, entry: &Entry, late: bool) -> Due {
    Due {
        schedule: known.row.name.clone(),
        since: known.row.at,
        at: ms(entry.at),
        group: entry.group.clone(),
        barred: entry.barred.clone(),
        apart: entry.apart.map(ms),
        late,
        leashed: known.schedule.leashed,
    }
}

/// Milliseconds since 1970.
fn ms(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// The instant of milliseconds since 1970.
fn instant(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

impl Known {
    /// What is submitted for an entry.
    fn submission(&self, entry: &Entry) -> Submission {
        let mut only = self.schedule.opt_in.clone();
        if let squall_experiments::schedule::Timing::Random(random) = &self.schedule.when
            && let Some(per) = &random.per
        {
            only.insert(per.clone(), entry.group.clone());
        }
        Submission {
            document: self.schedule.experiment.clone(),
            name: Some(format!("the experiment of schedule `{}`", self.row.name)),
            vars: self.schedule.vars.clone(),
            seed: Some(entry.seed),
            only,
            ..Submission::default()
        }
    }
}
