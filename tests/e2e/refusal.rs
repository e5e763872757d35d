//! Bad input and missing means: refused with a reason and a code, before anything is touched.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use squall_tests::squall::{Finished, Squall, binary, copy_binary};
use squall_tests::world::World;
use squall_tests::{needs, skip};

use crate::trial::{Trial, calm};

const CUT: &str = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 2s }";

/// Runs and checks a file: both must say the same code, name the file, and inject nothing.
fn refused(world: &World, path: &str, code: i32) -> Finished {
    let host = &world.hosts[0];
    let checked = host.squall(&["check", path]).run();
    checked.expect_exit(code).expect_told(path);
    let begun = Instant::now();
    let events = world.directory.join("refused.ndjson");
    let run = host.squall(&["run", path, "--events", &events.display().to_string()]).run();
    run.expect_exit(code).expect_told(path);
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?} to be refused", begun.elapsed());
    assert!(
        !events.exists() || fs::read_to_string(&events).is_ok_and(|text| text.is_empty()),
        "a run was begun"
    );
    assert!(host.tables().is_empty(), "something was injected");
    run
}

#[test]
fn a_missing_file() {
    needs!(Root, Nftables);
    let world = World::new(1);
    refused(&world, &world.directory.join("nowhere.yaml").display().to_string(), 3);
}

#[test]
fn an_empty_file() {
    needs!(Root, Nftables);
    let world = World::new(1);
    refused(&world, &world.file("empty.yaml", ""), 3).expect_told("help:");
}

#[test]
fn a_binary_file() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let bytes: Vec<u8> = (0..4096_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    refused(&world, &world.file("binary.yaml", bytes), 3);
    refused(&world, &world.file("zeros.yaml", [0; 4096]), 3);
}

#[test]
fn a_directory_and_a_device() {
    needs!(Root, Nftables);
    let world = World::new(1);
    refused(&world, &world.place("directory").display().to_string(), 3);
    refused(&world, "/dev/zero", 3);
}

#[test]
fn a_file_of_a_hundred_megabytes() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let path = world.file("huge.yaml", "squall: 1\n");
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(100 << 20))
        .expect("a file with a hole can be that long");
    refused(&world, &path, 3);
}

#[test]
fn an_alias_bomb() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    refused(&world, &world.file("bomb.yaml", text), 3);
}

#[test]
fn deep_nesting() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let text = format!("squall: {}{}", "[".repeat(200_000), "]".repeat(200_000));
    refused(&world, &world.file("deep.yaml", text), 3);
}

#[test]
fn every_problem_is_named_at_once() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let text = "squall: 1\ntitel: wrong\nhypothesis:\n  - name: a\n    tcp: { address: \"127.0.0.1:1\" }\n    every: 5\n\
                method:\n  - fault: { partitoin: { to: [\"10.0.0.1\"] } }\n    for: 5s\n  - fault: { kill: { pick: 150% } }\n    \
                in: { process: { name: x } }\n    for: -1s\n";
    let run = refused(&world, &world.file("wrong.yaml", text), 3);
    for (place, word) in
        [(":2:", "title"), (":6:", "5s"), (":8:", "partition"), (":10:", "150%"), (":12:", "-1s")]
    {
        assert!(
            run.story().contains(place) && run.story().contains(word),
            "`{place}` and `{word}` in {}",
            run.story()
        );
    }
}

#[test]
fn a_fault_that_would_mean_everything() {
    needs!(Root, Nftables);
    let world = World::new(1);
    for (name, step) in [
        ("nothing", "{ fault: { partition: {} }, for: 1s }"),
        ("nobody", "{ fault: { kill: {} }, for: 1s }"),
        ("empty", "{ fault: { kill: {} }, in: { process: {} }, for: 1s }"),
        ("root", "{ fault: { kill: {} }, in: { user: root }, for: 1s }"),
        ("blank", "{ fault: { partition: { to: [\"\"] } }, for: 1s }"),
    ] {
        refused(&world, &world.file(&format!("{name}.yaml"), calm(&[step])), 3);
    }
}

/// A run that is sound on paper but cannot be done here: refused with 4, and nothing injected.
fn impossible(world: &World, step: &str, word: &str) {
    let trial = Trial::begin(world, &world.hosts[0], &calm(&[step]));
    let events = trial.events.clone();
    let finished = trial.finish();
    finished.expect_exit(4);
    assert!(finished.story().contains(word), "`{word}` is not in {}", finished.story());
    let text = fs::read_to_string(events).unwrap_or_default();
    assert!(!text.contains("\"event\":\"injected\""), "something was injected:\n{text}");
    assert!(world.hosts[0].tables().is_empty(), "something was left");
}

#[test]
fn a_selector_that_matches_nothing() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let bystander = world.program(0, None, &["sleep", "600"]);
    impossible(
        &world,
        "{ fault: { kill: {} }, in: { process: { name: no-such-program } }, for: 1s }",
        "no-such-program",
    );
    // Names are exact: a part of one matches nothing.
    impossible(&world, "{ fault: { kill: {} }, in: { process: { name: slee } }, for: 1s }", "slee");
    impossible(&world, "{ fault: { pause: {} }, in: { process: { listening: 4711 } }, for: 1s }", "4711");
    impossible(&world, "{ fault: { kill: {} }, in: { cgroup: no/such/group }, for: 1s }", "no/such/group");
    impossible(&world, "{ fault: { kill: {} }, in: { user: no-such-user }, for: 1s }", "no-such-user");
    assert!(bystander.lives(), "a selector that matches nothing must not hit anything");
}

#[test]
fn a_file_that_cannot_hold_the_events() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    let file = world.file("cut.yaml", calm(&[CUT]));
    host.squall(&["run", &file, "--events", "/nowhere/at/all.ndjson"])
        .run()
        .expect_exit(4)
        .expect_told("/nowhere/at/all.ndjson");
    assert!(host.tables().is_empty(), "something was injected");
}

#[test]
fn a_report_belongs_to_one_command_and_an_earlier_run_must_be_one() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    let file = world.file("cut.yaml", calm(&[CUT]));
    let place = |name: &str| world.directory.join(name).display().to_string();
    let refuses = |arguments: &[&str], said: &str| {
        let told = host.squall(&[&["run", &file], arguments].concat()).run();
        told.expect_exit(4).expect_told(said).expect_told("nothing was injected; ");
        assert!(host.tables().is_empty() && !host.state.join("runs").exists(), "{}", told.story());
    };
    let (one, empty) = (place("one.xml"), place("empty"));
    refuses(&["--junit", &one, "--html", &one], "one.xml` is being written already");
    fs::write(&one, "of another command").expect("it can be written");
    let other = File::open(&one).expect("it is there");
    other.lock().expect("nobody else has it");
    for report in ["--junit", "--markdown", "--html", "--events", "--code-quality"] {
        refuses(&[report, &one], "one.xml` is being written already");
    }
    assert_eq!(fs::read_to_string(&one).expect("it is there"), "of another command");
    drop(other);
    fs::create_dir(&empty).expect("it can be made");
    refuses(&["--junit", &empty], "Is a directory");
    for (earlier, said) in [
        (place("gone.ndjson"), "no baseline: cannot read"),
        (empty.clone(), "no baseline: cannot read"),
        (file.clone(), "cut.yaml` is not an event"),
        ("/dev/null".to_owned(), "it does not begin with the begin of a run"),
    ] {
        refuses(&["--baseline", &earlier], said);
    }
    let found = host.squall(&["run", &empty]).run();
    found.expect_exit(3).expect_told("empty` holds no experiment");
}

#[test]
fn without_root() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let file = world.file("cut.yaml", calm(&[CUT]));
    let home = world.place("home");
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).expect("root may give directories away");
    let mut command = host.netns.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(unprivileged(&world)).args(["run", &file]).env("HOME", &home);
    let finished = Squall::with(command, "squall run as nobody", &world.directory).run();
    finished.expect_exit(4).expect_told("help:");
    assert!(host.tables().is_empty(), "something was injected");
}

/// Root of a container, say: without the right to alter the network neither guardian nor worker could undo anything, and
/// neither begins.
#[test]
fn without_the_right_to_alter_the_network() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let steps = [
        CUT,
        "{ fault: { latency: { delay: 50ms, to: [\"10.77.1.2:7\"] } }, for: 2s }",
        "{ fault: { outage: { of: \"10.77.1.2:7\", how: refuse } }, for: 2s }",
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let file = world.file(&format!("{number}.yaml"), calm(&[step]));
        let mut command = host.netns.command("setpriv");
        command.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"]);
        command.arg(binary("squall")).args(["run", &file]).env("SQUALL_STATE_DIR", &host.state);
        let finished = Squall::with(command, "squall run without CAP_NET_ADMIN", &world.directory).run();
        finished.expect_exit(4).expect_told("CAP_NET_ADMIN").expect_told("nothing was injected");
        assert!(host.tables().is_empty(), "something was injected");
        host.agent(&["recover"]).run().expect_exit(0).expect_told("no dead agent has left anything behind");
    }
}

/// The binary where everybody may run it: the build directory may lie below a home that others cannot enter.
fn unprivileged(world: &World) -> std::path::PathBuf {
    let copy = world.directory.join("squall");
    if !copy.exists() {
        copy_binary("squall", &copy);
    }
    copy
}

#[test]
fn a_state_directory_that_cannot_be_one() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let cut = world.file("cut.yaml", calm(&[CUT]));
    let file = world.file("a-file", "no directory");
    let long = world.directory.join("x".repeat(120)).display().to_string();
    for state in [file, long, "/proc/squall".to_owned()] {
        let finished = host.squall(&["--state-dir", &state, "run", &cut]).run();
        finished.expect_exit(4).expect_told("--state-dir");
        assert!(host.tables().is_empty(), "something was injected");
    }
}

#[test]
fn a_socket_path_that_is_taken_by_something_else() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    let mut agent = host.agent(&["run"]).start();
    host.agents();
    let second = host.agent(&["run"]).run();
    second.expect_exit(4).expect_told("another agent");
    agent.signal(rustix::process::Signal::TERM);
    agent.finish().expect_exit(0);
    // A socket file that a crash left behind is no obstacle: nobody holds the lock.
    let place = host.agent(&["run"]).start();
    host.agents();
    drop(place);
}

#[test]
fn a_command_line_that_is_not_understood() {
    needs!(Root);
    let world = World::new(1);
    let host = &world.hosts[0];
    for arguments in
        [&["frobnicate"][..], &["run"], &["run", "--seed", "x", "file"], &["faults", "partitoin"]]
    {
        host.squall(arguments).run().expect_exit(2);
    }
}

/// Runs squall where `/etc/squall/policy.yaml` holds a text: in a mount namespace of its own, over a copy of `/etc`.
fn under_policy(world: &World, policy: &str, step: &str) -> Option<Finished> {
    verb_under_policy(world, policy, "run", step)
}

/// The same for another verb; `None` where no policy can be put over the machine's own.
pub fn verb_under_policy(world: &World, policy: &str, verb: &str, step: &str) -> Option<Finished> {
    let finished = told_under_policy(world, policy, verb, step).run();
    (finished.status.code() != Some(99)).then_some(finished)
}

/// The same, not started yet: it ends with 99 where no policy can be put over the machine's own.
pub fn told_under_policy(world: &World, policy: &str, verb: &str, step: &str) -> Squall {
    let file = world.file("under.yaml", calm(&[step]));
    program_under_policy(world, policy, "squall", &[verb, &file])
}

/// A program of Squall on the first host, under a policy of its own, not started yet: it ends with 99 where none can be put over
/// the machine's own.
pub fn program_under_policy(world: &World, policy: &str, program: &str, arguments: &[&str]) -> Squall {
    let host = &world.hosts[0];
    let policy = world.file("policy.yaml", policy);
    let layers = world.place("layers");
    // The layers lie in memory: the directory itself may be on a file system that cannot carry them.
    let script = "mount -t tmpfs tmpfs $1 && mkdir -p $1/up/squall $1/work && cp $2 $1/up/squall/policy.yaml && \
                  mount -t overlay overlay -o lowerdir=/etc,upperdir=$1/up,workdir=$1/work /etc || exit 99\n\
                  shift 2; exec \"$0\" \"$@\"";
    let mut command = host.netns.command("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(binary(program));
    command.arg(layers).arg(policy).args(arguments).env("SQUALL_STATE_DIR", &host.state);
    Squall::with(command, "a program of squall under a policy", &world.directory)
}

#[test]
fn a_fault_that_lasts_longer_than_the_policy_allows() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let Some(finished) = under_policy(&world, "{ \"max-duration\": \"1s\" }", CUT) else {
        skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
    };
    // The file is sound: it is this host that does not allow it.
    finished.expect_exit(4).expect_told("1s");
}

#[test]
fn a_root_that_the_policy_does_not_let_be_touched() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let step = "{ fault: { bandwidth: { rate: 20Mbit/s, to: [\"10.77.1.2:9\"], direction: egress, engine: netem } }, \
                for: 5s }";
    let Some(finished) = under_policy(&world, "{ \"graft\": \"never\" }", step) else {
        skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
    };
    finished.expect_exit(4).expect_told("graft: never").expect_told("engine: queue");
}

#[test]
fn what_the_hosts_policy_forbids() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let cases = [
        ("{ \"enabled\": false }", CUT),
        ("{ \"allow\": [\"pause\"] }", CUT),
        ("{ \"enabled\": \"no\" }", CUT),
        ("this is no policy", CUT),
    ];
    for (policy, step) in cases {
        let Some(finished) = under_policy(&world, policy, step) else {
            skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
        };
        assert_eq!(finished.status.code(), Some(4), "policy {policy}: {}", finished.story());
        finished.expect_told("policy");
    }
}
