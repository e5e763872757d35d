//! A run is let in: its row, its hosts and what its gates said are kept together, in the transaction in which the budget is looked
//! at and an approval is used up.

use std::collections::{BTreeMap, BTreeSet};

use squall_experiments::exit::Exit;

use super::sql::{Row, Sql};
use super::{
    EntryKey, EntryRow, Eyes, LIVE, NewRun, Store, StoreError, now_ms, plans, runs, schedules, states,
};
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
    /// The entry of a schedule whose run it is: claimed until now, and settled with the run. One that was given up since begins no
    /// more, whatever is overruled.
    pub entry: Option<EntryKey>,
    /// What schedules are about to begin beside it, and which entries those are: what has become of one by now counts as that.
    pub coming: Vec<(EntryKey, Footprint)>,
    /// Why what refuses does not count this time; a missing approval counts.
    pub overruled: Option<String>,
    /// Whose approval of its plan it needs, and uses up, if any.
    pub approval: Option<Eyes>,
}

/// Whether a run is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// It may begin; else it is kept as refused.
    pub begins: bool,
    /// What every gate said, in their order.
    pub outcomes: Vec<Outcome>,
}

impl Admitted {
    /// Why it does not begin, with all reasons.
    pub fn refusal(&self) -> String {
        let no = self.outcomes.iter().filter(|outcome| !outcome.passed);
        let why: Vec<String> = no.map(|outcome| format!("{}: {}", outcome.gate, outcome.why)).collect();
        format!("a gate refuses the run: {}", why.join("; "))
    }
}

/// A reason that fits into a line of a calendar.
pub(crate) fn first(why: &str) -> String {
    why.trim().chars().take(1000).collect()
}

impl Store {
    /// Keeps a run in state `submitted`, or `refused` where a gate said no, the budget has no room for it, or its approval is
    /// gone. On PostgreSQL controllers wait for each other here.
    pub async fn admit(&self, admission: Admission, budget: Budget) -> Result<Admitted, StoreError> {
        let telling = self.is_telling();
        let admit = move |sql: &mut dyn Sql| {
            let admitted = admit(sql, &admission, &budget)?;
            if let Some(entry) = &admission.entry {
                // With the run: whoever begins it may end before it can say so.
                let (state, why) = match admitted.begins {
                    true => (states::FIRED, None),
                    false => (states::REFUSED, Some(first(&admitted.refusal()))),
                };
                let EntryKey { schedule, at, group } = entry.clone();
                let (state, run) = (state.to_owned(), Some(admission.run.id.clone()));
                schedules::settle(sql, telling, &EntryRow { schedule, at, group, state, why, run })?;
            }
            if !admitted.begins {
                runs::came(sql, telling, &admission.run.id, "refused")?;
            }
            Ok(admitted)
        };
        self.change(admit).await
    }

    /// What the budget would say now, without keeping anything; none where nothing is limited.
    pub async fn room(&self, uses: Vec<HostUse>, budget: Budget) -> Result<Option<Outcome>, StoreError> {
        self.read(move |sql| room(sql, &uses, Vec::new(), &budget)).await
    }

    /// Which of some hosts belong to a run that ended with one of its hosts still modified, or before it could undo everything, with the
    /// runs, the newest first. A run that somebody began there since although gates refused it (an overruled one) says that the hosts are in order.
    pub async fn left_modified(&self, hosts: Vec<String>) -> Result<Vec<(String, String)>, StoreError> {
        let hosts: BTreeSet<String> = hosts.into_iter().collect();
        self.read(move |sql| {
            let asked = "SELECT used.host, used.run, used.at FROM runs JOIN run_hosts used ON used.run = runs.id \
                         WHERE runs.state IN ($1, $2, $3) ORDER BY used.at DESC, used.host";
            let since = "SELECT 1 FROM run_hosts JOIN run_gates ON run_gates.run = run_hosts.run \
                         WHERE run_hosts.host = $1 AND run_hosts.at > $2 AND run_gates.gate = 'overruled' LIMIT 1";
            let mut left = Vec::new();
            let ended = [Exit::Modified, Exit::Interrupted, Exit::Bug].map(|exit| exit.meaning().into());
            for row in sql.query(asked, &ended)? {
                let (host, run, at) = (row.text(0)?, row.text(1)?, row.number(2)?);
                if hosts.contains(&host) && sql.one(since, &[(&host).into(), at.into()])?.is_none() {
                    left.push((host, run));
                }
            }
            Ok(left)
        })
        .await
    }

    /// What the gates said of a run, in their order.
    pub async fn outcomes(&self, run: &str) -> Result<Vec<Outcome>, StoreError> {
        let run = run.to_owned();
        self.read(move |sql| {
            let asked = "SELECT gate, passed, why FROM run_gates WHERE run = $1 ORDER BY seq";
            let outcome =
                |row: &Row| Ok(Outcome { gate: row.text(0)?, passed: row.number(1)? > 0, why: row.text(2)? });
            sql.query(asked, &[(&run).into()])?.iter().map(outcome).collect()
        })
        .await
    }
}

fn room(
    sql: &mut dyn Sql,
    uses: &[HostUse],
    coming: Vec<Footprint>,
    budget: &Budget,
) -> Result<Option<Outcome>, StoreError> {
    if budget.is_none() {
        return Ok(None);
    }
    let mut others = live(sql)?;
    others.extend(coming);
    let why = budget.exceeded(uses, &others, &known(sql, now_ms())?);
    Ok(Some(match why.is_empty() {
        true => Outcome::passes("budget", "there is room for it"),
        false => Outcome::refuses("budget", why.join("; ")),
    }))
}

fn admit(sql: &mut dyn Sql, admission: &Admission, budget: &Budget) -> Result<Admitted, StoreError> {
    let (run, now) = (&admission.run, now_ms());
    let mut outcomes = admission.outcomes.clone();
    let given_up = match &admission.entry {
        Some(entry) => !schedules::is_claimed(sql, entry)?,
        None => false,
    };
    if given_up {
        outcomes.push(Outcome::refuses("schedule", "its entry was given up: it is not run late"));
    }
    if !budget.is_none() {
        // Whoever has this row is alone with the budget until the commit.
        let locked = "INSERT INTO facts (name, value) VALUES ('budget', '') \
                      ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        sql.execute(locked, &[])?;
        let mut coming = Vec::new();
        for (entry, footprint) in &admission.coming {
            // Between the look ahead and here it may have begun, which is among the runs that go on, or been decided otherwise.
            if schedules::state_of(sql, entry)?.is_none_or(|state| state == states::CLAIMED) {
                coming.push(footprint.clone());
            }
        }
        outcomes.extend(room(sql, &admission.uses, coming, budget)?);
    }
    let passes = admission.overruled.is_some() || outcomes.iter().all(|outcome| outcome.passed);
    let mut begins = passes && !given_up;
    outcomes.extend(admission.overruled.iter().map(|why| Outcome::passes("overruled", why)));
    // Last: an approval is not used up by a run that something else refuses.
    if begins
        && let Some(eyes) = admission.approval
        && !plans::use_up(sql, &run.plan, &run.id, eyes, now)?
    {
        let why = match eyes {
            Eyes::Any => "this plan is not approved, or its approval was used or is over",
            Eyes::Second => {
                "this plan is not approved by a second person, or its approval was used or is over"
            }
        };
        outcomes.push(Outcome::refuses("approval", why));
        begins = false;
    }
    runs::keep(sql, run, if begins { "submitted" } else { "refused" }, now)?;
    let added = "INSERT INTO run_hosts (run, host, labels, zone, faults, at) VALUES ($1, $2, $3, $4, $5, $6)";
    for used in admission.uses.iter().filter(|_| begins) {
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
    for (seq, outcome) in (0u64..).zip(&outcomes) {
        let added = "INSERT INTO run_gates (run, seq, gate, passed, why) VALUES ($1, $2, $3, $4, $5)";
        let passed = u64::from(outcome.passed);
        let values =
            [(&run.id).into(), seq.into(), (&outcome.gate).into(), passed.into(), (&outcome.why).into()];
        sql.execute(added, &values)?;
    }
    Ok(Admitted { begins, outcomes })
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
