//! The rows of runs are derived: whatever becomes of them, their events make them again. On both databases, by the real command.

use squall_controller::store::RunRow;
use squall_experiments::exit::Exit;
use squall_tests::squall::Finished;

use super::*;

/// What a run of one host writes first, and last.
fn began(run: &str) -> String {
    let began = json!({
        "seq": 1, "at_ms": 0, "fleet": "began", "run": run, "title": format!("Title of {run}"), "date": "2026-11-21T10:51:12Z",
        "seed": 7, "plan": format!("plan of {run}"), "version": "0.1.0", "on_partial": "revert", "hosts": ["web-1"],
    });
    began.to_string()
}

fn passed(seq: u64) -> String {
    json!({ "seq": seq, "at_ms": 5, "fleet": "passed", "gate": "the baseline", "hosts": 1 }).to_string()
}

fn finished(seq: u64, exit: Exit) -> String {
    json!({ "seq": seq, "at_ms": 9, "fleet": "finished", "exit": exit as u8, "sentence": "so" }).to_string()
}

async fn a_run_of(store: &Store, id: &str, events: &[String], state: &str) {
    let (title, plan) = (format!("Title of {id}"), format!("plan of {id}"));
    let tested = Tested { build: Some(text("b7")), ..Tested::default() };
    store.new_run(NewRun { title, plan, tested, ..a_run(id) }).await.expect("a run");
    store.append(0, id, 0, events).await.expect("its events");
    store.set_run_state(id, state, 0).await.expect("what became of it");
}

fn rows(place: &Where) -> Vec<RunRow> {
    let store = Store::open(place).expect("it opens");
    let mut rows = wait(store.runs(None, 100)).expect("runs").runs;
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows
}

fn rebuilt(world: &World, place: &Where, alter: impl Fn(&str)) {
    let data = world.directory.join("data").display().to_string();
    let rebuild = || -> Finished {
        let command = world.hosts[0].squall(&["serve", "--data", &data, "--rebuild"]);
        match place {
            Where::Postgres(at) => command.env("SQUALL_DATABASE", at).run(),
            Where::Sqlite(_) => command.run(),
        }
    };
    let store = Store::open(place).expect("it opens");
    wait(async {
        for (id, exit) in [("held", Exit::Held), ("deviated", Exit::Deviated), ("modified", Exit::Modified)] {
            let log = [began(id), passed(2), finished(3, exit)];
            a_run_of(&store, id, &log, exit.meaning()).await;
        }
        a_run_of(&store, "refused", &[], "refused").await;
        a_run_of(&store, "live", &[began("live")], "running").await;
    });
    drop(store);
    // As if its controller lived for as long as this takes.
    alter(&format!("UPDATE runs SET held_until = {LATER} WHERE id = 'live'"));
    let before = rows(place);
    assert_eq!(before.len(), 5);
    rebuild().expect_exit(0).expect_told("5 runs, 0 of them mended");
    assert_eq!(rows(place), before, "what is right stays");

    // Everything that is derived, of every run that nobody carries on.
    alter(
        "UPDATE runs SET title = 'x', plan = 'y', state = 'z', events = 1 WHERE id IN ('held', 'deviated', 'modified')",
    );
    alter("UPDATE runs SET events = 9 WHERE id = 'refused'");
    assert_ne!(rows(place), before);
    let mended = rebuild();
    mended.expect_exit(0).expect_told("5 runs, 4 of them mended");
    mended.expect_told("state `z`, and by its events `deviated`").expect_told("live: somebody carries it on");
    assert_eq!(rows(place), before);
    let store = Store::open(place).expect("it opens");
    let log = wait(store.audit_page(1, 1000)).expect("it can be read");
    let did = log.iter().filter(|entry| entry.what["did"] == "made the rows of runs again from their events");
    let did: Vec<&serde_json::Value> = did.map(|entry| &entry.what["runs"]).collect();
    assert_eq!(did, [&json!(["held", "deviated", "modified", "refused"])]);
    drop(store);

    // A log without its end goes on, whatever its row says, until somebody closes it.
    alter("DELETE FROM events WHERE run = 'held' AND seq = 2");
    rebuild().expect_exit(0).expect_told("state `held`, and by its events `running`");
    // One of which something is missing is not guessed at, and keeps nothing from being mended.
    alter("DELETE FROM events WHERE run = 'modified' AND seq = 1");
    alter("UPDATE events SET event = 'x' WHERE run = 'held' AND seq = 0");
    alter("UPDATE runs SET held_until = 0 WHERE id = 'held'");
    alter("UPDATE runs SET state = 'held' WHERE id IN ('deviated', 'modified')");
    let broken = rebuild();
    broken.expect_exit(4).expect_told("`modified` is left as it is: 1 of its 3 events are missing");
    broken.expect_told("`held` is left as it is: its event 0 is no line of a log");
    let states: Vec<(String, String)> = rows(place).into_iter().map(|row| (row.id, row.state)).collect();
    let is = |id: &str, state: &str| states.contains(&(text(id), text(state)));
    assert!(is("deviated", "deviated") && is("modified", "held") && is("held", "running"), "{states:?}");
}

#[test]
fn rows_of_runs_are_made_again_from_their_events_on_sqlite() {
    needs!(Root, Python);
    let world = World::new(1);
    let data = world.directory.join("data");
    let nowhere = world.directory.join("nowhere");
    let none = world.hosts[0].squall(&["serve", "--data", &nowhere.display().to_string(), "--rebuild"]).run();
    none.expect_exit(4).expect_told("there is no controller's database in");
    assert!(!nowhere.exists(), "nothing is made");
    let file = data.join("squall.db").display().to_string();
    let alter = |sql: &str| {
        let script = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as db: db.execute(sys.argv[2])";
        let done = std::process::Command::new("python3").args(["-c", script, &file, sql]).output();
        let done = done.expect("it starts");
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    };
    rebuilt(&world, &Where::Sqlite(data), alter);
}

#[test]
fn rows_of_runs_are_made_again_from_their_events_on_postgres() {
    needs!(Root, Postgres);
    let world = World::new(1);
    let service = world.postgres(0, 5432);
    let alter = |sql: &str| drop(query(&world, &service, sql).expect("it is altered"));
    rebuilt(&world, &place(&world, "postgres"), alter);
}
