//! Faults on the same traffic: each applies, in a fixed order, and each is undone alone, in any order.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};
use rustix::process::Signal;
use squall_tests::client::Talk;
use squall_tests::netns::Netns;
use squall_tests::traffic::numbered::Numbered;
use squall_tests::traffic::round_trips;
use squall_tests::wait::{PATIENCE, holds, median};
use squall_tests::world::World;
use squall_tests::{needs, odds};

use crate::trial::{SHORT, Trial, calm, run};

/// The longest that any of these faults may last: each is ended before.
const LONG: &str = "for: 60s";

fn latency(milliseconds: u32, direction: &str) -> String {
    let fault =
        format!("latency: {{ delay: {milliseconds}ms, to: [\"10.77.1.2:7\"], direction: {direction} }}");
    calm(&[&format!("{{ fault: {{ {fault} }}, {LONG} }}")])
}

/// The median of some round trips is as much later than the control as was asked: never less, and beyond it by no more
/// than a busy machine adds.
#[track_caller]
fn later(talk: &mut dyn Talk, control: Duration, by: u64) {
    let (by, seen) = (Duration::from_millis(by), median(round_trips(talk, 9)));
    let most = control + by + (control + by / 10 + Duration::from_millis(1)) * 3;
    assert!((by..=most).contains(&seen), "{seen:?} with {by:?} added to {control:?}");
}

/// Two commands delay the same traffic; one of them is ended before the other.
fn sum(ways: [&str; 2], first_to_end: usize) {
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let mut talk = world.echo(1, 7).dial(near, far.v4).expect("reached");
    let control = median(round_trips(&mut *talk, 9));
    let delays = [40, 70];
    let mut trials = Vec::new();
    for (delay, way) in delays.into_iter().zip(ways) {
        let mut trial = Trial::begin(&world, near, &latency(delay, way));
        trial.injected();
        trials.push(trial);
    }
    later(&mut *talk, control, 110);
    let status = near.squall(&["status"]).run();
    for delay in delays {
        status.expect_told(&format!("delay by {delay}ms"));
    }
    let mut ending = trials.remove(first_to_end);
    ending.run.signal(Signal::INT);
    ending.finish().expect_exit(6);
    later(&mut *talk, control, delays[1 - first_to_end].into());
    let mut last = trials.remove(0);
    last.run.signal(Signal::INT);
    last.finish().expect_exit(6);
    later(&mut *talk, control, 0);
}

#[test]
fn two_delays_of_what_enters_add_up_and_the_first_ends_first() {
    needs!(Root, Nftables, Queue);
    sum(["ingress", "ingress"], 0);
}

#[test]
fn two_delays_of_what_enters_add_up_and_the_second_ends_first() {
    needs!(Root, Nftables, Queue);
    sum(["ingress", "ingress"], 1);
}

#[test]
fn two_delays_of_what_leaves_add_up_and_the_first_ends_first() {
    needs!(Root, Nftables, Queue);
    sum(["egress", "egress"], 0);
}

#[test]
fn two_delays_of_what_leaves_add_up_and_the_second_ends_first() {
    needs!(Root, Nftables, Queue);
    sum(["egress", "egress"], 1);
}

/// One command delays and another loses the same datagrams; one of them is ended before the other, and the other goes on
/// as it was.
fn late_and_lost(on: usize, traffic: &str, first_to_end: usize) {
    const DELAY: Duration = Duration::from_millis(60);
    const PLAN: Numbered =
        Numbered { count: 2000, rate: 2000, size: 64, quiet: Duration::from_millis(300), urgent: false };
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let faults =
        [format!("latency: {{ delay: 60ms, {traffic} }}"), format!("loss: {{ percent: 20%, {traffic} }}")];
    let mut trials = Vec::new();
    for fault in faults {
        let mut trial =
            Trial::begin(&world, &world.hosts[on], &calm(&[&format!("{{ fault: {{ {fault} }}, {LONG} }}")]));
        trial.injected();
        trials.push(trial);
    }
    let look = |late: bool, lost: bool| {
        let outcome = PLAN.send(&near.netns, &far.netns, (far.v4, 9).into());
        let allowed = if lost { odds::binomial(PLAN.count, 0.2, odds::ONE_IN_A_MILLION) } else { 0..=0 };
        let seen = u32::try_from(outcome.lost().len()).expect("no more than were sent");
        assert!(allowed.contains(&seen), "{seen} lost, {allowed:?} expected");
        // Whoever shares the machine may be late by itself, and nobody is early.
        let early = outcome.took().iter().filter(|took| **took < DELAY).count();
        assert_eq!(early == 0, late, "{early} of {} took less than {DELAY:?}", outcome.arrivals.len());
    };
    look(true, true);
    trials.remove(first_to_end).halted();
    look(first_to_end == 1, first_to_end == 0);
    trials.remove(0).halted();
    look(false, false);
}

const ENTERS: &str = "from: [\"any:9\"], direction: ingress";
const LEAVES: &str = "to: [\"10.77.1.2:9\"], direction: egress";

#[test]
fn what_enters_late_and_lost_is_lost_once_it_is_late_no_more() {
    needs!(Root, Nftables, Queue);
    late_and_lost(1, ENTERS, 0);
}

#[test]
fn what_enters_late_and_lost_is_late_once_it_is_lost_no_more() {
    needs!(Root, Nftables, Queue);
    late_and_lost(1, ENTERS, 1);
}

#[test]
fn what_leaves_late_and_lost_is_lost_once_it_is_late_no_more() {
    needs!(Root, Nftables, Queue);
    late_and_lost(0, LEAVES, 0);
}

#[test]
fn what_leaves_late_and_lost_is_late_once_it_is_lost_no_more() {
    needs!(Root, Nftables, Queue);
    late_and_lost(0, LEAVES, 1);
}

#[test]
fn delays_of_both_ways_add_up() {
    needs!(Root, Nftables, Queue);
    sum(["ingress", "egress"], 0);
}

/// Numbered datagrams to the second host while all of these faults are live on one host.
fn all_at_once(on: usize, faults: &[&str]) -> (squall_tests::traffic::numbered::Outcome, serde_json::Value) {
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let plan = Numbered { count: 4000, rate: 2000, ..Numbered::default() };
    let steps: Vec<String> =
        faults.iter().map(|fault| format!("{{ fault: {{ {fault} }}, for: 6s }}")).collect();
    let step = format!("{{ parallel: [{}] }}", steps.join(", "));
    let mut trial = Trial::begin(&world, &world.hosts[on], &calm(&[&step]));
    for part in 1..=faults.len() {
        trial.run.event(&trial.events, |event| event["event"] == "injected" && event["part"] == part);
    }
    let outcome = plan.send(&near.netns, &far.netns, (far.v4, 9).into());
    assert!(!trial.has("lifted"), "a fault was over before all was sent");
    (outcome, trial.finish().expect_exit(0).json())
}

/// What is lost, copied and late at once: a copy is as late as what it is a copy of.
fn every_fate(on: usize, traffic: &str) {
    let (outcome, report) = all_at_once(
        on,
        &[
            &format!("latency: {{ delay: 60ms, {traffic} }}"),
            &format!("loss: {{ percent: 20%, {traffic} }}"),
            &format!("duplicate: {{ percent: 20%, {traffic} }}"),
        ],
    );
    let allowed = |share| odds::binomial(outcome.sent, share, odds::ONE_IN_A_MILLION);
    let lost = u32::try_from(outcome.lost().len()).expect("no more than were sent");
    assert!(allowed(0.2).contains(&lost), "{lost} lost: {report:#}");
    // Of the four fifths that are left, a fifth arrives twice, wherever it was copied.
    let twice = [0.16, 0.2].map(allowed);
    assert!(
        (*twice[0].start()..=*twice[1].end()).contains(&outcome.doubled()),
        "{} came twice: {report:#}",
        outcome.doubled()
    );
    let least = outcome.took().into_iter().min().unwrap_or_default();
    assert!(least >= Duration::from_millis(60), "one took only {least:?}: {report:#}");
    for part in report["parts"].as_array().expect("parts") {
        assert_eq!(part["measured"], true, "{part:#}");
    }
}

#[test]
fn what_enters_is_lost_copied_and_late_at_once() {
    needs!(Root, Nftables, Queue);
    every_fate(1, "from: [\"any:9\"]");
}

#[test]
fn what_leaves_is_lost_copied_and_late_at_once() {
    needs!(Root, Nftables, Queue);
    every_fate(0, "to: [\"10.77.1.2:9\"], direction: egress");
}

#[test]
fn a_partition_cuts_what_is_late_and_its_end_leaves_it_late() {
    needs!(Root, Nftables, Queue);
    for way in ["ingress", "egress"] {
        let world = World::new(2);
        let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
        let echo = world.echo(1, 7);
        let mut talk = echo.dial(near, far.v4).expect("reached");
        let control = median(round_trips(&mut *talk, 9));
        let mut late = Trial::begin(&world, near, &latency(50, way));
        late.injected();
        later(&mut *talk, control, 50);
        let cut = calm(&[&format!("{{ fault: {{ partition: {{ to: [\"10.77.1.2\"] }} }}, {LONG} }}")]);
        let mut cut = Trial::begin(&world, near, &cut);
        cut.injected();
        echo.dial_within(near, far.v4, SHORT).err().expect("what is cut cannot be reached");
        cut.run.signal(Signal::INT);
        cut.finish().expect_exit(6);
        let mut talk = echo.dial(near, far.v4).expect("reached again");
        later(&mut *talk, control, 50);
        late.run.signal(Signal::INT);
        late.finish().expect_exit(6);
        later(&mut *talk, control, 0);
    }
}

#[test]
fn a_control_group_behind_what_sends_again_is_refused_in_words() {
    needs!(Root, Nftables, Queue, Cgroup2);
    let world = World::new(2);
    let near = &world.hosts[0];
    let (name, path) = world.cgroup("behind");
    let enter = format!("echo $$ >{}/cgroup.procs; exec sleep 600", path.display());
    world.program(0, None, &["bash", "-c", &enter]);
    holds("a process to be in the group", PATIENCE, || {
        std::fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty())
    });
    let to = "to: [\"10.77.1.2:7\"], direction: egress";
    let reorder = format!("reorder: {{ percent: 20%, late: 20ms, {to} }}");
    let mut first = Trial::begin(&world, near, &calm(&[&format!("{{ fault: {{ {reorder} }}, {LONG} }}")]));
    let holder = first.event("started")["run"].as_str().expect("a run has a name").to_owned();
    first.injected();
    let scoped =
        format!("{{ fault: {{ latency: {{ delay: 20ms, {to} }} }}, in: {{ cgroup: {name} }}, for: 2s }}");
    let refused = run(&world, near, &calm(&[&scoped]));
    refused.expect_exit(4).expect_told("control group").expect_told(&holder);
    assert!(!first.has("lifted"), "the first run must not be touched");
    first.run.signal(Signal::INT);
    first.finish().expect_exit(6);
}

/// Reads a queue of a namespace, as another program would, until it is dropped.
/// Source: `include/uapi/linux/netfilter/nfnetlink_queue.h`.
fn occupy(netns: &Netns, number: u16) -> OwnedFd {
    const CONFIG: u16 = 3 << 8 | 2;
    let [high, low] = number.to_be_bytes();
    let mut message = 28u32.to_ne_bytes().to_vec();
    message.extend(CONFIG.to_ne_bytes());
    // A request that wants an answer; its number and its sender.
    message.extend(5u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0, 0, high, low]);
    // An attribute of eight bytes, type 1, with the command to bind.
    message.extend(8u16.to_ne_bytes());
    message.extend(1u16.to_ne_bytes());
    message.extend([1, 0, 0, 0]);
    netns.inside(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)
            .expect("root may open netlink sockets");
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("a netlink socket can be bound");
        sendto(fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty()).expect("sent");
        let mut answer = [0; 256];
        recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("the kernel answers");
        let code = i32::from_ne_bytes(answer[16..20].try_into().expect("four bytes"));
        assert_eq!(code, 0, "cannot read queue {number}: {}", io::Error::from_raw_os_error(-code));
        fd
    })
}

#[test]
fn a_queue_that_another_program_reads_is_left_alone() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let queues = || {
        let listed = near.look(&["cat", "/proc/net/netfilter/nfnetlink_queue"]);
        let numbers: Vec<u16> =
            listed.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
        numbers
    };
    let mut talk = world.echo(1, 7).dial(near, far.v4).expect("reached");
    let control = median(round_trips(&mut *talk, 9));
    // The number that would be taken is known by looking.
    let mut trial = Trial::begin(&world, near, &latency(50, "ingress"));
    trial.injected();
    let [first] = queues()[..] else { panic!("one queue was to be read: {:?}", queues()) };
    trial.run.signal(Signal::INT);
    trial.finish().expect_exit(6);
    let other = occupy(&near.netns, first);
    let mut trial = Trial::begin(&world, near, &latency(50, "ingress"));
    trial.injected();
    assert!(queues().len() == 2 && queues().contains(&first), "{:?}", queues());
    later(&mut *talk, control, 50);
    trial.run.signal(Signal::INT);
    trial.finish().expect_exit(6);
    assert_eq!(queues(), [first], "the other program keeps its queue");
    drop(other);
}
