//! Scopes by process, user and control group: exact in both directions, whatever was open before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use squall_tests::needs;
use squall_tests::netns::Process;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{SHORT, Trial, calm, impaired};

/// A client program: each line of its file is an answer (`ok`) or a failure (`bad`) of a new connection, all made by
/// one process.
pub const KNOCK: &str = "while :; do if { echo hello >/dev/tcp/$0/7; } 2>/dev/null; then echo ok; else echo bad; fi; \
                     sleep 0.02; done >>$1";

/// A client that keeps one connection to Redis, a line for each answer.
pub const STAY: &str = "exec redis-cli -h $0 -r -1 -i 0.02 PING >>$1 2>&1";

/// A program in the background that writes what it sees.
pub struct Client {
    pub process: Process,
    file: PathBuf,
}

impl Client {
    pub fn start(world: &World, name: &str, user: Option<u32>, script: &str, cgroup: Option<&Path>) -> Self {
        let file = world.directory.join(format!("client-{name}"));
        fs::write(&file, "").expect("the world's directory can be written");
        if let Some(user) = user {
            std::os::unix::fs::chown(&file, Some(user), None).expect("root may give files away");
        }
        let far = world.hosts[1].v4.to_string();
        let enter =
            cgroup.map(|group| format!("echo $$ >{}/cgroup.procs; ", group.display())).unwrap_or_default();
        let script = format!("{enter}{script}");
        let shown = file.display().to_string();
        let process = world.program(0, user, &["bash", "-c", &script, &far, &shown]);
        let client = Client { process, file };
        holds(&format!("the client `{name}` to be answered"), PATIENCE, || client.count("") >= 3);
        client
    }

    /// How many lines there are that hold a word.
    pub fn count(&self, word: &str) -> usize {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().filter(|line| line.contains(word)).count()
    }

    /// Waits for so many more lines that hold a word.
    pub fn more(&self, lines: usize, word: &str) {
        let before = self.count(word);
        let what = format!("{lines} more `{word}` in `{}`", self.file.display());
        holds(&what, PATIENCE, || self.count(word) >= before + lines);
    }
}

/// New connections of the scope are refused and nobody else's, while the fault lasts and only then.
pub fn knocks(world: &World, scope: &str, hit: &Client, spared: &Client) {
    assert_eq!(hit.count("bad"), 0, "refused before the fault");
    let far = world.hosts[1].v4;
    let step = format!("{{ fault: {{ refuse: {{ to: [\"{far}:7\"] }} }}, in: {scope}, for: 4s }}");
    let mut trial = Trial::begin(world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    hit.more(5, "bad");
    spared.more(5, "ok");
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");
    trial.lifted();
    hit.more(5, "ok");
    let finished = trial.finish();
    assert!(impaired(&finished.expect_exit(0).json()) >= 5, "{}", finished.story());
    assert_eq!(spared.count("bad"), 0, "somebody outside of the scope was refused");
}

#[test]
fn a_process_is_refused_and_its_sibling_is_not() {
    needs!(Root, Nftables, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let hit = Client::start(&world, "hit", None, KNOCK, None);
    let spared = Client::start(&world, "spared", None, KNOCK, None);
    knocks(&world, &format!("{{ process: {{ pid: {} }} }}", hit.process.pid), &hit, &spared);
}

#[test]
fn a_user_is_refused_and_another_is_not() {
    needs!(Root, Nftables, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let hit = Client::start(&world, "hit", Some(65533), KNOCK, None);
    let spared = Client::start(&world, "spared", Some(65532), KNOCK, None);
    knocks(&world, "{ user: \"65533\" }", &hit, &spared);
}

#[test]
fn a_control_group_is_refused_and_what_is_outside_is_not() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(2);
    world.echo(1, 7);
    let (name, path) = world.cgroup("clients");
    let hit = Client::start(&world, "hit", None, KNOCK, Some(&path));
    let spared = Client::start(&world, "spared", None, KNOCK, None);
    knocks(&world, &format!("{{ cgroup: {name} }}"), &hit, &spared);
}

/// Connections that were open before the fault hang too, those of others go on.
pub fn stays(world: &World, scope: &str, hit: &Client, spared: &Client) {
    let far = world.hosts[1].v4;
    let step = format!("{{ fault: {{ partition: {{ to: [\"{far}:6379\"] }} }}, in: {scope}, for: 4s }}");
    let mut trial = Trial::begin(world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    // An answer may have been on its way into the file when the fault began.
    spared.more(3, "PONG");
    let at = hit.count("PONG");
    spared.more(10, "PONG");
    assert_eq!(hit.count("PONG"), at, "an open connection of the scope must hang");
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");
    trial.lifted();
    hit.more(3, "PONG");
    trial.finish().expect_exit(0);
    spared.more(3, "PONG");
}

#[test]
fn a_connection_that_a_process_had_open_hangs() {
    needs!(Root, Nftables, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let hit = Client::start(&world, "hit", None, STAY, None);
    let spared = Client::start(&world, "spared", None, STAY, None);
    stays(&world, &format!("{{ process: {{ pid: {} }} }}", hit.process.pid), &hit, &spared);
}

#[test]
fn a_connection_that_a_user_had_open_hangs() {
    needs!(Root, Nftables, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let hit = Client::start(&world, "hit", Some(65533), STAY, None);
    let spared = Client::start(&world, "spared", Some(65532), STAY, None);
    stays(&world, "{ user: \"65533\" }", &hit, &spared);
}

#[test]
fn a_connection_that_was_open_before_its_process_joined_a_control_group_hangs() {
    needs!(Root, Nftables, Cgroup2, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let (name, path) = world.cgroup("clients");
    let inside = Client::start(&world, "inside", None, STAY, Some(&path));
    let late = Client::start(&world, "late", None, STAY, None);
    let spared = Client::start(&world, "spared", None, STAY, None);
    // The kernel keeps no account of sockets that move: the agent looks for them when the fault begins.
    fs::write(path.join("cgroup.procs"), late.process.pid.to_string()).expect("a process can be moved");
    stays(&world, &format!("{{ cgroup: {name} }}"), &late, &spared);
    stays(&world, &format!("{{ cgroup: {name} }}"), &inside, &spared);
}

#[test]
fn a_process_of_the_user_that_starts_later_is_refused_too() {
    needs!(Root, Nftables, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let spared = Client::start(&world, "spared", Some(65532), KNOCK, None);
    let far = world.hosts[1].v4;
    let step =
        format!("{{ fault: {{ refuse: {{ to: [\"{far}:7\"] }} }}, in: {{ user: \"65533\" }}, for: 60s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    let late = Client::start(&world, "late", Some(65533), KNOCK, None);
    late.more(5, "bad");
    spared.more(5, "ok");
    assert_eq!((late.count("ok"), spared.count("bad")), (0, 0));
    trial.halted();
    late.more(3, "ok");
}

#[test]
fn a_scoped_server_is_cut_from_its_callers_in_both_directions() {
    needs!(Root, Nftables, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    let redis = world.redis(1, 6379);
    let client = Client::start(&world, "caller", None, STAY, None);
    for direction in ["ingress", "egress"] {
        let step = format!(
            "{{ fault: {{ partition: {{ direction: {direction} }} }}, in: {{ process: {{ pid: {} }} }}, for: 3s }}",
            redis.pid
        );
        let mut trial = Trial::begin(&world, &world.hosts[1], &calm(&[&step]));
        trial.injected();
        let mut last = client.count("PONG");
        holds(&format!("answers to stop with {direction} cut"), PATIENCE, || {
            std::thread::sleep(Duration::from_millis(300));
            let now = client.count("PONG");
            std::mem::replace(&mut last, now) == now
        });
        assert!(!trial.has("lifted"), "the fault was over before it was looked at");
        trial.lifted();
        client.more(3, "PONG");
        trial.finish().expect_exit(0);
    }
}

#[test]
fn a_socket_that_a_process_of_another_namespace_holds_is_hit_and_left_clean() {
    needs!(Root, Nftables, Cgroup2, Bpf);
    let world = World::new(2);
    let (host, far) = (&world.hosts[0], world.hosts[1].v4);
    let echo = world.echo(1, 7);
    // Opened on the host by this test, which itself lives in another namespace.
    let mut before = echo.dial_within(host, far, SHORT).expect("the echo server is reached");
    before.talk().expect("nothing is injected yet");
    let step =
        format!("{{ fault: {{ partition: {{ to: [\"{far}:7\"] }} }}, in: {{ user: root }}, for: 3s }}");
    let mut trial = Trial::begin(&world, host, &calm(&[&step]));
    trial.injected();
    assert!(before.talk().is_err(), "a connection that was open is not hit");
    for _ in 0..3 {
        assert!(echo.dial_within(host, far, SHORT).is_err(), "a new connection is not hit");
    }
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");
    trial.lifted();
    trial.finish().expect_exit(0);
    let sockets = host.look(&["ss", "-tanpe"]);
    assert!(sockets.contains(":7"), "the connection is still open: {sockets}");
    assert!(!sockets.contains("fwmark"), "a mark is left: {sockets}");
    echo.dial(host, far).expect("the fault is over");
}

/// A program that connects by a process of its own each time, which is also nobody's child. It waits before it connects, since
/// how soon the agent hears of a new process is a matter of how busy the machine is.
const FORK: &str = "while :; do (bash -c 'sleep 0.5; if { echo hello >/dev/tcp/$0/7; } 2>/dev/null; then echo ok; else echo bad; fi' \
                    $0 &); sleep 0.05; done >>$1";

#[test]
fn what_a_process_starts_later_belongs_to_it() {
    needs!(Root, Nftables, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let hit = Client::start(&world, "hit", None, FORK, None);
    let spared = Client::start(&world, "spared", None, FORK, None);
    let far = world.hosts[1].v4;
    let scope = format!("{{ process: {{ pid: {} }} }}", hit.process.pid);
    let step = format!("{{ fault: {{ refuse: {{ to: [\"{far}:7\"] }} }}, in: {scope}, for: 80s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    hit.more(3, "bad");
    let before = hit.count("ok");
    hit.more(30, "bad");
    // On a machine that stands still a process may connect before the agent has heard of it, but that is rare.
    let escaped = hit.count("ok") - before;
    assert!(escaped <= 10, "{escaped} connections were made while 30 were refused");
    spared.more(5, "ok");
    let report = trial.halted();
    let notes = report["parts"][0]["evidence"][0]["notes"].to_string();
    assert!(notes.contains("processes that the chosen ones started are followed"), "{report:#}");
    hit.more(5, "ok");
    assert_eq!(spared.count("bad"), 0, "what another process starts was refused");
}

#[test]
fn a_child_that_shares_a_socket_belongs_to_its_parent() {
    needs!(Root, Nftables, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    let (near, server) = (&world.hosts[0], &world.hosts[1]);
    let (nginx, aside) = (world.nginx(1, 80), world.echo(1, 7));
    let mut open = nginx.dial(near, server.v4).expect("nginx is reached");
    open.talk().expect("nginx answers");
    let step =
        format!("{{ fault: {{ partition: {{}} }}, in: {{ process: {{ pid: {} }} }}, for: 80s }}", nginx.pid);
    let mut trial = Trial::begin(&world, server, &calm(&[&step]));
    trial.injected();
    assert!(open.talk().is_err(), "a connection that a worker has is not hit");
    for _ in 0..3 {
        assert!(nginx.dial_within(near, server.v4, SHORT).is_err(), "a new connection is not hit");
    }
    aside.dial_within(near, server.v4, SHORT).expect("others are not hit");
    let report = trial.halted();
    let notes = report["parts"][0]["notes"].to_string();
    assert!(notes.contains("covered too, as they share sockets with their parents: nginx (pid "), "{notes}");
    open.talk().expect("the connection lives on");
}
