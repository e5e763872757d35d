//! What a dependency's name comes to, over datagrams and connections.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use squall_tests::client::connect;
use squall_tests::dns::Dns;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::squall::lines;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::LONG;
use crate::peers::{with_names, with_names_and};
use crate::trial::{evidence, impaired, timed_out};

const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// The question for an address of version 4 (RFC 1035 section 4.1).
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The code of an answer, and its last four bytes: the address, where there is one.
fn read(answer: &[u8]) -> (u8, [u8; 4]) {
    assert_eq!(answer[..2], [0x12, 0x34], "another question's answer");
    let last = answer.last_chunk::<4>().copied().unwrap_or_default();
    (answer[3] & 0xf, if answer[7] == 0 { [0; 4] } else { last })
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// From a socket that is connected, as glibc has it.
    Connected,
    /// From one that is not, as musl has it.
    Loose,
    /// Over a connection.
    Stream,
}

fn ask(from: &Host, server: SocketAddr, name: &str, by: By, patience: Duration) -> io::Result<(u8, [u8; 4])> {
    let asked = question(name);
    if by == By::Stream {
        let mut stream = connect(&from.netns, server, patience)?;
        stream.write_all(&[&(asked.len() as u16).to_be_bytes()[..], &asked].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        return Ok(read(&answer));
    }
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.netns.inside(|| UdpSocket::bind(any))?;
    socket.set_read_timeout(Some(patience))?;
    if by == By::Connected {
        from.netns.inside(|| socket.connect(server))?;
        socket.send(&asked)?;
    } else {
        socket.send_to(&asked, server)?;
    }
    let mut answer = [0; 512];
    let begun = Instant::now();
    loop {
        match socket.recv_from(&mut answer) {
            Ok((length, who)) => {
                assert_eq!(who, server, "{by:?}: whoever asks must not see who answers");
                return Ok(read(&answer[..length]));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted && begun.elapsed() < patience => {}
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn lookups_of_a_name_go_wrong_over_every_kind_of_socket_and_those_of_other_names_do_not() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let both = [Dns::start(&far.netns, far.v4), Dns::start(&far.netns, far.v6)];
    for (dns, name) in both.iter().flat_map(|dns| [(dns, "shop.test"), (dns, "other.test")]) {
        dns.set(name, 1, &["192.0.2.7".parse().expect("an address")]);
    }
    let right = (NOERROR, [192, 0, 2, 7]);
    let ways = [By::Connected, By::Loose, By::Stream];
    for (how, wrong, address) in [
        ("answer: nxdomain", (NXDOMAIN, [0; 4]), far.v4),
        ("answer: servfail", (SERVFAIL, [0; 4]), far.v6),
        ("wrong: 10.9.9.9", (NOERROR, [10, 9, 9, 9]), far.v6),
    ] {
        let server = SocketAddr::new(address, 53);
        // The search domain of the world is `test`.
        let step = format!("{{ fault: {{ outage: {{ of: shop, how: dns, {how} }} }}, for: 80s }}");
        let mut trial = with_names(&world, address, "", &step);
        trial.injected();
        for by in ways {
            assert_eq!(ask(near, server, "shop.test", by, LONG).expect("an answer"), wrong, "{how} {by:?}");
            assert_eq!(ask(near, server, "other.test", by, LONG).expect("an answer"), right, "{how} {by:?}");
        }
        let report = trial.halted();
        assert_eq!((impaired(&report), &evidence(&report)["matched"]), (3, &3.into()), "{report:#}");
        for by in ways {
            assert_eq!(ask(near, server, "shop.test", by, LONG).expect("an answer"), right, "{by:?}");
        }
    }
}

#[test]
fn a_lookup_that_times_out_is_never_answered() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("shop.test", 1, &["192.0.2.7".parse().expect("an address")]);
    let server = SocketAddr::new(far.v4, 53);
    let step = "{ fault: { outage: { of: shop.test, how: dns, answer: timeout } }, for: 80s }";
    let mut trial = with_names(&world, far.v4, "", step);
    trial.injected();
    let before = dns.asked();
    for by in [By::Connected, By::Loose] {
        let error = ask(near, server, "shop.test", by, Duration::from_millis(300)).expect_err("no answer");
        assert!(timed_out(&error), "{by:?}: it must time out, not fail with {error}");
    }
    assert_eq!(dns.asked(), before, "the server must not hear of it");
    assert_eq!(impaired(&trial.halted()), 2);
}

#[test]
fn a_name_server_and_a_search_domain_that_come_while_the_fault_lasts_are_met_too() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts are needed") };
    let both = [Dns::start(&far.netns, far.v4), Dns::start(&other.netns, other.v6)];
    for (dns, name) in both.iter().flat_map(|dns| [(dns, "shop.test"), (dns, "shop.new")]) {
        dns.set(name, 1, &["192.0.2.7".parse().expect("an address")]);
    }
    let (first, second) = (SocketAddr::new(far.v4, 53), SocketAddr::new(other.v6, 53));
    let step = "{ fault: { outage: { of: shop, how: dns, answer: servfail } }, for: 80s }";
    let mut trial = with_names(&world, far.v4, "", step);
    trial.injected();
    let fails = |server, name| ask(near, server, name, By::Connected, LONG).expect("an answer").0 == SERVFAIL;
    assert!(fails(first, "shop.test") && !fails(first, "shop.new") && !fails(second, "shop.test"));
    // What a lease of a new network would write.
    world.file("resolv.conf", format!("nameserver {}\nsearch new\n", other.v6));
    holds("the new server to be met", PATIENCE, || fails(second, "shop.new"));
    assert!(fails(first, "shop.test") && fails(second, "shop.test"), "those from before stay met");
    let report = trial.halted();
    let told = evidence(&report)["incidents"].to_string();
    assert!(told.contains("a new name server") && told.contains("shop.new"), "{told}");
    assert!(!fails(first, "shop.test") && !fails(second, "shop.new"));
}

#[test]
fn what_was_asked_and_answered_is_told_to_whoever_wants_to_know() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let dns = Dns::start(&far.netns, far.v4);
    for name in ["shop.test", "other.test"] {
        dns.set(name, 1, &["192.0.2.7".parse().expect("an address")]);
    }
    let seen = world.directory.join("seen.ndjson");
    let step = "{ fault: { outage: { of: shop, how: dns, answer: servfail } }, for: 80s }";
    let more = ["--observations", &seen.display().to_string()];
    let mut trial = with_names_and(&world, far.v4, "", step, &more);
    trial.injected();
    let server = SocketAddr::new(far.v4, 53);
    for by in [By::Connected, By::Stream] {
        assert_eq!(ask(near, server, "shop.test", by, LONG).expect("an answer").0, SERVFAIL, "{by:?}");
        assert_eq!(ask(near, server, "other.test", by, LONG).expect("an answer").0, NOERROR, "{by:?}");
    }
    trial.halted();
    let told = lines(&seen);
    for (over, name, code, how) in [
        ("udp", "shop.test.", "SERVFAIL", "fault"),
        ("udp", "other.test.", "NOERROR", "answered"),
        ("tcp", "shop.test.", "SERVFAIL", "fault"),
        ("tcp", "other.test.", "NOERROR", "answered"),
    ] {
        let of = |line: &&serde_json::Value| line["over"] == over && line["name"] == name;
        let found: Vec<_> = told.iter().filter(of).collect();
        let [one] = found[..] else { panic!("{over} {name}: {told:#?}") };
        assert_eq!((&one["kind"], &one["type"]), (&"lookup".into(), &"A".into()), "{one:#}");
        assert_eq!((&one["code"], &one["how"]), (&code.into(), &how.into()), "{one:#}");
        assert_eq!(one["proxy"], server.to_string(), "{one:#}");
        assert!(one["answered_us"].as_u64() >= one["asked_us"].as_u64(), "{one:#}");
    }
}

#[test]
fn lookups_go_wrong_at_a_stub_on_loopback_and_at_the_servers_behind_it_over_every_kind_of_socket() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let stub = std::net::IpAddr::from([127, 0, 0, 53]);
    let servers = [Dns::start(&near.netns, stub), Dns::start(&far.netns, far.v4)];
    for (dns, name) in servers.iter().flat_map(|dns| [(dns, "shop.test"), (dns, "other.test")]) {
        dns.set(name, 1, &["192.0.2.7".parse().expect("an address")]);
    }
    let right = (NOERROR, [192, 0, 2, 7]);
    let ways = [By::Connected, By::Loose, By::Stream];
    for (how, wrong) in
        [("answer: nxdomain", (NXDOMAIN, [0; 4])), ("wrong: 10.9.9.9", (NOERROR, [10, 9, 9, 9]))]
    {
        for server in [stub, far.v4] {
            let place = SocketAddr::new(server, 53);
            let step = format!("{{ fault: {{ outage: {{ of: shop, how: dns, {how} }} }}, for: 80s }}");
            let mut trial = with_names(&world, server, "", &step);
            trial.injected();
            for by in ways {
                assert_eq!(
                    ask(near, place, "shop.test", by, LONG).expect("an answer"),
                    wrong,
                    "{place} {by:?}"
                );
                assert_eq!(
                    ask(near, place, "other.test", by, LONG).expect("an answer"),
                    right,
                    "{place} {by:?}"
                );
            }
            let report = trial.halted();
            assert_eq!((impaired(&report), &evidence(&report)["matched"]), (3, &3.into()), "{report:#}");
            for by in ways {
                assert_eq!(
                    ask(near, place, "shop.test", by, LONG).expect("an answer"),
                    right,
                    "{place} {by:?}"
                );
            }
        }
    }
    let step = "{ fault: { outage: { of: shop, how: dns, answer: timeout } }, for: 80s }";
    let mut trial = with_names(&world, stub, "", step);
    trial.injected();
    let place = SocketAddr::new(stub, 53);
    for by in ways {
        let error = ask(near, place, "shop.test", by, Duration::from_millis(300)).expect_err("no answer");
        assert!(timed_out(&error), "{by:?}: it must time out, not fail with {error}");
    }
    assert_eq!(impaired(&trial.halted()), 3);
}

#[test]
fn where_the_c_library_asks_over_a_unix_socket_it_is_said_that_no_packet_will_be_seen() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let dns = Dns::start(&far.netns, far.v4);
    dns.set("shop.test", 1, &["192.0.2.7".parse().expect("an address")]);
    let resolv = world.file("resolv.conf", format!("nameserver {}\n", far.v4));
    let order = world.file("nsswitch.conf", "hosts: files resolve [!UNAVAIL=return] dns\n");
    // The socket of systemd-resolved, as it is looked for.
    let run = world.place("run");
    fs::create_dir_all(run.join("systemd/resolve")).expect("the world's directory");
    let _resolved = UnixListener::bind(run.join("systemd/resolve/io.systemd.Resolve")).expect("a socket");
    let run = run.display().to_string();
    let usual = [(resolv.as_str(), "/etc/resolv.conf"), (order.as_str(), "/etc/nsswitch.conf")];
    let resolved = [usual[0], usual[1], (run.as_str(), "/run")];
    let said = "no packet of them will be seen";
    let preflight = |files: &[(&str, &str)]| {
        near.squall_with_files(files, &["agent", "preflight"]).run().story().contains(said)
    };
    assert!(preflight(&resolved) && !preflight(&usual));
    let text = "{ fault: { outage: { of: shop.test, how: dns, answer: servfail } }, for: 300ms }";
    let file = world.file("resolved.yaml", crate::trial::calm(&[text]));
    let finished = near.squall_with_files(&resolved, &["run", &file]).run();
    // Nobody asks: the reason is in front of whoever reads the report.
    finished.expect_exit(8).expect_told(said);
}
