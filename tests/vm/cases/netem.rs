//! The engine netem, which the machine of the tests may lack: beside `tc netem` set up by hand, and by what the kernel
//! reads back.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_tests::host::Host;
use squall_tests::netns::signal;
use squall_tests::traffic::numbered::{Numbered, Outcome};
use squall_tests::trial::{Trial, calm, evidence, impaired};
use squall_tests::wait::{PATIENCE, holds, median};
use squall_tests::world::World;
use squall_tests::{needs, odds};

use super::{FIGURE, quiet_by};

super::cases![
    a_delay_is_no_worse_than_by_hand,
    so_many_are_lost,
    every_impairment_is_as_the_kernel_reads_it_back,
    nothing_that_is_held_is_lost_at_the_end,
    the_agents_death_frees_the_traffic_at_once,
    what_enters_is_late_once_and_as_by_hand,
    both_ways_take_both_halves,
];

const PLAN: Numbered =
    Numbered { count: 300, rate: 200, size: 64, quiet: Duration::from_millis(500), urgent: true };
const DELAY: Duration = Duration::from_millis(50);

/// One turn of a comparison, and how many turns each side has.
const ROUND: Numbered = Numbered { count: 60, quiet: Duration::from_millis(100), ..PLAN };
const ROUNDS: u32 = 5;

fn step(fault: &str) -> String {
    format!("{{ fault: {{ {fault} }}, for: 70s }}")
}

fn sent(world: &World, plan: Numbered) -> Outcome {
    let [near, far, ..] = &world.hosts[..] else { panic!("two hosts were asked for") };
    plan.send(&near.netns, &far.netns, (far.v4, 9).into())
}

/// What stands at the first host's interface.
fn standing(host: &Host) -> String {
    host.look(&["tc", "qdisc", "show", "dev", "to1"])
}

/// How late packets came beyond what was asked: half of them, and 99 of 100.
type Errors = (Duration, Duration);

/// How much later than asked packets came.
fn errors(outcome: &Outcome) -> Errors {
    let mut took = outcome.took();
    took.sort_unstable();
    let least = took.first().copied().unwrap_or_default();
    assert!(least >= DELAY, "{least:?} is early");
    let at = took.len() * 99 / 100;
    (median(took.clone()).saturating_sub(DELAY), took[at.min(took.len() - 1)].saturating_sub(DELAY))
}

/// What `tc` by hand gives packets on the link from the first host to the third, for as long as this lives: it stands
/// while a run of ours delays others beside it, as the processes of a run cost an emulated machine more than what either
/// does to a packet.
struct ByHand<'a>(&'a World);

impl<'a> ByHand<'a> {
    fn stand(world: &'a World) -> Self {
        // What a packet takes where nothing is delayed.
        let free = Numbered { count: 60, ..ROUND }.send(
            &world.hosts[0].netns,
            &world.hosts[2].netns,
            (world.hosts[2].v4, 9).into(),
        );
        println!("{FIGURE}without any delay a packet takes {:?} (p50)", median(free.took()));
        world.hosts[0]
            .look(&["tc", "qdisc", "add", "dev", "to2", "root", "netem", "delay", "50ms", "limit", "5000"]);
        ByHand(world)
    }

    fn end(self) {
        self.0.hosts[0].look(&["tc", "qdisc", "del", "dev", "to2", "root"]);
    }

    /// In turns, so that whatever else the machine does meets both alike: in the median of the rounds half of ours are not
    /// later than so many times as late as by hand, and half a millisecond; 99 of 100 not later than twice as late, and 5 ms.
    #[track_caller]
    fn no_worse(&self, times: u32, ours: impl Fn() -> Outcome) -> Vec<Outcome> {
        let [near, _, third] = &self.0.hosts[..] else { panic!("three hosts were asked for") };
        let (mut all, mut by_hand) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            by_hand.push(errors(&ROUND.send(&near.netns, &third.netns, (third.v4, 9).into())));
            all.push(ours());
        }
        let mine: Vec<Errors> = all.iter().map(errors).collect();
        let pairs = |side: fn(&Errors) -> Duration| mine.iter().map(side).zip(by_hand.iter().map(side));
        let beyond = |side, times, and| {
            median(pairs(side).map(|(ours, theirs)| ours.saturating_sub(theirs * times + and)).collect())
        };
        println!("{FIGURE}late by (p50, p99), round by round: {mine:?}, by `tc` in turns {by_hand:?}");
        let half = beyond(|errors| errors.0, times, Duration::from_micros(500));
        let most = beyond(|errors| errors.1, 2, Duration::from_millis(5));
        assert!(half.is_zero() && most.is_zero(), "worse by {half:?} and {most:?} than what is allowed");
        all
    }
}

fn a_delay_is_no_worse_than_by_hand() {
    needs!(Root, Nftables, Netem);
    let world = World::new(3);
    let near = &world.hosts[0];
    let port = world.echo(0, 7007).port;
    let by_hand = ByHand::stand(&world);
    let latency = "latency: { delay: 50ms, direction: egress, to: [\"10.77.1.2:9\"] }";
    let mut trial = Trial::begin(&world, near, &quiet_by(port, &step(latency)));
    trial.injected();
    by_hand.no_worse(2, || sent(&world, ROUND));
    let report = trial.halted();
    assert_eq!(evidence(&report)["engine"]["name"], "netem", "{report:#}");
    assert_eq!(evidence(&report)["matched"], evidence(&report)["engine"]["seen"], "{report:#}");
    assert!(impaired(&report) >= u64::from(ROUND.count * ROUNDS), "{report:#}");
    in_another_namespace(&world, port, &by_hand);
    by_hand.end();
}

/// The agent is at home in the first host, and the fault in the network of the second.
fn in_another_namespace(world: &World, port: u16, by_hand: &ByHand<'_>) {
    let [near, far, _] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let latency = "latency: { delay: 50ms, direction: egress, to: [\"10.77.1.1:9\"] }";
    let step = format!("{{ fault: {{ {latency} }}, in: {{ netns: {} }}, for: 70s }}", far.netns.name());
    let before = far.look(&["tc", "qdisc", "show", "dev", "to0"]);
    let mut trial = Trial::begin(world, near, &quiet_by(port, &step));
    trial.injected();
    by_hand.no_worse(2, || ROUND.send(&far.netns, &near.netns, (near.v4, 9).into()));
    let back = sent(world, Numbered { count: 40, ..PLAN });
    let report = trial.halted();
    assert!(median(back.took()) < DELAY, "what its neighbour sends is late, too");
    assert_eq!(evidence(&report)["engine"]["name"], "netem", "{report:#}");
    assert!(impaired(&report) >= u64::from(ROUND.count * ROUNDS), "{report:#}");
    assert!(!far.look(&["tc", "qdisc", "show"]).contains("htb"), "a root is left");
    assert_eq!(before, far.look(&["tc", "qdisc", "show", "dev", "to0"]));
}

fn so_many_are_lost() {
    needs!(Root, Nftables, Netem);
    let world = World::new(2);
    let near = &world.hosts[0];
    let plan = Numbered { count: 1000, rate: 400, ..PLAN };
    let count = |outcome: &Outcome| u32::try_from(outcome.lost().len()).expect("no more than were sent");
    near.look(&["tc", "qdisc", "add", "dev", "to1", "root", "netem", "loss", "20%"]);
    let by_hand = count(&sent(&world, plan));
    near.look(&["tc", "qdisc", "del", "dev", "to1", "root"]);
    let fault = "loss: { percent: 20%, direction: egress, engine: netem, to: [\"10.77.1.2:9\"] }";
    let mut trial = Trial::begin(&world, near, &calm(&[&step(fault)]));
    trial.injected();
    let outcome = sent(&world, plan);
    let report = trial.halted();
    let lost = count(&outcome);
    let allowed = odds::binomial(plan.count, 0.2, odds::ONE_IN_A_MILLION);
    println!(
        "{FIGURE}{lost} of {} lost, by `tc` in the same boot {by_hand}; {allowed:?} for 20 %",
        plan.count
    );
    assert!(allowed.contains(&lost), "{lost} lost, {allowed:?} expected: {report:#}");
    assert!(outcome.errors.is_empty(), "the sender was told: {:?}", outcome.errors);
    let counted = evidence(&report)["engine"]["lost"].as_u64();
    assert!(counted >= Some(u64::from(lost)), "{report:#}");
}

fn every_impairment_is_as_the_kernel_reads_it_back() {
    needs!(Root, Nftables, Netem);
    let world = World::new(2);
    let near = &world.hosts[0];
    let target = "direction: egress, engine: netem, to: [\"10.77.1.2:9\"]";
    let faults = [
        (
            format!(
                "latency: {{ delay: 30ms, jitter: 5ms, distribution: normal, correlation: 25%, reordering: true, {target} }}"
            ),
            vec!["delay 30ms", "5ms 25%"],
        ),
        (
            format!(
                "loss: {{ gilbert-elliott: {{ p: 1%, r: 25%, bad-loss: 90%, good-loss: 2% }}, {target} }}"
            ),
            vec!["loss gemodel p 1% r 25% 1-h 90% 1-k 2%"],
        ),
        (
            format!("reorder: {{ percent: 20%, late: 20ms, {target} }}"),
            vec!["delay 20ms", "reorder 80%", "gap 1"],
        ),
        (
            format!(
                "degrade: {{ delay: 20ms, loss: 2%, duplicate: 1%, corrupt: 4%, rate: 10Mbit/s, {target} }}"
            ),
            vec!["delay 20ms", "loss 2%", "duplicate 1%", "corrupt 4%"],
        ),
    ];
    for (fault, wanted) in faults {
        let before = standing(near);
        let mut trial = Trial::begin(&world, near, &calm(&[&step(&fault)]));
        trial.injected();
        let stands = standing(near);
        println!("{stands}");
        for words in wanted {
            assert!(stands.contains(words), "no `{words}` in {stands} for {fault}");
        }
        trial.run.signal(Signal::INT);
        trial.finish().expect_exit(6);
        assert_eq!(before, standing(near));
    }
}

fn nothing_that_is_held_is_lost_at_the_end() {
    needs!(Root, Nftables, Netem);
    let world = World::new(2);
    let near = &world.hosts[0];
    let latency = "latency: { delay: 400ms, direction: egress, to: [\"10.77.1.2:9\"] }";
    let mut trial = Trial::begin(&world, near, &calm(&[&step(latency)]));
    trial.injected();
    let outcome = std::thread::scope(|scope| {
        let sending = scope.spawn(|| sent(&world, Numbered { quiet: Duration::from_secs(1), ..PLAN }));
        std::thread::sleep(Duration::from_secs(1));
        trial.halted();
        sending.join().expect("all are sent")
    });
    // The root goes while packets still come: the few that are on their way into it may go with it.
    let lost = outcome.lost().len();
    println!("{lost} of {} lost; some were {:?} late", PLAN.count, outcome.took().into_iter().max());
    assert!(lost <= 3, "{lost} are lost, some 80 were held");
}

fn the_agents_death_frees_the_traffic_at_once() {
    needs!(Root, Nftables, Netem);
    let world = World::new(2);
    let near = &world.hosts[0];
    let latency = "latency: { delay: 300ms, direction: egress, to: [\"10.77.1.2:9\"] }";
    let mut trial = Trial::begin(&world, near, &calm(&[&step(latency)]));
    trial.injected();
    let few = Numbered { count: 40, ..PLAN };
    assert!(median(sent(&world, few).took()) >= Duration::from_millis(300));
    let (guardian, worker) = near.agents();
    for process in [&guardian, &worker] {
        signal(process, Signal::STOP);
    }
    for process in [&guardian, &worker] {
        signal(process, Signal::KILL);
    }
    holds("the table's end", PATIENCE, || near.tables().is_empty());
    // By now the command may have removed the root, and what was on its way into it.
    let outcome = sent(&world, few);
    assert!(median(outcome.took()) < Duration::from_millis(100), "still late");
    trial.finish().expect_exit(6);
    near.agent(&["recover"]).run().expect_exit(0);
    assert!(!standing(near).contains("htb"), "{}", standing(near));
}

fn what_enters_is_late_once_and_as_by_hand() {
    needs!(Root, Nftables, Netem, Ifb);
    let world = World::new(3);
    let [near, far, _] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let port = world.echo(1, 7007).port;
    // A virtual network on the same link: its frames enter two interfaces, and are late once.
    let tagged = ["10.78.0.1/24", "10.78.0.2/24"];
    for ((host, link), address) in [(near, "to1"), (far, "to0")].into_iter().zip(tagged) {
        host.look(&["ip", "link", "add", "link", link, "name", "tagged", "type", "vlan", "id", "7"]);
        host.look(&["ip", "link", "set", "tagged", "addrgenmode", "none"]);
        host.look(&["ip", "address", "add", address, "dev", "tagged"]);
        host.look(&["ip", "link", "set", "tagged", "up"]);
    }
    world.as_found();
    // What netem does by hand to what leaves the one host, ours does to what enters the other.
    let by_hand = ByHand::stand(&world);
    let mut trial =
        Trial::begin(&world, far, &quiet_by(port, &step("latency: { delay: 50ms, from: [\"any:9\"] }")));
    trial.injected();
    let few = Numbered { count: 60, ..PLAN };
    let to = |address: IpAddr, plan: Numbered| plan.send(&near.netns, &far.netns, (address, 9).into());
    // Our packets go by one device more.
    let outcomes = by_hand.no_worse(3, || to(far.v4, ROUND));
    for address in [far.v6, "10.78.0.2".parse().expect("an address")] {
        let outcome = to(address, few);
        let middle = median(outcome.took());
        assert!(outcome.lost().is_empty(), "{address}: {:?}", outcome.lost());
        assert!(middle >= DELAY && middle < DELAY * 2, "{address}: a median of {middle:?}");
    }
    let report = trial.halted();
    assert_eq!(evidence(&report)["engine"]["name"], "netem", "{report:#}");
    assert_eq!(evidence(&report)["matched"], evidence(&report)["engine"]["seen"], "{report:#}");
    for outcome in outcomes {
        assert!(outcome.lost().is_empty() && outcome.doubled() == 0, "{outcome:?}");
    }
    by_hand.end();
}

fn both_ways_take_both_halves() {
    needs!(Root, Nftables, Netem, Ifb);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let latency = "latency: { delay: 60ms, direction: both, engine: netem, to: [\"10.77.1.2:7\"] }";
    let mut trial = Trial::begin(&world, near, &calm(&[&step(latency)]));
    trial.injected();
    let mut open = echo.dial(near, far.v4).expect("reached");
    let answers = (0..5).map(|_| {
        let asked = Instant::now();
        open.talk().expect("answered");
        asked.elapsed()
    });
    let middle = median(answers.collect());
    let report = trial.halted();
    // Half of it each way.
    assert!(middle >= Duration::from_millis(60) && middle < Duration::from_millis(120), "{middle:?}");
    for way in 0..2 {
        assert_eq!(report["parts"][0]["evidence"][way]["engine"]["name"], "netem", "{report:#}");
    }
}
