//! A fleet: the real controller, and hosts that are simulated in this process and speak to it over loopback as agents do,
//! with a certificate each.

mod agents;
mod controller;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use squall_tests::wait::{holds, median, until};

use crate::table::{head, milliseconds, percentile, row};
use agents::Herd;
use controller::Controller;

/// How many hosts; `SQUALL_HOSTS` chooses others, such as `100,1000`.
const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// How long a fleet may take for anything.
const PATIENCE: Duration = Duration::from_secs(180);
/// The beat of agents, as it is by default.
const BEAT: Duration = Duration::from_secs(5);
/// For how long heartbeats are looked at.
const QUIET: Duration = Duration::from_secs(20);
const HALTS: usize = 3;

pub fn figures() {
    let sizes = std::env::var("SQUALL_HOSTS").ok();
    let sizes = sizes.map(|sizes| sizes.split(',').map(|size| size.parse().unwrap()).collect());
    let sizes: Vec<usize> = sizes.unwrap_or_else(|| SIZES.to_vec());
    agents::many_descriptors();
    head(
        "a fleet on one controller, over loopback with TLS; it and its hosts share the processors",
        &[
            "",
            "hosts",
            "KiB each",
            "connect s",
            "beats %",
            "halted ms",
            "answered ms",
            "order ms",
            "skew p50",
            "skew p99",
            "again s",
        ],
    );
    sizes.into_iter().for_each(fleet);
}

fn fleet(hosts: usize) {
    let mut controller = Controller::prepare(hosts);
    controller.start();
    let (before, spent) = (controller.resident(), controller.on_cpu());
    let began = Instant::now();
    let herd = Herd::of(&controller);
    let connected =
        |wanted: usize| holds("all hosts to be connected", PATIENCE, || herd.connected() == wanted);
    connected(hosts);
    let connect = began.elapsed();
    let connect_cpu = controller.on_cpu() - spent;
    let at_once = (controller.resident() - before) / 1024.0 / hosts as f64;
    // What connecting needed for a moment is given back, and every host has been heard.
    thread::sleep(BEAT * 2);
    let each = (controller.resident() - before) / 1024.0 / hosts as f64;
    let (spent, began) = (controller.on_cpu(), Instant::now());
    thread::sleep(QUIET);
    let beats = (controller.on_cpu() - spent).as_secs_f64() / began.elapsed().as_secs_f64();
    assert_eq!(herd.connected(), hosts, "some were lost though nothing happened");

    let (halted, answered): (Vec<_>, Vec<_>) = (0..HALTS).map(|_| halt(&controller, &herd, hosts)).unzip();
    let [halted, answered] = [median(halted), median(answered)];
    let listed = Instant::now();
    let (mut all, mut from) = (0, String::new());
    loop {
        let page = controller.ask("GET", &format!("/v1/hosts?limit=1000{from}"), None);
        all += page["hosts"].as_array().map_or(0, Vec::len);
        let Some(next) = page["next"].as_str() else { break };
        from = format!("&after={next}");
    }
    let listed = listed.elapsed();
    assert_eq!(all, hosts);

    let ((order, skew), waited) = controller.asking(|| run(&controller, &herd, hosts));
    let began = Instant::now();
    controller.kill();
    controller.start();
    let listens = began.elapsed();
    connected(hosts);
    let again = began.elapsed();
    row([
        "".to_owned(),
        hosts.to_string(),
        format!("{each:.1}"),
        format!("{:.2}", connect.as_secs_f64()),
        format!("{:.1}", beats * 100.0),
        format!("{:.0}", halted.as_secs_f64() * 1000.0),
        format!("{:.0}", answered.as_secs_f64() * 1000.0),
        format!("{order:.0}"),
        format!("{:.1}", percentile(&skew, 50.0)),
        format!("{:.1}", percentile(&skew, 99.0)),
        format!("{:.1}", again.as_secs_f64()),
    ]);
    println!(
        "  connecting took {:.2} s of a processor, and {at_once:.1} KiB each at once; a list of all hosts {:.0} ms; during the run whoever asked something else \
         waited for {:.0} ms at most; after the kill it listened in {:.2} s",
        connect_cpu.as_secs_f64(),
        listed.as_secs_f64() * 1000.0,
        waited.as_secs_f64() * 1000.0,
        listens.as_secs_f64()
    );
}

/// From the call to when the last host was halted, and to the answer, which tells of every host.
fn halt(controller: &Controller, herd: &Herd, hosts: usize) -> (Duration, Duration) {
    herd.forget();
    let began = Instant::now();
    let done = controller.ask("POST", "/v1/halt", Some(&json!({ "reason": "a figure" })));
    let took = began.elapsed();
    let reached = done["hosts"].as_object().unwrap().values().filter(|did| did["refused"].is_null()).count();
    let halted = herd.halted();
    assert_eq!((reached, halted.len()), (hosts, hosts));
    let last = halted.into_iter().max().unwrap();
    controller.ask("POST", "/v1/halt/lift", Some(&json!({ "reason": "a figure" })));
    (last - began, took)
}

/// A run over all hosts: from the first host that is told to begin to the last that is, and how much later than the first
/// each was, in milliseconds.
fn run(controller: &Controller, herd: &Herd, hosts: usize) -> (f64, Vec<f64>) {
    herd.forget();
    let document = "squall: 1\ntitle: All at once\non: { pick: all }\nhypothesis: []\nmethod:\n  \
                    - fault: { latency: { delay: 1ms, to: [\"192.0.2.1:9\"] } }\n    for: 5s\n";
    let run = controller.ask("POST", "/v1/runs", Some(&json!({ "document": document })));
    let path = format!("/v1/runs/{}", run["id"].as_str().unwrap());
    let ended = until("the run to end", PATIENCE, || {
        thread::sleep(Duration::from_millis(500));
        let run = controller.ask("GET", &path, None);
        let state = run["state"].as_str().unwrap().to_owned();
        (!["submitted", "running", "reverting"].contains(&state.as_str())).then_some(state)
    });
    let mut told = herd.told();
    if told.len() != hosts {
        println!("  the run over {hosts} hosts is `{ended}`: {} of them were told to begin", told.len());
    }
    told.sort_unstable();
    let Some(first) = told.first().copied() else { return (f64::NAN, vec![f64::NAN]) };
    let mut later = milliseconds(told.into_iter().map(|at| at - first));
    later.sort_by(f64::total_cmp);
    (later.last().copied().unwrap(), later)
}
