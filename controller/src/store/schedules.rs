//! Schedules, and what became of their entries. An entry is decided once, by whichever controller is first.

use serde::Serialize;

use super::sql::{Row, Sql, Value};
use super::{Store, StoreError, notices, now_ms};
use crate::notify::Happening;

/// A schedule that is added.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    /// Its name, unique.
    pub name: String,
    /// The schedule as JSON, its experiment in it.
    pub document: String,
    /// The seed of every coin.
    pub seed: u64,
    /// Who adds it.
    pub by: String,
    /// When: milliseconds since 1970. Its entries begin here.
    pub at: u64,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduleRow {
    /// Its name.
    pub name: String,
    /// The schedule as JSON.
    pub document: String,
    /// The seed of every coin.
    pub seed: u64,
    /// Who added it.
    pub by: String,
    /// When: milliseconds since 1970.
    pub at: u64,
    /// Why nothing of it runs.
    pub paused: Option<Paused>,
    /// Who approved it.
    pub approved: Option<Approved>,
    /// Every entry before this is decided.
    pub decided_to: u64,
}

/// Why a schedule is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Paused {
    /// When: milliseconds since 1970.
    pub at: u64,
    /// By whom.
    pub by: String,
    /// Why.
    pub why: String,
}

/// An approval of a schedule, for all its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Approved {
    /// When: milliseconds since 1970.
    pub at: u64,
    /// By whom.
    pub by: String,
    /// The SHA-256 of what was approved: the schedule as JSON, its experiment in it.
    pub hash: String,
}

/// An entry whose time has come.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its schedule.
    pub schedule: String,
    /// When that was added: one of the same name that was added later is another.
    pub since: u64,
    /// When it was to run: milliseconds since 1970.
    pub at: u64,
    /// Its group of hosts; empty: all.
    pub group: String,
    /// What bars it.
    pub barred: Option<String>,
    /// A run of its group at or after this time is too near.
    pub apart: Option<u64>,
    /// Whether its time is over: it is missed then.
    pub late: bool,
    /// Whether it injects nothing.
    pub leashed: bool,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryRow {
    /// Its schedule.
    pub schedule: String,
    /// When it was to run: milliseconds since 1970.
    pub at: u64,
    /// Its group of hosts; empty: all.
    pub group: String,
    /// What became of it: see [`states`].
    pub state: String,
    /// Why.
    pub why: Option<String>,
    /// Its run.
    pub run: Option<String>,
}

impl EntryRow {
    /// Which entry it is.
    pub fn key(&self) -> EntryKey {
        EntryKey { schedule: self.schedule.clone(), at: self.at, group: self.group.clone() }
    }
}

/// Which entry of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey {
    /// Its schedule.
    pub schedule: String,
    /// When it was to run: milliseconds since 1970.
    pub at: u64,
    /// Its group of hosts; empty: all.
    pub group: String,
}

/// What becomes of entries.
pub mod states {
    /// A controller has taken it and is about to begin its run.
    pub const CLAIMED: &str = "claimed";
    /// Its run began.
    pub const FIRED: &str = "fired";
    /// It went through everything and injected nothing.
    pub const LEASHED: &str = "leashed";
    /// It was refused, by a gate, the budget, or for want of hosts.
    pub const REFUSED: &str = "refused";
    /// It was not to run: an exception, a pause, or too near to the run before.
    pub const SKIPPED: &str = "skipped";
    /// No controller was there at its time.
    pub const MISSED: &str = "missed";
}

/// The columns of a schedule, as [`schedule`] reads them, and which.
macro_rules! schedules {
    ($which:literal) => {
        concat!(
            "SELECT name, document, seed, made_by, made_at, paused_at, paused_by, paused_why, decided_to, ",
            "approved_at, approved_by, approved_hash FROM schedules ",
            $which
        )
    };
}

const ALL: &str = schedules!("ORDER BY name");
const NAMED: &str = schedules!("WHERE name = $1");

fn schedule(row: &Row) -> Result<ScheduleRow, StoreError> {
    let paused = match row.some_number(5)? {
        Some(at) => Some(Paused {
            at,
            by: row.some_text(6)?.unwrap_or_default(),
            why: row.some_text(7)?.unwrap_or_default(),
        }),
        None => None,
    };
    let approved = match row.some_number(9)? {
        Some(at) => Some(Approved {
            at,
            by: row.some_text(10)?.unwrap_or_default(),
            hash: row.some_text(11)?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok(ScheduleRow {
        name: row.text(0)?,
        document: row.text(1)?,
        seed: row.number(2)?,
        by: row.text(3)?,
        at: row.number(4)?,
        paused,
        approved,
        decided_to: row.number(8)?,
    })
}

fn entry(row: &Row) -> Result<EntryRow, StoreError> {
    Ok(EntryRow {
        schedule: row.text(0)?,
        at: row.number(1)?,
        group: row.text(2)?,
        state: row.text(3)?,
        why: row.some_text(4)?,
        run: row.some_text(5)?,
    })
}

fn missing(name: &str) -> StoreError {
    StoreError::Missing(format!("schedule `{name}`"))
}

impl Store {
    /// Adds a schedule. Errors: [`StoreError::Clash`] when there is one of that name.
    pub async fn new_schedule(&self, new: NewSchedule) -> Result<(), StoreError> {
        self.write(move |sql| {
            let kept = "INSERT INTO schedules (name, document, seed, made_by, made_at, decided_to) \
                        VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (name) DO NOTHING";
            let values = [
                (&new.name).into(),
                (&new.document).into(),
                new.seed.into(),
                (&new.by).into(),
                new.at.into(),
            ];
            match sql.execute(kept, &values)? {
                0 => Err(StoreError::Clash(format!("schedule `{}`", new.name))),
                _ => Ok(()),
            }
        })
        .await
    }

    /// All schedules by name.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        self.read(|sql| sql.query(ALL, &[])?.iter().map(schedule).collect()).await
    }

    /// The schedule of a name.
    pub async fn schedule(&self, name: &str) -> Result<Option<ScheduleRow>, StoreError> {
        let name = name.to_owned();
        self.read(move |sql| sql.one(NAMED, &[(&name).into()])?.as_ref().map(schedule).transpose()).await
    }

    /// Pauses a schedule, or lets it go on. One that is paused stays so for its first reason.
    pub async fn pause_schedule(&self, name: &str, paused: Option<Paused>) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |sql| {
            let done = match &paused {
                Some(paused) => sql.execute(
                    "UPDATE schedules SET paused_by = COALESCE(paused_by, $2), \
                     paused_why = COALESCE(paused_why, $3), paused_at = COALESCE(paused_at, $4) WHERE name = $1",
                    &[(&name).into(), (&paused.by).into(), (&paused.why).into(), paused.at.into()],
                )?,
                None => sql.execute(
                    "UPDATE schedules SET paused_at = NULL, paused_by = NULL, paused_why = NULL WHERE name = $1",
                    &[(&name).into()],
                )?,
            };
            if done == 0 { Err(missing(&name)) } else { Ok(()) }
        })
        .await
    }

    /// Approves a schedule that was added at a time, as it is now; the first approval stays.
    ///
    /// Errors: [`StoreError::Missing`] also when another was added under that name since.
    pub async fn approve_schedule(
        &self,
        name: &str,
        since: u64,
        approved: Approved,
    ) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |sql| {
            let set = "UPDATE schedules SET approved_at = COALESCE(approved_at, $3), \
                       approved_by = COALESCE(approved_by, $4), approved_hash = COALESCE(approved_hash, $5) \
                       WHERE name = $1 AND made_at = $2";
            let Approved { at, by, hash } = &approved;
            let values = [(&name).into(), since.into(), (*at).into(), by.into(), hash.into()];
            if sql.execute(set, &values)? == 0 { Err(missing(&name)) } else { Ok(()) }
        })
        .await
    }

    /// Removes a schedule; what became of its entries is kept.
    pub async fn remove_schedule(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |sql| {
            match sql.execute("DELETE FROM schedules WHERE name = $1", &[(&name).into()])? {
                0 => Err(missing(&name)),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Decides an entry in one transaction with its minimum spacing: [`states::CLAIMED`] for whoever is first and may begin its
    /// run; `None` where it was decided before, or its schedule is gone. Every other state is final.
    pub async fn decide_entry(&self, due: Due) -> Result<Option<EntryRow>, StoreError> {
        let telling = self.is_telling();
        self.write(move |sql| {
            let decided = decide(sql, &due)?;
            if let Some(entry) = &decided {
                came(sql, telling, entry)?;
            }
            Ok(decided)
        })
        .await
    }

    /// Says what became of an entry that was claimed, or of the run with which it was let in ([`Store::admit`]). What is final
    /// stays.
    pub async fn settle_entry(&self, settled: &EntryRow) -> Result<(), StoreError> {
        let (settled, telling) = (settled.clone(), self.is_telling());
        self.write(move |sql| settle(sql, telling, &settled)).await
    }

    /// Entries that were claimed before a time and of which nothing was heard since: their controller has ended. They are
    /// missed. Gives how many there were.
    pub async fn give_up_entries(&self, before: u64) -> Result<u64, StoreError> {
        let telling = self.is_telling();
        self.write(move |sql| {
            let set = "UPDATE schedule_entries SET state = 'missed', \
                       why = 'the controller that was about to begin it has ended' \
                       WHERE state = 'claimed' AND at < $1 RETURNING schedule, at, part, state, why, run";
            let rows = sql.query(set, &[before.into()])?;
            for row in &rows {
                came(sql, telling, &entry(row)?)?;
            }
            Ok(rows.len() as u64)
        })
        .await
    }

    /// Every entry of a schedule before a time is decided.
    pub async fn decided_to(&self, name: &str, since: u64, to: u64) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |sql| {
            let set =
                "UPDATE schedules SET decided_to = $3 WHERE name = $1 AND made_at = $2 AND decided_to < $3";
            sql.execute(set, &[(&name).into(), since.into(), to.into()]).map(drop)
        })
        .await
    }

    /// The last entry of each group of each schedule that ran or is about to, one for each state; they have no reason and no run.
    pub async fn ran_last(&self) -> Result<Vec<EntryRow>, StoreError> {
        self.read(|sql| {
            let asked = "SELECT schedule, MAX(at), part, state, NULL, NULL FROM schedule_entries \
                         WHERE state = 'claimed' OR state = 'fired' OR state = 'leashed' GROUP BY schedule, part, state";
            sql.query(asked, &[])?.iter().map(entry).collect()
        })
        .await
    }

    /// Decided entries from a time on and before another, by time, at most `limit`; of one schedule or of all.
    pub async fn entries(
        &self,
        schedule: Option<&str>,
        from: u64,
        to: u64,
        limit: u64,
    ) -> Result<Vec<EntryRow>, StoreError> {
        let schedule = schedule.map(str::to_owned);
        self.read(move |sql| {
            let bounds: [Value; 3] = [from.into(), to.into(), limit.into()];
            let rows = match &schedule {
                None => sql.query(
                    "SELECT schedule, at, part, state, why, run FROM schedule_entries \
                     WHERE at >= $1 AND at < $2 ORDER BY at, schedule, part LIMIT $3",
                    &bounds,
                )?,
                Some(name) => {
                    let [from, to, limit] = bounds;
                    sql.query(
                        "SELECT schedule, at, part, state, why, run FROM schedule_entries \
                         WHERE schedule = $4 AND at >= $1 AND at < $2 ORDER BY at, part LIMIT $3",
                        &[from, to, limit, name.into()],
                    )?
                }
            };
            rows.iter().map(entry).collect()
        })
        .await
    }
}

/// See [`Store::settle_entry`].
pub(super) fn settle(sql: &mut dyn Sql, telling: bool, settled: &EntryRow) -> Result<(), StoreError> {
    let set = "UPDATE schedule_entries SET state = $4, why = $5, run = $6 \
               WHERE schedule = $1 AND at = $2 AND part = $3 \
               AND (state = 'claimed' OR (state = 'fired' AND run = $6))";
    let values = [
        (&settled.schedule).into(),
        settled.at.into(),
        (&settled.group).into(),
        (&settled.state).into(),
        settled.why.as_ref().into(),
        settled.run.as_ref().into(),
    ];
    match sql.execute(set, &values)? {
        0 => Ok(()),
        _ => came(sql, telling, settled),
    }
}

/// Whether an entry is claimed still; until the commit nobody else says what became of it.
pub(super) fn is_claimed(sql: &mut dyn Sql, entry: &EntryKey) -> Result<bool, StoreError> {
    let locked = "UPDATE schedule_entries SET state = state \
                  WHERE schedule = $1 AND at = $2 AND part = $3 AND state = 'claimed'";
    let values = [(&entry.schedule).into(), entry.at.into(), (&entry.group).into()];
    Ok(sql.execute(locked, &values)? > 0)
}

/// What became of an entry; none: it is not decided yet.
pub(super) fn state_of(sql: &mut dyn Sql, entry: &EntryKey) -> Result<Option<String>, StoreError> {
    let asked = "SELECT state FROM schedule_entries WHERE schedule = $1 AND at = $2 AND part = $3";
    let values = [(&entry.schedule).into(), entry.at.into(), (&entry.group).into()];
    sql.one(asked, &values)?.map(|row| row.text(0)).transpose()
}

/// Writes down what became of an entry, as far as people are told of it.
fn came(sql: &mut dyn Sql, telling: bool, entry: &EntryRow) -> Result<(), StoreError> {
    let EntryRow { schedule, at: due, group, state, why, run } = entry.clone();
    let why = why.unwrap_or_default();
    let happening = match state.as_str() {
        states::REFUSED => Happening::EntryRefused { schedule, due, group, why, run },
        states::MISSED => Happening::EntryMissed { schedule, due, group, why },
        _ => return Ok(()),
    };
    notices::happened(sql, telling, &happening, now_ms())
}

fn decide(sql: &mut dyn Sql, due: &Due) -> Result<Option<EntryRow>, StoreError> {
    // Altering the row, even to what it was, keeps other controllers from deciding entries of this schedule until the commit:
    // two runs of one group cannot both find that nothing ran lately.
    let locked = "UPDATE schedules SET decided_to = decided_to WHERE name = $1 AND made_at = $2 \
                  RETURNING paused_at, paused_by, paused_why";
    let Some(row) = sql.one(locked, &[(&due.schedule).into(), due.since.into()])? else { return Ok(None) };
    // A pause is somebody's word: what has not begun yet does not begin, but what was missed before it stays missed.
    let paused = row.some_number(0)?.filter(|at| *at <= due.at || !due.late);
    let (state, why) = if let Some(barred) = &due.barred {
        (states::SKIPPED, Some(barred.clone()))
    } else if paused.is_some() {
        let by = row.some_text(1)?.unwrap_or_default();
        (states::SKIPPED, Some(format!("paused by {by}: {}", row.some_text(2)?.unwrap_or_default())))
    } else if due.late {
        (states::MISSED, Some("no controller began it at its time".to_owned()))
    } else if let Some(at) = near(sql, due)? {
        (states::SKIPPED, Some(too_near(at)))
    } else {
        (states::CLAIMED, None)
    };
    let added = "INSERT INTO schedule_entries (schedule, at, part, state, why) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (schedule, at, part) DO NOTHING";
    let values =
        [(&due.schedule).into(), due.at.into(), (&due.group).into(), state.into(), why.as_ref().into()];
    if sql.execute(added, &values)? == 0 {
        return Ok(None);
    }
    let (schedule, group) = (due.schedule.clone(), due.group.clone());
    Ok(Some(EntryRow { schedule, at: due.at, group, state: state.to_owned(), why, run: None }))
}

/// When the group ran, if that is too near. What was leashed counts only against what is leashed.
fn near(sql: &mut dyn Sql, due: &Due) -> Result<Option<u64>, StoreError> {
    let Some(apart) = due.apart else { return Ok(None) };
    let asked = "SELECT at FROM schedule_entries WHERE schedule = $1 AND part = $2 AND at >= $3 AND at <> $4 \
                 AND (state = 'claimed' OR state = 'fired' OR state = $5) ORDER BY at DESC LIMIT 1";
    let leashed = if due.leashed { states::LEASHED } else { states::FIRED };
    let values = [(&due.schedule).into(), (&due.group).into(), apart.into(), due.at.into(), leashed.into()];
    sql.one(asked, &values)?.map(|row| row.number(0)).transpose()
}

/// Why an entry does not run whose group ran at a time.
pub(crate) fn too_near(at: u64) -> String {
    format!("it ran at {}, which is too near", moment(at))
}

fn moment(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

impl Paused {
    /// A pause that begins now.
    pub fn now(by: &str, why: &str) -> Self {
        Paused { at: now_ms(), by: by.to_owned(), why: why.to_owned() }
    }
}
