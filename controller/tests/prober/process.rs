use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squall_experiments::probe::ProberRequest;

use crate::prober::{Prober, eventually, expect_nothing, once, refused};

fn run(argv: &[&str]) -> Value {
    json!({ "process": { "argv": argv } })
}

fn shell(script: &str, timeout: &str) -> Value {
    json!({ "process": { "argv": ["sh", "-c", script], "timeout": timeout } })
}

/// A file that the prober's user may write its pids into.
pub fn pid_file(name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("squall-prober-{name}-{}", std::process::id()));
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    path
}

/// The pids in the file, once there are so many.
pub fn pids(path: &PathBuf, many: usize) -> Vec<u32> {
    let read = || -> Vec<u32> {
        let text = std::fs::read_to_string(path).unwrap();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    eventually("pids are written", || read().len() >= many);
    read()
}

/// Whether a process runs; a zombie does not.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn the_exit_code_is_judged_and_standard_error_explains_it() {
    let sample = once(run(&["true"]), expect_nothing());
    assert!(sample.good && sample.seen.starts_with("exit 0 in "), "{}", sample.seen);
    assert_eq!(once(run(&["false"]), expect_nothing()).seen, "exit 1 (expected 0)");
    assert!(once(run(&["false"]), json!({ "exit": 1 })).good);
    let explained =
        once(shell("echo first >&2; echo 'no route' >&2; echo >&2; exit 3", "5s"), json!({ "exit": 4 }));
    assert_eq!(explained.seen, "exit 3 (expected 4): no route");
    let signalled = once(shell("kill -SEGV $$", "5s"), expect_nothing());
    assert_eq!(signalled.seen, "ended by SIGSEGV (expected exit 0)");
}

#[test]
fn standard_output_is_matched_and_a_talkative_program_never_blocks() {
    assert!(once(run(&["echo", "role:master"]), json!({ "stdout": "role:master" })).good);
    let other = once(run(&["echo", "role:slave"]), json!({ "stdout": "role:master" }));
    assert_eq!(other.seen, "standard output does not match `role:master`");
    // Only the first MiB is searched, but all of it is read.
    let long = shell("head -c 3000000 /dev/zero; echo end", "5s");
    assert_eq!(once(long.clone(), json!({ "stdout": "end" })).seen, "standard output does not match `end`");
    assert!(once(long, expect_nothing()).good);
}

#[test]
fn the_environment_is_clean_and_there_is_no_shell() {
    let path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n";
    let bare = once(run(&["env"]), json!({ "stdout": format!("^{path}$") }));
    assert!(bare.good, "{}", bare.seen);
    let given = json!({ "process": { "argv": ["env"], "env": { "A": "b c" } } });
    assert!(once(given, json!({ "stdout": format!("^A=b c\n{path}$") })).good);
    assert!(once(run(&["pwd"]), json!({ "stdout": "^/\n$" })).good);
    assert!(once(run(&["echo", "$HOME;", "`id`"]), json!({ "stdout": "^\\$HOME; `id`\n$" })).good);
    assert!(once(run(&["cat"]), json!({ "stdout": "^$" })).good, "standard input is empty");
}

#[test]
fn a_program_that_cannot_run_makes_the_probe_unusable() {
    let refused = |argv: &[&str]| refused(run(argv), expect_nothing());
    assert_eq!(refused(&["/no/such"]), "`/no/such` does not exist");
    assert_eq!(
        refused(&["no-such-program"]),
        "`no-such-program` is not in /usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    );
    assert!(refused(&["./here"]).starts_with("`./here` is a relative path"));
    let plain = pid_file("plain");
    let plain_path = plain.to_str().unwrap();
    assert_eq!(refused(&[plain_path]), format!("`{plain_path}` cannot be executed by the prober's user"));
    std::fs::remove_file(plain).unwrap();
    assert_eq!(refused(&[]), "`argv` names no program");
    let user = json!({ "process": { "argv": ["true"], "user": "no-such-user" } });
    assert_eq!(
        crate::prober::refused(user, expect_nothing()),
        "no user is named `no-such-user` on this host"
    );
}

#[test]
fn a_time_out_kills_the_group_and_what_left_it() {
    let file = pid_file("timeout");
    let script = format!(
        "echo $$ >> {0}; sleep 60 & echo $! >> {0}; setsid sh -c 'echo $$ >> {0}; sleep 60'",
        file.display()
    );
    let begun = Instant::now();
    let mut prober = Prober::start();
    prober.load(1, shell(&script, "2s"), expect_nothing());
    prober.say(&ProberRequest::Once { probe: 1 });
    let sample = prober.sample();
    assert_eq!(sample.seen, "timed out after 2s");
    assert!(!sample.good && begun.elapsed() < Duration::from_secs(30));
    let pids = pids(&file, 3);
    eventually("all three are dead, while the prober lives", || !pids.iter().any(|pid| runs(*pid)));
    let parent = prober.child.id().to_string();
    let unreaped = || -> Vec<u32> {
        let of_it = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let mut rest = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            rest.next() == Some("Z") && rest.next() == Some(parent.as_str())
        };
        pids.iter().copied().filter(of_it).collect()
    };
    // What the program left may die a moment after the sample was told: the next one reaps it.
    assert!(!unreaped().contains(&pids[0]), "the program itself is reaped");
    prober.load(2, shell("true", "20s"), expect_nothing());
    prober.say(&ProberRequest::Once { probe: 2 });
    assert!(prober.sample().good);
    assert!(unreaped().is_empty(), "and with the next sample what it left");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn nothing_of_the_group_stays_after_a_normal_end() {
    let file = pid_file("background");
    let mut prober = Prober::start();
    // The background process holds standard output, and must not make the sample wait for it.
    prober.load(1, shell(&format!("sleep 60 & echo $! >> {}", file.display()), "20s"), expect_nothing());
    prober.say(&ProberRequest::Once { probe: 1 });
    let sample = prober.sample();
    assert!(sample.good, "{}", sample.seen);
    let pid = pids(&file, 1)[0];
    eventually("the background process is dead, while the prober lives", || !runs(pid));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_end_of_input_kills_everything_even_daemons() {
    let file = pid_file("end");
    let mut prober = Prober::start();
    let daemon = format!(
        "(setsid sh -c 'echo $$ >> {0}; sleep 60' >/dev/null 2>&1 &); until [ -s {0} ]; do sleep 0.01; done",
        file.display()
    );
    prober.load(1, shell(&daemon, "5s"), expect_nothing());
    prober.load(2, shell(&format!("echo $$ >> {}; sleep 60", file.display()), "50s"), expect_nothing());
    prober.say(&ProberRequest::Once { probe: 1 });
    assert!(prober.sample().good);
    prober.say(&ProberRequest::Once { probe: 2 });
    let pids = pids(&file, 2);
    assert!(pids.iter().all(|pid| runs(*pid)), "a daemon and a running sample");
    assert_eq!(prober.end(), 0);
    assert!(!pids.iter().any(|pid| runs(*pid)));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_whole_run_leaves_nothing_that_its_actions_started() {
    let file = pid_file("run");
    let state = file.with_extension("state");
    let experiment = file.with_extension("yaml");
    let daemon = format!(
        "setsid sh -c 'echo $$ >> {0}; sleep 60' >/dev/null 2>&1 & until [ -s {0} ]; do sleep 0.01; done",
        file.display()
    );
    let document = json!({
        "squall": 1,
        "title": "an action that starts a daemon",
        "hypothesis": [{ "name": "fine", "process": { "argv": ["true"] } }],
        "method": [{ "action": { "process": { "argv": ["sh", "-c", daemon] } } }],
    });
    std::fs::write(&experiment, document.to_string()).unwrap();
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_squall"));
    let output = run.arg("--state-dir").arg(&state).arg("run").arg(&experiment).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!runs(pids(&file, 1)[0]));
    std::fs::remove_file(file).unwrap();
    std::fs::remove_file(experiment).unwrap();
    std::fs::remove_dir_all(state).unwrap();
}
