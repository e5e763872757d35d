//! The dependency of a container, which has a network of its own.

use std::net::IpAddr;

use squall_tests::container::Container;
use squall_tests::docker::Docker;
use squall_tests::needs;
use squall_tests::world::World;

use super::step;
use crate::trial::{Trial, calm, impaired};

/// One question over a new connection from inside a container, by one program: `ok` or `bad`.
fn asks(container: &Container, far: IpAddr) -> String {
    let script = format!(
        "exec 2>/dev/null; exec 3<>/dev/tcp/{far}/7 && echo hello >&3 && read -t 20 line <&3 && echo ok || echo bad"
    );
    container.inside(&["bash", "-c", &script]).trim().to_owned()
}

#[test]
fn a_container_is_hit_and_another_and_its_host_are_not() {
    needs!(Root, Cgroup2, Bpf, Docker);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(0, 7);
    let docker = Docker::start(&world, host);
    let directory = world.directory.file_name().expect("the directory has a name").to_string_lossy();
    // Containers are seen wherever the agent is: no other test's has this name.
    let name = |what: &str| format!("{what}-{directory}");
    let near = |number: u8| IpAddr::from([10, 89, number, 1]);
    let joined = |what: &str, number: u8| {
        let container = docker.run(&name(what), &["--network", "none"]);
        container.inside(&["ip", "link", "set", "lo", "up"]);
        container.join(host, &format!("{what}{number}"), near(number), IpAddr::from([10, 89, number, 2]));
        container
    };
    let (shop, bank) = (joined("shop", 1), joined("bank", 2));
    assert_eq!((asks(&shop, near(1)), asks(&bank, near(2))), ("ok".into(), "ok".into()));
    let scope = format!("{{ container: {} }}", name("shop"));
    let steps = [step(near(1), 7, "reset", &scope), step(near(2), 7, "reset", &scope)];
    let both = format!("parallel: [{}]", steps.join(", "));
    let mut trial = Trial::begin(&world, host, &calm(&[&both]));
    trial.injected();
    for _ in 0..2 {
        assert_eq!(asks(&shop, near(1)), "bad");
    }
    assert_eq!(asks(&bank, near(2)), "ok", "another container is left alone");
    assert_eq!(impaired(&trial.halted()), 2);
    assert_eq!(asks(&shop, near(1)), "ok");
}
