//! Several outages at once: each has its own dependency, and ends by itself.

use std::io;
use std::net::IpAddr;

use squall_tests::dns::Dns;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::{ping, proxy};
use crate::peers::with_names;
use crate::trial::{evidence, impaired};

#[test]
fn dependencies_of_different_names_are_out_at_one_port_at_once_and_each_comes_back_alone() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let _stores = [world.redis(1, 6379), world.redis(2, 6379)];
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("db.test", 1, &[far.v4]);
    dns.set("cache.test", 1, &[other.v4]);
    dns.set("alias.test", 1, &[far.v4, far.v6]);
    let step = |name: &str, how: &str| {
        format!("{{ fault: {{ outage: {{ of: \"{name}:6379\", how: {how} }} }}, for: 80s }}")
    };
    let reset = |address: IpAddr| match ping(near, address, 6379) {
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
            true
        }
        Ok(said) => {
            assert_eq!(said, "PONG");
            false
        }
    };
    let mut first = with_names(&world, far.v4, "", &step("db", "reset"));
    first.injected();
    let mut second = with_names(&world, far.v4, "", &step("cache", "reset"));
    second.injected();
    assert!(reset(far.v4) && reset(other.v4) && !reset(far.v6));
    // Another name of what is out already.
    let refused = with_names(&world, far.v4, "", &step("alias", "hang")).finish();
    refused.expect_exit(4).expect_told("holds it: lead through the proxy");
    assert!(reset(far.v4) && !reset(far.v6), "a refused one touches nothing");
    // A dependency that moves to where another one is that is out: it stays with whose it is.
    dns.set("cache.test", 1, &[far.v4]);
    holds("the move to be told", PATIENCE, || {
        let status = near.squall(&["status", "--format", "json"]).run();
        status.story().contains("it is led to the proxy of another outage")
    });
    let report = first.halted();
    assert_eq!(impaired(&report), 2, "{report:#}");
    // Nobody else holds it now.
    holds("the address to be led after all", PATIENCE, || reset(far.v4));
    assert!(reset(other.v4), "the second one goes on");
    let report = second.halted();
    assert_eq!(impaired(&report), 3, "{report:#}");
    let told = evidence(&report)["incidents"].to_string();
    assert!(told.contains("is led to the proxy after all"), "{told}");
    assert!(!reset(far.v4) && !reset(other.v4));
    holds("the proxies to be gone", PATIENCE, || proxy(near).is_none());
}
