//! Game days and what happened on them. Events are only ever added, each with a number from 0 on, and each by somebody who knew all
//! that were before it: of two who decide the same at the same time one is first, and the other finds out.

use serde::Serialize;

use super::lease::LEASE_MS;
use super::sql::Row;
use super::{Store, StoreError, now_ms};

/// A game day that begins.
#[derive(Clone, Debug)]
pub struct NewGameDay {
    /// Its id, unique.
    pub id: String,
    /// Its name: days of one name are compared.
    pub name: String,
    /// What it is about.
    pub title: String,
    /// The document as JSON, with the texts of its experiments in it.
    pub document: String,
    /// Who began it.
    pub by: String,
    /// Its first event.
    pub first: String,
}

/// A game day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct GameDayRow {
    /// Its id.
    pub id: String,
    /// Its name: days of one name are compared.
    pub name: String,
    /// What it is about.
    pub title: String,
    /// The document as JSON; left out of lists.
    #[serde(skip)]
    pub document: String,
    /// Who began it.
    pub by: String,
    /// When: milliseconds since 1970.
    pub at: u64,
    /// How far it is, in a word: `open`, `stopping`, `stopped` or `ended`.
    pub state: String,
    /// How often it was taken over by another controller.
    pub epoch: u64,
    /// How many events it has.
    pub events: u64,
}

/// The columns of a game day, as [`day`] reads them, and which.
macro_rules! days {
    ($document:literal, $which:literal) => {
        concat!(
            "SELECT id, name, title, ",
            $document,
            ", made_by, made_at, state, epoch, events FROM game_days ",
            $which
        )
    };
}

fn day(row: &Row) -> Result<GameDayRow, StoreError> {
    Ok(GameDayRow {
        id: row.text(0)?,
        name: row.text(1)?,
        title: row.text(2)?,
        document: row.text(3)?,
        by: row.text(4)?,
        at: row.number(5)?,
        state: row.text(6)?,
        epoch: row.number(7)?,
        events: row.number(8)?,
    })
}

fn missing(id: &str) -> StoreError {
    StoreError::Missing(format!("game day `{id}`"))
}

impl Store {
    /// Keeps a game day that has begun, with its first event, held by whoever keeps it.
    pub async fn new_game_day(&self, new: NewGameDay) -> Result<(), StoreError> {
        self.change(move |sql| {
            let now = now_ms();
            let kept = "INSERT INTO game_days (id, name, title, document, made_by, made_at, state, epoch, events, held_until) \
                        VALUES ($1, $2, $3, $4, $5, $6, 'open', 0, 1, $7)";
            let NewGameDay { id, name, title, document, by, first } = &new;
            let values =
                [id.into(), name.into(), title.into(), document.into(), by.into(), now.into(), (now + LEASE_MS).into()];
            sql.execute(kept, &values)?;
            let added = "INSERT INTO game_day_events (day, seq, event) VALUES ($1, 0, $2)";
            sql.execute(added, &[id.into(), first.into()]).map(drop)
        })
        .await
    }

    /// The game day of an id.
    pub async fn game_day(&self, id: &str) -> Result<Option<GameDayRow>, StoreError> {
        let id = id.to_owned();
        self.read(move |sql| {
            sql.one(days!("document", "WHERE id = $1"), &[(&id).into()])?.as_ref().map(day).transpose()
        })
        .await
    }

    /// Game days with their documents, the newest first, at most `limit`; of one name, or of all.
    pub async fn game_days(&self, name: Option<&str>, limit: u64) -> Result<Vec<GameDayRow>, StoreError> {
        let name = name.map(str::to_owned);
        self.read(move |sql| {
            let rows = match &name {
                Some(name) => sql.query(
                    days!("document", "WHERE name = $1 ORDER BY made_at DESC, id DESC LIMIT $2"),
                    &[name.into(), limit.into()],
                )?,
                None => {
                    sql.query(days!("document", "ORDER BY made_at DESC, id DESC LIMIT $1"), &[limit.into()])?
                }
            };
            rows.iter().map(day).collect()
        })
        .await
    }

    /// Events of a game day from a number on, at most `limit`.
    pub async fn game_day_events(
        &self,
        id: &str,
        from_seq: u64,
        limit: u64,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        let id = id.to_owned();
        self.read(move |sql| {
            let asked =
                "SELECT seq, event FROM game_day_events WHERE day = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
            let rows = sql.query(asked, &[(&id).into(), from_seq.into(), limit.into()])?;
            rows.iter().map(|row| Ok((row.number(0)?, row.text(1)?))).collect()
        })
        .await
    }

    /// Adds an event that follows on all that are before its number, and sets how far the day is with it. `epoch` is that of
    /// whoever drives the day; people have none.
    ///
    /// Errors: [`StoreError::Gap`] where the day has another number of events by now, [`StoreError::Fenced`].
    pub async fn add_game_day_event(
        &self,
        id: &str,
        epoch: Option<u64>,
        seq: u64,
        event: &str,
        state: &str,
    ) -> Result<(), StoreError> {
        let (id, event, state) = (id.to_owned(), event.to_owned(), state.to_owned());
        self.change(move |sql| {
            // Altering the row, even to what it was, keeps others from adding to this day until the commit.
            let locked = "UPDATE game_days SET events = events WHERE id = $1 RETURNING events, epoch";
            let row = sql.one(locked, &[(&id).into()])?.ok_or_else(|| missing(&id))?;
            let (next, now) = (row.number(0)?, row.number(1)?);
            if let Some(asked) = epoch.filter(|epoch| *epoch != now) {
                return Err(StoreError::Fenced { asked, now });
            }
            if seq != next {
                return Err(StoreError::Gap { first: seq, next });
            }
            let added = "INSERT INTO game_day_events (day, seq, event) VALUES ($1, $2, $3)";
            sql.execute(added, &[(&id).into(), seq.into(), (&event).into()])?;
            let set = "UPDATE game_days SET events = $2, state = $3 WHERE id = $1";
            sql.execute(set, &[(&id).into(), (seq + 1).into(), (&state).into()]).map(drop)
        })
        .await
    }

    /// Keeps a game day, as the one who drives it in this epoch.
    ///
    /// Errors: [`StoreError::Fenced`] when somebody else does since.
    pub async fn hold_game_day(&self, id: &str, epoch: u64) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(move |sql| {
            let held = "UPDATE game_days SET held_until = $3 WHERE id = $1 AND epoch = $2";
            let values = [(&id).into(), epoch.into(), (now_ms() + LEASE_MS).into()];
            if sql.execute(held, &values)? > 0 {
                return Ok(());
            }
            let row = sql.one("SELECT epoch FROM game_days WHERE id = $1", &[(&id).into()])?;
            let now = row.ok_or_else(|| missing(&id))?.number(0)?;
            Err(StoreError::Fenced { asked: epoch, now })
        })
        .await
    }

    /// Takes over a game day that goes on and that nobody holds any more, one at a time and each by one controller alone.
    pub async fn take_game_day(&self) -> Result<Option<GameDayRow>, StoreError> {
        self.write(move |sql| {
            let now = now_ms();
            // As for runs: see `take_abandoned`.
            let taken = "UPDATE game_days SET epoch = epoch + 1, held_until = $2 WHERE held_until <= $1 AND id = \
                         (SELECT id FROM game_days WHERE state IN ('open', 'stopping') AND held_until <= $1 \
                         ORDER BY made_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) \
                         RETURNING id, name, title, document, made_by, made_at, state, epoch, events";
            let row = sql.one(taken, &[now.into(), (now + LEASE_MS).into()])?;
            row.as_ref().map(day).transpose()
        })
        .await
    }

    /// Lets every game day be taken at once: for a controller that starts and shares its store with no other.
    pub async fn release_game_days(&self) -> Result<(), StoreError> {
        self.write(|sql| {
            let released = "UPDATE game_days SET held_until = 0 WHERE state IN ('open', 'stopping')";
            sql.execute(released, &[]).map(drop)
        })
        .await
    }

    /// The runs that were begun by somebody since a time, oldest first.
    pub async fn runs_begun_by(&self, by: &str, since_ms: u64) -> Result<Vec<String>, StoreError> {
        let by = by.to_owned();
        self.read(move |sql| {
            let asked = "SELECT id FROM runs WHERE made_at >= $2 AND made_by = $1 AND state <> 'refused' ORDER BY made_at, id";
            sql.query(asked, &[(&by).into(), since_ms.into()])?.iter().map(|row| row.text(0)).collect()
        })
        .await
    }
}
