//! What people are to be told of, until they are: first what happened, once, then a notice for each receiver that wants it.
//!
//! What the store itself decides (a run ends, an entry is missed) is written down in the transaction that decides it, so that no
//! end of a process loses it. Each is handed out to receivers once, and each notice is sent by one controller at a time, for as
//! long as it holds it; who does not come back leaves it to the others. So every notice is sent at least once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::sql::{Row, Sql};
use super::{Store, StoreError, now_ms};
use crate::notify::Happening;

/// How many happenings wait in a process whose store does not answer; of more the oldest are lost.
const WAITING: usize = 10_000;

/// A happening that is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Its name.
    pub id: String,
    /// When: milliseconds since 1970.
    pub at: u64,
    /// What; none: this program does not know its kind.
    pub what: Option<Happening>,
}

/// Something that one receiver is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The happening's name.
    pub id: String,
    /// Whom.
    pub receiver: String,
    /// When it happened: milliseconds since 1970.
    pub at: u64,
    /// What, as it was written down.
    pub what: String,
    /// How often it was tried before.
    pub attempts: u64,
    /// Until when whoever took it holds it: nobody else sends it before.
    pub held_until: u64,
}

/// What a process tells its store of, without waiting for it.
#[derive(Debug, Default)]
pub(super) struct Telling {
    on: AtomicBool,
    waiting: Mutex<VecDeque<(u64, Happening)>>,
    woken: Notify,
}

impl Telling {
    fn waiting<T>(&self, with: impl FnOnce(&mut VecDeque<(u64, Happening)>) -> T) -> T {
        with(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes a happening down, within a transaction, where anybody is told of anything. One that is there is left.
pub(super) fn happened(
    sql: &mut dyn Sql,
    telling: bool,
    happening: &Happening,
    at: u64,
) -> Result<(), StoreError> {
    if !telling {
        return Ok(());
    }
    let what = serde_json::to_string(happening).map_err(|error| StoreError::Strange(error.to_string()))?;
    let kept = "INSERT INTO happenings (id, at, what) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
    sql.execute(kept, &[(&happening.id(at)).into(), at.into(), (&what).into()]).map(drop)
}

fn notice(row: &Row) -> Result<Notice, StoreError> {
    Ok(Notice {
        id: row.text(0)?,
        receiver: row.text(1)?,
        at: row.number(2)?,
        what: row.text(3)?,
        attempts: row.number(4)?,
        held_until: row.number(5)?,
    })
}

impl Store {
    /// From now on happenings are written down. Before, and where nobody is told of anything, they are not.
    pub fn tells(&self) {
        self.telling.on.store(true, Ordering::Relaxed);
    }

    /// Whether happenings are written down.
    pub(super) fn is_telling(&self) -> bool {
        self.telling.on.load(Ordering::Relaxed)
    }

    /// Notes what happened, to be written down as soon as that can be. Never waits, whatever the store does.
    pub fn tell(&self, happening: Happening) {
        self.tell_at(now_ms(), happening);
    }

    /// The same of a moment that is known.
    pub(crate) fn tell_at(&self, at: u64, happening: Happening) {
        if !self.is_telling() {
            return;
        }
        self.telling.waiting(|waiting| {
            if waiting.len() >= WAITING {
                waiting.pop_front();
                tracing::error!("a happening is lost: the store has not taken it for too long");
            }
            waiting.push_back((at, happening));
        });
        self.telling.woken.notify_one();
    }

    /// Waits until something was noted.
    pub(crate) async fn told(&self) {
        self.telling.woken.notified().await;
    }

    /// Writes down what was noted. What the store does not take stays noted.
    pub(crate) async fn keep_told(&self) -> Result<(), StoreError> {
        loop {
            let Some((at, happening)) = self.telling.waiting(|waiting| waiting.front().cloned()) else {
                return Ok(());
            };
            let this = happening.clone();
            match self.write(move |sql| happened(sql, true, &this, at)).await {
                Err(error) if error.is_of_the_database() => return Err(error),
                // One that can never be written down must not keep all others back.
                Err(error) => tracing::error!(%error, "a happening is lost"),
                Ok(()) => {}
            }
            self.telling.waiting(|waiting| {
                if waiting.front() == Some(&(at, happening)) {
                    waiting.pop_front();
                }
            });
        }
    }

    /// What was written down and not handed out, the oldest first, at most `limit`.
    pub(crate) async fn happenings(&self, limit: u64) -> Result<Vec<Happened>, StoreError> {
        self.read(move |sql| {
            let asked = "SELECT id, at, what FROM happenings ORDER BY at, id LIMIT $1";
            let one = |row: &Row| {
                let what = serde_json::from_str(&row.text(2)?).ok();
                Ok(Happened { id: row.text(0)?, at: row.number(1)?, what })
            };
            sql.query(asked, &[limit.into()])?.iter().map(one).collect()
        })
        .await
    }

    /// Hands a happening out: a notice for each receiver, once, whichever controller is first. Where more than `most` wait for a
    /// receiver, the oldest are dropped; gives how many, by receiver.
    pub(crate) async fn hand_out(
        &self,
        happened: &Happened,
        what: &str,
        receivers: Vec<String>,
        most: u64,
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        let (id, at, what) = (happened.id.clone(), happened.at, what.to_owned());
        self.write(move |sql| {
            let mut dropped = BTreeMap::new();
            if sql.execute("DELETE FROM happenings WHERE id = $1", &[(&id).into()])? == 0 {
                return Ok(dropped);
            }
            for receiver in &receivers {
                let added = "INSERT INTO notices (id, receiver, at, what, attempts, next_at, held_until) \
                             VALUES ($1, $2, $3, $4, 0, 0, 0) ON CONFLICT (receiver, id) DO NOTHING";
                sql.execute(added, &[(&id).into(), receiver.into(), at.into(), (&what).into()])?;
                let count =
                    sql.one("SELECT COUNT(*) FROM notices WHERE receiver = $1", &[receiver.into()])?;
                let over = count.map_or(Ok(0), |row| row.number(0))?.saturating_sub(most);
                if over > 0 {
                    let gone = "DELETE FROM notices WHERE receiver = $1 AND id IN \
                                (SELECT id FROM notices WHERE receiver = $1 ORDER BY at, id LIMIT $2)";
                    dropped.insert(receiver.clone(), sql.execute(gone, &[receiver.into(), over.into()])?);
                }
            }
            Ok(dropped)
        })
        .await
    }

    /// The receivers of which a notice is due and nobody sends it.
    pub(crate) async fn due_receivers(&self) -> Result<Vec<String>, StoreError> {
        self.read(|sql| {
            let asked = "SELECT DISTINCT receiver FROM notices WHERE next_at <= $1 AND held_until <= $1";
            sql.query(asked, &[now_ms().into()])?.iter().map(|row| row.text(0)).collect()
        })
        .await
    }

    /// Takes the notice of a receiver that is due first, and holds it for so many milliseconds: no other controller sends it
    /// then.
    pub(crate) async fn take_notice(
        &self,
        receiver: &str,
        hold_ms: u64,
    ) -> Result<Option<Notice>, StoreError> {
        let receiver = receiver.to_owned();
        self.write(move |sql| {
            let now = now_ms();
            // Two that take the same row at the same time: the second waits for the first, and finds the row held.
            let taken = "UPDATE notices SET held_until = $3, attempts = attempts + 1 \
                         WHERE receiver = $1 AND held_until <= $2 AND id = \
                         (SELECT id FROM notices WHERE receiver = $1 AND next_at <= $2 AND held_until <= $2 \
                         ORDER BY next_at, at, id LIMIT 1) \
                         RETURNING id, receiver, at, what, attempts, held_until";
            let row = sql.one(taken, &[(&receiver).into(), now.into(), (now + hold_ms).into()])?;
            row.as_ref().map(notice).transpose()
        })
        .await
    }

    /// A notice that was taken needs no further attempt. Whoever lost it to another controller does nothing by this.
    pub(crate) async fn forget_notice(&self, notice: &Notice) -> Result<(), StoreError> {
        let notice = notice.clone();
        self.write(move |sql| {
            let gone = "DELETE FROM notices WHERE receiver = $1 AND id = $2 AND held_until = $3";
            let values = [(&notice.receiver).into(), (&notice.id).into(), notice.held_until.into()];
            sql.execute(gone, &values).map(drop)
        })
        .await
    }

    /// A notice that was taken is due again at a time: milliseconds since 1970.
    pub(crate) async fn put_notice_off(&self, notice: &Notice, until: u64) -> Result<(), StoreError> {
        let notice = notice.clone();
        self.write(move |sql| {
            let put = "UPDATE notices SET next_at = $4, held_until = 0 \
                       WHERE receiver = $1 AND id = $2 AND held_until = $3";
            let values =
                [(&notice.receiver).into(), (&notice.id).into(), notice.held_until.into(), until.into()];
            sql.execute(put, &values).map(drop)
        })
        .await
    }

    /// How many notices wait, by receiver.
    pub(crate) async fn waiting_notices(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.read(|sql| {
            let rows = sql.query("SELECT receiver, COUNT(*) FROM notices GROUP BY receiver", &[])?;
            rows.iter().map(|row| Ok((row.text(0)?, row.number(1)?))).collect()
        })
        .await
    }

    /// Forgets what happened before a time and nobody was told of: its receivers are in no configuration any more.
    pub(crate) async fn forget_notices(&self, before: u64) -> Result<u64, StoreError> {
        self.write(move |sql| {
            sql.execute("DELETE FROM happenings WHERE at < $1", &[before.into()])?;
            sql.execute(
                "DELETE FROM notices WHERE at < $1 AND held_until <= $2",
                &[before.into(), now_ms().into()],
            )
        })
        .await
    }

    /// The tags of a run's experiment.
    pub(crate) async fn tags_of(&self, run: &str) -> Result<Vec<String>, StoreError> {
        let run = run.to_owned();
        self.read(move |sql| {
            let row = sql.one("SELECT tags FROM runs WHERE id = $1", &[(&run).into()])?;
            row.map_or(Ok(Vec::new()), |row| row.json(0))
        })
        .await
    }

    /// The hosts of a run, as it was let in.
    pub(crate) async fn hosts_of(&self, run: &str) -> Result<Vec<String>, StoreError> {
        let run = run.to_owned();
        self.read(move |sql| {
            let rows =
                sql.query("SELECT host FROM run_hosts WHERE run = $1 ORDER BY host", &[(&run).into()])?;
            rows.iter().map(|row| row.text(0)).collect()
        })
        .await
    }
}
