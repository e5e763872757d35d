//! A name server that says what a test tells it to: over UDP as much as fits, over TCP everything (RFC 1035).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::netns::Netns;

/// The most that an answer over UDP may have without an extension (RFC 1035, section 4.2.1).
const SMALL: usize = 512;
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

#[derive(Clone, Debug)]
enum Record {
    Addresses(Vec<IpAddr>),
    Alias(String),
}

#[derive(Debug, Default)]
struct Zone {
    records: BTreeMap<String, (u32, Record)>,
    silent: bool,
    /// The type of record for which it has nothing but an error.
    failing: Option<u16>,
    ended: bool,
    asked: usize,
    over_tcp: usize,
}

/// A running name server. It ends when it is dropped.
#[derive(Debug)]
pub struct Dns {
    zone: Arc<Mutex<Zone>>,
    threads: Vec<JoinHandle<()>>,
}

impl Dns {
    /// Answers on port 53 of an address of a namespace.
    ///
    /// # Panics
    /// When the port cannot be bound.
    pub fn start(netns: &Netns, address: IpAddr) -> Self {
        let place = SocketAddr::new(address, 53);
        let (udp, tcp) = netns.inside(|| {
            (
                UdpSocket::bind(place).expect("the port is free"),
                TcpListener::bind(place).expect("the port is free"),
            )
        });
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out can be set");
        tcp.set_nonblocking(true).expect("it is a socket");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let (first, second) = (Arc::clone(&zone), Arc::clone(&zone));
        let threads = vec![
            thread::spawn(move || datagrams(&udp, &first)),
            thread::spawn(move || streams(&tcp, &second)),
        ];
        Dns { zone, threads }
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// From now on a name has these addresses, for so many seconds.
    pub fn set(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        self.zone().records.insert(name.to_owned(), (ttl, Record::Addresses(addresses.to_vec())));
    }

    /// From now on a name is another name for one, for so many seconds.
    pub fn alias(&self, name: &str, ttl: u32, target: &str) {
        self.zone().records.insert(name.to_owned(), (ttl, Record::Alias(target.to_owned())));
    }

    /// Whether it stops answering.
    pub fn silent(&self, silent: bool) {
        self.zone().silent = silent;
    }

    /// Whether it fails at questions for addresses of IPv6, and only there (`SERVFAIL`).
    pub fn fails_at_v6(&self, fails: bool) {
        self.zone().failing = fails.then_some(AAAA);
    }

    /// How many questions have come so far, and how many of them over TCP.
    pub fn asked(&self) -> (usize, usize) {
        let zone = self.zone();
        (zone.asked, zone.over_tcp)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.zone().ended = true;
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn datagrams(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut question = [0; 4096];
    loop {
        let received = socket.recv_from(&mut question);
        let mut zone = zone.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if zone.ended {
            return;
        }
        let Ok((length, asker)) = received else { continue };
        zone.asked += 1;
        if let Some(answer) = answer(&zone, &question[..length], SMALL).filter(|_| !zone.silent) {
            // Who has gone meanwhile needs no answer.
            drop(socket.send_to(&answer, asker));
        }
    }
}

fn streams(listener: &TcpListener, zone: &Mutex<Zone>) {
    loop {
        let accepted = listener.accept();
        if zone.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).ended {
            return;
        }
        let Ok((mut stream, _)) = accepted else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        drop(stream.set_nonblocking(false));
        drop(stream.set_read_timeout(Some(Duration::from_millis(500))));
        loop {
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                break;
            }
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                break;
            }
            let mut zone = zone.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            zone.asked += 1;
            zone.over_tcp += 1;
            let Some(answer) = answer(&zone, &question, usize::MAX).filter(|_| !zone.silent) else { break };
            let length =
                u16::try_from(answer.len()).expect("the answers of the tests are short").to_be_bytes();
            if stream.write_all(&[&length[..], &answer].concat()).is_err() {
                break;
            }
        }
    }
}

/// The answer to a question, cut to its head where it is longer than `most`.
fn answer(zone: &Zone, question: &[u8], most: usize) -> Option<Vec<u8>> {
    let (name, end) = read_name(question)?;
    let kind = u16::from_be_bytes(question.get(end..end + 2)?.try_into().ok()?);
    let asked = question.get(12..end + 4)?;
    let mut records = Vec::new();
    let mut count: u16 = 0;
    let mut current = name;
    let mut known = false;
    let fails = zone.failing == Some(kind);
    while let Some((ttl, record)) = zone.records.get(&current).filter(|_| !fails) {
        known = true;
        let mut add = |kind: u16, data: &[u8]| {
            records.extend(written_name(&current));
            records.extend(kind.to_be_bytes());
            records.extend(1u16.to_be_bytes());
            records.extend(ttl.to_be_bytes());
            records.extend(u16::try_from(data.len()).expect("it is short").to_be_bytes());
            records.extend(data);
            count += 1;
        };
        match record {
            Record::Addresses(addresses) => {
                for address in addresses {
                    match address {
                        IpAddr::V4(v4) if kind == A => add(A, &v4.octets()),
                        IpAddr::V6(v6) if kind == AAAA => add(AAAA, &v6.octets()),
                        _ => {}
                    }
                }
                break;
            }
            Record::Alias(target) => {
                add(CNAME, &written_name(target));
                current.clone_from(target);
            }
        }
    }
    let cut = 12 + asked.len() + records.len() > most;
    // An answer, with recursion as asked for and offered; the error is its own, or that there is no such name.
    let error = if fails { 2 } else { u16::from(!known) * 3 };
    let flags: u16 = 0x8580 | if cut { 0x0200 } else { 0 } | error;
    let mut message = question.get(..2)?.to_vec();
    for number in [flags, 1, if cut { 0 } else { count }, 0, 0] {
        message.extend(number.to_be_bytes());
    }
    message.extend(asked);
    if !cut {
        message.extend(records);
    }
    Some(message)
}

/// The first name of a question, and where its type stands.
fn read_name(message: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = message.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

fn written_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("labels of the tests are short"));
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}
