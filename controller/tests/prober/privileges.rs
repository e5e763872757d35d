use std::collections::HashMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use serde_json::json;
use squall_experiments::probe::ProberRequest;

use crate::prober::{Prober, command, eventually, expect_nothing};
use crate::process::runs;

/// The fields of /proc/PID/status, of every thread; all threads must agree.
fn status(pid: u32) -> HashMap<String, String> {
    let read = |path: std::path::PathBuf| -> HashMap<String, String> {
        let text = std::fs::read_to_string(path).unwrap();
        let field =
            |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        text.lines().filter_map(field).collect()
    };
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let all: Vec<_> = threads.map(|thread| read(thread.path().join("status"))).collect();
    for field in
        ["Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"]
    {
        assert!(all.iter().all(|thread| thread[field] == all[0][field]), "{field} differs between threads");
    }
    all.into_iter().next().unwrap()
}

/// A prober that has answered once, so that it has dropped what it drops.
fn ready(command: Command) -> Prober {
    let mut prober = Prober::with(command);
    prober.load(1, json!({ "process": { "argv": ["id", "-u"] } }), expect_nothing());
    prober.say(&ProberRequest::Once { probe: 1 });
    assert!(prober.sample().good);
    prober
}

fn assert_powerless(status: &HashMap<String, String>) {
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    if has_filters() {
        assert_eq!(status["Seccomp"], "2");
    }
}

fn has_filters() -> bool {
    std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

fn skip_without_root() -> bool {
    let skip = !geteuid().is_root();
    if skip {
        eprintln!("SKIP: needs root");
    }
    skip
}

#[test]
fn an_agents_precedence_is_not_a_probers() {
    if skip_without_root() {
        return;
    }
    let mut privileged = Command::new("nice");
    privileged.args(["-n", "-5"]);
    // Where root may spare itself: some sandboxes do not let it.
    let choom = ["choom", "-n", "-500", "--"];
    if Command::new(choom[0]).args(&choom[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        privileged.args(choom);
    }
    privileged.args([env!("CARGO_BIN_EXE_squall"), "prober"]);
    privileged.stdin(Stdio::piped()).stdout(Stdio::piped());
    let prober = ready(privileged);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", prober.pid())).unwrap();
    let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap();
    let spared = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", prober.pid())).unwrap();
    assert_eq!((nice, spared.trim()), ("0", "0"));
}

#[test]
fn root_becomes_nobody_with_nothing() {
    if skip_without_root() {
        return;
    }
    let prober = ready(command());
    let status = status(prober.pid());
    assert_eq!(status["Uid"], "65534\t65534\t65534\t65534");
    assert_eq!(status["Gid"], "65534\t65534\t65534\t65534");
    assert_eq!(status["Groups"], "");
    assert_powerless(&status);
    let control = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(!control.contains("CapEff:\t0000000000000000"), "the test itself holds capabilities");
}

#[test]
fn what_a_probe_starts_makes_no_namespace_and_one_without_programs_starts_nothing() {
    if !has_filters() {
        eprintln!("SKIP: this kernel has no filters of system calls");
        return;
    }
    let argv = json!(["unshare", "--user", "true"]);
    if !Command::new("unshare").args(["--user", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIP: user namespaces are not allowed here");
        return;
    }
    let mut prober = ready(command());
    prober.load(2, json!({ "process": { "argv": argv } }), json!({ "exit": 1 }));
    prober.say(&ProberRequest::Once { probe: 2 });
    let sample = prober.sample();
    assert!(sample.good, "{}", sample.seen);
    // One that starts nothing looks, and bears the sterner filter: two more than the other's.
    let mut alone = command();
    alone.arg("--no-programs");
    let mut alone = Prober::with(alone);
    alone.load(1, json!({ "tcp": { "address": "127.0.0.1:1", "timeout": "1s" } }), expect_nothing());
    alone.say(&ProberRequest::Once { probe: 1 });
    assert!(!alone.sample().good);
    let (with, without) = (status(prober.pid()), status(alone.pid()));
    assert_powerless(&without);
    let filters = |status: &HashMap<String, String>| status["Seccomp_filters"].parse::<u32>().unwrap();
    assert!(filters(&without) > filters(&with), "{with:?}\n{without:?}");
}

#[test]
fn root_becomes_the_named_user_and_its_programs_too() {
    if skip_without_root() {
        return;
    }
    let mut command = command();
    command.args(["--user", "daemon"]);
    let mut prober = ready(command);
    let status = status(prober.pid());
    assert!(status["Uid"].starts_with("1\t1\t"), "{}", status["Uid"]);
    assert_powerless(&status);
    prober.load(
        2,
        json!({ "process": { "argv": ["id", "-u"], "user": "daemon" } }),
        json!({ "stdout": "^1\n$" }),
    );
    prober.say(&ProberRequest::Once { probe: 2 });
    assert!(prober.sample().good);
    prober.load(3, json!({ "process": { "argv": ["id"], "user": "root" } }), expect_nothing());
    assert_eq!(prober.unusable(), "this prober does not run as the user `root`");
}

#[test]
fn root_stays_root_only_when_it_is_asked_for_by_name() {
    if skip_without_root() {
        return;
    }
    let mut command = command();
    command.args(["--user", "root"]);
    let status = status(ready(command).pid());
    assert_eq!(status["Uid"], "0\t0\t0\t0");
    assert_ne!(status["CapEff"], "0000000000000000");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(own.contains(&format!("Seccomp:\t{}\n", status["Seccomp"])), "no filter is added to root's");
}

#[test]
fn in_a_namespace_with_one_user_the_capabilities_go() {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--"]).arg(env!("CARGO_BIN_EXE_squall")).arg("prober");
    let probe = Command::new("unshare").args(["--user", "--map-root-user", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIP: user namespaces are not allowed here");
        return;
    }
    unshare.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut prober = ready(unshare);
    let status = status(prober.pid());
    assert_powerless(&status);
    assert_eq!(status["CapBnd"], "0000000000000000");
    // What it runs has the number 0 and no power with it.
    let expect = json!({ "stdout": "CapEff:\t0000000000000000" });
    prober.load(2, json!({ "process": { "argv": ["cat", "/proc/self/status"] } }), expect);
    prober.say(&ProberRequest::Once { probe: 2 });
    let sample = prober.sample();
    assert!(sample.good, "{}", sample.seen);
}

fn refusal(mut command: Command) -> (i32, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdin.take());
    let mut talk = String::new();
    child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
    (child.wait().unwrap().code().unwrap(), talk)
}

#[test]
fn it_does_not_start_as_somebody_that_it_cannot_become() {
    let mut unknown = command();
    unknown.args(["--user", "no-such-user"]);
    let (exit, talk) = refusal(unknown);
    assert_eq!(exit, 4);
    assert_eq!(
        talk,
        "error: no user is named `no-such-user` on this host\nhelp: name a user of this host in `user:`\n"
    );
    let mut other = command();
    other.args(["--user", "root"]);
    if geteuid().is_root() {
        // The binary may lie in a folder that others cannot enter. It is another process that writes the copy: while this
        // one did, a child that another test starts would hold it open for a moment, and it could not be run (ETXTBSY).
        let copy = std::env::temp_dir().join(format!("squall-prober-binary-{}", std::process::id()));
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_squall")).arg(&copy).status().unwrap();
        assert!(copied.success());
        other = Command::new(&copy);
        other.args(["prober", "--user", "root"]).stdin(Stdio::piped()).stdout(Stdio::piped()).uid(1).gid(1);
        let (exit, talk) = refusal(other);
        std::fs::remove_file(copy).unwrap();
        assert_eq!(exit, 4, "{talk}");
        assert!(talk.starts_with("error: only root can run probes as the user `root`\n"), "{talk}");
    } else {
        assert_eq!(refusal(other).0, 4);
    }
}

#[test]
fn it_ends_with_its_parent_even_when_its_input_stays_open() {
    // This test holds the write end of the input, so only the parent's death can end the prober.
    let (input, held) = std::io::pipe().unwrap();
    let script = format!("'{}' prober & echo $!; wait", env!("CARGO_BIN_EXE_squall"));
    let mut parent = Command::new("sh")
        .args(["-c", &format!("exec 3<&0; {}", script.replace("prober &", "prober <&3 &"))])
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(parent.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    eventually("it has dropped its privileges, and so has asked for the signal", || {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.contains("Name:\tsquall") && status.contains("Threads:\t3"))
    });
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("it has ended", || !runs(pid));
    drop(held);
}
