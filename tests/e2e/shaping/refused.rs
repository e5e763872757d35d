//! Shaping that makes no sense, or that this host does not allow: said before anything is touched.

use squall_tests::needs;
use squall_tests::squall::{Squall, binary};
use squall_tests::world::World;

use super::{nothing_leaked, step};
use crate::trial::{Trial, calm, document, evidence};

/// A file that is wrong: both `check` and `run` say so with code 3 and these words.
#[test]
fn parameters_that_make_no_sense() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    for (number, (fault, word)) in [
        ("latency: { delay: 0ms, to: [any] }", "a delay of zero does nothing"),
        ("latency: { delay: 50, to: [any] }", "50ms"),
        ("latency: { delay: -5ms, to: [any] }", "-5ms"),
        ("latency: { delay: NaNms, to: [any] }", "NaN"),
        ("latency: { delay: 50ms, to: [any], correlation: 100% }", "correlation"),
        ("latency: { delay: 50ms, to: [any], distribution: normal }", "jitter"),
        ("latency: { delay: 50ms, to: [any], correlation: 20% }", "without jitter"),
        ("latency: { delay: 50ms, to: [any], limit: 0 }", "limit"),
        ("latency: { delay: 50ms, to: [any], limit: 65537 }", "65536"),
        ("latency: { delay: 50ms }", "latency"),
        ("loss: { percent: 101%, to: [any] }", "101%"),
        ("loss: { percent: NaN%, to: [any] }", "NaN"),
        ("loss: { percent: .nan, to: [any] }", "percent"),
        ("loss: { percent: 0%, to: [any] }", "`0%` does nothing"),
        ("loss: { to: [any] }", "how much is lost"),
        ("loss: { percent: 5%, gilbert-elliott: { p: 1%, r: 10% }, to: [any] }", "gilbert-elliott"),
        ("loss: { gilbert-elliott: { p: 0%, r: 10% }, to: [any] }", "never loses anything"),
        ("loss: { percent: 90%, burst: 2, to: [any] }", "bursts of 2 packets"),
        ("duplicate: { percent: 0%, to: [any] }", "`0%` does nothing"),
        ("corrupt: { percent: 200%, to: [any] }", "200%"),
        ("reorder: { percent: 10%, late: 0ms, to: [any] }", "late"),
        ("bandwidth: { rate: 0bit/s, to: [any] }", "0bit/s"),
        ("bandwidth: { rate: 1Mbit/s, burst: 0B, to: [any] }", "burst"),
        ("degrade: { rate: 0Mbit/s, to: [any] }", "0Mbit/s"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = world.file(&format!("wrong-{number}.yaml"), calm(&[&step(fault, 1)]));
        for verb in ["check", "run"] {
            let finished = host.squall(&[verb, &file]).run();
            finished.expect_exit(3).expect_told(word).expect_told("help:");
        }
    }
    assert!(host.tables().is_empty(), "something was injected");
}

#[test]
fn a_delay_that_the_host_does_not_allow_names_its_policy() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let host = &world.hosts[0];
    let trial = Trial::begin(&world, host, &calm(&[&step("latency: { delay: 1h, to: [any] }", 1)]));
    let finished = trial.finish();
    finished.expect_exit(4).expect_told("max-delay").expect_told("policy");
    assert!(host.tables().is_empty(), "something was injected");
}

#[test]
fn what_is_cut_or_cannot_be_held_stands_in_the_plan() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    for (fault, word) in [
        (
            "latency: { delay: 10ms, jitter: 50ms, to: [any] }",
            "a jitter of 50ms is more than the delay of 10ms",
        ),
        ("latency: { delay: 1s, to: [any] }", "at most 65536 packets are held"),
    ] {
        let file = world.file("plan.yaml", calm(&[&step(fault, 1)]));
        host.squall(&["plan", &file]).run().expect_exit(0).expect_told(word);
    }
}

/// Outside the host's own user namespace the kernel refuses a large socket and real-time priority. The fault is done with
/// what there is, and the report says how much that is.
#[test]
fn a_small_socket_and_no_priority_are_said_in_the_report() {
    needs!(Root, Nftables, Queue, UserNamespaces);
    let world = World::new(1);
    let host = &world.hosts[0];
    // To nobody, as nobody listens: what enters is late all the same.
    let speak = "  - name: somebody speaks\n    process: { argv: [bash, -c, \"echo hello > /dev/udp/127.0.0.1/9\"] }\n    \
                 every: 100ms\n";
    let fault = step("latency: { delay: 5ms, from: [\"127.0.0.1:9\"], protocol: udp }", 3);
    let file = world.file("small.yaml", document(speak, &[&fault]));
    let mut command = host.netns.command("unshare");
    command.args(["--user", "--map-root-user", "--net", "--", "sh", "-c"]);
    command.args(["ip link set lo up && exec \"$0\" \"$@\""]).arg(binary("squall"));
    command.args(["run", &file, "--format", "json"]).env("SQUALL_STATE_DIR", world.place("elsewhere"));
    let finished = Squall::with(command, "squall run in a user namespace", &world.directory).run();
    let report = finished.expect_exit(0).json();
    nothing_leaked(&report);
    let notes = evidence(&report)["notes"].to_string();
    for word in ["KiB here instead of 32768", "net.core.rmem_max", "no real-time priority here"] {
        assert!(notes.contains(word), "`{word}` is not in {notes}");
    }
}
