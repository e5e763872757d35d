//! The schema, as numbered steps: each database says which it has, and gets the rest in one transaction.
//!
//! A step that was released is never altered; what must be different comes as a further step.

use super::StoreError;
use super::sql::{Sql, Value};

/// Every step, the first being number 1. One text for both databases: whole numbers (`BIGINT`) and `TEXT` only, times in
/// milliseconds since 1970, yes and no as a time or nothing.
const STEPS: &[&str] = &["
    CREATE TABLE hosts (
        name TEXT PRIMARY KEY, labels TEXT NOT NULL, zone TEXT, cell TEXT, serial TEXT NOT NULL,
        previous_serial TEXT, key TEXT NOT NULL, enrolled_at BIGINT NOT NULL, revoked_at BIGINT
    );
    CREATE TABLE join_tokens (
        id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, made_by TEXT NOT NULL, made_at BIGINT NOT NULL,
        expires_at BIGINT NOT NULL, uses_left BIGINT NOT NULL, revoked_at BIGINT
    );
    CREATE TABLE tokens (
        id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL, role TEXT NOT NULL,
        made_by TEXT NOT NULL, made_at BIGINT NOT NULL, expires_at BIGINT, revoked_at BIGINT
    );
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, title TEXT NOT NULL, document TEXT NOT NULL, plan TEXT NOT NULL, made_by TEXT NOT NULL,
        made_at BIGINT NOT NULL, state TEXT NOT NULL, epoch BIGINT NOT NULL, events BIGINT NOT NULL
    );
    CREATE INDEX runs_by_time ON runs (made_at, id);
    CREATE TABLE events (
        run TEXT NOT NULL REFERENCES runs (id), seq BIGINT NOT NULL, event TEXT NOT NULL, PRIMARY KEY (run, seq)
    );
    CREATE TABLE audit (
        seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, prev TEXT NOT NULL,
        hash TEXT NOT NULL
    );
    CREATE TABLE audit_head (one BIGINT PRIMARY KEY, seq BIGINT NOT NULL, hash TEXT NOT NULL);
    CREATE TABLE answers (
        who TEXT NOT NULL, key TEXT NOT NULL, asked TEXT NOT NULL, at BIGINT NOT NULL, status BIGINT, body TEXT,
        PRIMARY KEY (who, key)
    );
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
", "
    CREATE TABLE sessions (
        hash TEXT PRIMARY KEY, token TEXT NOT NULL REFERENCES tokens (id), made_at BIGINT NOT NULL, expires_at BIGINT NOT NULL
    );
    CREATE INDEX runs_by_title ON runs (substr(title, 1, 200), made_at);
", "
    CREATE TABLE plans (
        hash TEXT PRIMARY KEY, title TEXT NOT NULL, document TEXT NOT NULL, name TEXT, vars TEXT NOT NULL,
        seed TEXT NOT NULL, shown TEXT NOT NULL, submitted_by TEXT NOT NULL, submitted_at BIGINT NOT NULL,
        expires_at BIGINT NOT NULL, approved_by TEXT, approved_at BIGINT, note TEXT, run TEXT
    );
", "
    ALTER TABLE runs ADD COLUMN held_until BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN halted_at BIGINT;
", "
    CREATE TABLE schedules (
        name TEXT PRIMARY KEY, document TEXT NOT NULL, seed BIGINT NOT NULL, made_by TEXT NOT NULL, made_at BIGINT NOT NULL,
        paused_at BIGINT, paused_by TEXT, paused_why TEXT, decided_to BIGINT NOT NULL,
        approved_at BIGINT, approved_by TEXT, approved_hash TEXT
    );
    CREATE TABLE schedule_entries (
        schedule TEXT NOT NULL, at BIGINT NOT NULL, part TEXT NOT NULL, state TEXT NOT NULL, why TEXT, run TEXT,
        PRIMARY KEY (schedule, at, part)
    );
    CREATE INDEX schedule_entries_by_time ON schedule_entries (at, schedule, part);
    CREATE TABLE run_hosts (
        run TEXT NOT NULL REFERENCES runs (id), host TEXT NOT NULL, labels TEXT NOT NULL, zone TEXT, faults BIGINT NOT NULL,
        at BIGINT NOT NULL, PRIMARY KEY (run, host)
    );
    CREATE INDEX run_hosts_by_time ON run_hosts (at);
    CREATE TABLE run_gates (
        run TEXT NOT NULL REFERENCES runs (id), seq BIGINT NOT NULL, gate TEXT NOT NULL, passed BIGINT NOT NULL,
        why TEXT NOT NULL, PRIMARY KEY (run, seq)
    );
", "
    ALTER TABLE runs ADD COLUMN build TEXT;
    ALTER TABLE runs ADD COLUMN weight BIGINT NOT NULL DEFAULT 1;
    ALTER TABLE runs ADD COLUMN content TEXT NOT NULL DEFAULT '';
", "
    ALTER TABLE runs ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
    CREATE TABLE happenings (id TEXT PRIMARY KEY, at BIGINT NOT NULL, what TEXT NOT NULL);
    CREATE INDEX happenings_by_time ON happenings (at, id);
    CREATE TABLE notices (
        id TEXT NOT NULL, receiver TEXT NOT NULL, at BIGINT NOT NULL, what TEXT NOT NULL, attempts BIGINT NOT NULL,
        next_at BIGINT NOT NULL, held_until BIGINT NOT NULL, PRIMARY KEY (receiver, id)
    );
", "
    CREATE TABLE game_days (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, title TEXT NOT NULL, document TEXT NOT NULL, made_by TEXT NOT NULL,
        made_at BIGINT NOT NULL, state TEXT NOT NULL, epoch BIGINT NOT NULL, events BIGINT NOT NULL,
        held_until BIGINT NOT NULL
    );
    CREATE INDEX game_days_by_time ON game_days (made_at, id);
    CREATE INDEX game_days_by_name ON game_days (name, made_at);
    CREATE TABLE game_day_events (
        day TEXT NOT NULL REFERENCES game_days (id), seq BIGINT NOT NULL, event TEXT NOT NULL, PRIMARY KEY (day, seq)
    );
", "
    CREATE TABLE host_halts (
        halt TEXT NOT NULL, host TEXT NOT NULL, at BIGINT NOT NULL, taken_at BIGINT, did TEXT, PRIMARY KEY (halt, host)
    );
    CREATE INDEX host_halts_by_time ON host_halts (at);
"];

/// Brings a database to the newest schema. One that is newer than this program is refused and left as it is.
pub(super) fn migrate(sql: &mut dyn Sql) -> Result<(), StoreError> {
    apply(sql, STEPS)
}

fn apply(sql: &mut dyn Sql, steps: &[&str]) -> Result<(), StoreError> {
    sql.batch("BEGIN")?;
    let applied = within(sql, steps);
    match &applied {
        Ok(()) => sql.batch("COMMIT")?,
        // Why it failed says more than that it could not be rolled back.
        Err(_) => drop(sql.batch("ROLLBACK")),
    }
    applied
}

fn within(sql: &mut dyn Sql, steps: &[&str]) -> Result<(), StoreError> {
    sql.migrates_alone()?;
    sql.batch("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY)")?;
    let newest = sql.query("SELECT version FROM schema_version ORDER BY version DESC LIMIT 1", &[])?;
    let has = newest.first().map_or(Ok(0), |row| row.number(0))?;
    let known = steps.len() as u64;
    if has > known {
        return Err(StoreError::Newer { has, known });
    }
    for (number, step) in (1..).zip(steps).filter(|(number, _)| *number > has) {
        sql.batch(step)?;
        sql.execute("INSERT INTO schema_version (version) VALUES ($1)", &[Value::from(number)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sqlite;
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn steps_are_applied_once_and_a_step_that_fails_leaves_nothing() {
        let scratch = Scratch::new("steps");
        let mut sql = sqlite::writer(&scratch.made(), None).expect("it opens");
        let first = "CREATE TABLE one (n BIGINT)";
        apply(&mut sql, &[first]).expect("the first step");
        apply(&mut sql, &[first]).expect("nothing is left to do");
        let broken = apply(&mut sql, &[first, "CREATE TABLE two (n BIGINT); CREATE TABLE one (n BIGINT)"]);
        assert!(matches!(broken, Err(StoreError::Sql(_))), "{broken:?}");
        sql.query("SELECT n FROM two", &[]).expect_err("the half of a step is not there");
        apply(&mut sql, &[first, "CREATE TABLE two (n BIGINT)"]).expect("the second step, from the first");
        sql.query("SELECT n FROM two", &[]).expect("it is there now");
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused_and_left_alone() {
        let scratch = Scratch::new("newer");
        let mut sql = sqlite::writer(&scratch.made(), None).expect("it opens");
        apply(&mut sql, &["CREATE TABLE one (n BIGINT)", "CREATE TABLE two (n BIGINT)"]).expect("two steps");
        let refused = apply(&mut sql, &["CREATE TABLE one (n BIGINT)"]).expect_err("it is newer");
        assert!(matches!(refused, StoreError::Newer { has: 2, known: 1 }), "{refused}");
        assert!(refused.to_string().contains("version 2"), "{refused}");
    }
}
