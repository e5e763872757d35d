//! What is SQLite's own: one process, kills, a full disk. What both databases do is tested end to end, on both.

mod kill;
mod migration;
mod writes;

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::*;

/// A directory that goes when the test ends.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("squall-store-{name}-{}-{next}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.clone()
    }

    pub(crate) fn made(&self) -> PathBuf {
        fs::create_dir_all(&self.0).expect("a directory");
        self.path()
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&Where::Sqlite(self.path())).expect("it opens")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Store {
    /// Hangs until what is given is dropped: nothing that is asked is answered.
    pub(crate) async fn hang(&self) -> impl Send {
        let mut held = Vec::new();
        for (line, name) in [(&self.write, "write"), (&self.read, "read")] {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let (tell, told) = std::sync::mpsc::channel::<()>();
            let line = line.clone();
            tokio::spawn(async move {
                let hung = line.run(move |_| {
                    let _ = tell.send(());
                    let _ = released.recv();
                    Ok(())
                });
                let _ = hung.await;
            });
            let told = tokio::task::spawn_blocking(move || told.recv());
            told.await.expect("it is not cancelled").unwrap_or_else(|_| panic!("{name} does not run"));
            held.push(release);
        }
        held
    }

    /// Takes away what every request needs.
    pub(crate) async fn lose_tables(&self) {
        let lost = "DROP TABLE sessions; DROP TABLE tokens; DROP TABLE facts; DROP TABLE audit";
        self.write(move |sql| sql.batch(lost)).await.expect("they are there");
    }
}

impl Store {
    /// Keeps many runs of many experiments at once, which is quicker than one after the other.
    pub(crate) async fn keep_runs(&self, count: u64, titles: u64) {
        let kept = format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) \
             INSERT INTO runs SELECT printf('r%08d', n), printf('Experiment %d', n % {titles}), '{{}}', '00', 'ada', \
             1700000000000 + n * 60000, CASE n % 7 WHEN 0 THEN 'deviated' ELSE 'held' END, 0, 0, 0, NULL, NULL, 1, '', '[]' FROM numbers"
        );
        self.write(move |sql| sql.batch(&kept)).await.expect("runs");
    }
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

pub(crate) fn a_run(id: &str) -> NewRun {
    let text = |text: &str| text.to_owned();
    NewRun {
        id: text(id),
        title: text("T"),
        document: text("{}"),
        plan: text("00"),
        by: text("ada"),
        tested: Tested::default(),
    }
}

#[test]
fn a_second_process_is_told_who_has_the_directory() {
    let scratch = Scratch::new("two");
    let store = scratch.store();
    // A lock of `flock` belongs to the open file: a second one in this process stands for another process.
    let refused = Store::open(&Where::Sqlite(scratch.path())).expect_err("it is taken");
    let holder = format!("process {}", std::process::id());
    assert!(matches!(&refused, StoreError::Taken { holder: is, .. } if *is == holder), "{refused}");
    wait(store.ready()).expect("the first goes on");
    drop(store);
    // The lock goes with the thread that writes.
    scratch.store();
}

#[test]
fn a_run_that_nobody_holds_is_taken_over_as_it_is() {
    let scratch = Scratch::new("abandoned");
    let store = scratch.store();
    wait(async {
        let tested = Tested { build: Some("b7".to_owned()), ..Tested::default() };
        store.new_run(NewRun { tested, ..a_run("r1") }).await.expect("a run");
        assert_eq!(store.take_abandoned().await.expect("it answers"), None, "it is held");
        store.write(|sql| sql.batch("UPDATE runs SET held_until = 0")).await.expect("its lease is over");
        let taken = store.take_abandoned().await.expect("it answers").expect("nobody holds it");
        assert_eq!((taken.id.as_str(), taken.epoch, taken.build.as_deref()), ("r1", 1, Some("b7")));
        assert_eq!(store.take_abandoned().await.expect("it answers"), None, "it is held again");
    });
}

#[test]
fn what_is_in_the_directory_is_for_its_owner_alone() {
    let scratch = Scratch::new("modes");
    let store = scratch.store();
    let secrets = Secrets::open(&scratch.path()).expect("secrets");
    wait(async {
        store.bind(&secrets).await.expect("it is the first key");
        store.audit("ada", json!({ "did": "something" })).await.expect("an entry");
    });
    assert_eq!(fs::metadata(scratch.path()).expect("it is there").permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(scratch.path()).expect("a directory").flatten() {
        let mode = entry.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", entry.path().display());
    }
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    let scratch = Scratch::new("open");
    let secrets = Secrets::open(&scratch.path()).expect("secrets");
    fs::set_permissions(secrets.path("token-key"), fs::Permissions::from_mode(0o640)).expect("a mode");
    let refused = Secrets::open(&scratch.path()).expect_err("its group may read it");
    assert!(matches!(refused, StoreError::Open { .. }), "{refused}");
}

#[test]
fn a_store_is_bound_to_the_key_of_its_tokens() {
    let (one, other) = (Scratch::new("bound"), Scratch::new("stranger"));
    let store = one.store();
    let (ours, theirs) =
        (Secrets::open(&one.path()).expect("secrets"), Secrets::open(&other.path()).expect("secrets"));
    let minted = ours.mint("token");
    assert_eq!(ours.hash(&minted.token), minted.hash);
    assert_ne!(theirs.hash(&minted.token), minted.hash, "the database and the token alone do not fit");
    wait(async {
        store.bind(&ours).await.expect("the first");
        store.bind(&ours).await.expect("the same again");
        let refused = store.bind(&theirs).await.expect_err("no token would be valid");
        assert!(refused.to_string().contains("another key"), "{refused}");
    });
}

#[test]
fn a_full_disk_is_said_and_what_was_acknowledged_stays() {
    let scratch = Scratch::new("full");
    let held = sqlite::hold(&scratch.path()).expect("it is free");
    let mut writer = sqlite::writer(&scratch.path(), Some(held)).expect("it opens");
    migrations::migrate(&mut writer).expect("the schema");
    writer.limit(64);
    let reader = || sqlite::reader(&scratch.path());
    let place = Where::Sqlite(scratch.path());
    let store = Store::over(&place, writer, reader).expect("a store");
    wait(async {
        store.new_run(a_run("r")).await.expect("a run");
        let event = "x".repeat(4000);
        let mut next = 0;
        let full = loop {
            match store.append(0, "r", next, std::slice::from_ref(&event)).await {
                Ok(then) => next = then,
                Err(error) => break error,
            }
            assert!(next < 1000, "it never becomes full");
        };
        assert!(matches!(full, StoreError::Full(_)), "{full}");
        assert!(full.to_string().contains("disk is full"), "{full}");
        let kept = store.events("r", 0, 1000).await.expect("it can be read");
        assert_eq!(kept.len() as u64, next, "exactly what was acknowledged is there");
        // What needs no further page is still done.
        store.set_run_state("r", "ended", 0).await.expect("the store goes on");
    });
}

#[test]
fn a_read_only_database_is_said() {
    let scratch = Scratch::new("read-only");
    drop(scratch.store());
    // Root may write any file, so the connection is one that may not.
    let reader = || sqlite::reader(&scratch.path());
    let write = Line::start("read-only", reader().expect("it opens")).expect("a thread");
    let read = Line::start("reads", reader().expect("it opens")).expect("a thread");
    let (place, woken) = (Arc::new(Where::Sqlite(scratch.path())), hearing::Woken::default());
    let store = Store { write, read, place, woken, hearing: None, telling: Arc::default() };
    let refused = wait(store.new_run(a_run("r"))).expect_err("it cannot be written");
    assert!(matches!(refused, StoreError::ReadOnly(_)), "{refused}");
}

#[test]
fn many_at_once_share_a_commit_and_one_that_fails_fails_alone() {
    let scratch = Scratch::new("group");
    let store = scratch.store();
    let ended = wait(async {
        store.new_run(a_run("r")).await.expect("a run");
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..100 {
            let store = store.clone();
            // Every tenth clashes with the run that is there.
            let id = if number % 10 == 0 { "r".to_owned() } else { format!("r{number}") };
            asked.spawn(async move { (number, store.new_run(a_run(&id)).await) });
        }
        asked.join_all().await
    });
    for (number, ended) in ended {
        match ended {
            Err(StoreError::Clash(_)) => assert_eq!(number % 10, 0),
            Err(other) => panic!("{number}: {other}"),
            Ok(()) => assert_ne!(number % 10, 0),
        }
    }
    let page = wait(store.runs(None, 1000)).expect("runs");
    assert_eq!(page.runs.len(), 91);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_to_whoever_opens_it_in_a_runtime() {
    let nowhere = Where::Postgres("host=/nonexistent user=nobody connect_timeout=1".to_owned());
    let away = Store::open(&nowhere).expect_err("there is none");
    assert!(matches!(away, StoreError::Away(_)), "{away}");
}
