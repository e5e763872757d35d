//! A fleet in which time and network are simulated: controller and agents speak to each other by their own code, over links
//! that break, are slow and hold what is sent, while processes crash and clocks jump. One number, the seed, decides what
//! happens when.
//!
//! Two things must hold at every moment of it: nothing is active without a lease that lives, and nothing is injected twice.
//! `SQUALL_SEEDS=1000 cargo test -p squall-tests --test simulation` tries more seeds; `SQUALL_SEED=7` tells one of them.
//!
//! Not simulated: TLS, the conversation with a machine (`tests/torture` has that), and the order in which a task looks at
//! several things that are ready at the same instant.

mod controller;
mod host;
mod ledger;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use squall_controller::fleet::Authority;

use controller::{Store, Surroundings};
use ledger::{Counts, Ledger};

/// The name of the controller, and its port.
const CONTROLLER: &str = "controller";
const PORT: u16 = 8417;
/// The lease of every run.
const LEASE: Duration = Duration::from_millis(1500);
/// How long everything goes wrong.
const CHAOS: Duration = Duration::from_secs(40);
/// How long after the controller's last death everything must be clean: a lease, and the longest silence that a host bears.
const AFTER: Duration = Duration::from_secs(3);
const HOSTS: usize = 2;
/// How many seeds are tried where nobody says.
const SEEDS: u64 = 50;

/// Something that is wrong on purpose, so that the simulation can be seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// No host looks whether a lease is over.
    ForgetsLeases,
    /// Hosts count leases by a clock that stands still while they sleep.
    WrongClock,
    /// A controller begins the runs of its earlier life again.
    BeginsAgain,
}

/// What was seen in one simulation.
struct Seen {
    broken: Option<String>,
    counts: Counts,
}

/// Lets one seed happen.
fn simulate(seed: u64, authority: &Arc<Authority>, bug: Option<Bug>) -> Seen {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let ledger = Ledger::default();
    let hosts: Rc<Vec<String>> = Rc::new((0..HOSTS).map(|number| format!("host-{number}")).collect());
    let slowest = Duration::from_millis(chance.random_range(2..200));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(20))
        .simulation_duration(CHAOS * 10)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(slowest)
        .tcp_capacity(1 << 16)
        .enable_tokio_io()
        .build();
    let around = Surroundings {
        authority: Arc::clone(authority),
        hosts: Rc::clone(&hosts),
        ledger: ledger.clone(),
        store: Rc::new(Store::default()),
        bug,
    };
    sim.host(CONTROLLER, move || controller::live(around.clone()));
    for name in hosts.iter() {
        // No two clocks show the same.
        ledger.jump(name, Duration::from_secs(chance.random_range(0..7200)));
        let (name, ledger) = (name.clone(), ledger.clone());
        sim.host(name.clone(), move || host::live(name.clone(), ledger.clone(), bug));
    }
    let mut next = Duration::from_secs(1);
    let mut repairs = BTreeMap::new();
    while sim.elapsed() < CHAOS {
        sim.step().expect("no host ends by itself");
        ledger.look(sim.elapsed());
        let now = sim.elapsed();
        if now >= next {
            next = now + Duration::from_millis(chance.random_range(100..2500));
            let any = hosts[chance.random_range(0..HOSTS)].clone();
            // Rather one to which something is done.
            let host = ledger.busy().unwrap_or(any);
            let done = happen(&mut sim, &ledger, &host, &mut chance);
            ledger.tell(format!("{now:?} {host} {done}"));
            // Shorter than a lease, longer than a lease, or longer than a silent connection lives.
            repairs.insert(host, now + Duration::from_millis(chance.random_range(50..3000)));
        }
        for (host, _) in repairs.extract_if(.., |_, at| *at <= now) {
            sim.repair(CONTROLLER, host.as_str());
            sim.release(CONTROLLER, host.as_str());
            ledger.tell(format!("{now:?} {host} is reached again, if it was not"));
        }
    }
    sim.crash(CONTROLLER);
    let end = sim.elapsed() + AFTER;
    while sim.elapsed() < end {
        sim.step().expect("no host ends by itself");
        ledger.look(sim.elapsed());
    }
    let left = ledger.active();
    let left = (!left.is_empty()).then(|| format!("long after the controller's end: {}", left.join(", ")));
    Seen { broken: ledger.broken().or(left), counts: ledger.counts() }
}

/// Lets something happen to a host; says what.
fn happen(sim: &mut turmoil::Sim<'_>, ledger: &Ledger, host: &str, chance: &mut ChaCha8Rng) -> &'static str {
    match chance.random_range(0..7) {
        0 | 1 => {
            sim.partition(CONTROLLER, host);
            "is cut off"
        }
        2 => {
            sim.partition_oneway(host, CONTROLLER);
            "is not heard"
        }
        3 => {
            sim.hold(CONTROLLER, host);
            "is held up"
        }
        4 => {
            // A machine wakes before its network does.
            sim.partition(CONTROLLER, host);
            ledger.jump(host, Duration::from_millis(chance.random_range(10..10_000)));
            "slept"
        }
        5 => {
            sim.crash(host);
            sim.bounce(host);
            "crashed"
        }
        _ => {
            sim.crash(CONTROLLER);
            sim.bounce(CONTROLLER);
            "lost its controller"
        }
    }
}

fn authority(name: &str) -> Arc<Authority> {
    let directory = std::env::temp_dir().join(format!("squall-simulation-{name}-{}", std::process::id()));
    let authority = Authority::open(&directory).expect("an authority");
    std::fs::remove_dir_all(directory).expect("it was just made");
    Arc::new(authority)
}

#[test]
fn nothing_is_active_without_a_lease_and_nothing_is_injected_twice() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match number("SQUALL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("SQUALL_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let authority = authority("held");
    let all = |seeds: &[u64]| {
        let simulated = seeds.iter().map(|seed| {
            let seen = simulate(*seed, &authority, None);
            assert!(seen.broken.is_none(), "seed {seed}: {}", seen.broken.unwrap_or_default());
            seen.counts
        });
        simulated.fold(Counts::default(), Counts::and)
    };
    let counts = thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2)).map(|half| scope.spawn(|| all(half)));
        let halves: Vec<_> = halves.collect();
        let counts = halves.into_iter().map(|half| half.join().expect("see above"));
        counts.fold(Counts::default(), Counts::and)
    });
    println!("seeds {:?} to {:?}: {counts:?}", seeds.first(), seeds.last());
    // A simulation in which nothing is done holds everything.
    let enough = u32::try_from(seeds.len()).expect("not so many");
    assert!(counts.injected > enough && counts.runs * 2 > enough, "too little happened: {counts:?}");
    assert!(counts.together > 0 || enough < SEEDS as u32, "nothing was begun together: {counts:?}");
}

#[test]
fn what_is_wrong_on_purpose_is_found() {
    let authority = authority("found");
    for bug in [Bug::ForgetsLeases, Bug::WrongClock, Bug::BeginsAgain] {
        let found = (1..=20).find(|seed| simulate(*seed, &authority, Some(bug)).broken.is_some());
        println!("{bug:?}: seed {found:?}");
        assert!(found.is_some(), "twenty seeds do not find {bug:?}");
    }
}
