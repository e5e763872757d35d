//! The lane itself: what must be true of the guest before anything else means something.

use std::path::Path;

use squall_tests::host::Host;
use squall_tests::skip;
use squall_tests::world::World;

super::cases![control_groups_are_of_version_2_only, preflight_finds_everything_it_needs];

/// The words that `squall-agent preflight` says, line by line.
fn preflight(host: &Host) -> String {
    let finished = host.agent(&["preflight"]).run();
    finished.expect_exit(0);
    finished.stdout
}

fn control_groups_are_of_version_2_only() {
    assert_eq!(skip::cgroup_root(), Some(Path::new("/sys/fs/cgroup")));
}

fn preflight_finds_everything_it_needs() {
    let world = World::new(1);
    let said = preflight(&world.hosts[0]);
    println!("{said}");
    assert!(said.contains("by the kernel's own expression"), "no native `queue` expression: {said}");
    assert!(said.contains("mounted at /sys/fs/cgroup\n"), "{said}");
    assert!(said.contains("BPF programs load"), "{said}");
}
