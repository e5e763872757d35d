//! A run is let in: its row, its hosts and what its gates said are kept together, in the transaction in which the budget is looked
//! at.

use std::collections::BTreeMap;

use super::sql::Sql;
use super::{LIVE, NewRun, Store, StoreError, now_ms};
use crate::budget::{Footprint, HostUse, Known};
use crate::config::Budget;
use crate::gates::Outcome;

/// A day in milliseconds.
const DAY: u64 = 86_400_000;

/// What a run is let in by.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The run.
    pub run: NewRun,
    /// What it does with which hosts.
    pub uses: Vec<HostUse>,
    /// What its gates said so far.
    pub outcomes: Vec<Outcome>,
    /// What is about to come beside it.
    pub coming: Vec<Footprint>,
    /// Why what refuses does not count this time.
    pub overruled: Option<String>,
}

impl Store {
    /// Keeps a run in state `submitted`, or `refused` where a gate said no or the budget has no room for it; the budget's word is
    /// the last of the outcomes that are given back. On PostgreSQL controllers wait for each other here.
    pub async fn admit(&self, admission: Admission, budget: Budget) -> Result<Vec<Outcome>, StoreError> {
        self.changed(self.write(move |sql| admit(sql, &admission, &budget)).await)
    }

    /// What the gates said of a run, in their order.
    pub async fn outcomes(&self, run: &str) -> Result<Vec<Outcome>, StoreError> {
        let run = run.to_owned();
        self.read(move |sql| {
            let asked = "SELECT gate, passed, why FROM run_gates WHERE run = $1 ORDER BY seq";
            let outcome = |row: &super::sql::Row| {
                Ok(Outcome { gate: row.text(0)?, passed: row.number(1)? > 0, why: row.text(2)? })
            };
            sql.query(asked, &[(&run).into()])?.iter().map(outcome).collect()
        })
        .await
    }
}

fn admit(sql: &mut dyn Sql, admission: &Admission, budget: &Budget) -> Result<Vec<Outcome>, StoreError> {
    let (run, now) = (&admission.run, now_ms());
    let mut outcomes = admission.outcomes.clone();
    if !budget.is_none() {
        // Whoever has this row is alone with the budget until the commit.
        let locked = "INSERT INTO facts (name, value) VALUES ('budget', '') \
                      ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        sql.execute(locked, &[])?;
        let mut others = live(sql)?;
        others.extend(admission.coming.iter().cloned());
        let why = budget.exceeded(&admission.uses, &others, &known(sql, now)?);
        outcomes.push(match why.is_empty() {
            true => Outcome::passes("budget", "there is room for it"),
            false => Outcome::refuses("budget", why.join("; ")),
        });
    }
    let refused = admission.overruled.is_none() && outcomes.iter().any(|outcome| !outcome.passed);
    let kept = "INSERT INTO runs (id, title, document, plan, made_by, made_at, state, epoch, events) \
                VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0)";
    let values = [
        (&run.id).into(),
        (&run.title).into(),
        (&run.document).into(),
        (&run.plan).into(),
        (&run.by).into(),
        now.into(),
        if refused { "refused" } else { "submitted" }.into(),
    ];
    sql.execute(kept, &values)?;
    if !refused {
        let added =
            "INSERT INTO run_hosts (run, host, labels, zone, faults, at) VALUES ($1, $2, $3, $4, $5, $6)";
        for used in &admission.uses {
            let labels = serde_json::json!(used.labels).to_string();
            let values = [
                (&run.id).into(),
                (&used.host).into(),
                (&labels).into(),
                used.zone.as_ref().into(),
                used.faults.into(),
                now.into(),
            ];
            sql.execute(added, &values)?;
        }
    }
    let overruled = admission.overruled.iter().map(|why| Outcome::passes("overruled", why));
    outcomes.extend(overruled);
    for (seq, outcome) in (0u64..).zip(&outcomes) {
        let added = "INSERT INTO run_gates (run, seq, gate, passed, why) VALUES ($1, $2, $3, $4, $5)";
        let passed = u64::from(outcome.passed);
        let values =
            [(&run.id).into(), seq.into(), (&outcome.gate).into(), passed.into(), (&outcome.why).into()];
        sql.execute(added, &values)?;
    }
    Ok(outcomes)
}

/// What runs that go on use.
fn live(sql: &mut dyn Sql) -> Result<Vec<Footprint>, StoreError> {
    let mut found: BTreeMap<String, Footprint> = BTreeMap::new();
    for state in LIVE {
        for row in sql.query("SELECT id FROM runs WHERE state = $1", &[state.into()])? {
            let run = row.text(0)?;
            found.insert(run.clone(), Footprint { run, live: true, uses: Vec::new() });
        }
    }
    for footprint in found.values_mut() {
        let asked = "SELECT host, labels, zone, faults FROM run_hosts WHERE run = $1 ORDER BY host";
        for row in sql.query(asked, &[(&footprint.run).into()])? {
            let (host, labels) = (row.text(0)?, row.json(1)?);
            footprint.uses.push(HostUse { host, labels, zone: row.some_text(2)?, faults: row.number(3)? });
        }
    }
    Ok(found.into_values().collect())
}

fn known(sql: &mut dyn Sql, now: u64) -> Result<Known, StoreError> {
    let hosts = sql.query("SELECT labels, zone FROM hosts WHERE revoked_at IS NULL", &[])?;
    let hosts =
        hosts.iter().map(|row| Ok((row.json(0)?, row.some_text(1)?))).collect::<Result<_, StoreError>>()?;
    let mut faults = BTreeMap::new();
    let asked = "SELECT host, faults FROM run_hosts WHERE at > $1";
    for row in sql.query(asked, &[now.saturating_sub(DAY).into()])? {
        *faults.entry(row.text(0)?).or_insert(0) += row.number(1)?;
    }
    Ok(Known { hosts, faults })
}
