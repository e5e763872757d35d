//! The load probe against nginx on the loopback of a namespace: how late it sends, what it measures, what it costs; and
//! wrk, a closed loop written in C, in the same run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use squall_tests::host::Host;
use squall_tests::skip::found;
use squall_tests::squall::binary;
use squall_tests::world::World;

/// How long each of them sends, in seconds.
const SECONDS: u64 = 10;

pub fn figures() {
    let world = World::new(1);
    let host = &world.hosts[0];
    world.nginx(0, 80);
    for rate in [500, 2000, 5000] {
        load(host, rate);
    }
    if !found("wrk") {
        println!("wrk: not installed here (package `wrk`)");
        return;
    }
    for connections in [1, 16] {
        wrk(host, connections);
    }
}

/// Times in buckets, as samples carry them: upper ends in nanoseconds, and counts.
#[derive(Default)]
struct Times(BTreeMap<u64, u64>);

impl Times {
    fn add(&mut self, pairs: &Value) {
        for pair in pairs.as_array().into_iter().flatten() {
            let [nanos, count] = [&pair[0], &pair[1]].map(|value| value.as_u64().unwrap());
            *self.0.entry(nanos).or_default() += count;
        }
    }

    /// In microseconds.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.0.values().sum::<u64>() as f64 * share).ceil() as u64;
        let mut below = 0;
        let found = self.0.iter().find(|(_, count)| {
            below += **count;
            below >= wanted
        });
        *found.unwrap().0 as f64 / 1000.0
    }

    fn words(&self) -> String {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| self.quantile(share));
        format!("p50 {p50:.0} µs, p99 {p99:.0} µs, most {most:.0} µs")
    }
}

/// Time on a processor of all threads that a process has now.
fn on_cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let nanos = tasks.filter_map(|task| {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn load(host: &Host, rate: u32) {
    let mut command = host.netns.command(binary("squall"));
    let mut prober = command.arg("prober").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = prober.stdin.take().unwrap();
    let mut replies = BufReader::new(prober.stdout.take().unwrap()).lines();
    let mut say = |request: Value| writeln!(input, "{request}").unwrap();
    let request = json!({ "url": "http://127.0.0.1/", "rate": format!("{rate}/s") });
    let what = json!({ "load": { "load": request, "tick": "1s" } });
    say(json!({ "load": { "probe": 1, "what": what, "expect": {} } }));
    let mut sample = || {
        let reply: Value = serde_json::from_str(&replies.next().unwrap().unwrap()).unwrap();
        reply["sample"]["load"].clone()
    };
    // Connections are opened and pages of memory are touched before it counts.
    say(json!({ "once": { "probe": 1 } }));
    sample();
    let before = on_cpu(prober.id());
    (0..SECONDS).for_each(|_| say(json!({ "once": { "probe": 1 } })));
    let (mut late, mut latency, mut requests, mut errors, mut bytes) =
        (Times::default(), Times::default(), 0, 0, 0);
    for _ in 0..SECONDS {
        let load = sample();
        late.add(&load["late"]);
        latency.add(&load["latency"]);
        requests += load["requests"].as_u64().unwrap();
        errors += load["errors"]
            .as_array()
            .map_or(0, |kinds| kinds.iter().filter_map(|kind| kind["times"].as_u64()).sum());
        bytes += load.to_string().len();
    }
    let cost = (on_cpu(prober.id()) - before).as_secs_f64() * 1e6 / requests as f64;
    drop(input);
    prober.wait().unwrap();
    println!(
        "load probe, {rate}/s for {SECONDS} s: {requests} requests, {errors} errors; sent late {}; latency {}; \
         {cost:.1} µs of processor a request; {} bytes a sample",
        late.words(),
        latency.words(),
        bytes as u64 / SECONDS
    );
}

/// As fast as its connections allow: a closed loop has no rate of its own.
fn wrk(host: &Host, connections: u32) {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        [usage.user_time(), usage.system_time()]
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
    };
    let before: f64 = used().iter().sum();
    let mut command: Command = host.netns.command("wrk");
    let arguments = ["-t1", "--latency", "-d", &SECONDS.to_string(), "-c", &connections.to_string()];
    let output = command.args(arguments).arg("http://127.0.0.1/").output().unwrap();
    let spent = used().iter().sum::<f64>() - before;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |word: &str| {
        let line = said.lines().find(|line| line.trim_start().starts_with(word)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or("?").to_owned()
    };
    let rate: f64 = after("Requests/sec:").parse().unwrap();
    let cost = spent * 1e6 / (rate * SECONDS as f64);
    println!(
        "wrk, {connections} connections for {SECONDS} s: {rate:.0}/s; latency p50 {}, p99 {}; {cost:.1} µs of \
         processor a request",
        after("50%"),
        after("99%")
    );
}
