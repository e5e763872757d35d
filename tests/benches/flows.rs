//! What many faults at once cost: to put one more in and take it out, and for traffic that none of them names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squall_agent::host::nft::Hook;
use squall_agent::host::ranges::Addresses;
use squall_agent::host::rule::{End, Home, Rule};
use squall_agent::host::table::Table;
use squall_tests::host::Host;
use squall_tests::netns::Netns;
use squall_tests::traffic::bulk;
use squall_tests::world::World;

use crate::agent::Agent;
use crate::table::{head, milliseconds, percentile, row, summary};

/// So many faults are live.
const MANY: u32 = 1000;
/// So often one more is put in and taken out.
const ROUNDS: u32 = 200;
/// So many pairs of streams, without and with the faults.
const PAIRS: usize = 16;

fn apply(agent: &mut Agent, part: u32, to: &str) -> (f64, f64) {
    let block = json!({ "flow": { "to": [to], "protocol": "tcp" }, "direction": "both", "verdict": "drop" });
    let change = json!({ "block": block });
    timed(
        agent,
        &json!({ "apply": { "run": "flows", "part": part, "changes": [change], "lasts_ms": 600_000 } }),
    )
}

fn lift(agent: &mut Agent, part: u32) -> (f64, f64) {
    timed(agent, &json!({ "lift": { "run": "flows", "part": part } }))
}

/// From question to answer, and what the agent itself says that it took, in milliseconds.
fn timed(agent: &mut Agent, request: &Value) -> (f64, f64) {
    let began = Instant::now();
    let reply = agent.ask(request);
    let whole = began.elapsed().as_secs_f64() * 1000.0;
    let own = ["applied", "lifted"].iter().find_map(|kind| reply[kind]["took_us"].as_f64());
    (whole, own.unwrap_or_else(|| panic!("{reply}")) / 1000.0)
}

fn began(host: &Host) -> Agent {
    let mut agent = Agent::of(host);
    agent.ask(&json!({ "begin": { "run": "flows", "title": "flows", "plan": "", "seed": 1,
                                  "lease_ms": 600_000, "deadline_ms": 600_000 } }));
    agent
}

/// An address that nobody has; no two lie side by side.
fn nobody(number: u32) -> String {
    format!("198.18.{}.{}:443", number / 100, number % 100 * 2)
}

fn rounds(agent: &mut Agent, first: u32, what: &str) {
    let mut times: [Vec<f64>; 4] = [const { Vec::new() }; 4];
    for part in first..first + ROUNDS {
        let (put, taken) = (apply(agent, part, "192.0.2.77:443"), lift(agent, part));
        [put.1, put.0, taken.1, taken.0].into_iter().zip(&mut times).for_each(|(time, all)| all.push(time));
    }
    let cells = times.map(|mut all| {
        all.sort_by(f64::total_cmp);
        format!("{:.2} / {:.2}", percentile(&all, 50.0), percentile(&all, 99.0))
    });
    row([vec![what.to_owned()], cells.to_vec()].concat());
}

/// The same without the agent around it: what the kernel takes, and the messages.
fn of_the_table(netns: &Netns) {
    let rules = |part: u32, to: &str| {
        let address: IpAddr = to.split(':').next().unwrap().parse().unwrap();
        let reach = Some(Addresses::of([(address, 32)]));
        let home = Arc::new(Home { sense: "to", head: Vec::new(), reach });
        let rule = |end| Rule::commented(tag(part)).at_home(&home).network(end, address, 32).counter().drop();
        vec![(Hook::Output, rule(End::Destination)), (Hook::Input, rule(End::Source))]
    };
    netns.inside(|| {
        let mut table = Table::open().unwrap();
        table.create(Vec::new()).unwrap();
        for others in [0, MANY] {
            for part in 0..others {
                table.add(rules(part, &nobody(part)), None).unwrap();
            }
            let mut times = [const { Vec::new() }; 2];
            for _ in 0..ROUNDS {
                let began = Instant::now();
                table.add(rules(1_000_000, "192.0.2.77:443"), None).unwrap();
                let put = began.elapsed();
                assert_eq!(table.remove(&tag(1_000_000)).unwrap().left, 0);
                times[0].push(put);
                times[1].push(began.elapsed() - put);
            }
            let [put, taken] = times.map(|times| summary(milliseconds(times)));
            println!("rules of one fault beside {others} others: put in {put}");
            println!("rules of one fault beside {others} others: taken out {taken}");
        }
        table.delete().unwrap();
    });
}

fn tag(part: u32) -> String {
    format!("squall run flows part {part} change 0;")
}

/// Puts one fault in and takes it out, on an empty host and beside a thousand; and streams that no fault names.
pub fn figures() {
    // Two hosts that send to the first: one of them with the faults. Streams alternate, so that each pair meets the same
    // machine.
    let world = World::new(3);
    let [sink, full, empty] = &world.hosts[..] else { panic!("three hosts were asked for") };
    of_the_table(&full.netns);
    // Where the journal's syncs cost nothing: how long a disk takes is not the agent's doing.
    world.tmpfs(&full.state, 64 << 20);
    let _agent = full.agent(&["run"]).start();
    let mut agent = began(full);
    head(
        "one fault, its journal in memory, p50 / p99 in ms",
        &["", "install", "to the answer", "remove", "to the answer"],
    );
    rounds(&mut agent, 1_000_000, "nothing else live");
    let begun = Instant::now();
    for part in 0..MANY {
        apply(&mut agent, part, &nobody(part));
    }
    let filled = begun.elapsed();
    rounds(&mut agent, 2_000_000, &format!("{MANY} others live"));
    let mut port = 20_000;
    let mut stream = |from: &Host, towards: IpAddr| {
        port += 1;
        bulk::Stream::pinned(&from.netns, &sink.netns, (towards, port).into())
            .rate(Duration::from_millis(500))
    };
    // The first host has an address on each link.
    let [to_full, to_empty] = [[10, 77, 1, 1], [10, 77, 2, 1]].map(IpAddr::from);
    let mut ratios = Vec::new();
    let mut rates = [const { Vec::new() }; 2];
    for pair in 0..PAIRS {
        let (with, without) = if pair % 2 == 0 {
            let with = stream(full, to_full);
            (with, stream(empty, to_empty))
        } else {
            let without = stream(empty, to_empty);
            (stream(full, to_full), without)
        };
        ratios.push(with / without);
        [without, with].into_iter().zip(&mut rates).for_each(|(rate, all)| all.push(rate / 1e9));
    }
    let begun = Instant::now();
    agent.ask(&json!({ "end": { "run": "flows" } }));
    println!(
        "{MANY} faults put in one after the other: {:.1} s; all of them taken out: {:.1} s",
        filled.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    for all in rates.iter_mut().chain([&mut ratios]) {
        all.sort_by(f64::total_cmp);
    }
    let [without, with] = rates.map(|all| percentile(&all, 50.0));
    println!(
        "a stream that no fault names, medians of {PAIRS}: {without:.2} Gbit/s without, {with:.2} Gbit/s with {MANY} faults; \
         ratio p50 {:.3} (p10 {:.3}, p90 {:.3})",
        percentile(&ratios, 50.0),
        percentile(&ratios, 10.0),
        percentile(&ratios, 90.0),
    );
}
