//! Answers to requests with an idempotency key: who asks again gets what was answered, and nothing is done twice.

use super::{Store, StoreError, now_ms};

/// How long an answer is kept, in milliseconds: a day.
const KEPT_MS: u64 = 24 * 3600 * 1000;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: it is the caller's now, who does it and says what came of it ([`Store::answered`]).
    Anew,
    /// It was answered.
    Before(Answered),
    /// It is being done, or whoever did it ended without saying what came of it.
    UnderWay,
    /// The key was used for another request.
    Differently,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Store {
    /// Takes a key for a request, whose digest is `request`. Keys are each caller's own.
    pub async fn ask(&self, who: &str, key: &str, request: &str) -> Result<Asked, StoreError> {
        let (who, key, request, now) = (who.to_owned(), key.to_owned(), request.to_owned(), now_ms());
        self.write(move |sql| {
            sql.execute("DELETE FROM answers WHERE at < $1", &[now.saturating_sub(KEPT_MS).into()])?;
            let taken = "INSERT INTO answers (who, key, asked, at) VALUES ($1, $2, $3, $4) \
                         ON CONFLICT (who, key) DO NOTHING";
            let values = [(&who).into(), (&key).into(), (&request).into(), now.into()];
            if sql.execute(taken, &values)? > 0 {
                return Ok(Asked::Anew);
            }
            let kept = "SELECT asked, status, body FROM answers WHERE who = $1 AND key = $2";
            let Some(row) = sql.one(kept, &[(&who).into(), (&key).into()])? else {
                return Ok(Asked::UnderWay);
            };
            if row.text(0)? != request {
                return Ok(Asked::Differently);
            }
            Ok(match (row.some_number(1)?, row.some_text(2)?) {
                (Some(status), Some(body)) => {
                    Asked::Before(Answered { status: u16::try_from(status).unwrap_or(500), body })
                }
                _ => Asked::UnderWay,
            })
        })
        .await
    }

    /// Says what came of it. `None`: nothing was done, and the key is free again.
    pub async fn answered(&self, who: &str, key: &str, answer: Option<Answered>) -> Result<(), StoreError> {
        let (who, key) = (who.to_owned(), key.to_owned());
        self.write(move |sql| {
            let (who, key) = ((&who).into(), (&key).into());
            match &answer {
                Some(answer) => sql.execute(
                    "UPDATE answers SET status = $1, body = $2 WHERE who = $3 AND key = $4",
                    &[u64::from(answer.status).into(), (&answer.body).into(), who, key],
                ),
                None => sql.execute("DELETE FROM answers WHERE who = $1 AND key = $2", &[who, key]),
            }
            .map(drop)
        })
        .await
    }
}
