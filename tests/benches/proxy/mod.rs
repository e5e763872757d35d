//! The dependency proxy beside other proxies, interleaved in one run: what counts are the ratios.

mod peers;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use squall_tests::skip::found;

use crate::table::{head, milliseconds, percentile, row, summary};
use peers::Peer;

const ROUNDS: usize = 5;
/// What one bulk transfer carries.
const BULK: u64 = 1 << 30;

/// The services, by their place in [`Peer::at`].
const ECHO: usize = 0;
const SOURCE: usize = 1;
const GREETER: usize = 2;
const PAGES: usize = 3;

fn serve(each: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Ten thousand connect at once.
    rustix::net::listen(&listener, 4096).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let each = each.clone();
            let run = move || each(stream);
            thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap();
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Sends as many bytes as it is asked for.
fn source(mut stream: TcpStream) {
    let mut wanted = [0; 8];
    if stream.read_exact(&mut wanted).is_err() {
        return;
    }
    let (mut left, bytes) = (u64::from_le_bytes(wanted), vec![0; 256 << 10]);
    while left > 0 {
        let length = left.min(bytes.len() as u64) as usize;
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
        left -= length as u64;
    }
}

/// Says one byte to whoever comes, and keeps the connection until its client has left. One thread for all of them.
fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 4096).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept: Vec<TcpStream> = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if kept.len() % 500 == 499 {
                kept.retain(|stream| !matches!(stream.peek(&mut [0]), Ok(0)));
            }
            if stream.write_all(b"!").is_ok() && stream.set_nonblocking(true).is_ok() {
                kept.push(stream);
            }
        }
    });
    address
}

/// nginx with one worker; ended with this value.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn nginx() -> Option<(Nginx, SocketAddr)> {
    if !found("nginx") || !found("wrk") {
        return None;
    }
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = std::env::temp_dir();
    let file = directory.join(format!("squall-figures-nginx-{}.conf", std::process::id()));
    let pid = directory.join(format!("squall-figures-nginx-{}.pid", std::process::id()));
    let config = format!(
        "worker_processes 1; daemon off; pid {}; error_log /dev/null;\nevents {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; server {{ listen {address}; \
         location / {{ return 200 \"a page of about fifty bytes, as small as answers are\\n\"; }} }} }}\n",
        pid.display()
    );
    std::fs::write(&file, config).unwrap();
    let child = Command::new("nginx").arg("-c").arg(&file).stderr(Stdio::null()).spawn().ok()?;
    let nginx = Nginx(child);
    for _ in 0..100 {
        if TcpStream::connect(address).is_ok() {
            std::fs::remove_file(&file).unwrap();
            return Some((nginx, address));
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// 64 bytes there and back.
fn ping(stream: &mut TcpStream) -> Duration {
    let (begun, mut bytes) = (Instant::now(), [7; 64]);
    stream.write_all(&bytes).unwrap();
    stream.read_exact(&mut bytes).unwrap();
    begun.elapsed()
}

/// How long it takes to get so many bytes.
fn fetch(address: SocketAddr, wanted: u64) -> Duration {
    let (mut stream, mut buffer) = (connect(address), vec![0; 256 << 10]);
    let begun = Instant::now();
    stream.write_all(&wanted.to_le_bytes()).unwrap();
    let mut got = 0;
    while got < wanted {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "{got} of {wanted} bytes");
        got += length as u64;
    }
    begun.elapsed()
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    percentile(&figures, 50.0)
}

/// Measures every peer in turn, several times; the median of each.
fn each(peers: &[Peer], measure: impl Fn(&Peer) -> f64) -> Vec<f64> {
    let mut figures = vec![Vec::new(); peers.len()];
    for _ in 0..ROUNDS {
        for (peer, figures) in peers.iter().zip(&mut figures) {
            figures.push(measure(peer));
        }
    }
    figures.into_iter().map(middle).collect()
}

fn line(what: &str, figures: &[f64], digits: usize) {
    row(std::iter::once(what.to_owned()).chain(figures.iter().map(|figure| format!("{figure:.digits$}"))));
}

fn ratios(figures: &[f64]) {
    let ratios: Vec<f64> = figures.iter().map(|figure| figure / figures[0]).collect();
    line("  ratio to bare", &ratios, 2);
}

/// All of it.
pub fn figures() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut services = vec![serve(echo), serve(source), greeter()];
    let nginx = nginx();
    services.extend(nginx.as_ref().map(|(_, address)| *address));
    let peers = peers::all(&services);
    let names = peers.iter().map(|peer| peer.name);
    let columns: Vec<&str> = std::iter::once("").chain(names).collect();
    head("Proxies side by side: medians of interleaved rounds", &columns);
    beside(&peers, nginx.is_some());
    memory(&peers, &columns);
    for peer in peers.iter().filter(|peer| peer.api.is_some()) {
        toxics(peer);
        control(peer);
    }
}

fn beside(peers: &[Peer], pages: bool) {
    let used: Vec<f64> = peers.iter().map(Peer::used).collect();
    let bulk = each(peers, |peer| BULK as f64 * 8e-9 / fetch(peer.at[SOURCE], BULK).as_secs_f64());
    line("bulk down, Gbit/s", &bulk, 1);
    ratios(&bulk);
    let carried = (ROUNDS as u64 * BULK) as f64 / 1e9;
    let spent: Vec<f64> = peers.iter().zip(used).map(|(peer, used)| (peer.used() - used) / carried).collect();
    line("  processor s/GB", &spent, 2);
    if pages {
        let page = each(peers, |peer| {
            let mut wrk = Command::new("wrk");
            wrk.args(["-t1", "-c32", "-d2s"]).arg(format!("http://{}/", peer.at[PAGES]));
            let said = String::from_utf8(wrk.output().unwrap().stdout).unwrap();
            let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap();
            rate.trim().parse().unwrap()
        });
        line("HTTP, 32 connections, requests/s", &page, 0);
        ratios(&page);
    }
    let rounds = each(peers, |peer| {
        let mut stream = connect(peer.at[ECHO]);
        middle((0..3000).map(|_| ping(&mut stream).as_secs_f64() * 1e6).collect())
    });
    line("round trip of 64 bytes, p50 µs", &rounds, 1);
    let added: Vec<f64> = rounds.iter().map(|figure| figure - rounds[0]).collect();
    line("  added µs", &added, 1);
    let fresh = each(peers, |peer| {
        let begun = Instant::now();
        for _ in 0..500 {
            ping(&mut connect(peer.at[ECHO]));
        }
        500.0 / begun.elapsed().as_secs_f64()
    });
    line("new connections, one round trip each, 1/s", &fresh, 0);
    ratios(&fresh);
}

fn memory(peers: &[Peer], columns: &[&str]) {
    head("Memory", columns);
    for count in [1000, 9000] {
        let figures = peers.iter().map(|peer| {
            let Some(before) = peer.memory() else { return 0.0 };
            let mut open: Vec<TcpStream> = (0..count).map(|_| connect(peer.at[GREETER])).collect();
            for stream in &mut open {
                stream.read_exact(&mut [0]).unwrap();
            }
            (peer.memory().unwrap() - before) / f64::from(count)
        });
        let figures: Vec<f64> = figures.collect();
        line(&format!("KB an idle connection, {count} of them"), &figures, 2);
    }
}

fn toxics(peer: &Peer) {
    println!("\nToxics of {}", peer.name);
    let add = |kind: &str, proxy: usize, attributes: Value| {
        let body = json!({ "name": "it", "type": kind, "attributes": attributes });
        peer.ask("POST", &format!("/proxies/{proxy}/toxics"), &body);
    };
    let remove = |proxy: usize| peer.ask("DELETE", &format!("/proxies/{proxy}/toxics/it"), &Value::Null);
    for (delay, count) in [(10, 300), (100, 60)] {
        let mut stream = connect(peer.at[ECHO]);
        let mut rounds = |count| milliseconds((0..count).map(|_| ping(&mut stream)));
        let bare = middle(rounds(1000));
        add("latency", ECHO, json!({ "latency": delay }));
        let errors = rounds(count).into_iter().map(|time| time - bare - f64::from(delay));
        println!("latency {delay} ms, error: {}", summary(errors.collect()));
        println!("  a sleep as long is late by: {}", summary(sleeps(delay, count)));
        remove(ECHO);
    }
    for rate in [1u64, 100, 10_000, 100_000] {
        let bytes = (rate * 1000 * 3).min(200_000_000);
        add("bandwidth", SOURCE, json!({ "rate": rate }));
        let seconds = fetch(peer.at[SOURCE], bytes).as_secs_f64();
        let got = bytes as f64 / 1000.0 / seconds;
        println!("bandwidth {rate} KB/s: {got:.2}, {:+.2} %", (got / rate as f64 - 1.0) * 100.0);
        remove(SOURCE);
    }
    let bulk = || BULK as f64 * 8e-9 / fetch(peer.at[SOURCE], BULK).as_secs_f64();
    let bare = middle((0..ROUNDS).map(|_| bulk()).collect());
    for delay in [0, 20, 100] {
        add("latency", SOURCE, json!({ "latency": delay }));
        let with = middle((0..ROUNDS).map(|_| bulk()).collect());
        println!("bulk with latency {delay} ms: {with:.1} Gbit/s, {:.2} of its own {bare:.1}", with / bare);
        remove(SOURCE);
    }
}

/// How late the machine itself wakes who waits so long, in milliseconds.
fn sleeps(delay: u32, count: usize) -> Vec<f64> {
    nix::sys::prctl::set_timerslack(1).unwrap();
    let late = |_| {
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(delay.into()));
        begun.elapsed()
    };
    milliseconds((0..count).map(late)).into_iter().map(|time| time - f64::from(delay)).collect()
}

fn control(peer: &Peer) {
    let mut open: Vec<TcpStream> = (0..1000).map(|_| connect(peer.at[ECHO])).collect();
    for stream in &mut open {
        ping(stream);
    }
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..20 {
        let one = "/proxies/0/toxics/it";
        let calls = [
            (
                "POST",
                "/proxies/0/toxics",
                json!({ "name": "it", "type": "latency", "attributes": { "latency": 20 } }),
            ),
            ("POST", one, json!({ "attributes": { "latency": 30 } })),
            ("DELETE", one, Value::Null),
        ];
        for ((method, path, body), times) in calls.iter().zip(&mut times) {
            let begun = Instant::now();
            peer.ask(method, path, body);
            times.push(begun.elapsed());
        }
    }
    for (what, times) in ["add", "update", "remove"].iter().zip(times) {
        println!("{what} with 1,000 connections: {}", summary(milliseconds(times)));
    }
}
