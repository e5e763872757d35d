//! Faults of several runs on one host: what does not concern the same packets stands side by side and ends in any order;
//! what does is refused, and it is said by which words the two meet.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;
use squall_tests::host::Host;
use squall_tests::service::Service;
use squall_tests::traffic::numbered::Numbered;
use squall_tests::traffic::round_trips;
use squall_tests::wait::median;
use squall_tests::world::World;
use squall_tests::{needs, odds};

use crate::scope::{Client, KNOCK};
use crate::trial::{SHORT, Trial, calm, impaired, run, timed_out};

/// How many datagrams are sent.
const MANY: usize = 40;

fn begun(world: &World, fault: &str) -> Trial {
    let mut trial =
        Trial::begin(world, &world.hosts[0], &calm(&[&format!("{{ fault: {{ {fault} }}, for: 90s }}")]));
    trial.injected();
    trial
}

/// A latency of one port, a loss of a second and a partition of a third, each of a run of its own.
struct Three {
    world: World,
    late: Service,
    cut: Service,
    control: Duration,
}

impl Three {
    const FAULTS: [&str; 3] = [
        "latency: { delay: 60ms, to: [\"10.77.1.2:7\"] }",
        "loss: { percent: 20%, to: [\"10.77.1.2:9\"], direction: egress }",
        "partition: { to: [\"10.77.1.2:70\"] }",
    ];

    fn new() -> Self {
        let world = World::new(2);
        let (late, cut) = (world.echo(1, 7), world.echo(1, 70));
        let mut talk = late.dial(&world.hosts[0], world.hosts[1].v4).expect("reached");
        let control = median(round_trips(&mut *talk, 9));
        Three { world, late, cut, control }
    }

    /// Each is what it should be, and none touches what is another's.
    fn look(&self, [late, lossy, cut]: [bool; 3]) {
        let [near, far] = &self.world.hosts[..] else { panic!("two hosts were asked for") };
        let mut talk = self.late.dial(near, far.v4).expect("reached");
        let (seen, delay) = (median(round_trips(&mut *talk, 9)), Duration::from_millis(60));
        assert_eq!(seen >= delay, late, "{seen:?}, {:?} without a fault", self.control);
        let plan = Numbered { count: 600, rate: 2000, ..Numbered::default() };
        let lost = plan.send(&near.netns, &far.netns, (far.v4, 9).into()).lost().len();
        let lost = u32::try_from(lost).expect("no more than were sent");
        let share = if lossy { 0.2 } else { 0.0 };
        let allowed = odds::binomial(plan.count, share, odds::ONE_IN_A_MILLION);
        assert!(allowed.contains(&lost), "{lost} lost, {allowed:?} expected");
        for _ in 0..4 {
            let reached = self.cut.dial_within(near, far.v4, SHORT);
            assert_eq!(reached.is_err(), cut, "{:?}", reached.err());
        }
    }

    fn end_in(order: [usize; 3]) {
        let three = Three::new();
        let mut trials: Vec<Option<Trial>> =
            Three::FAULTS.iter().map(|fault| Some(begun(&three.world, fault))).collect();
        let mut live = [true; 3];
        three.look(live);
        for one in order {
            let report = trials[one].take().expect("each ends once").halted();
            assert!(impaired(&report) >= 3, "{report:#}");
            live[one] = false;
            three.look(live);
        }
        // What the host is like is compared at the world's end.
    }
}

#[test]
fn the_late_the_lossy_and_the_cut_end() {
    needs!(Root, Nftables, Queue);
    Three::end_in([0, 1, 2]);
}

#[test]
fn the_late_the_cut_and_the_lossy_end() {
    needs!(Root, Nftables, Queue);
    Three::end_in([0, 2, 1]);
}

#[test]
fn the_lossy_the_late_and_the_cut_end() {
    needs!(Root, Nftables, Queue);
    Three::end_in([1, 0, 2]);
}

#[test]
fn the_lossy_the_cut_and_the_late_end() {
    needs!(Root, Nftables, Queue);
    Three::end_in([1, 2, 0]);
}

#[test]
fn the_cut_the_late_and_the_lossy_end() {
    needs!(Root, Nftables, Queue);
    Three::end_in([2, 0, 1]);
}

#[test]
fn the_cut_the_lossy_and_the_late_end() {
    needs!(Root, Nftables, Queue);
    Three::end_in([2, 1, 0]);
}

fn in_group(world: &World, name: &str) -> (String, Client) {
    let (group, path) = world.cgroup(name);
    (group, Client::start(world, name, None, KNOCK, Some(&path)))
}

#[test]
fn two_control_groups_are_refused_the_same_peer_and_each_has_its_own_end() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(2);
    world.echo(1, 7);
    let near = &world.hosts[0];
    let (one, first) = in_group(&world, "first");
    let (two, second) = in_group(&world, "second");
    let spared = Client::start(&world, "spared", None, KNOCK, None);
    let refuse = |scope: &str| {
        calm(&[&format!("{{ fault: {{ refuse: {{ to: [\"10.77.1.2:7\"] }} }}, in: {scope}, for: 90s }}")])
    };
    let mut one_refused = Trial::begin(&world, near, &refuse(&format!("{{ cgroup: {one} }}")));
    one_refused.injected();
    let mut two_refused = Trial::begin(&world, near, &refuse(&format!("{{ cgroup: {two} }}")));
    two_refused.injected();
    first.more(5, "bad");
    second.more(5, "bad");
    // Its packets are those of a group that is refused already.
    let twice = run(&world, near, &refuse(&format!("{{ process: {{ pid: {} }} }}", first.process.pid)));
    twice.expect_exit(4).expect_told("may have the same sockets");
    assert!(impaired(&one_refused.halted()) >= 5);
    first.more(5, "ok");
    second.more(5, "bad");
    assert!(impaired(&two_refused.halted()) >= 5);
    second.more(5, "ok");
    assert_eq!(spared.count("bad"), 0, "somebody outside of both was refused");
}

#[test]
fn two_processes_are_refused_the_same_peer_and_each_has_its_own_end() {
    needs!(Root, Nftables, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let clients = ["first", "second", "spared"].map(|name| Client::start(&world, name, None, KNOCK, None));
    let [first, second, spared] = &clients;
    let refused = |client: &Client| {
        let pid = client.process.pid;
        let step = format!(
            "{{ fault: {{ refuse: {{ to: [\"10.77.1.2:7\"] }} }}, in: {{ process: {{ pid: {pid} }} }}, for: 90s }}"
        );
        let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
        trial.injected();
        trial
    };
    let (one, two) = (refused(first), refused(second));
    first.more(5, "bad");
    second.more(5, "bad");
    assert!(impaired(&two.halted()) >= 5);
    second.more(5, "ok");
    first.more(5, "bad");
    assert!(impaired(&one.halted()) >= 5);
    first.more(5, "ok");
    assert_eq!(spared.count("bad"), 0, "somebody outside of both was refused");
}

/// A client that waits for its answer, all in one process.
const ASK: &str = "while :; do if { echo hello >&3 && read -t 5 x <&3; } 3<>/dev/tcp/$0/7; then echo ok; else echo bad; fi; \
                   sleep 0.02; done >>$1 2>/dev/null";

#[test]
fn two_processes_lose_the_same_dependency_and_each_has_its_own_end() {
    needs!(Root, Nftables, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let clients = ["first", "second", "spared"].map(|name| Client::start(&world, name, None, ASK, None));
    let [first, second, spared] = &clients;
    let lost = |client: &Client| {
        let pid = client.process.pid;
        let outage = "outage: { of: \"10.77.1.2:7\", how: reset }";
        let step = format!("{{ fault: {{ {outage} }}, in: {{ process: {{ pid: {pid} }} }}, for: 90s }}");
        let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
        trial.injected();
        trial
    };
    let (one, two) = (lost(first), lost(second));
    first.more(5, "bad");
    second.more(5, "bad");
    assert!(impaired(&one.halted()) >= 5);
    first.more(5, "ok");
    second.more(5, "bad");
    assert!(impaired(&two.halted()) >= 5);
    second.more(5, "ok");
    assert_eq!(spared.count("bad"), 0, "somebody outside of both lost it");
}

/// How many of some datagrams arrive. Nothing holds them, so they are there as soon as they are sent.
fn arrive(from: &Host, to: &Host) -> usize {
    let address = SocketAddr::new(to.v4, 9);
    let receiver = to.netns.inside(|| UdpSocket::bind(address).expect("the port is free"));
    let sender = from.netns.inside(|| UdpSocket::bind("0.0.0.0:0").expect("some port is free"));
    receiver.set_read_timeout(Some(SHORT)).expect("a time-out can be set");
    for _ in 0..MANY {
        // Where what leaves is cut, the sender is told.
        let _ = sender.send_to(b"hello", address);
    }
    (0..MANY).take_while(|_| receiver.recv(&mut [0; 16]).is_ok()).count()
}

#[test]
fn what_leaves_and_what_enters_are_cut_by_two_runs() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let cut = |way| begun(&world, &format!("partition: {{ to: [\"10.77.1.2\"], direction: {way} }}"));
    let (out, into) = (cut("egress"), cut("ingress"));
    assert_eq!((arrive(near, far), arrive(far, near)), (0, 0));
    assert!(impaired(&out.halted()) >= MANY as u64);
    assert_eq!((arrive(near, far), arrive(far, near)), (MANY, 0));
    assert!(impaired(&into.halted()) >= MANY as u64);
    assert_eq!((arrive(near, far), arrive(far, near)), (MANY, MANY));
}

#[test]
fn whom_a_host_calls_and_who_calls_it_are_cut_by_two_runs() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let (there, here) = (world.echo(1, 7), world.echo(0, 70));
    let hangs = |service: &Service, from: &Host, to: &Host| {
        let error = service.dial_within(from, to.v4, SHORT).err();
        error.is_some_and(|error| timed_out(&error))
    };
    let called = begun(&world, "partition: { to: [\"any:7\"] }");
    let calling = begun(&world, "partition: { from: [\"any:70\"] }");
    for _ in 0..4 {
        assert!(hangs(&there, near, far) && hangs(&here, far, near));
    }
    called.halted();
    assert!(!hangs(&there, near, far) && hangs(&here, far, near));
    calling.halted();
    assert!(!hangs(&there, near, far) && !hangs(&here, far, near));
}

#[test]
fn who_meets_whom_is_said_and_what_is_left_out_is_free() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let near = &world.hosts[0];
    let (echo, second) = (world.echo(1, 7), world.echo(1, 70));
    let far = world.hosts[1].v4;
    let first = begun(&world, "partition: { to: [\"10.77.1.2/31\"], except: [\"any:70\"] }");
    let cut = |fault: &str| run(&world, near, &calm(&[&format!("{{ fault: {{ {fault} }}, for: 90s }}")]));
    let met = cut("refuse: { to: [\"10.99.0.1\", \"10.77.1.2:7\"] }");
    met.expect_exit(4)
        .expect_told("`to: 10.77.1.2:7` and `to: 10.77.1.2/31` have packets in common")
        .expect_told("drop packets to 10.77.1.2/31");
    cut("partition: { from: [\"10.77.1.2\"] }")
        .expect_exit(4)
        .expect_told("`from: 10.77.1.2` and `to: 10.77.1.2/31` have packets in common");
    let beside = begun(&world, "refuse: { to: [\"10.77.1.2:70\"] }");
    for _ in 0..4 {
        let refused = second.dial(near, far).err().expect("it is refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
        assert!(timed_out(&echo.dial_within(near, far, SHORT).err().expect("it is cut")));
    }
    beside.halted();
    second.dial(near, far).expect("nothing is refused any more");
    let mut first = first;
    first.run.signal(Signal::INT);
    first.finish().expect_exit(6);
    echo.dial(near, far).expect("nothing is cut any more");
}
