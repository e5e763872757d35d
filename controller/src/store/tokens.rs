//! Tokens of people and pipelines, and join tokens of hosts. Only their hashes are kept.

use serde::{Deserialize, Serialize};

use super::page::{Page, following};
use super::sql::Row;
use super::{Store, StoreError, now_ms};

/// What a token may do; each role may do what those before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Start and halt runs.
    Operator,
    /// Give and take access: tokens and hosts.
    Admin,
}

impl Role {
    /// Its name in documents and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    fn named(name: &str) -> Result<Self, StoreError> {
        let known = [Role::Viewer, Role::Operator, Role::Admin].into_iter().find(|role| role.name() == name);
        known.ok_or_else(|| StoreError::Strange(format!("a role `{name}`")))
    }
}

/// A token to be kept.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What it is called in lists; not secret.
    pub id: String,
    /// [`super::Secrets::hash`] of it.
    pub hash: String,
    /// Whose it is: this name stands in the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Who made it.
    pub made_by: String,
    /// When it ends: milliseconds since 1970; `None`: when it is revoked.
    pub expires_at: Option<u64>,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Token {
    /// What it is called in lists; not secret.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Who made it.
    pub made_by: String,
    /// When it was made: milliseconds since 1970.
    pub made_at: u64,
    /// When it ends.
    pub expires_at: Option<u64>,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
}

/// A join token to be kept.
#[derive(Clone, Debug)]
pub struct NewJoinToken {
    /// What it is called in lists; not secret.
    pub id: String,
    /// [`super::Secrets::hash`] of it.
    pub hash: String,
    /// Who made it.
    pub made_by: String,
    /// When it ends: milliseconds since 1970.
    pub expires_at: u64,
    /// How many hosts it lets in.
    pub uses: u64,
}

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct JoinToken {
    /// What it is called in lists; not secret.
    pub id: String,
    /// Who made it.
    pub made_by: String,
    /// When it was made: milliseconds since 1970.
    pub made_at: u64,
    /// When it ends.
    pub expires_at: u64,
    /// How many hosts it still lets in.
    pub uses_left: u64,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
}

pub(super) fn token(row: &Row) -> Result<Token, StoreError> {
    Ok(Token {
        id: row.text(0)?,
        name: row.text(1)?,
        role: Role::named(&row.text(2)?)?,
        made_by: row.text(3)?,
        made_at: row.number(4)?,
        expires_at: row.some_number(5)?,
        revoked_at: row.some_number(6)?,
    })
}

fn join_token(row: &Row) -> Result<JoinToken, StoreError> {
    Ok(JoinToken {
        id: row.text(0)?,
        made_by: row.text(1)?,
        made_at: row.number(2)?,
        expires_at: row.number(3)?,
        uses_left: row.number(4)?,
        revoked_at: row.some_number(5)?,
    })
}

impl Store {
    /// Keeps a token.
    pub async fn new_token(&self, new: NewToken) -> Result<(), StoreError> {
        let now = now_ms();
        self.write(move |sql| {
            let kept = "INSERT INTO tokens (id, hash, name, role, made_by, made_at, expires_at) \
                        VALUES ($1, $2, $3, $4, $5, $6, $7)";
            let values = [
                (&new.id).into(),
                (&new.hash).into(),
                (&new.name).into(),
                new.role.name().into(),
                (&new.made_by).into(),
                now.into(),
                new.expires_at.into(),
            ];
            sql.execute(kept, &values).map(drop)
        })
        .await
    }

    /// The token of a hash, when it is valid now.
    pub async fn token(&self, hash: &str) -> Result<Option<Token>, StoreError> {
        let (hash, now) = (hash.to_owned(), now_ms());
        self.read(move |sql| {
            let asked = "SELECT id, name, role, made_by, made_at, expires_at, revoked_at FROM tokens \
                         WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
            sql.one(asked, &[(&hash).into(), now.into()])?.as_ref().map(token).transpose()
        })
        .await
    }

    /// All tokens, oldest first, those that are over too.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.read(|sql| {
            let asked = "SELECT id, name, role, made_by, made_at, expires_at, revoked_at FROM tokens \
                         ORDER BY made_at, id";
            sql.query(asked, &[])?.iter().map(token).collect()
        })
        .await
    }

    /// The same, at most `limit`; `after` is the `next` of the page before.
    pub async fn tokens_after(&self, after: Option<&str>, limit: u64) -> Result<Page<Token>, StoreError> {
        let values = following(after, limit)?;
        self.read(move |sql| {
            let asked = "SELECT id, name, role, made_by, made_at, expires_at, revoked_at FROM tokens \
                         WHERE made_at > $1 OR (made_at = $1 AND id > $2) ORDER BY made_at, id LIMIT $3";
            let tokens = sql.query(asked, &values)?.iter().map(token).collect::<Result<_, _>>()?;
            Ok(Page::of(tokens, limit, |token: &Token| format!("{}.{}", token.made_at, token.id)))
        })
        .await
    }

    /// Revokes a token by its id. Idempotent.
    pub async fn revoke_token(&self, id: &str) -> Result<(), StoreError> {
        let revoked = "UPDATE tokens SET revoked_at = COALESCE(revoked_at, $1) WHERE id = $2";
        self.revoke(revoked, "token", id).await
    }

    /// Keeps a join token.
    pub async fn new_join_token(&self, new: NewJoinToken) -> Result<(), StoreError> {
        let now = now_ms();
        self.write(move |sql| {
            let kept = "INSERT INTO join_tokens (id, hash, made_by, made_at, expires_at, uses_left) \
                        VALUES ($1, $2, $3, $4, $5, $6)";
            let values = [
                (&new.id).into(),
                (&new.hash).into(),
                (&new.made_by).into(),
                now.into(),
                new.expires_at.into(),
                new.uses.into(),
            ];
            sql.execute(kept, &values).map(drop)
        })
        .await
    }

    /// All join tokens, oldest first, those that are over too.
    pub async fn join_tokens(&self) -> Result<Vec<JoinToken>, StoreError> {
        self.read(|sql| {
            let asked = "SELECT id, made_by, made_at, expires_at, uses_left, revoked_at FROM join_tokens \
                         ORDER BY made_at, id";
            sql.query(asked, &[])?.iter().map(join_token).collect()
        })
        .await
    }

    /// The same, at most `limit`; `after` is the `next` of the page before.
    pub async fn join_tokens_after(
        &self,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Page<JoinToken>, StoreError> {
        let values = following(after, limit)?;
        self.read(move |sql| {
            let asked = "SELECT id, made_by, made_at, expires_at, uses_left, revoked_at FROM join_tokens \
                         WHERE made_at > $1 OR (made_at = $1 AND id > $2) ORDER BY made_at, id LIMIT $3";
            let tokens = sql.query(asked, &values)?.iter().map(join_token).collect::<Result<_, _>>()?;
            Ok(Page::of(tokens, limit, |token: &JoinToken| format!("{}.{}", token.made_at, token.id)))
        })
        .await
    }

    /// Revokes a join token by its id. Idempotent.
    pub async fn revoke_join_token(&self, id: &str) -> Result<(), StoreError> {
        let revoked = "UPDATE join_tokens SET revoked_at = COALESCE(revoked_at, $1) WHERE id = $2";
        self.revoke(revoked, "join token", id).await
    }

    async fn revoke(&self, sql: &'static str, kind: &'static str, id: &str) -> Result<(), StoreError> {
        let (id, now) = (id.to_owned(), now_ms());
        self.write(move |database| match database.execute(sql, &[now.into(), (&id).into()])? {
            0 => Err(StoreError::Missing(format!("{kind} `{id}`"))),
            _ => Ok(()),
        })
        .await
    }
}
