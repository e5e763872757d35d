//! A process that appends is killed at any moment: whatever it acknowledged is there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rand::RngExt;

use super::super::{Store, StoreError, Where};
use super::{Scratch, a_run, wait};

/// Says to a process that is to be killed in which directory.
pub(super) const DIRECTORY: &str = "SQUALL_TEST_STORE";
/// How often it is killed.
const KILLS: usize = 20;

/// Not a test of its own: the process that [`nothing_acknowledged_is_lost_to_a_kill`] kills.
#[test]
fn appends_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let store = Store::open(&Where::Sqlite(directory.into())).expect("it opens");
    wait(async {
        let mut next = match store.new_run(a_run("r")).await {
            Ok(()) => 0,
            Err(StoreError::Clash(_)) => store.run("r").await.expect("it can be read").expect("a run").events,
            Err(error) => panic!("{error}"),
        };
        loop {
            let event = format!("event {next}");
            next = store.append(0, "r", next, &[event]).await.expect("it is appended");
            // A line is written whole or not at all. The harness's own text shares this output; the mark tells them apart.
            let _ = writeln!(std::io::stdout(), "acknowledged {next}");
        }
    });
}

/// Starts a test of this program by its name as a process of its own, and kills it a while after it has acknowledged so many things;
/// gives everything that it acknowledged.
pub(super) fn killed(
    test: &str,
    scratch: &Scratch,
    environment: &[(&str, &str)],
    many: usize,
    pause: Duration,
) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("a test knows its own executable"))
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, scratch.path())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    let mut lines =
        lines.map_while(Result::ok).filter_map(|line| Some(line.rsplit_once("acknowledged ")?.1.to_owned()));
    let mut said: Vec<String> = lines.by_ref().take(many).collect();
    assert_eq!(said.len(), many, "it ends by itself");
    thread::sleep(pause);
    child.kill().expect("it is ours");
    said.extend(lines);
    child.wait().expect("it ends");
    said
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    let scratch = Scratch::new("kill");
    let mut acknowledged = 0;
    let mut grown = 0;
    for round in 0..KILLS {
        let before = acknowledged;
        // From the first on it is at work; then any moment will do, also none at all.
        let pause = Duration::from_micros(rand::rng().random_range(0..30_000));
        let said = killed("store::tests::kill::appends_until_killed", &scratch, &[], 1, pause);
        let last = said.iter().filter_map(|said| said.parse().ok()).next_back();
        acknowledged = acknowledged.max(last.expect("it acknowledges something"));
        grown += usize::from(acknowledged > before + 1);
        let store = scratch.store();
        wait(async {
            let run = store.run("r").await.expect("it can be read").expect("a run");
            assert!(run.events >= acknowledged, "round {round}: {} of {acknowledged}", run.events);
            let events = store.events("r", 0, u64::MAX >> 1).await.expect("they can be read");
            assert_eq!(events.len() as u64, run.events);
            for (number, (seq, event)) in (0..).zip(&events) {
                assert_eq!((*seq, event.as_str()), (number, format!("event {number}").as_str()));
            }
        });
    }
    assert!(grown > 0, "it was always killed before its second append: this test looks at nothing");
}
