//! A fault lives as long as its lease is renewed, and no longer than those who renew it.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_gettime, clock_settime};
use squall_tests::client::TIMEOUT;
use squall_tests::needs;
use squall_tests::trial::Trial;
use squall_tests::wait::holds;
use squall_tests::world::World;

use super::quiet;

super::cases![
    a_lease_is_kept_for_a_minute_and_ends_with_its_holders,
    a_clock_that_is_set_changes_nothing,
    what_was_over_while_the_machine_slept_ends_when_it_wakes,
];

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

/// Sets the machine's clock by so many hours.
fn step_clock(hours: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("there is a clock");
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::hours(hours)).expect("this machine is ours");
}

/// A day back does not lengthen a fault, two days ahead do not end it: it lasts as long as its file says.
fn a_clock_that_is_set_changes_nothing() {
    needs!(Root, Nftables);
    const LASTS: Duration = Duration::from_secs(10);
    let world = World::new(2);
    let near = &world.hosts[0];
    let echo = world.echo(1, 7);
    let far = world.hosts[1].v4;
    let step = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 10s }";
    let mut trial = Trial::begin(&world, near, &quiet(&world, 0, step));
    trial.injected();
    let begun = Instant::now();
    step_clock(-24);
    assert!(echo.dial(near, far).is_err(), "reached after the clock was set back");
    step_clock(48);
    assert!(echo.dial(near, far).is_err(), "reached after the clock was set ahead");
    let seen = begun.elapsed();
    assert!(seen < LASTS, "this machine is too slow to tell: {seen:?}");
    let finished = trial.finish();
    let took = begun.elapsed();
    step_clock(-24);
    let report = finished.expect_exit(0).json();
    println!("ended {took:?} after it began");
    let (from, to) = (&report["parts"][0]["injected_at_ms"], &report["parts"][0]["lifted_at_ms"]);
    let live = to.as_u64().zip(from.as_u64()).map(|(to, from)| Duration::from_millis(to - from));
    let live = live.expect("it was injected and lifted");
    // It is told that it is live some time after it became so.
    assert!(live >= LASTS / 2 && live < LASTS * 3, "live for {live:?}: {report:#}");
    assert!(near.tables().is_empty());
}

/// Suspends the machine; its real-time clock wakes it. How long it slept.
fn sleep_for(time: Duration) -> Duration {
    const ALARM: &str = "/sys/class/rtc/rtc0/wakealarm";
    let clock = |id| Duration::from(clock_gettime(id).expect("there is a clock"));
    // The one goes on while the machine sleeps, the other stands still.
    let clocks = || (clock(ClockId::CLOCK_BOOTTIME), clock(ClockId::CLOCK_MONOTONIC));
    let (boot, awake) = clocks();
    fs::write(ALARM, format!("+{}", time.as_secs())).expect("a clock that can wake");
    fs::write("/sys/power/state", "mem").expect("a machine that can sleep");
    let (boots, awakes) = clocks();
    (boots - boot) - (awakes - awake)
}

/// A fault whose time is over while the machine sleeps is not lengthened by the sleep.
fn what_was_over_while_the_machine_slept_ends_when_it_wakes() {
    needs!(Root, Nftables);
    const LASTS: Duration = Duration::from_secs(20);
    let world = World::new(2);
    let near = &world.hosts[0];
    let echo = world.echo(1, 7);
    let far = world.hosts[1].v4;
    let step = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 20s }";
    let mut trial = Trial::begin(&world, near, &quiet(&world, 0, step));
    trial.injected();
    let begun = Instant::now();
    assert!(echo.dial(near, far).is_err(), "reached during the fault");
    let slept = sleep_for(LASTS + Duration::from_secs(2));
    let woke = Instant::now();
    assert!(slept > LASTS, "slept for {slept:?} only");
    holds("the table to go", LASTS, || near.tables().is_empty());
    println!("slept {slept:?}; clean {:?} after it woke", woke.elapsed());
    let awake = begun.elapsed();
    assert!(awake < LASTS / 2, "the sleep has lengthened it: {awake:?} awake");
    echo.dial(near, far).expect("reached after the fault");
    trial.finish().expect_exit(6);
}
