//! Targets that change between a crash and the recovery: an undo never hits what came in their place, and says so.

use std::fs;
use std::time::Duration;

use squall_agent::host::process::Target;
use squall_agent::host::undo::Undo;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::trial::{Trial, calm};
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::crash::{journal, killed_live};
use crate::journal::{LINE, plant};

const SOON: Duration = Duration::from_secs(3);

/// In a pid namespace of its own: a process that a journal tells of ends, and another one gets its pid and is stopped by
/// its user. `$1` is a directory to talk by, `$2` the agent, `$3` the state directory.
const REUSE: &str = r#"
sleep 600 & first=$!
read -r stat <"/proc/$first/stat"; set -- "$@" $stat
echo "$first ${25}" >"$1/first.new"; mv "$1/first.new" "$1/first"
until [ -e "$1/planted" ]; do sleep 0.01; done
kill -KILL "$first"; wait "$first" 2>/dev/null
echo $((first - 1)) >/proc/sys/kernel/ns_last_pid
sleep 600 & second=$!
echo "$first $second" >"$1/pids"
kill -STOP "$second"
"$2" --state-dir "$3" recover >"$1/told" 2>&1
echo "$?" >"$1/exit"
cut -d' ' -f3 "/proc/$second/stat" >"$1/state"
kill -KILL "$second"
"#;

#[test]
fn a_pid_that_is_given_again_is_another_process() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    let talk = world.place("talk");
    let agent = squall_tests::squall::binary("squall-agent");
    let mut command = host.netns.command("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", REUSE, "bash"]);
    let mut child = command.arg(&talk).arg(agent).arg(&host.state).spawn().expect("it can be started");
    let first = until("the first process", PATIENCE, || fs::read_to_string(talk.join("first")).ok());
    let mut numbers = first.split_whitespace().map(|number| number.parse::<u64>().expect("a number"));
    let (pid, start) = (numbers.next().expect("a pid"), numbers.next().expect("a start"));
    let target = Target { pid: i32::try_from(pid).expect("a pid"), start, name: "sleep".into() };
    let path = plant(host, &[Undo::Resume(target)], |bytes| bytes);
    fs::write(talk.join("planted"), "").expect("it can be written");
    assert!(child.wait().expect("it ends").success());
    let said = |name: &str| fs::read_to_string(talk.join(name)).expect("it was written");
    let pids = said("pids");
    let (old, new) = pids.trim().split_once(' ').expect("two pids");
    assert_eq!(old, new, "the pid was not given again, so nothing is shown");
    assert_eq!(said("state").trim(), "T", "what its user has stopped was continued: {}", said("told"));
    assert_eq!(said("exit").trim(), "0", "{}", said("told"));
    assert!(said("told").contains("has ended meanwhile"), "{}", said("told"));
    assert!(!path.exists());
    world.restored(SOON);
}

/// In a pid namespace of its own, where the second process is none of the kernel's: a process is killed by its pid again and
/// again, and another one gets that pid. `$1` is a directory to talk by, `$2` the command, `$3` an experiment without the pid.
const REPLACED: &str = r#"
sleep 600 & first=$!
sed "s/PID/$first/" "$3" >"$1/kill.yaml"
"$2" run "$1/kill.yaml" >"$1/told" 2>&1 & run=$!
wait "$first" 2>/dev/null
for _ in $(seq 100); do
    echo $((first - 1)) >/proc/sys/kernel/ns_last_pid
    sleep 600 & second=$!
    [ "$first" = "$second" ] && break
    kill -KILL "$second"; wait "$second" 2>/dev/null
done
echo "$first $second" >"$1/pids"
wait "$run"
cut -d' ' -f3 "/proc/$second/stat" >"$1/state"
kill -KILL "$second"
"#;

/// Runs a script such as [`REPLACED`] over an experiment of one step, with what else it takes; whoever got the pid must still be
/// there, and the reader must be told so.
fn given_again(world: &World, script: &str, step: &str, more: &[&str], told: &str) {
    let host = &world.hosts[0];
    let talk = world.place("talk");
    let file = world.file("step.yaml", calm(&[step]));
    let mut command = host.netns.command("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script, "bash"]);
    command.arg(&talk).arg(squall_tests::squall::binary("squall")).arg(&file).args(more);
    let mut child = command.env("SQUALL_STATE_DIR", &host.state).spawn().expect("it can be started");
    child.wait().expect("it ends");
    let said = |name: &str| fs::read_to_string(talk.join(name)).unwrap_or_default();
    let (pids, story) = (said("pids"), said("told"));
    let (old, new) = pids.trim().split_once(' ').expect("two pids");
    assert_eq!(old, new, "the pid was not given again, so nothing is shown: {story}");
    assert_eq!(said("state").trim(), "S", "another process was hit: {story}");
    assert!(story.contains(told), "{story}");
    world.restored(SOON);
}

#[test]
fn who_is_given_the_pid_of_a_killed_process_is_left_alone() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let step = "{ fault: { kill: { signal: TERM, every: 100ms } }, in: { process: { pid: PID } }, for: 3s }";
    given_again(&world, REPLACED, step, &[], "is another process, and is left alone");
}

/// As [`REPLACED`], of processes that are connected to `$4` (an address, a slash, a port), and end when their connection does: the
/// first one's is destroyed, the second's is not the experiment's. `$1` to `$3` as there.
const RECONNECTED: &str = r#"
connected='exec 3<>"/dev/tcp/$0"; read -r -u 3 line; exit 0'
bash -c "$connected" "$4" & first=$!
sed "s/PID/$first/" "$3" >"$1/disconnect.yaml"
"$2" run "$1/disconnect.yaml" >"$1/told" 2>&1 & run=$!
wait "$first" 2>/dev/null
for _ in $(seq 100); do
    echo $((first - 1)) >/proc/sys/kernel/ns_last_pid
    bash -c "$connected" "$4" & second=$!
    [ "$first" = "$second" ] && break
    kill -KILL "$second"; wait "$second" 2>/dev/null
done
echo "$first $second" >"$1/pids"
wait "$run"
cut -d' ' -f3 "/proc/$second/stat" >"$1/state"
kill -KILL "$second"
"#;

#[test]
fn the_connections_of_who_is_given_the_pid_are_left_alone() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let step = "{ fault: { disconnect: { to: [\"10.77.1.2:7\"], every: 100ms } }, in: { process: { pid: PID } }, for: 3s }";
    given_again(
        &world,
        RECONNECTED,
        step,
        &["10.77.1.2/7"],
        "connections of whoever has its pid are left alone",
    );
}

/// An interface is shaped, everything dies, and somebody changes it before the recovery.
fn changed(change: impl FnOnce(&Host), told: &str) {
    let world = World::new(2);
    let host = &world.hosts[0];
    killed_live(&world, LINE);
    change(host);
    world.as_found();
    host.agent(&["recover"]).run().expect_exit(0).expect_told(told);
    let left = journal(host);
    assert_eq!(left, None, "a journal is done with when what it tells of is gone");
    // The journal and its place are what else was there.
    let after = host.look(&["tc", "qdisc", "show"]) + &host.look(&["ip", "-o", "link"]);
    host.agent(&["recover"]).run().expect_exit(0);
    assert_eq!(after, host.look(&["tc", "qdisc", "show"]) + &host.look(&["ip", "-o", "link"]));
    world.as_found();
}

#[test]
fn an_interface_that_was_removed_is_gone_with_its_root() {
    needs!(Root, Nftables, Htb);
    changed(|host| drop(host.look(&["ip", "link", "delete", "to1"])), "`to1` is gone");
}

#[test]
fn an_interface_that_came_again_with_name_and_number_keeps_its_own_root() {
    needs!(Root, Nftables, Htb);
    let again = |host: &Host| {
        let shown = host.look(&["ip", "-o", "link", "show", "to1"]);
        let index = shown.split(':').next().expect("it has a number").trim();
        host.look(&["ip", "link", "delete", "to1"]);
        host.look(&["ip", "link", "add", "to1", "index", index, "type", "veth", "peer", "name", "far1"]);
        host.look(&["tc", "qdisc", "add", "dev", "to1", "root", "handle", "1:", "htb"]);
        assert!(host.look(&["tc", "qdisc", "show", "dev", "to1"]).contains("htb 1:"));
    };
    changed(again, "the root of `to1` is not ours");
}

#[test]
fn an_interface_that_has_another_name_by_now_is_another_one() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    killed_live(&world, LINE);
    for step in [vec!["down"], vec!["name", "lan0"], vec!["up"]] {
        host.look(
            &[&["ip", "link", "set", if step[0] == "up" { "lan0" } else { "to1" }], &step[..]].concat(),
        );
    }
    // What the journal tells of is not there by its name; our mark is, and it is not passed over.
    let finished = host.agent(&["recover"]).run();
    finished.expect_exit(7).expect_told("an inert root on `lan0`");
    host.agent(&["recover", "--from-host"]).run().expect_exit(0).expect_told("the root of `lan0`");
    assert!(!host.look(&["tc", "qdisc", "show", "dev", "lan0"]).contains("5a17:"));
    world.as_found();
}

#[test]
fn a_control_group_that_is_removed_while_its_traffic_is_cut_is_let_go_of() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    let (name, path) = world.cgroup("gone");
    let sleeper = world.program(0, None, &["sleep", "600"]);
    fs::write(path.join("cgroup.procs"), sleeper.pid.to_string()).expect("root may move it");
    let step = format!(
        "{{ fault: {{ partition: {{ to: [\"10.77.1.2:7\"] }} }}, in: {{ cgroup: \"{name}\" }}, for: 60s }}"
    );
    let mut trial = Trial::begin(&world, host, &calm(&[&step]));
    trial.injected();
    squall_tests::netns::end(|process| process.pid == sleeper.pid);
    holds("the control group to be gone", PATIENCE, || !path.exists() || fs::remove_dir(&path).is_ok());
    trial.run.signal(rustix::process::Signal::INT);
    trial.finish().expect_exit(6);
    assert_eq!(host.tables(), Vec::<String>::new());
    fs::create_dir(&path).expect("root may make it again");
    world.restored(SOON);
}
