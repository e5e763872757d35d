//! Peers: many of them, some left out, connections that are there already, and names that change.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use squall_tests::client::{Steady, TIMEOUT, connect};
use squall_tests::dns::Dns;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::service::Service;
use squall_tests::traffic::round_trips;
use squall_tests::wait::{holds, median};
use squall_tests::world::World;

use crate::trial::{SHORT, Trial, calm, evidence, peer, run, timed_out};

/// Nobody answers, asked often enough for the fault's effect to be more than thin.
#[track_caller]
fn hangs(service: &Service, from: &Host, address: IpAddr) {
    for _ in 0..4 {
        let error = service.dial_within(from, address, SHORT).err().expect("it must not be reached");
        assert!(timed_out(&error), "it must hang, not fail with {error}");
    }
}

/// A connection that must see nothing.
fn steady(service: &Service, from: &Host, address: IpAddr, name: &str) -> Steady {
    let mut talk = service.dial(from, address).expect("reached before the fault");
    Steady::start(name, Duration::from_millis(20), move || talk.talk())
}

fn notes(report: &Value) -> String {
    report["parts"][0]["notes"].to_string()
}

fn incidents(report: &Value) -> String {
    evidence(report)["incidents"].to_string()
}

#[test]
fn a_thousand_addresses_that_overlap_and_repeat_are_one_fault() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (echo, aside) = (world.echo(1, 7), world.echo(2, 7));
    let aside = steady(&aside, near, other.v4, "a host that is not named");
    let mut peers: Vec<String> = (0..1000).map(|i| format!("\"192.0.{}.{}:7\"", i / 250, i % 250)).collect();
    peers.extend(
        ["10.77.1.0/24:7", "10.77.1.2:7", "10.77.1.2:7", "10.77.1.0/28:7"].map(|peer| format!("\"{peer}\"")),
    );
    peers.extend((0..300).map(|i| format!("\"[2001:db8::{i:x}]:7\"")));
    peers.push(format!("\"[{}]:7\"", far.v6));
    let step = format!("{{ fault: {{ partition: {{ to: [{}] }} }}, for: 60s }}", peers.join(", "));
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    let rules = near.look(&["nft", "list", "table", "inet", "squall"]);
    let drops = rules.lines().filter(|line| line.contains(" drop")).count();
    assert_eq!(drops, 8, "two directions, two families, two transports:\n{rules}");
    hangs(&echo, near, far.v4);
    hangs(&echo, near, far.v6);
    let report = trial.halted();
    let targets = report["parts"][0]["targets"].as_array().expect("targets").len();
    assert!(targets <= 65, "{targets} targets are too many to read");
    aside.saw_nothing(20);
}

#[test]
fn who_is_left_out_is_not_touched() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (echo, second, aside) = (world.echo(1, 7), world.echo(1, 8), world.echo(2, 7));
    let aside = steady(&aside, near, other.v4, "a host that is left out");
    let second = steady(&second, near, far.v4, "a port that is left out");
    let except = format!("\"{}\", \"{}\"", peer(far.v4, 8), other.v4);
    let step =
        format!("{{ fault: {{ partition: {{ to: [\"10.77.0.0/16\"], except: [{except}] }} }}, for: 60s }}");
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    hangs(&echo, near, far.v4);
    trial.halted();
    aside.saw_nothing(20);
    second.saw_nothing(20);
}

#[test]
fn callers_who_are_left_out_are_known_by_the_port_that_they_come_to() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let (echo, second) = (world.echo(1, 7), world.echo(1, 8));
    let second = steady(&second, near, far.v4, "a caller of the port that is left out");
    let step = "{ fault: { partition: { from: [\"10.77.1.0/24\"], except: [\"10.77.1.1:8\"] } }, for: 60s }";
    let mut trial = Trial::begin(&world, far, &calm(&[step]));
    trial.injected();
    hangs(&echo, near, far.v4);
    trial.halted();
    second.saw_nothing(20);
}

#[test]
fn a_disconnect_spares_whom_it_leaves_out() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (echo, aside) = (world.echo(1, 7), world.echo(2, 7));
    let aside = steady(&aside, near, other.v4, "a host that is left out");
    let mut talk = echo.dial(near, far.v4).expect("reached before the fault");
    let step = format!(
        "{{ fault: {{ disconnect: {{ to: [\"10.77.0.0/16\"], except: [\"{}\"] }} }}, for: 1s }}",
        other.v4
    );
    let finished = run(&world, near, &calm(&[&step]));
    let report = finished.expect_exit(0).json();
    assert_eq!(evidence(&report)["impaired"], 1, "{report:#}");
    talk.talk().expect_err("it was destroyed");
    aside.saw_nothing(20);
}

#[test]
fn connections_that_are_kept_go_on_while_new_ones_hang() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let v4 = steady(&echo, near, far.v4, "a connection over IPv4 from before");
    let v6 = steady(&echo, near, far.v6, "a connection over IPv6 from before");
    let peers = format!("\"{}\", \"{}\"", peer(far.v4, 7), peer(far.v6, 7));
    for (host, sense) in [(near, "to"), (far, "from")] {
        let peers = if sense == "to" { peers.as_str() } else { "\"any:7\"" };
        let step =
            format!("{{ fault: {{ partition: {{ {sense}: [{peers}], established: keep }} }}, for: 60s }}");
        let mut trial = Trial::begin(&world, host, &calm(&[&step]));
        trial.injected();
        hangs(&echo, near, far.v4);
        hangs(&echo, near, far.v6);
        let report = trial.halted();
        assert!(notes(&report).contains("left alone: 2 connections that were established"), "{report:#}");
    }
    v4.saw_nothing(40);
    v6.saw_nothing(40);
}

#[test]
fn connections_that_are_kept_are_not_delayed() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let mut kept = echo.dial(near, far.v4).expect("reached before the fault");
    let to = peer(far.v4, 7);
    let step = format!(
        "{{ fault: {{ latency: {{ delay: 300ms, to: [\"{to}\"], established: keep }} }}, for: 60s }}"
    );
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    let mut new = echo.dial(near, far.v4).expect("reached late");
    let slow = median(round_trips(&mut *new, 5));
    let fast = median(round_trips(&mut *kept, 5));
    assert!(slow >= Duration::from_millis(300), "{slow:?}");
    assert!(fast * 3 < slow, "{fast:?} against {slow:?}");
    trial.halted();
}

#[test]
fn connections_that_are_reset_break_at_once_and_new_ones_hang() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let mut old = echo.dial(near, far.v4).expect("reached before the fault");
    let to = peer(far.v4, 7);
    let step = format!("{{ fault: {{ partition: {{ to: [\"{to}\"], established: reset }} }}, for: 60s }}");
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    let error = old.talk().expect_err("it was reset");
    assert!(!timed_out(&error), "it must break at once, not hang: {error}");
    hangs(&echo, near, far.v4);
    let report = trial.halted();
    assert!(incidents(&report).contains("reset: 1 connection that was established"), "{report:#}");
}

#[test]
fn connections_that_are_included_hang_and_are_counted() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (echo, aside) = (world.echo(1, 7), world.echo(2, 7));
    let aside = steady(&aside, near, other.v4, "a host that is not named");
    let mut old: Vec<_> = [far.v4, far.v4, far.v6]
        .map(|address| echo.dial_within(near, address, SHORT).expect("reached before the fault"))
        .into();
    let to = format!("\"{}\", \"{}\"", peer(far.v4, 7), peer(far.v6, 7));
    let step = format!("{{ fault: {{ partition: {{ to: [{to}] }} }}, for: 60s }}");
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    for connection in &mut old {
        let error = connection.talk().expect_err("it is cut");
        assert!(timed_out(&error), "it must hang: {error}");
    }
    let report = trial.halted();
    assert!(notes(&report).contains("included: 3 connections that were established"), "{report:#}");
    aside.saw_nothing(20);
}

/// Runs an experiment with a name server of its own.
pub fn with_names(world: &World, dns: IpAddr, hosts: &str, step: &str) -> Trial {
    with_names_and(world, dns, hosts, step, &[])
}

/// The same, with further arguments.
pub fn with_names_and(world: &World, dns: IpAddr, hosts: &str, step: &str, more: &[&str]) -> Trial {
    let near = &world.hosts[0];
    let resolv =
        world.file("resolv.conf", format!("nameserver {dns}\nsearch test\noptions timeout:1 attempts:1\n"));
    let hosts = world.file("hosts", hosts);
    let file = world.file("names.yaml", calm(&[step]));
    // Each run has its own: what an earlier one has said must not be taken for this one's.
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let events = world.directory.join(format!("names-{}.ndjson", NEXT.fetch_add(1, Ordering::Relaxed)));
    let shown = events.display().to_string();
    let arguments = [&["run", &file, "--format", "json", "--events", &shown], more].concat();
    let files = [(resolv.as_str(), "/etc/resolv.conf"), (hosts.as_str(), "/etc/hosts")];
    Trial { run: near.squall_with_files(&files, &arguments).start(), events }
}

fn reached(from: &Host, address: IpAddr) -> io::Result<()> {
    connect(&from.netns, SocketAddr::new(address, 7), SHORT).map(drop)
}

#[test]
fn a_name_is_followed_and_who_leaves_it_stays_met() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (echo, _aside) = (world.echo(1, 7), world.echo(2, 7));
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("db.test", 1, &[far.v4, far.v6]);
    let step = "{ fault: { partition: { to: [\"db:7\"] } }, for: 60s }";
    let mut trial = with_names(&world, far.v4, "", step);
    trial.injected();
    hangs(&echo, near, far.v4);
    hangs(&echo, near, far.v6);
    reached(near, other.v4).expect("nobody has named it yet");
    dns.set("db.test", 1, &[other.v4]);
    holds("the new address to be met", Duration::from_secs(20), || reached(near, other.v4).is_err());
    hangs(&echo, near, far.v4);
    // An alias, to another family.
    dns.alias("db.test", 1, "standby.test");
    dns.set("standby.test", 1, &[other.v6]);
    holds("the alias to be followed", Duration::from_secs(20), || reached(near, other.v6).is_err());
    // Silence: what was known stays.
    dns.silent(true);
    let (before, _) = dns.asked();
    holds("it to be asked in vain", Duration::from_secs(20), || dns.asked().0 > before + 1);
    hangs(&echo, near, far.v4);
    reached(near, other.v4).expect_err("the last answer stays");
    let said = |trial: &Trial, what: &str| {
        let status = near.squall(&["status", "--format", "json"]).run();
        status.story().contains(what) && !trial.has("lifted")
    };
    holds("that it cannot be asked to be said", Duration::from_secs(20), || {
        said(&trial, "could not be asked again")
    });
    let report = trial.halted();
    let told = incidents(&report);
    for what in [
        format!("db: {} joined", other.v4),
        format!("db: {} joined", other.v6),
        format!("db: {} left the answer", far.v4),
        "could not be asked again".to_owned(),
    ] {
        assert!(told.contains(&what), "`{what}` is missing in {told}");
    }
    reached(near, other.v4).expect("free after the fault");
}

#[test]
fn an_address_that_another_run_holds_is_left_out_when_a_name_gets_it() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (echo, _aside) = (world.echo(1, 7), world.echo(2, 7));
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("db.test", 1, &[far.v4]);
    let cut = "{ fault: { partition: { to: [\"db:7\"] } }, for: 60s }";
    let mut first = with_names(&world, far.v4, "", cut);
    first.injected();
    // Another run has the other host before the name gets it.
    let refuse = format!("{{ fault: {{ refuse: {{ to: [\"{}\"] }} }}, for: 60s }}", peer(other.v4, 7));
    let mut second = Trial::begin(&world, near, &calm(&[&refuse]));
    second.injected();
    dns.set("db.test", 1, &[far.v4, other.v4, other.v6]);
    holds("what nobody holds to be met", Duration::from_secs(20), || reached(near, other.v6).is_err());
    for _ in 0..4 {
        let refused = reached(near, other.v4).expect_err("the second run has it");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "it has been cut as well");
    }
    hangs(&echo, near, far.v4);
    let report = first.halted();
    let told = incidents(&report);
    assert!(told.contains(&format!("db: {} joined", other.v6)), "{told}");
    assert!(!told.contains(&format!("db: {} joined", other.v4)), "{told}");
    let left_out = format!("db: {} is left out: run ", other.v4);
    assert!(told.contains(&left_out) && told.contains("both concern"), "{told}");
    second.halted();
    reached(near, other.v4).expect("free after the fault");
}

#[test]
fn a_family_that_cannot_be_asked_is_not_taken_for_one_without_addresses() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (echo, _aside) = (world.echo(1, 7), world.echo(2, 7));
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("db.test", 1, &[far.v4, far.v6]);
    let step = "{ fault: { partition: { to: [\"db:7\"] } }, for: 60s }";
    dns.fails_at_v6(true);
    let refused = with_names(&world, far.v4, "", step).finish();
    refused.expect_exit(4).expect_told("nobody can tell whether it has IPv6 addresses");
    reached(near, far.v4).expect("nothing was injected");
    dns.fails_at_v6(false);
    let mut trial = with_names(&world, far.v4, "", step);
    trial.injected();
    hangs(&echo, near, far.v6);
    // One family moves on, the other cannot be asked.
    dns.fails_at_v6(true);
    dns.set("db.test", 1, &[other.v4]);
    holds("the new address to be met", Duration::from_secs(20), || reached(near, other.v4).is_err());
    hangs(&echo, near, far.v6);
    dns.set("db.test", 1, &[other.v4, far.v6]);
    dns.fails_at_v6(false);
    holds("it to answer again", Duration::from_secs(20), || {
        near.squall(&["status", "--format", "json"]).run().stdout.contains("it answers again")
    });
    let told = incidents(&trial.halted());
    for what in [
        format!("db: {} joined", other.v4),
        format!("db: {} left the answer", far.v4),
        "its IPv6 addresses could not be asked again".to_owned(),
    ] {
        assert!(told.contains(&what), "`{what}` is missing in {told}");
    }
    assert!(!told.contains(&format!("{} left", far.v6)), "it was never told to have gone: {told}");
}

#[test]
fn two_hundred_records_come_over_tcp_and_are_all_met() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let dns = Dns::start(&far.netns, far.v4);
    let mut many: Vec<IpAddr> = (0..199).map(|last| IpAddr::from([192, 0, 2, last])).collect();
    // First those of which no two lie side by side: as ranges they have to grow together later.
    let apart: Vec<IpAddr> = many.iter().copied().step_by(2).collect();
    many.push(far.v4);
    dns.set("pool.test", 1, &apart);
    let mut trial =
        with_names(&world, far.v4, "", "{ fault: { partition: { to: [\"pool.test:7\"] } }, for: 60s }");
    trial.injected();
    reached(near, far.v4).expect("it has not joined yet");
    assert!(dns.asked().1 > 0, "the answer cannot have come over UDP");
    dns.set("pool.test", 60, &many);
    holds("the others to be met", Duration::from_secs(20), || reached(near, far.v4).is_err());
    hangs(&echo, near, far.v4);
    let set = near.look(&["nft", "list", "table", "inet", "squall"]);
    assert!(set.contains("192.0.2.0-192.0.2.198"), "{set}");
    let report = trial.halted();
    assert_eq!(incidents(&report).matches("joined").count(), 100, "{report:#}");
}

#[test]
fn the_hosts_file_needs_no_name_server_and_an_unknown_name_injects_nothing() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let dns = Dns::start(&far.netns, far.v4);
    let hosts = format!("127.0.0.1 localhost\n{} shop\n", far.v4);
    let mut trial =
        with_names(&world, far.v4, &hosts, "{ fault: { partition: { to: [\"shop:7\"] } }, for: 60s }");
    trial.injected();
    hangs(&echo, near, far.v4);
    trial.halted();
    assert_eq!(dns.asked().0, 0, "the hosts file was enough");
    let trial =
        with_names(&world, far.v4, &hosts, "{ fault: { partition: { to: [\"nobody.test:7\"] } }, for: 60s }");
    let finished = trial.finish();
    finished.expect_exit(4).expect_told("the name `nobody.test` does not resolve");
    assert!(near.tables().is_empty());
}

#[test]
fn a_disconnect_that_repeats_follows_its_name() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (echo, aside) = (world.echo(1, 7), world.echo(2, 7));
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("db.test", 1, &[far.v4]);
    let mut first = echo.dial(near, far.v4).expect("reached before the fault");
    let mut trial = with_names(
        &world,
        far.v4,
        "",
        "{ fault: { disconnect: { to: [\"db:7\"], every: 200ms } }, for: 60s }",
    );
    trial.injected();
    first.talk().expect_err("it was destroyed");
    let mut second = aside.dial(near, other.v4).expect("nobody has named it yet");
    second.talk().expect("it is left alone");
    dns.set("db.test", 1, &[other.v4]);
    holds("the new address to be met", Duration::from_secs(20), || second.talk().is_err());
    let report = trial.halted();
    assert!(incidents(&report).contains("joined"), "{report:#}");
}

#[test]
fn peers_over_ipv6_on_a_host_without_it_are_no_error_and_said() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    near.look(&["sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1"]);
    world.as_found();
    let peers = format!("\"{}\", \"{}\"", peer(far.v4, 7), peer(far.v6, 7));
    let step = format!("{{ fault: {{ partition: {{ to: [{peers}] }} }}, for: 60s }}");
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    hangs(&echo, near, far.v4);
    connect(&near.netns, (far.v6, 7).into(), TIMEOUT).expect_err("there is no IPv6");
    let report = trial.halted();
    assert!(notes(&report).contains("IPv6 is switched off"), "{report:#}");
}

#[test]
fn peers_that_are_none_are_refused_with_what_was_meant() {
    needs!(Root, Nftables);
    let world = World::new(1);
    for (wrong, told) in [
        ("10.0.0.1:9-3", "write `3-9`"),
        ("10.0.0.1:-", "a port is missing"),
        ("10.0.0.0/33", "the prefix length goes from 0 to 32"),
        ("10.0.0.1/8", "did you mean the network `10.0.0.0/8`"),
        ("10.0.0/8", "is not an address"),
        ("", "an empty peer"),
    ] {
        let step = format!("{{ fault: {{ partition: {{ to: [\"{wrong}\"] }} }}, for: 1s }}");
        run(&world, &world.hosts[0], &calm(&[&step])).expect_exit(3).expect_told(told);
    }
}

#[test]
fn a_name_means_what_it_does_in_the_network_of_its_target() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(0, 7);
    // One address, two networks, two name servers: the agent's own must not be asked.
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let (own, theirs) = (Dns::start(&near.netns, loopback), Dns::start(&far.netns, loopback));
    own.set("db.test", 1, &["192.0.2.9".parse().expect("an address")]);
    theirs.set("db.test", 1, &[near.v4]);
    let name = far.netns.name();
    let step =
        format!("{{ fault: {{ partition: {{ to: [\"db:7\"] }} }}, in: {{ netns: \"{name}\" }}, for: 60s }}");
    let mut trial = with_names(&world, loopback, "", &step);
    trial.injected();
    hangs(&echo, far, near.v4);
    // It is asked there again, too.
    echo.dial_within(far, near.v6, SHORT).expect("nobody has named it yet");
    theirs.set("db.test", 1, &[near.v4, near.v6]);
    holds("the new address to be met", Duration::from_secs(20), || {
        echo.dial_within(far, near.v6, SHORT).is_err()
    });
    let report = trial.halted();
    let targets = report["parts"][0]["targets"].to_string();
    assert!(targets.contains("10.77.1.1:7 (db)") && !targets.contains("192.0.2.9"), "{targets}");
    assert!(incidents(&report).contains("joined"), "{report:#}");
    assert!(notes(&report).contains(&format!("in network namespace {name}")), "{report:#}");
    let (asked, _) = own.asked();
    assert_eq!(asked, 0, "the agent's own name server was asked");
}
