//! Processes as a prober sees them.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use squall_experiments::probe::{ProberRequest, Sample};

use crate::prober::{Prober, command, eventually, once, refused};

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(argv: &[&str]) -> Running {
    start_as(None, argv)
}

fn start_as(user: Option<u32>, argv: &[&str]) -> Running {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let running = Running(command.spawn().unwrap());
    // Until it has become the program, it is a copy of the test.
    let arguments = format!("/proc/{}/cmdline", running.0.id());
    eventually("the program to run", || {
        std::fs::read(&arguments).is_ok_and(|words| words.starts_with(argv[0].as_bytes()))
    });
    running
}

/// An argument that no other program has: its sleepers, by their arguments.
fn sleepers(tenths: u32) -> (String, Value) {
    let argument = format!("{}.{tenths}", std::process::id());
    (argument.clone(), json!({ "processes": { "name": "sleep", "args": format!("^sleep {argument}$") } }))
}

fn is(sample: &Sample, good: bool, unclear: bool, seen: &str) {
    assert!(
        sample.good == good && sample.unclear == unclear && sample.seen.starts_with(seen),
        "{sample:?} (expected {seen})"
    );
}

#[test]
fn processes_are_counted_and_what_they_take_is_compared() {
    let (argument, what) = sleepers(1);
    is(&once(what.clone(), json!({})), false, false, "count: 0 (expected >= 1)");
    is(&once(what.clone(), json!({ "count": 0, "memory-mib": "< 1" })), true, false, "0 processes in ");
    let _running = [start(&["sleep", &argument]), start(&["sleep", &argument])];
    is(&once(what.clone(), json!({})), true, false, "2 processes in ");
    is(&once(what.clone(), json!({ "count": { "between": [3, 5] } })), false, false, "count: 2 (expected ");
    let figures = json!({ "memory-mib": "< 64", "age-seconds": "< 600", "cpu-percent": "<= 25", "count": 2 });
    is(&once(what.clone(), figures), true, false, "2 processes, cpu-percent 2 values, memory-mib 2 values");
    is(&once(what.clone(), json!({ "memory-mib": "> 64" })), false, false, "memory-mib: sleep (pid ");
    let mut taken = what.clone();
    taken["processes"]["take"] = json!("sum");
    is(&once(taken, json!({ "age-seconds": "> 3600" })), false, false, "age-seconds: ");
    is(&once(what, json!({ "memory-mib": { "matches": "x" } })), false, false, "memory-mib: ");
}

#[test]
fn a_busy_process_takes_processor_time() {
    let name = format!("squall-busy-{}", std::process::id());
    let script = "while :; do :; done";
    let _busy = start(&["sh", "-c", script, &name]);
    let what = json!({ "processes": { "args": format!("{name}$"), "name": "sh" } });
    // A machine with a hundred other busy processes would still give it as much.
    is(&once(what.clone(), json!({ "cpu-percent": ">= 1" })), true, false, "1 process, cpu-percent ");
    is(&once(what, json!({ "cpu-percent": "< 1" })), false, false, "cpu-percent: ");
}

#[test]
fn a_process_that_began_anew_is_a_restart() {
    let (argument, what) = sleepers(2);
    let first = start(&["sleep", &argument]);
    let mut prober = Prober::start();
    prober.load(1, what, json!({ "restarts": 0 }));
    prober.say(&ProberRequest::Once { probe: 1 });
    is(&prober.sample(), true, false, "1 process, 0 restarts in ");
    drop(first);
    prober.say(&ProberRequest::Once { probe: 1 });
    is(&prober.sample(), false, false, "count: 0 (expected >= 1)");
    // When a process began is known to a hundredth of a second.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let _second = start(&["sleep", &argument]);
    for _ in 0..2 {
        prober.say(&ProberRequest::Once { probe: 1 });
        is(&prober.sample(), false, false, "restarts: 1 (expected 0)");
    }
}

#[test]
fn what_is_not_shown_to_a_user_is_not_guessed() {
    if !nix::unistd::geteuid().is_root() {
        return println!("SKIPPED: only root has probers of two users");
    }
    let (argument, mut what) = sleepers(3);
    let _running = start(&["sleep", &argument]);
    let exe = std::fs::canonicalize("/bin/sleep").unwrap();
    what["processes"]["exe"] = json!(exe);
    is(&once(what.clone(), json!({})), false, true, "count: 0, and of 1 more it is not shown");
    // Whatever it is: it is at most one.
    is(&once(what.clone(), json!({ "count": "<= 1" })), true, false, "0 processes, 1 not shown to this user");
    for (expect, about) in [
        (json!({ "count": "<= 1", "restarts": 0 }), "restarts: of 1 more"),
        (json!({ "count": "<= 1", "age-seconds": ">= 0" }), "age-seconds: of 1 more"),
    ] {
        is(&once(what.clone(), expect), false, true, about);
    }
    // With one that is seen it is the same, unless that one says enough.
    let _own = start_as(Some(65534), &["sleep", &argument]);
    is(&once(what.clone(), json!({ "age-seconds": ">= 0" })), false, true, "age-seconds: of 1 more");
    is(&once(what.clone(), json!({ "restarts": 0 })), false, true, "restarts: of 1 more");
    is(&once(what.clone(), json!({ "age-seconds": ">= 9999999" })), false, false, "age-seconds: ");
    let mut command = command();
    command.args(["--user", "root"]);
    let mut prober = Prober::with(command);
    prober.load(1, what, json!({ "count": 2, "open-files": { "between": [1, 64] } }));
    prober.say(&ProberRequest::Once { probe: 1 });
    is(&prober.sample(), true, false, "2 processes, open-files ");
}

#[test]
fn every_process_is_nobodys_question() {
    assert_eq!(refused(json!({ "processes": {} }), json!({})), "nothing says which processes");
    let why = refused(json!({ "processes": { "args": "(" } }), json!({}));
    assert!(why.contains("is not a regular expression"), "{why}");
}
