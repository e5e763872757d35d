//! Roots that somebody has given to an interface, of every kind that can be borrowed: put back as the kernel lists them.

use rustix::process::Signal;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::trial::{Trial, run};
use squall_tests::world::World;

use super::quiet_by;

super::cases![every_kind_comes_back_as_it_was, what_could_not_come_back_is_refused];

const LATENCY: &str = "{ fault: { latency: { delay: 20ms, direction: egress, engine: netem, root: borrow, \
                       to: [\"10.77.1.2:9\"] } }, for: 70s }";

fn shape(host: &Host, commands: &[&str]) {
    for command in commands {
        host.look(&[&["tc"], &command.split(' ').collect::<Vec<_>>()[..]].concat());
    }
}

/// In an order of its own: the kernel lists what stands side by side as it was made.
fn standing(host: &Host) -> Vec<String> {
    let all = host.look(&["tc", "-d", "qdisc", "show", "dev", "to1"]);
    let mut lines: Vec<String> = all.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// What whoever chooses nothing is given from now on, on the whole machine: it is ours. Gives what it was.
fn default(kind: &str) -> String {
    const DEFAULT: &str = "/proc/sys/net/core/default_qdisc";
    let before = std::fs::read_to_string(DEFAULT).expect("every kernel has one");
    std::fs::write(DEFAULT, kind).expect("a kind that the kernel knows");
    before.trim().to_owned()
}

fn every_kind_comes_back_as_it_was() {
    needs!(Root, Nftables, Netem);
    let world = World::new(2);
    let near = &world.hosts[0];
    let port = world.echo(0, 7007).port;
    let nested = [
        "qdisc add dev to1 root handle 1: mq",
        "qdisc add dev to1 parent 1:1 handle 10: fq flow_limit 50 quantum 3000 initial_quantum 9000 maxrate 300mbit",
        "qdisc add dev to1 parent 1:2 handle 20: prio bands 6",
        "qdisc add dev to1 parent 20:1 handle 21: fq_codel target 7ms interval 93ms limit 1200 flows 512 ce_threshold 3ms",
        "qdisc add dev to1 parent 20:2 handle 22: sfq perturb 10 quantum 3000 limit 100",
        "qdisc add dev to1 parent 20:3 handle 23: codel target 3ms interval 31ms limit 700 ecn",
        "qdisc add dev to1 parent 20:4 handle 24: cake bandwidth 50mbit besteffort rtt 81ms nat overhead 18 mpu 64",
        "qdisc add dev to1 parent 20:5 handle 25: pfifo_fast",
        "qdisc add dev to1 parent 20:6 handle 26: cake diffserv4 wash ack-filter",
    ];
    // The two that people give to a whole interface.
    let fair = ["qdisc add dev to1 root handle 8: fq"];
    let delays = ["qdisc add dev to1 root handle 8: fq_codel"];
    for (kind, commands) in [("mq", &nested[..]), ("fq", &fair), ("fq_codel", &delays)] {
        shape(near, commands);
        let before = standing(near);
        println!("{before:#?}");
        let mut trial = Trial::begin(&world, near, &quiet_by(port, LATENCY));
        trial.injected();
        assert!(
            standing(near).iter().any(|line| line.contains("netem")),
            "{kind} is not borrowed: {:?}",
            standing(near)
        );
        trial.run.signal(Signal::INT);
        trial.finish().expect_exit(6).expect_told("SIGINT");
        assert_eq!(before, standing(near), "{kind}");
        shape(near, &["qdisc del dev to1 root"]);
    }
}

fn what_could_not_come_back_is_refused() {
    needs!(Root, Nftables, Netem);
    let world = World::new(2);
    let near = &world.hosts[0];
    let port = world.echo(0, 7007).port;
    let refused = |told: &str| {
        let before = standing(near);
        run(&world, near, &quiet_by(port, LATENCY)).expect_exit(4).expect_told(told);
        assert_eq!(before, standing(near));
    };
    for (command, told) in [
        (
            "qdisc add dev to1 root handle 1: netem delay 5ms",
            "`netem` 1:0 may have options that the kernel does not list",
        ),
        (
            "qdisc add dev to1 root handle 1: cake bandwidth 50mbit autorate-ingress",
            "measures its rate itself",
        ),
    ] {
        shape(near, &[command]);
        refused(told);
        shape(near, &["qdisc del dev to1 root"]);
    }
    // The kernel's own, from a time when it gave another one: taken away it would not come back.
    let usual = default("pfifo_fast");
    near.look(&["ip", "link", "add", "old0", "type", "ifb"]);
    near.look(&["ip", "address", "add", "10.99.0.1/24", "dev", "old0"]);
    near.look(&["ip", "link", "set", "old0", "up"]);
    default("fq_codel");
    let there = LATENCY.replace("10.77.1.2", "10.99.0.2");
    let told = run(&world, near, &quiet_by(port, &there));
    default(&usual);
    told.expect_exit(4).expect_told("has put `pfifo_fast` there, and would put `fq_codel` today");
    near.look(&["ip", "link", "del", "old0"]);
}
