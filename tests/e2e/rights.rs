//! What the agent's worker gives up under a policy that makes it needless.

use std::fs;

use rustix::process::Signal;
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;
use squall_tests::{needs, skip};

use crate::refusal::program_under_policy;
use crate::trial::{SOON, calm};

/// Bits of `include/uapi/linux/capability.h`.
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

/// What a process may have, also by starting a program.
fn permitted(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let of = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it").trim().to_owned()
    };
    let held = u64::from_str_radix(&of("CapPrm:"), 16).expect("digits");
    assert!(
        of("NoNewPrivs:") == "1" || held & (NET_RAW | SYS_ADMIN) == NET_RAW | SYS_ADMIN,
        "a program gets them back"
    );
    held
}

#[test]
fn a_worker_gives_up_what_no_allowed_fault_needs_and_the_guardian_keeps_it() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    world.program(0, None, &["sleep", "600"]);
    let cases = [
        ("[\"block\", \"shape\", \"pause\"]", 0),
        ("[\"redirect\", \"pause\"]", NET_RAW),
        ("[\"pause\"]", NET_RAW | SYS_ADMIN | BPF),
    ];
    for (allow, lost) in cases {
        let policy = format!("{{ \"allow\": {allow} }}");
        let mut agent = program_under_policy(&world, &policy, "squall-agent", &["run"]).start();
        let process = |name: &str| host.netns.processes().into_iter().find(|process| process.name == name);
        let mut ended = false;
        let worker = until("the worker", PATIENCE, || {
            ended = agent.ended();
            let worker = process("squall-worker").map(|process| process.pid);
            if ended { Some(None) } else { worker.map(Some) }
        });
        let Some(worker) = worker else {
            skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
        };
        // It gives them up after it has got its name.
        holds("it to have given them up", PATIENCE, || {
            permitted(worker) & (NET_RAW | SYS_ADMIN | BPF) & lost == 0
        });
        let guardian = process("squall-guardian").expect("it lives").pid;
        let all = NET_ADMIN | NET_RAW | SYS_ADMIN | BPF;
        assert_eq!(permitted(guardian) & all, all, "{allow}: the guardian must be able to undo");
        // What is allowed works with what is left, looks at the host before and after, and is undone.
        let step =
            "{ fault: { pause: {} }, in: { process: { name: sleep, exe: /usr/bin/sleep } }, for: 500ms }";
        let file = world.file("pause.yaml", calm(&[step]));
        let run = host.squall(&["run", &file, "--format", "json"]).run();
        let report = run.expect_exit(0).json();
        assert_eq!(report["parts"][0]["measured"], true, "{allow}: {report:#}");
        let kept = (NET_ADMIN | NET_RAW | SYS_ADMIN | BPF) & !lost;
        assert_eq!(permitted(worker) & kept, kept, "{allow}: too much was given up");
        agent.signal(Signal::TERM);
        agent.finish().expect_exit(0);
    }
    world.restored(SOON);
}
