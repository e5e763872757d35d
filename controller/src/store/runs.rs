//! Runs and their events. Events are only ever added; each has a number, from 0 on, without gaps.

use serde::Serialize;

use super::lease::LEASE_MS;
use super::page::place;
use super::sql::{Row, Sql, Value};
use super::{Store, StoreError, notices, now_ms};
use crate::notify::Happening;

/// The states of a run that goes on; any other is how it ended.
pub const LIVE: [&str; 3] = ["submitted", "running", "reverting"];

/// A run that is begun.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its name, unique.
    pub id: String,
    /// The experiment's title.
    pub title: String,
    /// The experiment as it was given.
    pub document: String,
    /// The hash of its plan.
    pub plan: String,
    /// Who began it.
    pub by: String,
    /// What it tests.
    pub tested: Tested,
}

/// What a run tests, as far as its history tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tested {
    /// The version under test, where that was said.
    pub build: Option<String>,
    /// How much the experiment counts in the score.
    pub weight: u32,
    /// What the experiment does and claims, as a hash.
    pub content: String,
    /// The experiment's tags.
    pub tags: Vec<String>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct RunRow {
    /// Its name.
    pub id: String,
    /// The experiment's title.
    pub title: String,
    /// The experiment as it was given; left out of lists.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub document: String,
    /// The hash of its plan.
    pub plan: String,
    /// Who began it.
    pub by: String,
    /// When: milliseconds since 1970.
    pub at: u64,
    /// What became of it so far, in a word.
    pub state: String,
    /// How often it was taken over: what is asked in an earlier epoch is refused.
    pub epoch: u64,
    /// How many events it has.
    pub events: u64,
    /// The version that is tested, where that was said.
    pub build: Option<String>,
}

/// A page of runs, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunsPage {
    /// The runs, without their documents.
    pub runs: Vec<RunRow>,
    /// What to ask for the next page with; `None`: this was the last.
    pub next: Option<String>,
}

/// What became of a run that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub id: String,
    /// The experiment's title.
    pub title: String,
    /// When it began: milliseconds since 1970.
    pub at: u64,
    /// In a word.
    pub state: String,
    /// The version that was tested, where that was said.
    pub build: Option<String>,
    /// How much the experiment counts in the score.
    pub weight: u32,
    /// What it does and claims, as a hash.
    pub content: String,
}

pub(super) fn run(row: &Row) -> Result<RunRow, StoreError> {
    Ok(RunRow {
        id: row.text(0)?,
        title: row.text(1)?,
        document: row.text(2)?,
        plan: row.text(3)?,
        by: row.text(4)?,
        at: row.number(5)?,
        state: row.text(6)?,
        epoch: row.number(7)?,
        events: row.number(8)?,
        build: row.some_text(9)?,
    })
}

fn ended(row: &Row) -> Result<Ended, StoreError> {
    Ok(Ended {
        id: row.text(0)?,
        title: row.text(1)?,
        at: row.number(2)?,
        state: row.text(3)?,
        build: row.some_text(4)?,
        weight: u32::try_from(row.number(5)?).unwrap_or(u32::MAX),
        content: row.text(6)?,
    })
}

pub(super) fn missing(id: &str) -> StoreError {
    StoreError::Missing(format!("run `{id}`"))
}

impl Store {
    /// Keeps a run in state `submitted`, at epoch 0, without events.
    pub async fn new_run(&self, new: NewRun) -> Result<(), StoreError> {
        self.write(move |sql| keep(sql, &new, "submitted", now_ms())).await
    }

    /// Adds events to a run, the first of them with this number; all or none. Those that are there already must be the
    /// same, and are left: an append whose answer was lost is sent again. Gives the number that comes next. As the one who
    /// carries the run on in this epoch.
    ///
    /// Errors: [`StoreError::Gap`], [`StoreError::Clash`] when an event of that number says something else,
    /// [`StoreError::Fenced`].
    pub async fn append(
        &self,
        epoch: u64,
        run: &str,
        first_seq: u64,
        events: &[String],
    ) -> Result<u64, StoreError> {
        let (run, events) = (run.to_owned(), events.to_vec());
        self.change(move |sql| append(sql, epoch, &run, first_seq, &events)).await
    }

    /// Events of a run from a number on, at most `limit`.
    pub async fn events(
        &self,
        run: &str,
        from_seq: u64,
        limit: u64,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        let run = run.to_owned();
        self.read(move |sql| {
            let asked = "SELECT seq, event FROM events WHERE run = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
            let rows = sql.query(asked, &[(&run).into(), from_seq.into(), limit.into()])?;
            rows.iter().map(|row| Ok((row.number(0)?, row.text(1)?))).collect()
        })
        .await
    }

    /// The run of a name.
    pub async fn run(&self, id: &str) -> Result<Option<RunRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |sql| {
            let asked = "SELECT id, title, document, plan, made_by, made_at, state, epoch, events, build FROM runs \
                         WHERE id = $1";
            sql.one(asked, &[(&id).into()])?.as_ref().map(run).transpose()
        })
        .await
    }

    /// Runs, the newest first, at most `limit`; `after` is the `next` of the page before.
    pub async fn runs(&self, after: Option<&str>, limit: u64) -> Result<RunsPage, StoreError> {
        let (at, id) = match after {
            Some(cursor) => place(cursor)?,
            None => (i64::MAX.unsigned_abs(), String::new()),
        };
        let mut runs = self
            .read(move |sql| {
                let asked = "SELECT id, title, '', plan, made_by, made_at, state, epoch, events, build FROM runs \
                             WHERE made_at < $1 OR (made_at = $1 AND id < $2) \
                             ORDER BY made_at DESC, id DESC LIMIT $3";
                let values = [Value::from(at), (&id).into(), (limit + 1).into()];
                sql.query(asked, &values)?.iter().map(run).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let more = runs.len() as u64 > limit;
        runs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next = runs.last().filter(|_| more).map(|last| format!("{}.{}", last.at, last.id));
        Ok(RunsPage { runs, next })
    }

    /// What became of the last runs of a title, the newest first, at most `limit`; those that go on are left out.
    pub async fn ended(&self, title: &str, limit: u64) -> Result<Vec<Ended>, StoreError> {
        // The index knows the beginnings of titles: PostgreSQL takes no long text into one. What a character is depends on
        // the database's encoding, so the database takes both beginnings.
        let title = title.to_owned();
        self.read(move |sql| {
            let asked = "SELECT id, title, made_at, state, build, weight, content FROM runs \
                         WHERE substr(title, 1, 200) = substr(CAST($1 AS TEXT), 1, 200) AND title = $2 ORDER BY made_at DESC, id DESC LIMIT $3";
            let rows = sql.query(asked, &[(&title).into(), (&title).into(), limit.into()])?;
            rows.iter().map(ended).filter(|row| row.as_ref().map_or(true, |row| !LIVE.contains(&row.state.as_str()))).collect()
        })
        .await
    }

    /// The last run that has ended of each title, of those that were begun since a time; the titles whose run is the oldest
    /// first, and the newest `limit` of them.
    pub async fn latest(&self, since_ms: u64, limit: u64) -> Result<Vec<Ended>, StoreError> {
        self.read(move |sql| {
            let asked = "SELECT id, title, made_at, state, build, weight, content FROM ( \
                         SELECT id, title, made_at, state, build, weight, content, \
                         ROW_NUMBER() OVER (PARTITION BY title ORDER BY made_at DESC, id DESC) AS place FROM runs \
                         WHERE made_at >= $1 AND state NOT IN ('submitted', 'running', 'reverting')) AS ranked \
                         WHERE place = 1 ORDER BY made_at DESC, id DESC LIMIT $2";
            let rows = sql.query(asked, &[since_ms.into(), limit.into()])?;
            rows.iter().rev().map(ended).collect()
        })
        .await
    }

    /// Sets what became of a run, as the one who carries it on in this epoch.
    ///
    /// Errors: [`StoreError::Fenced`] when somebody else does since.
    pub async fn set_run_state(&self, id: &str, state: &str, epoch: u64) -> Result<(), StoreError> {
        let (id, state, telling) = (id.to_owned(), state.to_owned(), self.is_telling());
        self.change(move |sql| {
            let set = "UPDATE runs SET state = $1 WHERE id = $2 AND epoch = $3";
            if sql.execute(set, &[(&state).into(), (&id).into(), epoch.into()])? > 0 {
                return came(sql, telling, &id, &state);
            }
            let row = sql.one("SELECT epoch FROM runs WHERE id = $1", &[(&id).into()])?;
            let now = row.ok_or_else(|| missing(&id))?.number(0)?;
            Err(StoreError::Fenced { asked: epoch, now })
        })
        .await
    }

    /// Takes a run over: gives the epoch in which it is carried on from now on. Whoever had it before is fenced off.
    pub async fn take_run(&self, id: &str) -> Result<u64, StoreError> {
        let id = id.to_owned();
        self.write(move |sql| {
            let taken = "UPDATE runs SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch";
            sql.one(taken, &[(&id).into()])?.ok_or_else(|| missing(&id))?.number(0)
        })
        .await
    }

    /// The runs in any of these states, oldest first: those that a controller which starts has to look after.
    pub async fn runs_in(&self, states: &[&str]) -> Result<Vec<RunRow>, StoreError> {
        let states: Vec<String> = states.iter().map(|state| (*state).to_owned()).collect();
        self.read(move |sql| {
            let asked = "SELECT id, title, document, plan, made_by, made_at, state, epoch, events, build FROM runs \
                         WHERE state = $1 ORDER BY made_at, id";
            let mut found = Vec::new();
            for state in &states {
                for row in sql.query(asked, &[state.into()])? {
                    found.push(run(&row)?);
                }
            }
            found.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
            Ok(found)
        })
        .await
    }
}

/// Keeps a run within a transaction, as the one who carries it on.
pub(super) fn keep(sql: &mut dyn Sql, new: &NewRun, state: &str, now: u64) -> Result<(), StoreError> {
    let kept = "INSERT INTO runs (id, title, document, plan, made_by, made_at, state, epoch, events, held_until, \
                build, weight, content, tags) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, $8, $9, $10, $11, $12)";
    let Tested { build, weight, content, tags } = &new.tested;
    let tags = serde_json::json!(tags).to_string();
    let values = [
        (&new.id).into(),
        (&new.title).into(),
        (&new.document).into(),
        (&new.plan).into(),
        (&new.by).into(),
        now.into(),
        state.into(),
        (now + LEASE_MS).into(),
        build.as_ref().into(),
        u64::from(*weight).into(),
        content.into(),
        (&tags).into(),
    ];
    sql.execute(kept, &values).map(drop)
}

/// Writes down that a run came to a state, as far as people are told of it.
pub(super) fn came(sql: &mut dyn Sql, telling: bool, run: &str, state: &str) -> Result<(), StoreError> {
    let run = run.to_owned();
    let happening = match state {
        "running" => Happening::RunBegun { run },
        live if LIVE.contains(&live) => return Ok(()),
        over => Happening::RunEnded { run, verdict: over.to_owned() },
    };
    notices::happened(sql, telling, &happening, now_ms())
}

fn append(
    sql: &mut dyn Sql,
    epoch: u64,
    run: &str,
    first: u64,
    events: &[String],
) -> Result<u64, StoreError> {
    // Altering the row, even to what it was, keeps other controllers from adding to this run until the commit.
    let locked = "UPDATE runs SET events = events WHERE id = $1 RETURNING events, epoch";
    let row = sql.one(locked, &[run.into()])?.ok_or_else(|| missing(run))?;
    let (mut next, now) = (row.number(0)?, row.number(1)?);
    if now != epoch {
        return Err(StoreError::Fenced { asked: epoch, now });
    }
    if first > next {
        return Err(StoreError::Gap { first, next });
    }
    for (seq, event) in (first..).zip(events) {
        if seq < next {
            let asked = "SELECT event FROM events WHERE run = $1 AND seq = $2";
            let row = sql.one(asked, &[run.into(), seq.into()])?;
            if row.map(|row| row.text(0)).transpose()?.as_ref() != Some(event) {
                return Err(StoreError::Clash(format!(
                    "event {seq} of run `{run}`, which says something else"
                )));
            }
            continue;
        }
        let added = "INSERT INTO events (run, seq, event) VALUES ($1, $2, $3)";
        sql.execute(added, &[run.into(), seq.into(), event.into()])?;
        next = seq + 1;
    }
    sql.execute("UPDATE runs SET events = $1 WHERE id = $2", &[next.into(), run.into()])?;
    Ok(next)
}
