//! Latency by whose sockets they are: a process, a user, a control group, a local port; in both directions.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use squall_tests::needs;
use squall_tests::netns::Process;
use squall_tests::traffic::round_trips;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::{DELAY, MANY, delayed, nothing_leaked, unharmed};
use crate::trial::{Trial, calm};

/// A client program that keeps one connection: each line of its file is how long an answer took, in microseconds.
/// Its pause is a read that nothing answers: a program such as `sleep` would share the connection for a moment. A read that
/// is interrupted, as when the machine stands still, begins again: else its answer would be taken for the next one's.
const ASK: &str = "exec 3<>/dev/tcp/$0/7; while :; do b=${EPOCHREALTIME/./}; echo hello >&3; \
                   until read -r _ <&3; do :; done; e=${EPOCHREALTIME/./}; echo $((e-b)); read -r -t 0.02 -u 3 _; done >>$1";

/// Such a program in the background.
struct Asking {
    process: Process,
    file: PathBuf,
}

impl Asking {
    fn start(world: &World, name: &str, user: Option<u32>, cgroup: Option<&Path>) -> Self {
        let file = world.directory.join(format!("asking-{name}"));
        fs::write(&file, "").expect("the world's directory can be written");
        if let Some(user) = user {
            std::os::unix::fs::chown(&file, Some(user), None).expect("root may give files away");
        }
        let enter =
            cgroup.map(|group| format!("echo $$ >{}/cgroup.procs; ", group.display())).unwrap_or_default();
        let (far, shown) = (world.hosts[1].v4.to_string(), file.display().to_string());
        let process = world.program(0, user, &["bash", "-c", &format!("{enter}{ASK}"), &far, &shown]);
        Asking { process, file }
    }

    fn answers(&self) -> Vec<Duration> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(|line| line.parse().ok()).map(Duration::from_micros).collect()
    }

    /// The answers to what is asked from now on.
    fn next(&self) -> Vec<Duration> {
        // The first may have been asked before.
        let before = self.answers().len() + 1;
        holds(&format!("{MANY} answers in `{}`", self.file.display()), PATIENCE, || {
            self.answers().len() >= before + MANY
        });
        self.answers().split_off(before)
    }
}

/// Answers to what is in the scope are late, and nobody else's, each way in turn.
fn late(world: &World, scope: &str, hit: &Asking, spared: &Asking) {
    let far = world.hosts[1].v4;
    let control = hit.next();
    for direction in ["ingress", "egress"] {
        let fault = format!("latency: {{ delay: 60ms, to: [\"{far}:7\"], direction: {direction} }}");
        let step = format!("{{ fault: {{ {fault} }}, in: {scope}, for: 80s }}");
        let mut trial = Trial::begin(world, &world.hosts[0], &calm(&[&step]));
        trial.injected();
        delayed(hit.next(), control.clone(), DELAY);
        unharmed(spared.next(), control.clone());
        nothing_leaked(&trial.halted());
        unharmed(hit.next(), control.clone());
    }
}

#[test]
fn a_process_is_late_and_its_sibling_is_not() {
    needs!(Root, Nftables, Queue, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let hit = Asking::start(&world, "hit", None, None);
    let spared = Asking::start(&world, "spared", None, None);
    late(&world, &format!("{{ process: {{ pid: {} }} }}", hit.process.pid), &hit, &spared);
}

#[test]
fn a_user_is_late_and_another_is_not() {
    needs!(Root, Nftables, Queue, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let hit = Asking::start(&world, "hit", Some(65533), None);
    let spared = Asking::start(&world, "spared", Some(65532), None);
    late(&world, "{ user: \"65533\" }", &hit, &spared);
}

#[test]
fn a_control_group_is_late_and_what_is_outside_is_not() {
    needs!(Root, Nftables, Queue, Cgroup2);
    let world = World::new(2);
    world.echo(1, 7);
    let (name, path) = world.cgroup("late");
    let hit = Asking::start(&world, "hit", None, Some(&path));
    let spared = Asking::start(&world, "spared", None, None);
    late(&world, &format!("{{ cgroup: {name} }}"), &hit, &spared);
}

#[test]
fn a_local_port_is_late_and_another_is_not() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let (hit, spared) = (world.echo(1, 7), world.echo(1, 8));
    let mut hit = hit.dial(near, far.v4).expect("reached");
    let mut spared = spared.dial(near, far.v4).expect("reached");
    let control = round_trips(&mut *hit, MANY);
    for direction in ["ingress", "egress"] {
        let fault = format!("latency: {{ delay: 60ms, direction: {direction} }}");
        let step = format!("{{ fault: {{ {fault} }}, in: {{ port: \"7\" }}, for: 80s }}");
        let mut trial = Trial::begin(&world, far, &calm(&[&step]));
        trial.injected();
        delayed(round_trips(&mut *hit, MANY), control.clone(), DELAY);
        unharmed(round_trips(&mut *spared, MANY), control.clone());
        nothing_leaked(&trial.halted());
    }
}

#[test]
fn two_delays_of_one_process_add_up() {
    needs!(Root, Nftables, Queue, Cgroup2, Bpf);
    let world = World::new(2);
    let near = &world.hosts[0];
    world.echo(1, 7);
    let hit = Asking::start(&world, "hit", None, None);
    let spared = Asking::start(&world, "spared", None, None);
    let control = hit.next();
    for direction in ["ingress", "egress"] {
        // Both scopes are told by marks: each has a bit of its own on the same sockets.
        let step = |seconds| {
            let fault = format!("latency: {{ delay: 30ms, to: [\"10.77.1.2:7\"], direction: {direction} }}");
            let scope = format!("{{ process: {{ pid: {} }} }}", hit.process.pid);
            calm(&[&format!("{{ fault: {{ {fault} }}, in: {scope}, for: {seconds}s }}")])
        };
        let mut first = Trial::begin(&world, near, &step(8));
        first.injected();
        let mut second = Trial::begin(&world, near, &step(4));
        second.injected();
        delayed(hit.next(), control.clone(), DELAY);
        unharmed(spared.next(), control.clone());
        assert!(!second.has("lifted"), "the fault was over before it was looked at");
        second.finish().expect_exit(0);
        delayed(hit.next(), control.clone(), DELAY / 2);
        assert!(!first.has("lifted"), "the fault was over before it was looked at");
        first.finish().expect_exit(0);
        unharmed(hit.next(), control.clone());
    }
}
