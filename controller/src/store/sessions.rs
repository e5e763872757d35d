//! Sessions of people in a browser. Each belongs to a token and ends with it; only hashes are kept.

use super::tokens::token;
use super::{Store, StoreError, Token, now_ms};

/// How many sessions a token has at once: where there would be more, the oldest ends.
const MOST: u64 = 20;

impl Store {
    /// Keeps a session of a token; `hash` is [`super::Secrets::hash`] of its secret, `expires_at` in milliseconds since 1970.
    pub async fn new_session(&self, hash: &str, token: &str, expires_at: u64) -> Result<(), StoreError> {
        let (hash, token, now) = (hash.to_owned(), token.to_owned(), now_ms());
        self.write(move |sql| {
            sql.execute("DELETE FROM sessions WHERE expires_at <= $1", &[now.into()])?;
            let older = "DELETE FROM sessions WHERE token = $1 AND hash NOT IN \
                         (SELECT hash FROM sessions WHERE token = $1 ORDER BY made_at DESC, hash LIMIT $2)";
            sql.execute(older, &[(&token).into(), (MOST - 1).into()])?;
            let kept = "INSERT INTO sessions (hash, token, made_at, expires_at) VALUES ($1, $2, $3, $4)";
            sql.execute(kept, &[(&hash).into(), (&token).into(), now.into(), expires_at.into()]).map(drop)
        })
        .await
    }

    /// The token of the session of a hash, when both are valid now.
    pub async fn session(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let (hash, now) = (hash.to_owned(), now_ms());
        self.read(move |sql| {
            let asked = "SELECT t.id, t.name, t.role, t.made_by, t.made_at, t.expires_at, t.revoked_at \
                         FROM sessions s JOIN tokens t ON t.id = s.token \
                         WHERE s.hash = $1 AND s.expires_at > $2 AND t.revoked_at IS NULL \
                         AND (t.expires_at IS NULL OR t.expires_at > $2)";
            sql.one(asked, &[(&hash).into(), now.into()])?.as_ref().map(token).transpose()
        })
        .await
    }

    /// Ends a session. Idempotent.
    pub async fn end_session(&self, hash: &str) -> Result<(), StoreError> {
        let hash = hash.to_owned();
        self.write(move |sql| {
            sql.execute("DELETE FROM sessions WHERE hash = $1", &[(&hash).into()]).map(drop)
        })
        .await
    }
}
