//! The figures of this stage, each beside its control in the same run. Not a test: nothing here fails on a slow machine.
//!
//! `cargo build --release && SQUALL_BIN_DIR=target/release cargo bench -p squall-tests`, as root.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends with the place where it stopped")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use squall_tests::host::Host;
use squall_tests::squall::binary;
use squall_tests::wait;
use squall_tests::world::World;

fn main() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: the figures need root");
        return;
    }
    trivial_run();
    first_packet();
    idle_agent();
}

/// Sorted, in milliseconds: the p-th percentile.
fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p / 100.0).round() as usize]
}

fn summary(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let [p50, p99, most] = [50.0, 99.0, 100.0].map(|p| percentile(&figures, p));
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms, most {most:.2} ms, n {}", figures.len())
}

/// A run with one process probe and one process action, beside the same in Chaos Toolkit where it is installed.
fn trivial_run() {
    let directory = std::env::temp_dir().join(format!("squall-figures-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("trivial.yaml");
    let text = "squall: 1\ntitle: Trivial\nhypothesis:\n  - name: it is true\n    process: { argv: [\"true\"] }\n\
                method:\n  - action: { process: { argv: [\"true\"] } }\n";
    fs::write(&file, text).unwrap();
    let theirs = directory.join("trivial.json");
    let process = json!({ "type": "process", "path": "true" });
    let probe = json!({ "type": "probe", "name": "p", "tolerance": 0, "provider": process });
    let action = json!({ "type": "action", "name": "a", "provider": process });
    let hypothesis = json!({ "title": "h", "probes": [probe] });
    let experiment = json!({ "title": "t", "description": "d", "steady-state-hypothesis": hypothesis, "method": [action] });
    fs::write(&theirs, experiment.to_string()).unwrap();

    let mut squall = Command::new(binary("squall"));
    squall.arg("--state-dir").arg(&directory).arg("run").arg(&file);
    let mut chaos = Command::new("chaos");
    chaos.current_dir(&directory).args(["--no-version-check", "--no-log-file", "run"]).arg(&theirs);
    let peak = || getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as f64 / 1024.0;
    let time = |command: &mut Command| {
        let began = Instant::now();
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        status.success().then(|| began.elapsed().as_secs_f64() * 1000.0)
    };
    let mut ours: Vec<f64> = (0..40).filter_map(|_| time(&mut squall)).collect();
    let memory = peak();
    println!("trivial run, squall: {}, largest process {memory:.1} MiB", summary(ours.clone()));
    let others: Vec<f64> = (0..8).filter_map(|_| time(&mut chaos)).collect();
    if others.is_empty() {
        println!("trivial run, chaos toolkit: not installed here");
    } else {
        println!("trivial run, chaos: {}, largest process {:.1} MiB", summary(others.clone()), peak());
        let mut others = others;
        ours.sort_by(f64::total_cmp);
        others.sort_by(f64::total_cmp);
        let ratio = percentile(&others, 50.0) / percentile(&ours, 50.0);
        println!("trivial run: squall is {ratio:.1} times as fast at the median");
    }
    fs::remove_dir_all(directory).unwrap();
}

/// A connection to an agent that serves a host.
struct Agent {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
    number: u64,
}

impl Agent {
    fn of(host: &Host) -> Self {
        let socket = wait::until("the agent listens", Duration::from_secs(5), || {
            let places = fs::read_dir(&host.state).ok()?.flatten();
            let sockets: Vec<PathBuf> = places.map(|place| place.path().join("agent.sock")).collect();
            sockets.into_iter().find_map(|socket| UnixStream::connect(socket).ok())
        });
        Agent { answers: BufReader::new(socket.try_clone().unwrap()), stream: socket, number: 0 }
    }

    fn ask(&mut self, request: &Value) -> Value {
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
fn first_packet() {
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
fn idle_agent() {
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
