//! Backups as docs/operating.md describes them: taken while a run goes on, restored, and served from. And a database of the
//! first version on PostgreSQL.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use squall_tests::wait::until;
use squall_tests::{skip, skip::found};

use super::*;
use crate::serve::Fleet;

/// Of the page, the commands by which a backup is taken or put back; what is to be filled in stands in capitals.
fn commands(beginning: &str) -> String {
    let page = include_str!("../../../docs/operating.md");
    let block = page.split("```").skip(1).step_by(2).find(|block| block.contains(beginning));
    let block = block.unwrap_or_else(|| panic!("`{beginning}` does not stand in docs/operating.md"));
    block.split_once('\n').expect("a block has lines").1.to_owned()
}

/// Does what the page says, in a directory.
fn follow(script: &str, within: &Path) {
    let done = Command::new("sh").args(["-eu", "-c", script]).current_dir(within).output();
    let done = done.expect("`sh` can be run");
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A controller is lost in the middle of a run; what was saved while that went on is put back, and serves.
fn lost_and_restored(mut fleet: Fleet, save: impl Fn(&Fleet, &Path), restore: impl Fn(&mut Fleet, &Path)) {
    // As a controller makes it where it is not there yet.
    fs::set_permissions(&fleet.data, Permissions::from_mode(0o700)).expect("a mode");
    let refused = "refuse: { to: [\"127.0.0.1:8080\"] }";
    fleet.runs(refused, "2s").run().expect_exit(5);
    let followed = fleet.runs(refused, "80s").start();
    let run = fleet.live();
    let saved = fleet.world.place("saved");
    save(&fleet, &saved);
    let head = fleet.asks(&["audit", "head", "--format", "json"]).run().expect_exit(0).json();
    let events = |fleet: &Fleet| fleet.shows(&run)["events"].as_u64().expect("a number");
    let before = events(&fleet);
    assert_eq!(fleet.shows(&run)["state"], "running", "it was saved while a run went on");

    let mut controller = fleet.controller.take().expect("it was started");
    controller.signal(Signal::KILL);
    holds("the controller to be gone", PATIENCE, || controller.ended());
    fs::remove_dir_all(&fleet.data).expect("it is lost");
    fleet.are_clean();
    restore(&mut fleet, &saved);
    fleet.serve();
    // Whoever had joined belongs to it, tokens are good, and the log is the one that was saved.
    fleet.holds_connected();
    let hash = head["hash"].as_str().expect("a hash");
    fleet.asks(&["audit", "verify", "--head", hash]).run().expect_exit(0);
    let shown = until("what became of the run", PATIENCE * 3, || {
        let shown = fleet.shows(&run);
        (shown["state"] != "running").then_some(shown)
    });
    assert_eq!(shown["state"], "interrupted", "{shown}");
    assert!(events(&fleet) > 0 && before > 0);
    followed.finish();
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(2), "{runs}");
    fleet.runs(refused, "2s").run().expect_exit(5);
    fleet.asks(&["audit", "verify"]).run().expect_exit(0);
    fleet.end();
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The copy of what lies beside the database goes where it was.
fn put_back(fleet: &Fleet, saved: &Path) -> PathBuf {
    let data = fleet.data.clone();
    let script = commands("cp -a SAVED/. DIR/").replace("SAVED", &shown(saved)).replace("DIR", &shown(&data));
    follow(&script, &fleet.world.directory);
    assert_eq!(fs::metadata(&data).expect("it is there").permissions().mode() & 0o777, 0o700);
    data
}

#[test]
fn a_living_sqlite_is_backed_up_in_the_middle_of_a_run_and_restored() {
    needs!(Root, Nftables, Nginx);
    if !found("sqlite3") {
        skip!("needs sqlite3 (package `sqlite3`)");
    }
    lost_and_restored(
        Fleet::new(1),
        |fleet, saved| {
            let script = commands("sqlite3 DIR/squall.db");
            let script = script.replace("DIR", &shown(&fleet.data)).replace("SAVED", &shown(saved));
            // The package's controller has a user of its own.
            chown(fleet.data.join("squall.db"), Some(65534), Some(65534)).expect("an owner");
            follow(&script, &fleet.world.directory);
            let copy = fs::metadata(saved.join("squall.db")).expect("it is there");
            assert_eq!(copy.uid(), 65534, "whoever runs the controller could not open it");
        },
        |fleet, saved| drop(put_back(fleet, saved)),
    );
}

#[test]
fn a_living_postgres_is_backed_up_in_the_middle_of_a_run_and_restored() {
    needs!(Root, Nftables, Nginx, Postgres);
    if !found("pg_dump") || !found("psql") {
        skip!("needs pg_dump and psql (package `postgresql-client`)");
    }
    let world = World::new(2);
    let service = world.postgres(0, 5432);
    let directory = world.directory.join("service-0");
    let of = |name: &str| format!("host={} port=5432 user=postgres dbname={name}", directory.display());
    for name in ["fleet", "restored"] {
        query(&world, &service, &format!("CREATE DATABASE {name}")).expect("a database");
    }
    let (lost, found) = (of("fleet"), of("restored"));
    lost_and_restored(
        Fleet::over(world, Some(lost.clone())),
        |fleet, saved| {
            let script = commands("pg_dump");
            let script = script.replace("DIR", &shown(&fleet.data)).replace("SAVED", &shown(saved));
            follow(&script.replace("DATABASE", &lost), &fleet.world.directory);
        },
        |fleet, saved| {
            let data = put_back(fleet, saved);
            let script = commands("psql").replace("SAVED", &shown(saved)).replace("DATABASE", &found);
            follow(&script, &data);
            fleet.database = Some(found.clone());
        },
    );
}

#[test]
fn a_postgres_of_the_first_version_is_migrated_with_all_that_it_holds() {
    needs!(Root, Postgres);
    let world = World::new(1);
    let service = world.postgres(0, 5432);
    query(&world, &service, "CREATE DATABASE first").expect("a database");
    let first = include_str!("../../../controller/src/store/tests/version-1.sql");
    let stream = squall_tests::client::connect(
        &world.hosts[0].netns,
        std::net::SocketAddr::from(([127, 0, 0, 1], service.port)),
        PATIENCE,
    );
    let mut client =
        squall_tests::client::Postgres::on(stream.expect("it answers"), "first").expect("it lets us in");
    client.query(first).expect("the first schema, with its content");
    let store = Store::open(&place(&world, "first")).expect("it is migrated");
    wait(async {
        let verified = store.audit_verify().await.expect("it can be read");
        assert!(matches!(&verified, Verified::Whole(head) if head.seq == 3), "{verified:?}");
        let web = store.host("web-1").await.expect("it can be read").expect("it is there");
        assert!(web.accepts("s1") && web.accepts("s2"), "{web:?}");
        let token = store.token("hash of 1f").await.expect("it can be read").expect("it is valid");
        assert_eq!((token.name.as_str(), token.role), ("ada", Role::Admin));
        let held = store.run("r1").await.expect("it can be read").expect("it is there");
        assert_eq!((held.title.as_str(), held.state.as_str(), held.events), ("It's \"odd\" ü", "held", 2));
        let left = store.take_abandoned().await.expect("it answers").expect("a run that nobody holds");
        assert_eq!((left.id.as_str(), left.epoch), ("r2", 2));
        store.enrol("hash of j1", a_host("web-2", "9")).await.expect("the old token lets one in");
        store.new_run(a_run("r3")).await.expect("a run");
    });
}
