//! The proxies that are compared, in front of the same services: none, ours, HAProxy, and Toxiproxy where it is there.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squall_tests::squall::binary;

/// A way to the services.
pub struct Peer {
    pub name: &'static str,
    /// Where the services are reached, in their order.
    pub at: Vec<SocketAddr>,
    /// Where it is commanded.
    pub api: Option<SocketAddr>,
    child: Option<Child>,
    file: Option<PathBuf>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

impl Peer {
    /// Processor time that it has taken, in seconds.
    pub fn used(&self) -> f64 {
        let Some(child) = &self.child else { return 0.0 };
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Memory that it holds, in KB.
    pub fn memory(&self) -> Option<f64> {
        let child = self.child.as_ref()?;
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// A request to its interface, which must succeed.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.api.unwrap()).unwrap();
        stream.set_nodelay(true).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap_or_default()
    }

    fn populate(mut self, services: &[SocketAddr]) -> Self {
        for (at, service) in services.iter().enumerate() {
            let wanted =
                json!({ "name": at.to_string(), "listen": "127.0.0.1:0", "upstream": service.to_string() });
            let made = self.ask("POST", "/proxies", &wanted);
            self.at.push(made["listen"].as_str().unwrap().parse().unwrap());
        }
        self
    }
}

/// All that can be had here.
pub fn all(services: &[SocketAddr]) -> Vec<Peer> {
    let mut peers = vec![
        Peer { name: "bare", at: services.to_vec(), api: None, child: None, file: None },
        squall().populate(services),
    ];
    peers.extend(haproxy(services));
    peers.extend(toxiproxy().map(|peer| peer.populate(services)));
    peers
}

fn squall() -> Peer {
    let mut command = Command::new(binary("squall"));
    command.args(["proxy", "serve", "--port", "0", "--log-level", "info"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut line, mut log) = (String::new(), BufReader::new(child.stdout.take().unwrap()));
    log.read_line(&mut line).unwrap();
    thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let said: Value = serde_json::from_str(&line).unwrap();
    let api = said["address"].as_str().unwrap().parse().unwrap();
    Peer { name: "squall", at: Vec::new(), api: Some(api), child: Some(child), file: None }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn listens(address: SocketAddr) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

fn haproxy(services: &[SocketAddr]) -> Option<Peer> {
    let mut config = "global\n maxconn 9500\ndefaults\n mode tcp\n timeout client 1h\n timeout server 1h\n \
                      timeout connect 5s\n"
        .to_owned();
    let mut at = Vec::new();
    for (number, service) in services.iter().enumerate() {
        let address = free();
        config += &format!("listen s{number}\n bind {address}\n server s {service}\n");
        at.push(address);
    }
    let file = std::env::temp_dir().join(format!("squall-figures-haproxy-{}.cfg", std::process::id()));
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-q", "-f"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().ok();
    let there = child.is_some();
    let peer = Peer { name: "haproxy", at, api: None, child, file: Some(file) };
    (there && listens(peer.at[0])).then_some(peer)
}

fn toxiproxy() -> Option<Peer> {
    let api = free();
    let mut command = Command::new("toxiproxy-server");
    command.args(["-host", "127.0.0.1", "-port", &api.port().to_string()]).env("LOG_LEVEL", "error");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let peer = Peer { name: "toxiproxy", at: Vec::new(), api: Some(api), child: Some(child), file: None };
    listens(api).then_some(peer)
}
