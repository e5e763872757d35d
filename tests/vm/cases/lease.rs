//! A fault lives as long as its lease is renewed, and no longer than those who renew it.

use std::time::{Duration, Instant};

use squall_tests::client::TIMEOUT;
use squall_tests::needs;
use squall_tests::trial::Trial;
use squall_tests::wait::holds;
use squall_tests::world::World;

use super::quiet;

super::cases![a_lease_is_kept_for_a_minute_and_ends_with_its_holders];

/// The lease is an element of a set that expires after 1.5 s, renewed twice a second: on some kernels that once was
/// trouble, so it is done for a minute on each. Then both processes of the agent are killed while they hold packets.
fn a_lease_is_kept_for_a_minute_and_ends_with_its_holders() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let near = &world.hosts[0];
    let echo = world.echo(1, 7);
    let mut open = echo.dial(near, world.hosts[1].v4).expect("reached before the fault");
    let step = "{ fault: { latency: { delay: 200ms, to: [\"10.77.1.2:7\"] } }, for: 5m }";
    let mut trial = Trial::begin(&world, near, &quiet(&world, 0, step));
    trial.injected();
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(60) {
        let asking = Instant::now();
        open.talk().expect("answered during the fault");
        let took = asking.elapsed();
        asked += 1;
        assert!(
            took >= Duration::from_millis(200),
            "answer {asked} took {took:?} {:?} after the fault began",
            begun.elapsed()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    println!("{asked} answers in a minute, every one late");
    near.kill_agents();
    let killed = Instant::now();
    holds("the table to go", Duration::from_secs(3), || near.tables().is_empty());
    println!("clean {:?} after both were killed", killed.elapsed());
    let mut quick = echo.dial(near, world.hosts[1].v4).expect("reached after the fault");
    holds("an answer that is not late", TIMEOUT, || {
        let asking = Instant::now();
        quick.talk().is_ok() && asking.elapsed() < Duration::from_millis(200)
    });
    trial.finish().expect_exit(6);
    near.agent(&["recover"]).run().expect_exit(0);
}
