//! A firewall is there: faults work in front of its accepts, on connections that its conntrack knows, and its rules are
//! the same afterwards (which the world compares, counters aside).

use std::time::Duration;

use squall_tests::client::Talk;
use squall_tests::netns::feed;
use squall_tests::service::Service;
use squall_tests::traffic::bulk;
use squall_tests::traffic::numbered::Numbered;
use squall_tests::traffic::round_trips;
use squall_tests::wait::{PATIENCE, holds, median};
use squall_tests::world::World;
use squall_tests::{needs, odds};

use crate::trial::{SHORT, Trial, calm, impaired, timed_out};

const FIREWALLD: &str = include_str!("firewalld.nft");
const UFW: &str = include_str!("ufw.rules");
const DOCKER: &str = include_str!("docker.rules");

const DELAY: Duration = Duration::from_millis(60);

/// A world whose first host has a firewall, with an echo server on each side and a connection that was there before.
struct Walled {
    world: World,
    there: Service,
    here: Service,
}

impl Walled {
    fn new(tool: &[&str], rules: &str) -> Self {
        let world = World::new(2);
        feed(Some(&world.hosts[0].netns), tool, rules).expect("the ruleset is loaded");
        world.as_found();
        let (there, here) = (world.echo(1, 7), world.echo(0, 7));
        Walled { world, there, here }
    }

    /// A connection through the firewall, known to it: from the walled host, or to it.
    fn open(&self, out: bool) -> Box<dyn Talk> {
        let [near, far] = &self.world.hosts[..] else { panic!("two hosts were asked for") };
        let dialled = if out { self.there.dial(near, far.v4) } else { self.here.dial(far, near.v4) };
        let mut open = dialled.expect("the firewall lets it through");
        open.talk().expect("answered through the firewall");
        open
    }

    /// Begins a fault on the walled host that lasts until the test has seen enough.
    fn fault(&self, fault: &str) -> Trial {
        let step = format!("{{ fault: {{ {fault} }}, for: 80s }}");
        let mut trial = Trial::begin(&self.world, &self.world.hosts[0], &calm(&[&step]));
        trial.injected();
        trial
    }

    /// Every fault in turn, each on a connection that was open and on new ones.
    fn every_fault(&self) {
        self.partition(true, "to: [\"10.77.1.2:7\"]");
        self.partition(false, "from: [\"any:7\"]");
        self.refuse();
        self.latency();
        self.loss();
        self.bandwidth();
    }

    fn partition(&self, out: bool, peers: &str) {
        let mut open = self.open(out);
        let trial = self.fault(&format!("partition: {{ {peers} }}"));
        let silent = open.talk().expect_err("an open connection is cut");
        assert!(timed_out(&silent), "{silent}");
        let [near, far] = &self.world.hosts[..] else { panic!("two hosts were asked for") };
        let (from, to) = if out { (near, far.v4) } else { (far, near.v4) };
        for _ in 0..3 {
            let silent = squall_tests::client::connect(&from.netns, (to, 7).into(), SHORT)
                .expect_err("a new connection is cut");
            assert!(timed_out(&silent), "{silent}");
        }
        assert!(impaired(&trial.halted()) >= 4);
        self.open(out);
    }

    fn refuse(&self) {
        let mut open = self.open(true);
        let trial = self.fault("refuse: { to: [\"10.77.1.2:7\"] }");
        let refused = open.talk().expect_err("an open connection is reset");
        assert!(!timed_out(&refused), "{refused}");
        let near = &self.world.hosts[0];
        for _ in 0..3 {
            let refused = self.there.dial(near, self.world.hosts[1].v4).err().expect("a new one is refused");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{refused}");
        }
        assert!(impaired(&trial.halted()) >= 4);
        self.open(true);
    }

    fn latency(&self) {
        let mut open = self.open(true);
        let control = median(round_trips(&mut *open, 9));
        let trial = self.fault("latency: { delay: 60ms, to: [\"10.77.1.2:7\"] }");
        let seen = round_trips(&mut *open, 9);
        assert!(seen.iter().all(|took| *took >= DELAY), "{seen:?} is early");
        let middle = median(seen);
        assert!(middle <= control + DELAY + DELAY * 3 / 10, "a median of {middle:?}, {control:?} without");
        assert!(impaired(&trial.halted()) >= 9);
    }

    fn loss(&self) {
        let [near, far] = &self.world.hosts[..] else { panic!("two hosts were asked for") };
        let trial = self.fault("loss: { percent: 20%, to: [\"10.77.1.2:9\"], direction: egress }");
        let plan = Numbered { count: 2000, rate: 2000, ..Numbered::default() };
        let outcome = plan.send(&near.netns, &far.netns, (far.v4, 9).into());
        let lost = u32::try_from(outcome.lost().len()).expect("no more than were sent");
        let allowed = odds::binomial(plan.count, 0.2, odds::ONE_IN_A_MILLION);
        assert!(allowed.contains(&lost), "{lost} lost, {allowed:?} expected");
        assert!(impaired(&trial.halted()) > 0);
    }
}

impl Walled {
    fn bandwidth(&self) {
        let [near, far] = &self.world.hosts[..] else { panic!("two hosts were asked for") };
        let trial = self.fault("bandwidth: { rate: 20Mbit/s, to: [\"10.77.1.2:9\"], direction: egress }");
        let seen = bulk::bits_per_second(&near.netns, &far.netns, (far.v4, 9).into(), Duration::from_secs(1));
        // Headers and what is sent twice are not counted; what waits in front of the line is, at the end.
        assert!(seen > 0.0 && seen <= 20e6, "{seen:.0} bit/s of 20 million");
        let impaired = impaired(&trial.halted());
        assert!(impaired >= 50, "{impaired} packets waited for the line");
    }
}

#[test]
fn a_host_with_firewalld() {
    needs!(Root, Nftables, Queue);
    Walled::new(&["nft", "-f", "-"], FIREWALLD).every_fault();
}

#[test]
fn a_host_with_ufw() {
    needs!(Root, Nftables, Queue, IptablesNft);
    Walled::new(&["iptables-nft-restore"], UFW).every_fault();
}

#[test]
fn a_host_with_docker() {
    needs!(Root, Nftables, Queue, IptablesNft);
    Walled::new(&["iptables-nft-restore"], DOCKER).every_fault();
}

/// Conntrack is off in a namespace until some rule asks it; then it watches everything there. No fault may do that: where
/// it is on, it knows of connections.
#[test]
fn no_fault_switches_conntrack_on() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let near = &world.hosts[0];
    let echo = world.echo(1, 7);
    let known = || {
        let list = near.netns.inside(|| std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack"));
        let list = list.expect("this kernel has conntrack");
        // The first column, in hexadecimal, is how many connections the namespace knows.
        let line = list.lines().nth(1).expect("a line for a processor").to_owned();
        u32::from_str_radix(line.split_whitespace().next().expect("a column"), 16).expect("a number")
    };
    let talks = || {
        let mut open = echo.dial(near, world.hosts[1].v4).expect("reached");
        open.talk().expect("answered");
        open
    };
    let _before = talks();
    assert_eq!(known(), 0, "conntrack was on before any fault");
    for fault in [
        "partition: { to: [\"10.77.1.2:9\"] }",
        "refuse: { to: [\"10.77.1.2:9\"] }",
        "latency: { delay: 10ms, to: [\"10.77.1.2:7\"] }",
        "loss: { percent: 5%, to: [\"10.77.1.2:9\"], direction: egress }",
        "disconnect: { to: [\"10.77.1.2:9\"] }",
    ] {
        let step = format!("{{ fault: {{ {fault} }}, for: 80s }}");
        let mut trial = Trial::begin(&world, near, &calm(&[&step]));
        trial.injected();
        let _open = talks();
        assert_eq!(known(), 0, "conntrack is on with `{fault}`");
        trial.run.signal(rustix::process::Signal::INT);
        trial.finish();
    }
    // The instrument sees it where it is on.
    near.look(&["nft", "add", "table", "inet", "own"]);
    near.look(&["nft", "add", "chain", "inet", "own", "out", "{ type filter hook output priority 0 ; }"]);
    near.look(&["nft", "add", "rule", "inet", "own", "out", "ct", "state", "new", "accept"]);
    let _after = talks();
    holds("conntrack to know a connection", PATIENCE, || known() > 0);
    near.look(&["nft", "delete", "table", "inet", "own"]);
}
