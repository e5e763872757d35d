//! The packet engine by itself, between two hosts, without an agent around it: what the end-to-end suite cannot look at.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{SockProtocol, setsockopt, sockopt};
use squall_agent::host::netlink::Socket;
use squall_agent::host::nft::{self, Hook};
use squall_agent::host::queue::{Orders, Queue, drain};
use squall_agent::host::rule::Rule;
use squall_experiments::evidence::Engine;
use squall_experiments::impairment::{Chance, Delay, Distribution, Impairment, LossModel};
use squall_experiments::quantity::Percent;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

const TABLE: &str = "engine-test";
const CHAIN: &str = "shape";
/// The level of the engine under test in the packets' marks.
const LEVEL: u32 = 0x0100_0000;
const LEVELS: u32 = 0x0f00_0000;

/// An engine with one rule that sends it everything of one hook, except what comes or goes by loopback.
struct Shaped {
    queue: Queue,
    table: Socket,
}

impl Shaped {
    fn begin(host: &Host, hook: Hook, impairment: Impairment) -> Self {
        host.netns.inside(|| {
            let mut queue = Queue::bind().expect("a number is free");
            let orders = Orders { impairment, hook, limit: 4096, seed: [7; 32], mark: (LEVEL, LEVELS) };
            queue.run(orders).expect("the engine starts");
            let mut table = Socket::open(SockProtocol::NetlinkNetFilter).expect("netfilter answers");
            let mut install = |native| {
                let rule = Rule::commented(TABLE).not_loopback(hook).mark_at_most(LEVELS, 0);
                table.request(nft::batch(vec![
                    nft::new_owned_table(TABLE),
                    nft::new_base_chain(TABLE, CHAIN, hook, -305),
                    rule.queue(queue.number(), native).append(TABLE, CHAIN),
                ]))
            };
            install(true).or_else(|_| install(false)).expect("the kernel has one of both targets");
            Shaped { queue, table }
        })
    }

    /// Takes the rule out; the chain stays, or what is held would be lost.
    fn close(&mut self) {
        for rule in self.table.dump(&nft::list_rules(Some(TABLE))).expect("the rule can be listed") {
            let delete = nft::delete_rule(TABLE, CHAIN, nft::listed(&rule).handle);
            self.table.request(nft::batch(vec![delete])).expect("the rule can be deleted");
        }
    }

    fn end(mut self) -> Engine {
        self.close();
        self.queue.stop().0
    }
}

fn late(delay: Duration, jitter: Duration, reordering: bool) -> Impairment {
    let delay = Delay {
        delay: delay.into(),
        jitter: jitter.into(),
        distribution: Distribution::Uniform,
        correlation: Percent::default(),
        reordering,
    };
    Impairment { delay: Some(delay), ..Impairment::default() }
}

fn doubled() -> Impairment {
    let always = Chance { percent: Percent::ALL, correlation: Percent::default() };
    Impairment { duplicate: Some(always), ..Impairment::default() }
}

/// A socket on the second host, and one on the first that sends to it.
fn pair(world: &World, address: impl Fn(&Host) -> SocketAddr + Sync) -> (UdpSocket, UdpSocket) {
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let receiver = far.netns.inside(|| UdpSocket::bind(address(far)).expect("the address is the host's"));
    setsockopt(&receiver, sockopt::RcvBufForce, &(8 << 20)).expect("root may have a large buffer");
    receiver.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let sender = near.netns.inside(|| UdpSocket::bind(address(near)).expect("the address is the host's"));
    let mut to = receiver.local_addr().expect("it is bound");
    if let (SocketAddr::V6(to), Ok(SocketAddr::V6(own))) = (&mut to, sender.local_addr()) {
        to.set_scope_id(own.scope_id());
    }
    sender.connect(to).expect("there is a route");
    (sender, receiver)
}

fn v4(host: &Host) -> SocketAddr {
    (host.v4, 0).into()
}

fn v6(host: &Host) -> SocketAddr {
    (host.v6, 0).into()
}

/// The length of the next datagram. A read with a time-out is interrupted when the machine stands still meanwhile.
fn next(receiver: &UdpSocket, bytes: &mut [u8]) -> usize {
    loop {
        match receiver.recv(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            came => return came.expect("as many arrive as were sent"),
        }
    }
}

fn numbers(receiver: &UdpSocket, count: u32) -> Vec<u32> {
    let one = || {
        let mut bytes = [0; 4];
        next(receiver, &mut bytes);
        u32::from_be_bytes(bytes)
    };
    (0..count).map(|_| one()).collect()
}

fn send_numbers(sender: &UdpSocket, count: u32) {
    for number in 0..count {
        sender.send(&number.to_be_bytes()).expect("the kernel takes it");
    }
}

/// How many queues of a host somebody reads.
fn queues(host: &Host) -> usize {
    host.look(&["cat", "/proc/net/netfilter/nfnetlink_queue"]).lines().count()
}

#[test]
fn a_queue_takes_a_free_number_and_gives_it_back() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    let (one, other) = host.netns.inside(|| (Queue::bind().unwrap(), Queue::bind().unwrap()));
    assert_ne!(one.number(), other.number());
    assert_eq!(queues(host), 2);
    // As the guardian does: its duplicate must not keep the number.
    let duplicate = one.socket().try_clone_to_owned().unwrap();
    drop(one);
    assert_eq!(queues(host), 1);
    drop(duplicate);
    drop(other);
    assert_eq!(queues(host), 0);
}

/// The kernel cuts a long datagram behind the hook at which the engine takes it, and a raw socket cuts nothing.
#[test]
fn long_datagrams_that_are_late_on_their_way_out_arrive_whole() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let delay = Duration::from_millis(20);
    for (address, longest) in [(v4 as fn(&Host) -> SocketAddr, 65_507), (v6, 65_527)] {
        let (sender, receiver) = pair(&world, address);
        let shaped = Shaped::begin(&world.hosts[0], Hook::Output, late(delay, Duration::ZERO, false));
        // The last two are longer than what the kernel hands over of a packet.
        for length in [100, 1400, 1500, 8000, 60_000, 65_500, longest] {
            let sent: Vec<u8> = (0..length).map(|index| (index % 253) as u8).collect();
            let begun = Instant::now();
            sender.send(&sent).unwrap();
            let mut bytes = vec![0; 65_536];
            let received = next(&receiver, &mut bytes);
            assert!(begun.elapsed() >= delay, "{length} bytes were early");
            assert!(bytes[..received] == sent, "{length} bytes are not the same");
        }
        // Those that the kernel holds and those that the engine has taken do not overtake each other.
        let lengths = [65_507, 50, 65_506, 65_505, 51, 52];
        for length in lengths {
            sender.send(&vec![0; length]).unwrap();
        }
        let mut bytes = vec![0; 65_536];
        assert_eq!(lengths.map(|_| next(&receiver, &mut bytes)), lengths);
        let counts = shaped.end();
        assert_eq!((counts.delayed, counts.mislaid, counts.overflowed), (counts.seen, 0, 0), "{counts:?}");
    }
}

/// Half of everything is lost in a burst; gives which numbers, and what the engine did. `room`: of its socket, in bytes.
fn lost_in_a_burst(world: &World, room: Option<usize>) -> (Vec<u32>, Engine) {
    const BURST: u32 = 2000;
    let percent: Percent = "50%".parse().expect("a percentage");
    let half = Chance { percent, correlation: Percent::default() };
    let impairment = Impairment { loss: Some(LossModel::Random(half)), ..Impairment::default() };
    let (sender, receiver) = pair(world, v4);
    let mut shaped = Shaped::begin(&world.hosts[1], Hook::Input, impairment);
    if let Some(room) = room {
        setsockopt(&shaped.queue.socket(), sockopt::RcvBuf, &room).expect("it may be smaller");
    }
    send_numbers(&sender, BURST);
    // The last ones are only known to have passed by what comes behind them.
    holds("the burst to be over", PATIENCE, || {
        sender.send(&BURST.to_be_bytes()).expect("the kernel takes it");
        shaped.queue.counts().seen > BURST.into()
    });
    let counts = shaped.end();
    receiver.set_nonblocking(true).expect("it may be");
    let mut missing: BTreeSet<u32> = (0..BURST).collect();
    let mut bytes = [0; 4];
    while receiver.recv(&mut bytes).is_ok() {
        missing.remove(&u32::from_be_bytes(bytes));
    }
    (missing.into_iter().collect(), counts)
}

/// A socket that is full costs the packets that find it so their fate, and no others.
#[test]
fn what_finds_the_socket_full_passes_is_counted_apart_and_shifts_nobodys_fate() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let mut said = String::new();
    // A packet of somebody else's, such as a neighbour's greeting, would have a number, too: hardly three times.
    for _ in 0..3 {
        let (all, roomy) = lost_in_a_burst(&world, None);
        let (some, cramped) = lost_in_a_burst(&world, Some(1));
        assert_eq!((roomy.overrun, roomy.overflowed, cramped.overflowed), (0, 0, 0), "{roomy:?} {cramped:?}");
        assert!(cramped.overrun > 0, "nothing found the socket full: {cramped:?}");
        assert!(!some.is_empty() && some.len() < all.len(), "{} and {} are lost", some.len(), all.len());
        if some.iter().all(|number| all.contains(number)) {
            return;
        }
        said = format!("{all:?}\n{some:?}");
    }
    panic!("a full socket changed what befell others:\n{said}");
}

/// What is too long to be copied is said, not forgotten.
#[test]
fn datagrams_that_are_too_long_to_be_doubled_pass_and_are_counted() {
    needs!(Root, Nftables);
    let world = World::new(2);
    for (host, hook) in [(0, Hook::Output), (1, Hook::Input)] {
        let (sender, receiver) = pair(&world, v4);
        let shaped = Shaped::begin(&world.hosts[host], hook, doubled());
        for length in [65_507, 100] {
            sender.send(&vec![0; length]).unwrap();
        }
        let mut bytes = vec![0; 65_536];
        assert_eq!([0; 3].map(|_| next(&receiver, &mut bytes)), [65_507, 100, 100], "{hook:?}");
        let counts = shaped.end();
        assert_eq!((counts.seen, counts.duplicated, counts.oversized), (2, 1, 1), "{hook:?}: {counts:?}");
    }
}

/// The kernel drops what a queue holds when its reader goes without letting go, for all that its rules let pass what
/// nobody reads (`instance_destroy` in `net/netfilter/nfnetlink_queue.c`): why every end lets go first.
#[test]
fn what_a_queue_holds_is_lost_when_it_is_given_up_and_what_comes_then_passes() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let (sender, receiver) = pair(&world, v4);
    let hour = late(Duration::from_secs(3600), Duration::ZERO, false);
    let mut shaped = Shaped::begin(&world.hosts[1], Hook::Input, hour);
    send_numbers(&sender, 100);
    holds("the packets to be held", PATIENCE, || shaped.queue.counts().delayed == 100);
    shaped.queue.unbind();
    for number in 100..110u32 {
        sender.send(&number.to_be_bytes()).expect("the kernel takes it");
    }
    assert_eq!(numbers(&receiver, 10), (100..110).collect::<Vec<_>>());
}

#[test]
fn link_local_addresses_are_found_again() {
    needs!(Root, Nftables);
    let world = World::new(2);
    for (host, link, address) in [(0, "to1", "fe80::1/64"), (1, "to0", "fe80::2/64")] {
        world.hosts[host].look(&["ip", "address", "add", address, "dev", link, "nodad"]);
    }
    world.as_found();
    let address = |host: &Host| {
        let side = u16::from(host.v6 == world.hosts[1].v6);
        let link = if side == 0 { "to1" } else { "to0" };
        let line = host.look(&["ip", "-o", "link", "show", link]);
        let index = line.split(':').next().and_then(|index| index.parse().ok()).expect("an index");
        SocketAddr::V6(SocketAddrV6::new([0xfe80, 0, 0, 0, 0, 0, 0, side + 1].into(), 0, 0, index))
    };
    let (sender, receiver) = pair(&world, address);
    for (host, hook) in [(0, Hook::Output), (1, Hook::Input)] {
        let held = late(Duration::from_millis(5), Duration::ZERO, false);
        for impairment in [doubled(), Impairment { delay: held.delay, ..doubled() }] {
            let shaped = Shaped::begin(&world.hosts[host], hook, impairment);
            sender.send(&[0, 0, 0, 5]).unwrap();
            assert_eq!(numbers(&receiver, 2), [5, 5]);
            assert_eq!(shaped.end().mislaid, 0);
        }
    }
}

#[test]
fn jitter_keeps_the_order_of_a_connection_unless_asked_otherwise() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let (delay, jitter) = (Duration::from_millis(20), Duration::from_millis(20));
    for (host, hook) in [(0, Hook::Output), (1, Hook::Input)] {
        for (address, reordering) in [(v4 as fn(&Host) -> SocketAddr, false), (v6, false), (v4, true)] {
            let (sender, receiver) = pair(&world, address);
            let shaped = Shaped::begin(&world.hosts[host], hook, late(delay, jitter, reordering));
            send_numbers(&sender, 200);
            let arrived = numbers(&receiver, 200);
            assert_eq!(arrived.is_sorted(), !reordering, "{hook:?}: {arrived:?}");
            let mut all = arrived;
            all.sort_unstable();
            assert_eq!(all, (0..200).collect::<Vec<_>>());
            shaped.end();
        }
    }
}

#[test]
fn an_engine_that_ends_lets_everything_go_in_order() {
    needs!(Root, Nftables);
    let world = World::new(2);
    for (host, hook) in [(0, Hook::Output), (1, Hook::Input)] {
        let (sender, receiver) = pair(&world, v4);
        let hour = late(Duration::from_secs(3600), Duration::ZERO, false);
        let mut shaped = Shaped::begin(&world.hosts[host], hook, hour);
        send_numbers(&sender, 100);
        holds("the packets to be held", PATIENCE, || shaped.queue.counts().delayed == 100);
        shaped.close();
        let Shaped { queue, table } = shaped;
        drop(queue);
        assert_eq!(numbers(&receiver, 100), (0..100).collect::<Vec<_>>(), "{hook:?}");
        drop(table);
        assert_eq!(queues(&world.hosts[host]), 0);
    }
}

#[test]
fn whoever_has_a_duplicate_of_the_socket_lets_everything_go() {
    needs!(Root, Nftables);
    let world = World::new(2);
    // Not over IPv6: the question for the neighbour's address would be held, too.
    let (sender, receiver) = pair(&world, v4);
    let hour = late(Duration::from_secs(3600), Duration::ZERO, false);
    let mut shaped = Shaped::begin(&world.hosts[1], Hook::Input, hour);
    let duplicate = shaped.queue.socket().try_clone_to_owned().unwrap();
    send_numbers(&sender, 100);
    holds("the packets to be held", PATIENCE, || shaped.queue.counts().delayed == 100);
    shaped.close();
    let number = shaped.queue.number();
    // Not how often it found some: the engine is there and may read the kernel's answers first.
    drain(duplicate.as_fd(), number).unwrap();
    assert_eq!(numbers(&receiver, 100), (0..100).collect::<Vec<_>>());
    drop(shaped);
    assert_eq!(drain(duplicate.as_fd(), number).unwrap(), 0, "there is no such queue");
}

/// What is sent again keeps the mark of its sender, and shows the rules behind how far it has come.
#[test]
fn what_is_sent_again_carries_its_own_mark_and_the_level() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let near = &world.hosts[0];
    let (sender, receiver) = pair(&world, v4);
    setsockopt(&sender, sockopt::Mark, &0x5a).expect("root may set marks");
    let shaped = Shaped::begin(near, Hook::Output, late(Duration::from_millis(1), Duration::ZERO, false));
    near.look(&["nft", "add table ip later; add chain ip later out { type filter hook output priority 0; }"]);
    let port = receiver.local_addr().expect("it is bound").port();
    near.look(&["nft", &format!("add rule ip later out udp dport {port} meta mark 0x0100005a counter")]);
    near.look(&["nft", &format!("add rule ip later out udp dport {port} counter")]);
    send_numbers(&sender, 10);
    numbers(&receiver, 10);
    let rules = near.look(&["nft", "list", "table", "ip", "later"]);
    near.look(&["nft", "delete", "table", "ip", "later"]);
    assert_eq!(rules.matches("counter packets 10 ").count(), 2, "{rules}");
    shaped.end();
}

#[test]
fn an_engine_answers_until_it_has_ended() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let mut shaped = Shaped::begin(&world.hosts[0], Hook::Input, doubled());
    for _ in 0..5 {
        holds("an answer", PATIENCE, || shaped.queue.lives());
    }
    assert_eq!(shaped.queue.counts().name, "queue");
    assert_eq!(shaped.end().seen, 0);
}
