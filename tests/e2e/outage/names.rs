//! A dependency that is known by its name, which comes to other addresses while the fault lasts.

use std::io;
use std::net::SocketAddr;

use squall_tests::dns::Dns;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::ping;
use crate::peers::with_names;
use crate::trial::{evidence, impaired};

#[test]
fn a_name_is_followed_to_its_new_addresses_and_its_old_ones_stay_met() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let _stores = [world.redis(1, 6379), world.redis(2, 6379)];
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("db.test", 1, &[far.v4]);
    let step = "{ fault: { outage: { of: \"db:6379\", how: reset } }, for: 80s }";
    let mut trial = with_names(&world, far.v4, "", step);
    trial.injected();
    let reset = |address| {
        ping(near, address, 6379).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    };
    assert!(reset(far.v4));
    assert_eq!(ping(near, other.v4, 6379).expect("not met yet"), "PONG");
    assert_eq!(ping(near, far.v6, 6379).expect("not met yet"), "PONG");
    dns.set("db.test", 1, &[other.v4, far.v6]);
    for (address, what) in [(other.v4, "a new address"), (far.v6, "one of version 6")] {
        holds(&format!("{what} to be met"), PATIENCE, || reset(address));
    }
    assert!(reset(far.v4), "who connected before the change may still do so");
    let report = trial.halted();
    assert!(impaired(&report) >= 4, "{report:#}");
    let told = evidence(&report)["incidents"].to_string();
    assert!(told.contains(&other.v4.to_string()), "{told}");
    for address in [far.v4, far.v6, other.v4] {
        assert_eq!(ping(near, address, 6379).expect("answered after the fault"), "PONG");
    }
}

#[test]
fn an_address_that_could_not_be_led_is_tried_again() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let _store = world.redis(1, 6379);
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("db.test", 1, &[far.v4]);
    let step = "{ fault: { outage: { of: \"db:6379\", how: reset } }, for: 80s }";
    let mut trial = with_names(&world, far.v4, "", step);
    trial.injected();
    let reset = |address| {
        ping(near, address, 6379).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    };
    let without_v6 = |off: bool| {
        let set = format!("echo {} >/proc/sys/net/ipv6/conf/lo/disable_ipv6", u8::from(off));
        near.look(&["sh", "-c", &set]);
    };
    // Nothing can listen on `::1` now.
    without_v6(true);
    dns.set("db.test", 1, &[far.v4, far.v6]);
    holds("that it could not be led to be told", PATIENCE, || {
        let status = near.squall(&["status", "--format", "json"]).run();
        status.story().contains("could not be led to the proxy, which is tried again")
    });
    assert_eq!(ping(near, far.v6, 6379).expect("not met yet"), "PONG");
    without_v6(false);
    holds("the address to be met", PATIENCE, || reset(far.v6));
    assert!(reset(far.v4), "the proxy goes on");
    let report = trial.halted();
    let told = evidence(&report)["incidents"].to_string();
    assert!(
        told.contains(&format!("{} is led to the proxy after all", SocketAddr::new(far.v6, 6379))),
        "{told}"
    );
    assert_eq!(ping(near, far.v6, 6379).expect("answered after the fault"), "PONG");
}
