//! Which runs are carried on by somebody who lives. Whoever carries a run on says so again and again; a run of which nobody
//! does is taken over by one of the others, in a further epoch, and whoever had it before is refused from then on.
//!
//! Times are those of each controller's clock: they must agree within [`LEASE_MS`].

use super::runs::{missing, run};
use super::{RunRow, Store, StoreError, now_ms};

/// How long a run stays with a controller that says nothing, in milliseconds.
pub const LEASE_MS: u64 = 20_000;

impl Store {
    /// Keeps a run, as the one who carries it on in this epoch; gives whether somebody [wants it halted](Store::want_halt).
    ///
    /// Errors: [`StoreError::Fenced`] when somebody else does since.
    pub async fn hold_run(&self, id: &str, epoch: u64) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.write(move |sql| {
            let held = "UPDATE runs SET held_until = $3 WHERE id = $1 AND epoch = $2 RETURNING halted_at";
            let values = [(&id).into(), epoch.into(), (now_ms() + LEASE_MS).into()];
            if let Some(row) = sql.one(held, &values)? {
                return Ok(row.some_number(0)?.is_some());
            }
            let row = sql.one("SELECT epoch FROM runs WHERE id = $1", &[(&id).into()])?;
            let now = row.ok_or_else(|| missing(&id))?.number(0)?;
            Err(StoreError::Fenced { asked: epoch, now })
        })
        .await
    }

    /// Takes over a run that goes on and that nobody holds any more, one at a time and each by one controller alone; gives it
    /// as it is then, with its new epoch.
    pub async fn take_abandoned(&self) -> Result<Option<RunRow>, StoreError> {
        self.write(move |sql| {
            let now = now_ms();
            // Two that look at the same time: the second passes by what the first is about to take.
            let taken = "UPDATE runs SET epoch = epoch + 1, held_until = $2 WHERE held_until <= $1 AND id = \
                         (SELECT id FROM runs WHERE state IN ('submitted', 'running', 'reverting') \
                         AND held_until <= $1 ORDER BY made_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) \
                         RETURNING id, title, document, plan, made_by, made_at, state, epoch, events, build";
            let row = sql.one(taken, &[now.into(), (now + LEASE_MS).into()])?;
            row.as_ref().map(run).transpose()
        })
        .await
    }
}
