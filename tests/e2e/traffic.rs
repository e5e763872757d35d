//! The instruments test themselves: they see nothing where nothing is, and what the kernel does where it does something.

use std::net::SocketAddr;
use std::time::Duration;

use squall_tests::traffic::numbered::Numbered;
use squall_tests::traffic::ping::Ping;
use squall_tests::traffic::{bulk, counted, round_trips};
use squall_tests::world::World;
use squall_tests::{needs, odds};

#[test]
fn an_untouched_link_loses_doubles_and_reorders_nothing() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    for address in [far.v4, far.v6] {
        // More than a millisecond's worth at once, so that bursts are part of it.
        let plan = Numbered { count: 20_000, rate: 50_000, ..Numbered::default() };
        let outcome = plan.send(&near.netns, &far.netns, SocketAddr::new(address, 9));
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        assert_eq!((outcome.lost().len(), outcome.doubled(), outcome.overtaken()), (0, 0, 0));
        assert!(outcome.took().iter().all(|took| !took.is_zero()));
    }
}

#[test]
fn what_the_kernel_drops_is_counted_as_lost() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    far.look(&["nft", "add", "table", "inet", "lossy"]);
    far.look(&["nft", "add", "chain", "inet", "lossy", "in", "{ type filter hook input priority 0 ; }"]);
    let drop = ["udp", "dport", "9", "numgen", "random", "mod", "10", "<", "2", "drop"];
    far.look(&[&["nft", "add", "rule", "inet", "lossy", "in"][..], &drop].concat());
    let plan = Numbered { count: 10_000, rate: 20_000, ..Numbered::default() };
    let outcome = plan.send(&near.netns, &far.netns, (far.v4, 9).into());
    let lost = u32::try_from(outcome.lost().len()).expect("no more than were sent");
    let allowed = odds::binomial(outcome.sent, 0.2, odds::ONE_IN_A_MILLION);
    assert!(allowed.contains(&lost), "{lost} of {} lost, {allowed:?} expected", outcome.sent);
    let bursts = outcome.bursts();
    assert_eq!(bursts.iter().sum::<u32>(), lost);
    assert!(bursts.contains(&1) && bursts.contains(&2), "{bursts:?}");
    far.look(&["nft", "delete", "table", "inet", "lossy"]);
}

#[test]
fn ping_fast_stream_and_counts_work_over_both_families() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    for address in [far.v4, far.v6] {
        let mut ping =
            Ping::to(&near.netns, address, Duration::from_secs(2)).expect("root may open a raw socket");
        assert_eq!(round_trips(&mut ping, 20).len(), 20);
        let rate =
            bulk::bits_per_second(&near.netns, &far.netns, (address, 9).into(), Duration::from_millis(300));
        assert!(rate > 1e6, "{rate} bit/s");
    }
    assert!(counted::v4(&far.netns, "Icmp", "InEchos") >= 20);
    assert!(counted::v6(&far.netns, "Icmp6InEchos") >= 20);
    assert_eq!(counted::v4(&far.netns, "Udp", "InCsumErrors"), 0);
    assert_eq!(counted::v6(&far.netns, "Udp6InCsumErrors"), 0);
    let own = i32::try_from(std::process::id()).expect("a pid");
    assert!(!counted::processor_time(own).is_zero());
}
