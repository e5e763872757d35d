//! Plans that were submitted, and who approved them. An approval is good for one run, and for a while.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::sql::{Row, Sql, Value};
use super::{Store, StoreError, notices, now_ms};
use crate::notify::Happening;

/// How long a plan may be approved and run, in milliseconds.
const LASTS_MS: u64 = 24 * 3600 * 1000;
/// How long one that is over is still shown, in milliseconds: who approved what stands in the audit log for ever.
const SHOWN_MS: u64 = 30 * LASTS_MS;

/// By whom a plan may be approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eyes {
    /// By anybody.
    Any,
    /// By somebody else than who submitted it.
    Second,
}

impl Eyes {
    /// As a value of a statement.
    fn any(self) -> Value {
        u64::from(self == Eyes::Any).into()
    }
}

/// A plan that is submitted.
#[derive(Clone, Debug)]
pub struct NewPlan {
    /// Its hash.
    pub hash: String,
    /// The experiment's title.
    pub title: String,
    /// The experiment as it was given.
    pub document: String,
    /// What the file is called in messages.
    pub name: Option<String>,
    /// Values of its variables.
    pub vars: BTreeMap<String, String>,
    /// The seed of every choice.
    pub seed: u64,
    /// Hosts, steps, carve-outs and expiry, to be shown.
    pub shown: Json,
    /// Who submits it: the name that stands on the token.
    pub by: String,
}

/// A plan that was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct PlanRow {
    /// Its hash: what is approved.
    pub hash: String,
    /// The experiment's title.
    pub title: String,
    /// The experiment as it was given; left out of lists.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub document: String,
    /// What the file is called in messages.
    pub name: Option<String>,
    /// Values of its variables; left out of lists.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, String>,
    /// The seed of every choice, by which the same is planned again.
    pub seed: u64,
    /// Hosts, steps, carve-outs and expiry of the run, and what is looked at; left out of lists.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub plan: Json,
    /// Who submitted it.
    pub submitted_by: String,
    /// When: milliseconds since 1970.
    pub submitted_at: u64,
    /// Until when it may be approved and run.
    pub expires_at: u64,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// When.
    pub approved_at: Option<u64>,
    /// What was said about it.
    pub note: Option<String>,
    /// The run that used the approval.
    pub run: Option<String>,
}

impl PlanRow {
    /// Whether it may not be approved or run any more.
    pub fn is_over(&self) -> bool {
        self.expires_at <= now_ms()
    }
}

/// The columns of a plan, as [`plan`] reads them, and which; a list does without the long ones.
macro_rules! plans {
    ($which:literal) => {
        plans!("document, name, vars, seed, shown", $which)
    };
    ($long:literal, $which:literal) => {
        concat!(
            "SELECT hash, title, ",
            $long,
            ", submitted_by, submitted_at, expires_at, approved_by, approved_at, note, run FROM plans ",
            $which
        )
    };
}

const NAMED: &str = plans!("WHERE hash = $1");
const NEWEST: &str = plans!("'', name, '{}', seed, 'null'", "ORDER BY submitted_at DESC, hash LIMIT $1");
const OF_RUN: &str = plans!("WHERE run = $1");

fn plan(row: &Row) -> Result<PlanRow, StoreError> {
    let seed = row.text(5)?;
    Ok(PlanRow {
        hash: row.text(0)?,
        title: row.text(1)?,
        document: row.text(2)?,
        name: row.some_text(3)?,
        vars: row.json(4)?,
        seed: seed.parse().map_err(|_| StoreError::Strange(format!("a seed `{seed}`")))?,
        plan: row.json(6)?,
        submitted_by: row.text(7)?,
        submitted_at: row.number(8)?,
        expires_at: row.number(9)?,
        approved_by: row.some_text(10)?,
        approved_at: row.some_number(11)?,
        note: row.some_text(12)?,
        run: row.some_text(13)?,
    })
}

fn named(sql: &mut dyn Sql, hash: &str) -> Result<PlanRow, StoreError> {
    let row = sql.one(NAMED, &[hash.into()])?;
    plan(&row.ok_or_else(|| StoreError::Missing(format!("plan `{hash}`")))?)
}

impl Store {
    /// Keeps a plan. One that is there and neither over nor used stays as it is: who submitted it first did, and an approval of
    /// it goes on; else it begins anew, without an approval. Gives what is kept. Forgets what has been over for 30 days.
    ///
    /// Errors: [`StoreError::Clash`] when the one that stays was made of another document or other variables: who submits it
    /// must not take what somebody else wrote for his own.
    pub async fn submit_plan(&self, new: NewPlan) -> Result<PlanRow, StoreError> {
        let (now, telling) = (now_ms(), self.is_telling());
        self.write(move |sql| {
            let kept = "INSERT INTO plans (hash, title, document, name, vars, seed, shown, submitted_by, \
                        submitted_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                        ON CONFLICT (hash) DO UPDATE SET title = excluded.title, document = excluded.document, \
                        name = excluded.name, vars = excluded.vars, seed = excluded.seed, shown = excluded.shown, \
                        submitted_by = excluded.submitted_by, submitted_at = excluded.submitted_at, \
                        expires_at = excluded.expires_at, approved_by = NULL, approved_at = NULL, note = NULL, \
                        run = NULL WHERE plans.expires_at <= $9 OR plans.run IS NOT NULL";
            let values: [Value; 10] = [
                (&new.hash).into(),
                (&new.title).into(),
                (&new.document).into(),
                new.name.as_ref().into(),
                Value::Text(json!(new.vars).to_string()),
                Value::Text(new.seed.to_string()),
                Value::Text(new.shown.to_string()),
                (&new.by).into(),
                now.into(),
                (now + LASTS_MS).into(),
            ];
            sql.execute("DELETE FROM plans WHERE expires_at < $1", &[now.saturating_sub(SHOWN_MS).into()])?;
            let added = sql.execute(kept, &values)? > 0;
            let kept = named(sql, &new.hash)?;
            match kept.document == new.document && kept.vars == new.vars {
                true => {
                    if added {
                        let (title, by) = (kept.title.clone(), kept.submitted_by.clone());
                        let how = format!("squall approve {}", kept.hash);
                        let happening = Happening::ApprovalWanted { how, title, by };
                        notices::happened(sql, telling, &happening, now)?;
                    }
                    Ok(kept)
                }
                false => Err(StoreError::Clash(format!(
                    "plan `{}` of {}, for another document",
                    new.hash, kept.submitted_by
                ))),
            }
        })
        .await
    }

    /// The plan of a hash.
    ///
    /// Errors: [`StoreError::Missing`].
    pub async fn plan(&self, hash: &str) -> Result<PlanRow, StoreError> {
        let hash = hash.to_owned();
        self.read(move |sql| named(sql, &hash)).await
    }

    /// The newest plans.
    pub async fn plans(&self, limit: u64) -> Result<Vec<PlanRow>, StoreError> {
        self.read(move |sql| sql.query(NEWEST, &[limit.into()])?.iter().map(plan).collect()).await
    }

    /// The plan that a run carries out by an approval.
    pub async fn plan_of_run(&self, run: &str) -> Result<Option<PlanRow>, StoreError> {
        let run = run.to_owned();
        self.read(move |sql| sql.one(OF_RUN, &[(&run).into()])?.as_ref().map(plan).transpose()).await
    }

    /// Approves a plan that is neither approved nor used nor over, as this person; gives it as it is then, and whether this did
    /// it. An approval of who submitted it is replaced by that of anybody else.
    ///
    /// Errors: [`StoreError::Missing`].
    pub async fn approve_plan(
        &self,
        hash: &str,
        by: &str,
        note: Option<String>,
        eyes: Eyes,
    ) -> Result<(PlanRow, bool), StoreError> {
        let (hash, by, now) = (hash.to_owned(), by.to_owned(), now_ms());
        self.write(move |sql| {
            // Who submitted it is asked here and nowhere before: it may be submitted anew at the same time.
            let approved = "UPDATE plans SET approved_by = $2, approved_at = $3, note = $4 \
                            WHERE hash = $1 AND run IS NULL AND expires_at > $3 \
                            AND (approved_by IS NULL OR (approved_by = submitted_by AND approved_by <> $2)) \
                            AND (submitted_by <> $2 OR CAST($5 AS BIGINT) = 1)";
            let values = [(&hash).into(), (&by).into(), now.into(), note.as_ref().into(), eyes.any()];
            let done = sql.execute(approved, &values)? > 0;
            Ok((named(sql, &hash)?, done))
        })
        .await
    }

    /// Uses an approval up for a run; whether there was one to be used. One that was given by who submitted the plan is none
    /// where a second person is needed, whoever took it for one when it was given.
    pub async fn use_approval(&self, hash: &str, run: &str, eyes: Eyes) -> Result<bool, StoreError> {
        let (hash, run) = (hash.to_owned(), run.to_owned());
        self.write(move |sql| use_up(sql, &hash, &run, eyes, now_ms())).await
    }

    /// Gives back the approval that a run used which was never begun.
    pub async fn give_approval_back(&self, run: &str) -> Result<(), StoreError> {
        let run = run.to_owned();
        self.write(move |sql| {
            sql.execute("UPDATE plans SET run = NULL WHERE run = $1", &[(&run).into()]).map(drop)
        })
        .await
    }
}

/// Uses an approval up within a transaction.
pub(super) fn use_up(
    sql: &mut dyn Sql,
    hash: &str,
    run: &str,
    eyes: Eyes,
    now: u64,
) -> Result<bool, StoreError> {
    let used = "UPDATE plans SET run = $2 WHERE hash = $1 AND run IS NULL AND expires_at > $3 \
                AND approved_by IS NOT NULL AND (submitted_by <> approved_by OR CAST($4 AS BIGINT) = 1)";
    Ok(sql.execute(used, &[hash.into(), run.into(), now.into(), eyes.any()])? > 0)
}
