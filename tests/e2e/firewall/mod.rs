//! A firewall is there: faults work in front of its accepts, on connections that its conntrack knows, and its rules are
//! the same afterwards (which the world compares, counters aside).

use std::time::Duration;

use squall_tests::client::Talk;
use squall_tests::docker::Docker;
use squall_tests::netns::feed;
use squall_tests::service::Service;
use squall_tests::skip::{self, Need};
use squall_tests::traffic::bulk;
use squall_tests::traffic::numbered::{Numbered, Outcome};
use squall_tests::traffic::ping::Ping;
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
        Walled::in_world(world)
    }

    /// In a world whose first host has its firewall already.
    fn in_world(world: World) -> Self {
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
        self.fates();
        self.disconnect();
        self.outage();
        self.world.restored(PATIENCE);
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
    /// What becomes of numbered datagrams from the walled host, or to it, while a fault is live.
    fn numbered(&self, out: bool, fault: &str) -> Outcome {
        let [near, far] = &self.world.hosts[..] else { panic!("two hosts were asked for") };
        let (from, to) = if out { (near, far) } else { (far, near) };
        let peers = if out {
            "to: [\"10.77.1.2:9\"], direction: egress"
        } else {
            "from: [\"any:9\"], direction: ingress"
        };
        let (name, parameters) = fault.split_once(' ').expect("a fault with parameters");
        let trial = self.fault(&format!("{name}: {{ {parameters}, {peers} }}"));
        let plan = Numbered { count: 1000, rate: 2000, ..Numbered::default() };
        let outcome = plan.send(&from.netns, &to.netns, (to.v4, 9).into());
        assert!(impaired(&trial.halted()) >= 100, "{fault}, out: {out}");
        outcome
    }

    /// What the other engines of a bad network do, each way.
    fn fates(&self) {
        let count = |list: Vec<u32>| u32::try_from(list.len()).expect("no more than were sent");
        let fifth = odds::binomial(1000, 0.2, odds::ONE_IN_A_MILLION);
        for out in [true, false] {
            let twice = self.numbered(out, "duplicate percent: 20%");
            assert!(
                fifth.contains(&twice.doubled()) && twice.lost().is_empty(),
                "{} doubled",
                twice.doubled()
            );
            let damaged = count(self.numbered(out, "corrupt percent: 20%").lost());
            assert!(fifth.contains(&damaged), "{damaged} damaged, out: {out}");
            let late = self.numbered(out, "reorder percent: 20%, late: 20ms");
            assert!(
                fifth.contains(&late.overtaken()) && late.lost().is_empty(),
                "{} overtaken",
                late.overtaken()
            );
            let bad = self.numbered(out, "degrade delay: 30ms, loss: 20%");
            let least = bad.took().into_iter().min().unwrap_or_default();
            assert!(least >= Duration::from_millis(30), "{least:?} is early");
            let lost = count(bad.lost());
            assert!(fifth.contains(&lost), "{lost} lost, out: {out}");
        }
        let lost = count(self.numbered(false, "loss percent: 20%").lost());
        assert!(fifth.contains(&lost), "{lost} of what came in were lost");
    }

    fn disconnect(&self) {
        for (out, peers) in [(true, "to: [\"10.77.1.2:7\"]"), (false, "from: [\"any:7\"]")] {
            let mut open: Vec<_> = (0..3).map(|_| self.open(out)).collect();
            let trial = self.fault(&format!("disconnect: {{ {peers} }}"));
            for connection in &mut open {
                connection.talk().expect_err("it is destroyed");
            }
            assert_eq!(impaired(&trial.halted()), 3);
            self.open(out);
        }
    }

    fn outage(&self) {
        if let Some(why) = [Need::Bpf, Need::Cgroup2].into_iter().find_map(Need::missing) {
            return skip::log(&why);
        }
        let near = &self.world.hosts[0];
        let trial = self.fault("outage: { of: \"10.77.1.2:7\", how: reset }");
        for _ in 0..4 {
            let broken = self.there.dial(near, self.world.hosts[1].v4).and_then(|mut talk| talk.talk());
            broken.expect_err("what is called is out");
        }
        assert!(impaired(&trial.halted()) >= 4);
        self.open(true);
    }

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

/// A daemon writes the rules that it wants itself, and has a container behind its bridge, whose network is met as well.
#[test]
fn a_host_with_the_rules_of_a_docker_daemon() {
    needs!(Root, Nftables, Queue, IptablesNft, Docker);
    let world = World::new(2);
    // An address of their own, which the kernel gives after a while, would be a difference.
    world.hosts[0].look(&["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode"]);
    let docker = Docker::with_its_rules(&world, &world.hosts[0]);
    let name = world.directory.file_name().expect("the directory has a name").to_string_lossy().into_owned();
    let shop = docker.run(&name, &["-p", "8080:80"]);
    let rules = world.hosts[0].look(&["iptables-nft-save"]);
    assert!(rules.contains("--to-destination 172.17.0.2:80"), "Docker wrote no rules of its own:\n{rules}");
    let address = "172.17.0.2".parse().expect("an address");
    let ping = || Ping::to(&world.hosts[0].netns, address, SHORT * 5).expect("a raw socket opens");
    let control = median(round_trips(&mut ping(), 9));
    world.as_found();
    let late =
        format!("{{ fault: {{ latency: {{ delay: 60ms }} }}, in: {{ container: {name} }}, for: 80s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&late]));
    trial.injected();
    let seen = median(round_trips(&mut ping(), 9));
    assert!(seen >= DELAY && seen <= control + DELAY * 13 / 10, "a median of {seen:?}, {control:?} without");
    trial.halted();
    assert!(shop.inside(&["nft", "list", "tables"]).is_empty());
    world.restored(PATIENCE);
    drop(docker);
    // What the daemon leaves behind is its own: its rules stay, its container's do not.
    Walled::in_world(world).every_fault();
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
