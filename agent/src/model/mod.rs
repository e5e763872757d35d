//! The undo protocol on a model host: every crash point, crashes in the recovery included.
//!
//! Journal, ledger, books and the order of a recovery are the real code; disk and host are in memory. Whatever is done
//! and wherever it dies, the host must be afterwards what it was, and nothing of anybody else's may have been touched.

mod agent;
mod host;

use std::collections::HashSet;

use proptest::prelude::*;

use agent::{Act, Crash, Left, Mistake};
use host::{Host, Net, Root};

use crate::host::netns::Id;
use crate::host::process::Target;
use crate::host::qdisc::Device;
use crate::host::qdisc::root::Before;
use crate::host::undo::Undo;

const ELSEWHERE: Id = Id { inode: 7, cookie: 70 };

fn device(number: u32) -> Device {
    Device { index: number, name: format!("eth{number}") }
}

fn process(pid: i32) -> Target {
    Target { pid, start: 1000, name: "victim".into() }
}

/// What stands at the root of an interface before.
fn before(number: u32) -> Before {
    if number == 1 { Before::Default } else { Before::Told(Vec::new()) }
}

/// Two interfaces, another namespace, four processes, one of which its user has stopped.
fn host() -> Host {
    let mut host = Host::default();
    let roots = [1, 2].map(|number| (device(number), Root::Theirs(before(number)))).into();
    host.nets.insert(None, Net::with(roots));
    host.nets.insert(Some(ELSEWHERE), Net::default());
    host.processes = (1..=4).map(|pid| (pid, (1000, pid == 4))).collect();
    host
}

fn block(number: u8) -> Vec<Undo> {
    vec![Undo::Table, Undo::Rules(format!("squall run r{number};"))]
}

fn queue(number: u8) -> Vec<Undo> {
    let queue = Undo::Queue { number: number.into(), steals: false };
    vec![Undo::Mark(1 << number), Undo::Table, queue, Undo::Rules(format!("squall run r{number} queue;"))]
}

fn lane(number: u8, interface: u32) -> Vec<Undo> {
    let device = device(interface);
    vec![
        Undo::Table,
        Undo::Root { device: device.clone(), before: before(interface) },
        Undo::Class { device, minor: u16::from(number) << 4, wait_ms: 0 },
        Undo::Rules(format!("squall run r{number} lane;")),
    ]
}

fn within(undos: Vec<Undo>) -> Vec<Undo> {
    undos.into_iter().map(|undo| Undo::Within { netns: ELSEWHERE, undo: Box::new(undo) }).collect()
}

fn stop(pid: i32) -> Vec<Undo> {
    vec![Undo::Resume(process(pid))]
}

/// Sequences that were thought of: shared roots, steps beside each other, undos that fail.
fn thought_of() -> Vec<Vec<Act>> {
    vec![
        vec![Act::Begin(1), Act::Step(1, vec![block(1), stop(1)]), Act::End(1)],
        vec![
            Act::Begin(1),
            Act::Step(1, vec![lane(1, 1)]),
            Act::Begin(2),
            Act::Step(2, vec![lane(2, 1), queue(2)]),
            Act::Lift(1),
            Act::Step(1, vec![lane(3, 1), lane(4, 2)]),
            Act::End(1),
            Act::End(2),
        ],
        vec![
            Act::Begin(1),
            Act::Step(1, vec![within(queue(1)), stop(2)]),
            Act::Begin(2),
            Act::Fail(2),
            Act::End(1),
            Act::Step(2, vec![block(5)]),
            Act::End(1),
            Act::End(2),
            Act::Begin(3),
            Act::Step(3, vec![stop(3)]),
        ],
    ]
}

/// What others do between a crash and the recovery; the second host is what must be left in the end.
fn meanwhile(number: usize, host: &mut Host, expected: &mut Host) {
    match number {
        1 => {
            host.unplug(&device(1));
            expected.unplug(&device(1));
        }
        // The same name and number, and a root of somebody's own.
        2 => {
            for host in [host, expected] {
                host.unplug(&device(1));
                let theirs = Root::Theirs(Before::Told(Vec::new()));
                host.nets.entry(None).or_default().roots.insert(device(1), theirs);
            }
        }
        // The same pid, and stopped by its user.
        3 => {
            for host in [host, expected] {
                host.processes.insert(1, (2000, true));
                host.processes.remove(&2);
            }
        }
        4 => {
            for host in [host, expected] {
                host.nets.remove(&Some(ELSEWHERE));
            }
        }
        _ => {}
    }
}

/// Recovers, dying before these ticks in turn and then no more.
fn recovered(mut left: Left, deaths: &[usize], mistake: Mistake) -> Result<Left, String> {
    for at in deaths {
        left = left.recover(Some(*at), mistake)?.0;
    }
    Ok(left.recover(None, mistake)?.0)
}

fn clean(left: &Left, expected: &Host) -> Result<(), String> {
    if left.host != *expected {
        return Err(format!("the host is {:#?}\nand not {expected:#?}", left.host));
    }
    if left.has_journal() { Err("the journal is still there".to_owned()) } else { Ok(()) }
}

/// Every crash point of a sequence, with everything that may be left of the last words; and of each recovery, of the
/// recovery after that, and so on, until nothing is left that was not seen before. Gives how many states there were.
fn enumerated(acts: &[Act], mistake: Mistake) -> Result<usize, String> {
    let (whole, ticks) = Left::of(host()).live(acts, None, mistake);
    clean(&whole, &host())?;
    let mut seen = HashSet::new();
    for at in 0..ticks {
        for (kept, both) in
            [(0, true), (0, false), (1, true), (50, true), (99, true), (100, true), (100, false)]
        {
            let crash = Crash { at, kept, both };
            let (left, _) = Left::of(host()).live(acts, Some(crash), mistake);
            for others in 0..5 {
                let (mut left, mut expected) = (left.clone(), host());
                meanwhile(others, &mut left.host, &mut expected);
                closed(left, others, &expected, mistake, &mut seen)
                    .map_err(|error| format!("{crash:?}, others {others}: {error}"))?;
            }
        }
    }
    Ok(seen.len())
}

/// What tells states apart.
type Seen = HashSet<(usize, (String, Option<Vec<u8>>))>;

/// Every state that recoveries lead to which die, and that each of them is followed by a recovery that succeeds.
fn closed(
    left: Left,
    others: usize,
    expected: &Host,
    mistake: Mistake,
    seen: &mut Seen,
) -> Result<(), String> {
    let mut open = vec![left];
    while let Some(left) = open.pop() {
        if !seen.insert((others, left.key())) {
            continue;
        }
        let (done, steps) = left.clone().recover(None, mistake)?;
        clean(&done, expected)?;
        for at in 0..steps {
            open.push(left.clone().recover(Some(at), mistake)?.0);
        }
    }
    Ok(())
}

#[test]
fn every_crash_point_leads_back() {
    let mut cases = 0;
    for acts in thought_of() {
        cases += enumerated(&acts, Mistake::None).unwrap_or_else(|error| panic!("{acts:#?}\n{error}"));
    }
    assert!(cases > 1000, "only {cases} states");
}

#[test]
fn each_mistake_is_found() {
    let mistakes = [
        Mistake::PerformFirst,
        Mistake::NoSync,
        Mistake::MarkFirst,
        Mistake::RemoveFirst,
        Mistake::Forwards,
        Mistake::Forget,
    ];
    for mistake in mistakes {
        let found = thought_of().iter().any(|acts| enumerated(acts, mistake).is_err());
        assert!(found, "{mistake:?} is not found");
    }
}

fn change() -> impl Strategy<Value = Vec<Undo>> {
    prop_oneof![
        (0..8u8).prop_map(block),
        (0..8u8).prop_map(queue),
        (0..8u8, 1..3u32).prop_map(|(number, interface)| lane(number, interface)),
        (0..8u8).prop_map(|number| within(queue(number))),
        (0..8u8).prop_map(|number| within(block(number))),
        (1..4i32).prop_map(stop),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let run = 1..4u8;
    prop_oneof![
        2 => run.clone().prop_map(Act::Begin),
        4 => (run.clone(), prop::collection::vec(change(), 1..3)).prop_map(|(run, changes)| Act::Step(run, changes)),
        2 => run.clone().prop_map(Act::Lift),
        2 => run.prop_map(Act::End),
        1 => (1..4u32).prop_map(Act::Fail),
    ]
}

/// What one change holds another one must not be given: the agent refuses it.
fn without_collisions(acts: Vec<Act>) -> Vec<Act> {
    let mut seen = std::collections::BTreeSet::new();
    let mut fresh = |undo: &Undo| match undo.inner() {
        Undo::Rules(_) | Undo::Queue { .. } | Undo::Mark(_) | Undo::Class { .. } | Undo::Resume(_) => {
            seen.insert(format!("{undo:?}"))
        }
        _ => true,
    };
    let mut pruned = Vec::new();
    for act in acts {
        pruned.push(match act {
            Act::Step(run, changes) => {
                let free = |undos: &Vec<Undo>| undos.iter().fold(true, |all, undo| fresh(undo) & all);
                Act::Step(run, changes.into_iter().filter(free).collect())
            }
            act => act,
        });
    }
    pruned
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_and_wherever_it_dies(
        acts in prop::collection::vec(act(), 1..16).prop_map(without_collisions),
        at in any::<prop::sample::Index>(),
        kept in 0..=100usize,
        both in any::<bool>(),
        others in 0..5usize,
        deaths in prop::collection::vec(0..12usize, 0..4),
    ) {
        let (whole, ticks) = Left::of(host()).live(&acts, None, Mistake::None);
        prop_assert_eq!(clean(&whole, &host()), Ok(()));
        let crash = Crash { at: at.index(ticks + 1), kept, both };
        let (mut left, _) = Left::of(host()).live(&acts, Some(crash), Mistake::None);
        let mut expected = host();
        meanwhile(others, &mut left.host, &mut expected);
        let done = recovered(left, &deaths, Mistake::None);
        prop_assert_eq!(done.and_then(|left| clean(&left, &expected)), Ok(()));
    }
}
