//! The agent by itself: how fast it is, and what it costs while nothing happens.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squall_tests::host::Host;
use squall_tests::wait;
use squall_tests::world::World;

use crate::table::summary;

/// A connection to an agent that serves a host.
pub struct Agent {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
    number: u64,
}

impl Agent {
    /// Connects, once it listens.
    pub fn of(host: &Host) -> Self {
        let socket = wait::until("the agent listens", Duration::from_secs(5), || {
            let places = fs::read_dir(&host.state).ok()?.flatten();
            let sockets: Vec<PathBuf> = places.map(|place| place.path().join("agent.sock")).collect();
            sockets.into_iter().find_map(|socket| UnixStream::connect(socket).ok())
        });
        Agent { answers: BufReader::new(socket.try_clone().unwrap()), stream: socket, number: 0 }
    }

    /// Asks, and gives the reply.
    ///
    /// # Panics
    /// When it refuses.
    pub fn ask(&mut self, request: &Value) -> Value {
        self.number += 1;
        writeln!(self.stream, "{}", json!({ "number": self.number, "request": request })).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let reply = answer["answer"]["reply"].clone();
        assert!(reply.get("refused").is_none(), "{reply}");
        reply
    }
}

/// From the request to the first packet affected, and from the request to lift to the first packet free. The control
/// is a request that changes nothing.
pub fn first_packet() {
    const ROUNDS: u32 = 200;
    let world = World::new(2);
    let host = &world.hosts[0];
    let _agent = host.agent(&["run"]).start();
    let mut agent = Agent::of(host);
    let target = format!("{}:9", world.hosts[1].v4);
    let begin = json!({ "run": "figures", "title": "figures", "plan": "", "seed": 1,
                        "lease_ms": 600_000, "deadline_ms": 600_000 });
    agent.ask(&json!({ "begin": begin }));
    let stop = AtomicBool::new(false);
    let (turns, turned) = mpsc::channel::<(Instant, bool)>();
    let [mut control, mut affected, mut freed] = [const { Vec::new() }; 3];
    thread::scope(|scope| {
        // Sends all the time; a packet that the output hook drops is refused to its sender at once.
        scope.spawn(|| {
            host.netns.inside(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let mut blocked = false;
                while !stop.load(Ordering::Relaxed) {
                    let refused = socket.send_to(b"x", &target).is_err();
                    if refused != blocked {
                        blocked = refused;
                        turns.send((Instant::now(), blocked)).unwrap();
                    }
                    thread::sleep(Duration::from_micros(20));
                }
            });
        });
        let time = |agent: &mut Agent, request: &Value, turn: Option<bool>| {
            let began = Instant::now();
            agent.ask(request);
            let ended = match turn {
                None => Instant::now(),
                Some(wanted) => {
                    let (at, blocked) = turned.recv_timeout(Duration::from_secs(5)).unwrap();
                    assert_eq!(blocked, wanted);
                    at
                }
            };
            ended.duration_since(began).as_secs_f64() * 1000.0
        };
        for part in 0..ROUNDS {
            let flow = json!({ "to": [target], "protocol": "udp" });
            let block = json!({ "flow": flow, "direction": "egress", "verdict": "drop" });
            let apply = json!({ "run": "figures", "part": part, "changes": [{ "block": block }], "lasts_ms": 60_000 });
            control.push(time(&mut agent, &json!("status"), None));
            affected.push(time(&mut agent, &json!({ "apply": apply }), Some(true)));
            freed.push(time(&mut agent, &json!({ "lift": { "run": "figures", "part": part } }), Some(false)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    agent.ask(&json!({ "end": { "run": "figures" } }));
    println!("request to agent that changes nothing (control): {}", summary(control));
    println!("from inject to first packet affected: {}", summary(affected));
    println!("from revert to first packet free: {}", summary(freed));
}

/// What an agent costs that has nothing to do, and one that holds a fault.
pub fn idle_agent() {
    let world = World::new(2);
    let host = &world.hosts[0];
    let _agent = host.agent(&["run"]).start();
    let mut agent = Agent::of(host);
    let (guardian, worker) = host.agents();
    let pids = [guardian.pid, worker.pid];
    let field = |pid: i32, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
    };
    let wakeups = || pids.map(|pid| field(pid, "voluntary_ctxt_switches")).iter().sum::<f64>();
    let measure = |what: &str| {
        thread::sleep(Duration::from_millis(500));
        let (before, began) = (wakeups(), Instant::now());
        thread::sleep(Duration::from_secs(10));
        let rate = (wakeups() - before) / began.elapsed().as_secs_f64();
        let [guardian, worker] = pids.map(|pid| field(pid, "VmRSS") / 1024.0);
        let [guardian_own, worker_own] = pids.map(|pid| field(pid, "RssAnon") / 1024.0);
        println!(
            "agent, {what}: guardian {guardian:.1} MiB ({guardian_own:.1} its own), worker {worker:.1} MiB \
             ({worker_own:.1} its own), {rate:.2} wake-ups/s in all"
        );
    };
    measure("idle");
    let begin = json!({ "run": "idle", "title": "idle", "plan": "", "seed": 1,
                        "lease_ms": 600_000, "deadline_ms": 600_000 });
    agent.ask(&json!({ "begin": begin }));
    let block = json!({ "flow": { "to": ["192.0.2.1:9"] }, "direction": "both", "verdict": "drop" });
    agent.ask(&json!({ "apply": { "run": "idle", "part": 1, "changes": [{ "block": block }], "lasts_ms": 60_000 } }));
    measure("one partition live");
    agent.ask(&json!({ "end": { "run": "idle" } }));
}
