//! The faults, each in its longest form, and what they need of a machine.

use squall_experiments::faults::catalogue;
use squall_tests::skip::Need;

use crate::harness::Job;

/// One way in which a host can be altered.
#[derive(Debug)]
pub struct Fault {
    /// What the table calls it.
    pub name: &'static str,
    /// The step; `{cgroup}`, `{unit}` and `{netns}` are those of the stage.
    pub step: &'static str,
    /// On which host of the stage its table stands.
    pub site: usize,
    /// What can be seen of it while it is live.
    pub seen: Seen,
    /// What its owner has given to an interface before, as `tc` is told.
    pub standing: &'static [&'static str],
    /// What its agent is ordered in any case, at which point.
    pub lead: Option<&'static str>,
    /// What the machine must have beside root and nf_tables.
    pub needs: &'static [Need],
}

/// What shows that a fault is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Squall's table.
    Table,
    /// A process that does not run.
    Paused,
    /// A process that carries connections or answers lookups.
    Proxy,
    /// Nothing that lasts: connections are cut, signals are sent. Or what lasts until it is undone: then the host's
    /// fingerprint must show that it was.
    Nothing,
}

const fn network(name: &'static str, step: &'static str, needs: &'static [Need]) -> Fault {
    Fault { name, step, site: 0, seen: Seen::Table, standing: &[], lead: None, needs }
}

const PAUSE: &str = "{ fault: { pause: {} }, in: { process: { name: sleep } }, for: 60s }";

/// All of them. The second host answers on port 7.
pub const FAULTS: &[Fault] = &[
    network("partition", "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 60s }", &[]),
    network("refuse", "{ fault: { refuse: { to: [\"10.77.1.2:7\"] } }, for: 60s }", &[]),
    network(
        "partition of a process",
        "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, in: { process: { name: sleep } }, for: 60s }",
        &[Need::Cgroup2, Need::Bpf],
    ),
    network(
        "partition of a control group",
        "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, in: { cgroup: \"{cgroup}\" }, for: 60s }",
        &[Need::Cgroup2, Need::Bpf],
    ),
    network(
        "partition of a unit",
        "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, in: { unit: \"{unit}\" }, for: 60s }",
        &[Need::Cgroup2, Need::Bpf],
    ),
    network(
        "latency",
        "{ fault: { latency: { delay: 100ms, to: [\"10.77.1.2:7\"] } }, for: 60s }",
        &[Need::Queue],
    ),
    network(
        "latency outward",
        "{ fault: { latency: { delay: 100ms, to: [\"10.77.1.2:7\"], direction: egress, engine: queue } }, for: 60s }",
        &[Need::Queue],
    ),
    Fault {
        site: 1,
        ..network(
            "latency in another namespace",
            "{ fault: { latency: { delay: 100ms } }, in: { netns: \"{netns}\" }, for: 60s }",
            &[Need::Queue],
        )
    },
    network("loss", "{ fault: { loss: { percent: 20%, to: [\"10.77.1.2:7\"] } }, for: 60s }", &[Need::Queue]),
    network(
        "duplicate",
        "{ fault: { duplicate: { percent: 20%, to: [\"10.77.1.2:7\"] } }, for: 60s }",
        &[Need::Queue],
    ),
    network(
        "corrupt",
        "{ fault: { corrupt: { percent: 20%, to: [\"10.77.1.2:7\"] } }, for: 60s }",
        &[Need::Queue],
    ),
    network(
        "reorder",
        "{ fault: { reorder: { percent: 20%, to: [\"10.77.1.2:7\"] } }, for: 60s }",
        &[Need::Queue],
    ),
    network(
        "bandwidth by a queue",
        "{ fault: { bandwidth: { rate: 5Mbit/s, to: [\"10.77.1.2:7\"], engine: queue } }, for: 60s }",
        &[Need::Queue],
    ),
    network(
        "bandwidth by htb",
        "{ fault: { bandwidth: { rate: 5Mbit/s, to: [\"10.77.1.2:7\"], direction: egress, engine: netem } }, for: 60s }",
        &[Need::Htb],
    ),
    network(
        "bandwidth inward by htb",
        "{ fault: { bandwidth: { rate: 5Mbit/s, from: [\"10.77.1.2:7\"], direction: ingress, engine: netem } }, for: 60s }",
        &[Need::Htb, Need::Ifb],
    ),
    Fault {
        standing: &[
            "qdisc add dev to1 root handle 1: htb default 0x20 r2q 20",
            "class add dev to1 parent 1: classid 1:1 htb rate 900mbit burst 15k",
            "class add dev to1 parent 1:1 classid 1:20 htb rate 500mbit ceil 900mbit prio 2",
            "qdisc add dev to1 parent 1:20 handle 20: bfifo limit 3000000",
        ],
        ..network(
            "bandwidth by a borrowed root",
            "{ fault: { bandwidth: { rate: 5Mbit/s, to: [\"10.77.1.2:7\"], direction: egress, engine: netem, root: borrow } }, for: 60s }",
            &[Need::Htb],
        )
    },
    network(
        "partition tried by probes",
        "{ fault: { partition: { to: [\"10.77.1.2:7\"], verify: probe } }, for: 60s }",
        &[],
    ),
    network(
        "degrade",
        "{ fault: { degrade: { delay: 50ms, loss: 1%, duplicate: 1%, rate: 5Mbit/s, to: [\"10.77.1.2:7\"], engine: queue } }, for: 60s }",
        &[Need::Queue],
    ),
    Fault {
        seen: Seen::Proxy,
        ..network(
            "outage",
            "{ fault: { outage: { of: \"10.77.1.2:7\", how: reset } }, for: 60s }",
            &[Need::Cgroup2, Need::Bpf],
        )
    },
    Fault {
        seen: Seen::Proxy,
        ..network(
            "outage of a name",
            "{ fault: { outage: { of: shop.test, how: dns, answer: timeout } }, for: 60s }",
            &[Need::Cgroup2, Need::Bpf],
        )
    },
    Fault {
        seen: Seen::Nothing,
        ..network(
            "disconnect",
            "{ fault: { disconnect: { to: [\"10.77.1.2:7\"], every: 100ms } }, for: 60s }",
            &[],
        )
    },
    Fault {
        seen: Seen::Nothing,
        ..network(
            "kill",
            "{ fault: { kill: { signal: USR1, every: 100ms } }, in: { process: { name: sleep } }, for: 60s }",
            &[],
        )
    },
    Fault { seen: Seen::Paused, ..network("pause", PAUSE, &[]) },
    // Who may not trace stops processes by SIGSTOP, which nobody's death undoes.
    Fault {
        seen: Seen::Nothing,
        lead: Some("worker/before-begin:1:no-ptrace"),
        ..network("pause by a signal", PAUSE, &[])
    },
];

/// One fault for each way in which a host is altered: what is expensive is tried with these.
pub const MECHANISMS: [&str; 9] = [
    "partition",
    "partition of a process",
    "partition of a control group",
    "latency",
    "bandwidth by htb",
    "bandwidth inward by htb",
    "outage",
    "pause",
    "pause by a signal",
];

/// The job that compares the list with the catalogue.
pub fn jobs() -> Vec<Job> {
    vec![Job::new("every_fault_of_the_catalogue_is_tortured", &[], |_| whole())]
}

/// A fault that is new in the catalogue cannot be forgotten here. `netem` is the one way of doing it that no fault of the list
/// asks for: the machine's kernel may lack it, and `tests/vm` kills an agent with it live.
fn whole() -> Result<(), String> {
    let tortured =
        |name: &str| FAULTS.iter().any(|fault| fault.step.contains(&format!("fault: {{ {name}: ")));
    let all = catalogue();
    let forgotten: Vec<&str> = all.iter().map(|entry| entry.name).filter(|name| !tortured(name)).collect();
    if !forgotten.is_empty() {
        return Err(format!("no agent dies while these are live: {forgotten:?}; they belong into `FAULTS`"));
    }
    let listed = |name: &&&str| !FAULTS.iter().any(|fault| fault.name == **name);
    match MECHANISMS.iter().find(listed) {
        Some(name) => Err(format!("`{name}` of `MECHANISMS` is not in `FAULTS`")),
        None => Ok(()),
    }
}

/// One of them by its name.
pub fn fault(name: &str) -> &'static Fault {
    FAULTS.iter().find(|fault| fault.name == name).expect("a fault of that name")
}
