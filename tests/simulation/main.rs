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

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use squall_controller::fleet::Authority;

use host::Bug;
use ledger::Ledger;

/// The name of the controller, and its port.
const CONTROLLER: &str = "controller";
const PORT: u16 = 8417;
/// The lease of every run.
const LEASE: Duration = Duration::from_millis(1500);
/// How long everything goes wrong.
const CHAOS: Duration = Duration::from_secs(15);
/// How long after the controller's last death everything must be clean: a lease, and the longest silence that a host bears.
const AFTER: Duration = Duration::from_secs(4);
const HOSTS: usize = 2;
/// How many seeds are tried where nobody says.
const SEEDS: u64 = 50;

/// What was seen in one simulation.
struct Seen {
    broken: Option<String>,
    injected: u32,
    reverted: u32,
}

/// Lets one seed happen.
fn simulate(seed: u64, authority: &Arc<Authority>, bug: Option<Bug>) -> Seen {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let ledger = Ledger::default();
    let hosts: Rc<Vec<String>> = Rc::new((0..HOSTS).map(|number| format!("host-{number}")).collect());
    let slowest = Duration::from_millis(chance.random_range(2..200));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(10))
        .simulation_duration(CHAOS * 10)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(slowest)
        .tcp_capacity(1 << 16)
        .enable_tokio_io()
        .build();
    let lives = Rc::new(Cell::new(0));
    let all = (Arc::clone(authority), Rc::clone(&hosts), ledger.clone(), lives);
    sim.host(CONTROLLER, move || {
        let (authority, hosts, ledger, lives) = all.clone();
        controller::live(authority, hosts, ledger, lives)
    });
    for name in hosts.iter() {
        let (name, ledger) = (name.clone(), ledger.clone());
        sim.host(name.clone(), move || host::live(name.clone(), ledger.clone(), bug));
    }
    let mut next = Duration::from_secs(1);
    while sim.elapsed() < CHAOS {
        sim.step().expect("no host ends by itself");
        ledger.look(sim.elapsed());
        if sim.elapsed() >= next {
            next = sim.elapsed() + Duration::from_millis(chance.random_range(50..1500));
            let host = hosts[chance.random_range(0..HOSTS)].clone();
            let what = chance.random_range(0..9);
            let done = match what {
                0 | 1 => {
                    sim.partition(CONTROLLER, host.as_str());
                    "is cut off"
                }
                2 => {
                    sim.partition_oneway(host.as_str(), CONTROLLER);
                    "is not heard"
                }
                3 | 4 => {
                    sim.repair(CONTROLLER, host.as_str());
                    sim.release(CONTROLLER, host.as_str());
                    "is reached again"
                }
                5 => {
                    sim.hold(CONTROLLER, host.as_str());
                    "is held up"
                }
                6 => {
                    let by = Duration::from_millis(chance.random_range(10..10_000));
                    ledger.jump(&host, by);
                    "slept"
                }
                7 => {
                    sim.crash(host.as_str());
                    sim.bounce(host.as_str());
                    "crashed"
                }
                _ => {
                    sim.crash(CONTROLLER);
                    sim.bounce(CONTROLLER);
                    "lost its controller"
                }
            };
            ledger.tell(format!("{:?} {host} {done}", sim.elapsed()));
        }
    }
    sim.crash(CONTROLLER);
    let end = sim.elapsed() + AFTER;
    while sim.elapsed() < end {
        sim.step().expect("no host ends by itself");
        ledger.look(sim.elapsed());
    }
    let (injected, reverted) = ledger.counts();
    let left = ledger.active();
    let left = (!left.is_empty()).then(|| format!("long after the controller's end: {}", left.join(", ")));
    Seen { broken: ledger.broken().or(left), injected, reverted }
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
    let seen = thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2)).map(|seeds| {
            let authority = &authority;
            scope.spawn(move || {
                let mut all = (0, 0);
                for seed in seeds {
                    let seen = simulate(*seed, authority, None);
                    assert!(seen.broken.is_none(), "seed {seed}: {}", seen.broken.unwrap_or_default());
                    all = (all.0 + seen.injected, all.1 + seen.reverted);
                }
                all
            })
        });
        let halves: Vec<_> = halves.collect();
        halves
            .into_iter()
            .map(|half| half.join().expect("see above"))
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    });
    println!(
        "{} seeds: {} changes were made, {} of them undone by somebody's word",
        seeds.len(),
        seen.0,
        seen.1
    );
    // A simulation in which nothing is done holds everything.
    assert!(seen.0 > seeds.len() as u32 * 3, "too little happened: {seen:?}");
}

#[test]
fn what_is_wrong_on_purpose_is_found() {
    let authority = authority("found");
    for bug in [Bug::ForgetsLeases, Bug::AppliesAgain] {
        let found = (1..=20).find(|seed| simulate(*seed, &authority, Some(bug)).broken.is_some());
        assert!(found.is_some(), "twenty seeds do not find {bug:?}");
    }
}
