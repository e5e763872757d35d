//! The audit log: who decided what, each entry bound to the one before.
//!
//! `hash = BLAKE3(prev || canonical JSON of {at, seq, what, who})`, the first entry's `prev` being 64 zeros. Canonical means
//! keys in order, no spaces. Who alters an entry has to alter every later one, and then the head differs from the one
//! that reports have published.

use serde::Serialize;
use serde_json::{Value as Json, json};
use squall_experiments::muster::Head;

use super::sql::{Row, Sql, Value};
use super::{Store, StoreError, now_ms};

/// The hash that the first entry follows from, and the head of a log without one.
pub const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// How many entries are verified at a time.
const PAGE: u64 = 1000;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Entry {
    /// Its number, from 1 on, without gaps.
    pub seq: u64,
    /// When: milliseconds since 1970.
    pub at: u64,
    /// Who decided: a token's name, a host, or a part of the controller.
    pub who: String,
    /// What was decided.
    pub what: Json,
    /// The hash of the entry before.
    pub prev: String,
    /// The hash of this one.
    pub hash: String,
}

/// What verifying came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// Every entry follows from the one before, up to this head.
    Whole(Head),
    /// The first entry that does not, and why.
    Broken {
        /// Its number.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl Store {
    /// Adds an entry, durably. It is given with its hash, which is the new head.
    pub async fn audit(&self, who: &str, what: Json) -> Result<Entry, StoreError> {
        let (who, at) = (who.to_owned(), now_ms());
        self.write(move |sql| add(sql, &who, &what, at)).await
    }

    /// Entries from a number on, oldest first, at most `limit`.
    pub async fn audit_page(&self, from: u64, limit: u64) -> Result<Vec<Entry>, StoreError> {
        self.read(move |sql| page(sql, from, limit)).await
    }

    /// The end of the log.
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        self.read(head).await
    }

    /// Computes every hash again, and names the first entry that does not follow from the one before. Cutting off the end
    /// is found against the kept head, or against one that was published.
    pub async fn audit_verify(&self) -> Result<Verified, StoreError> {
        // One transaction: what is added meanwhile does not disturb.
        self.read(|sql| {
            let head = head(sql)?;
            let mut prev = NOTHING.to_owned();
            let mut seq = 0;
            while seq < head.seq {
                let entries = page(sql, seq + 1, PAGE.min(head.seq - seq))?;
                if entries.is_empty() {
                    return Ok(broken(seq + 1, "it is missing"));
                }
                for entry in entries {
                    seq += 1;
                    if entry.seq != seq {
                        return Ok(broken(seq, "it is missing"));
                    }
                    if entry.prev != prev {
                        return Ok(broken(seq, "it does not follow from the entry before"));
                    }
                    if entry.hash != hash(&prev, seq, entry.at, &entry.who, &entry.what) {
                        return Ok(broken(seq, "its hash is not that of what it says"));
                    }
                    prev = entry.hash;
                }
            }
            match prev == head.hash && page(sql, seq + 1, 1)?.is_empty() {
                true => Ok(Verified::Whole(head)),
                false => Ok(broken(seq + 1, "the log does not end where its head says")),
            }
        })
        .await
    }
}

fn broken(seq: u64, why: &str) -> Verified {
    Verified::Broken { seq, why: why.to_owned() }
}

pub(super) fn add(sql: &mut dyn Sql, who: &str, what: &Json, at: u64) -> Result<Entry, StoreError> {
    // Taking the number locks the row: on PostgreSQL other controllers wait here, so the chain has no forks.
    let taken = "UPDATE audit_head SET seq = seq + 1 WHERE one = 1 RETURNING seq, hash";
    let missing = || StoreError::Strange("the head of the audit log is missing".to_owned());
    let row = sql.one(taken, &[])?.ok_or_else(missing)?;
    let (seq, prev) = (row.number(0)?, row.text(1)?);
    let hash = hash(&prev, seq, at, who, what);
    sql.execute(
        "INSERT INTO audit (seq, at, who, what, prev, hash) VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            seq.into(),
            at.into(),
            who.into(),
            what.to_string().as_str().into(),
            (&prev).into(),
            (&hash).into(),
        ],
    )?;
    sql.execute("UPDATE audit_head SET hash = $1 WHERE one = 1", &[(&hash).into()])?;
    Ok(Entry { seq, at, who: who.to_owned(), what: what.clone(), prev, hash })
}

/// The row of the head is there before the first entry.
pub(super) fn begin(sql: &mut dyn Sql) -> Result<(), StoreError> {
    let none = "INSERT INTO audit_head (one, seq, hash) VALUES (1, 0, $1) ON CONFLICT (one) DO NOTHING";
    sql.execute(none, &[NOTHING.into()]).map(drop)
}

fn head(sql: &mut dyn Sql) -> Result<Head, StoreError> {
    let row = sql.one("SELECT seq, hash FROM audit_head WHERE one = 1", &[])?;
    let row = row.ok_or_else(|| StoreError::Strange("the head of the audit log is missing".to_owned()))?;
    Ok(Head { seq: row.number(0)?, hash: row.text(1)? })
}

fn page(sql: &mut dyn Sql, from: u64, limit: u64) -> Result<Vec<Entry>, StoreError> {
    let asked = "SELECT seq, at, who, what, prev, hash FROM audit WHERE seq >= $1 ORDER BY seq LIMIT $2";
    let entry = |row: Row| {
        Ok(Entry {
            seq: row.number(0)?,
            at: row.number(1)?,
            who: row.text(2)?,
            what: row.json(3)?,
            prev: row.text(4)?,
            hash: row.text(5)?,
        })
    };
    sql.query(asked, &[Value::from(from), Value::from(limit)])?.into_iter().map(entry).collect()
}

fn hash(prev: &str, seq: u64, at: u64, who: &str, what: &Json) -> String {
    let entry = canonical(&json!({ "at": at, "seq": seq, "what": what, "who": who }));
    let mut hasher = blake3::Hasher::new();
    hasher.update(prev.as_bytes());
    hasher.update(entry.to_string().as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// The same value with the keys of every object in order.
fn canonical(value: &Json) -> Json {
    match value {
        Json::Object(object) => {
            let mut members: Vec<(&String, &Json)> = object.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            Json::Object(members.into_iter().map(|(key, value)| (key.clone(), canonical(value))).collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}
