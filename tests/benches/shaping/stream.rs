//! How much a single TCP connection carries, and what a packet costs the worker.

use std::thread;
use std::time::Duration;

use serde_json::json;
use squall_tests::host::Host;
use squall_tests::traffic::numbered::Numbered;
use squall_tests::traffic::{bulk, counted};
use squall_tests::world::World;

use super::delay::delayed;
use super::{Engine, entering, leaving};
use crate::rounds;
use crate::table::{head, row};

/// Each figure is the median of so many, taken in turns so that the machine's moods meet all of them.
const ROUNDS: usize = 3;

const LASTS: Duration = Duration::from_secs(4);

/// Gbit/s of one stream: bare, beside a fault on other traffic, delayed on its way in, delayed on its way out.
pub fn rates() {
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { unreachable!("two hosts were asked for") };
    let rate = || bulk::bits_per_second(&near.netns, &far.netns, (far.v4, 9).into(), LASTS) / 1e9;
    let under_engine = |mut engine: Engine, impairment, flow, direction: &str| {
        engine.shape(impairment, flow, direction);
        let rate = rate();
        engine.end();
        rate
    };
    let under = |host: &Host, impairment, flow, direction: &str| {
        under_engine(Engine::on(host), impairment, flow, direction)
    };
    let mut figures = [const { Vec::new() }; 6];
    for _ in 0..rounds(ROUNDS) {
        figures[0].push(rate());
        figures[1].push(under(far, delayed(1), entering("tcp"), "ingress"));
        figures[2].push(under(far, delayed(10), entering("tcp"), "ingress"));
        figures[3].push(under(near, delayed(10), leaving("tcp"), "egress"));
        figures[4].push(under_engine(Engine::humble(near), delayed(10), leaving("tcp"), "egress"));
        figures[5].push(under(
            far,
            json!({ "loss": { "random": { "percent": "1%" } } }),
            entering("tcp"),
            "ingress",
        ));
    }
    let names = [
        "bare",
        "1 ms in",
        "10 ms in",
        "10 ms out (stolen and sent on)",
        "10 ms out, usual priority",
        "1 % lost in",
    ];
    head("stream: one TCP connection (Gbit/s)", &["", "median", "least", "most", "of bare"]);
    let middle = |figures: &[f64]| figures[figures.len() / 2];
    for figures in &mut figures {
        figures.sort_by(f64::total_cmp);
    }
    let bare = middle(&figures[0]);
    for (name, figures) in names.iter().zip(&figures) {
        let cells = [middle(figures), figures[0], figures[figures.len() - 1], middle(figures) / bare];
        row([(*name).to_owned()].into_iter().chain(cells.map(|cell| format!("{cell:.3}"))));
    }
}

/// One stream, with and without a fault on other traffic, in turns of half a second: the machine's moods meet both.
pub fn beside() {
    const PAIRS: usize = 20;
    const TURN: Duration = Duration::from_millis(500);
    /// What changing the ruleset disturbs by itself (it waits for all processors) is over then.
    const SETTLE: Duration = Duration::from_millis(200);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { unreachable!("two hosts were asked for") };
    let mut engine = Engine::on(far);
    let stream = bulk::Stream::pinned(&near.netns, &far.netns, (far.v4, 9).into());
    let with = |engine: &mut Engine| {
        engine.shape(delayed(10), json!({ "from": ["192.0.2.1:4711"] }), "both");
        thread::sleep(SETTLE);
        let rate = stream.rate(TURN);
        engine.lift();
        thread::sleep(SETTLE);
        rate
    };
    let mut rates = [const { Vec::new() }; 3];
    let pairs = rounds(PAIRS);
    for pair in 0..pairs {
        let (bare, beside) = if pair % 2 == 0 {
            let bare = stream.rate(TURN);
            (bare, with(&mut engine))
        } else {
            let beside = with(&mut engine);
            (stream.rate(TURN), beside)
        };
        [bare / 1e9, beside / 1e9, beside / bare]
            .into_iter()
            .zip(&mut rates)
            .for_each(|(one, all)| all.push(one));
    }
    engine.end();
    rates.iter_mut().for_each(|all| all.sort_by(f64::total_cmp));
    let [bare, beside, ratio] = rates;
    head(
        "beside: one TCP connection beside a fault on other traffic (Gbit/s)",
        &["", "median", "least", "most"],
    );
    for (name, all) in [("bare", &bare), ("beside a fault", &beside), ("ratio of a pair", &ratio)] {
        let cells = [all[pairs / 2], all[0], all[pairs - 1]];
        row([name.to_owned()].into_iter().chain(cells.map(|cell| format!("{cell:.3}"))));
    }
}

/// Datagrams as fast as one thread sends them: what arrives, and the worker's processor time for each.
pub fn cost_of_a_packet() {
    let plan = Numbered { count: 300_000, rate: 100_000, ..Numbered::default() };
    head("cost: small datagrams at up to 100,000/s", &["", "arrived", "lost", "packets/s", "us of worker"]);
    let cases = [
        ("control: no fault", None),
        ("10 ms in", Some((1, delayed(10), entering("udp"), "ingress"))),
        ("10 ms in, usual priority", Some((1, delayed(10), entering("udp"), "ingress"))),
        ("10 ms out (stolen and sent on)", Some((0, delayed(10), leaving("udp"), "egress"))),
        (
            "1 % lost in",
            Some((1, json!({ "loss": { "random": { "percent": "1%" } } }), entering("udp"), "ingress")),
        ),
        (
            "1 % doubled in",
            Some((1, json!({ "duplicate": { "percent": "1%" } }), entering("udp"), "ingress")),
        ),
    ];
    for (name, case) in cases {
        let world = World::new(2);
        let [near, far] = &world.hosts[..] else { unreachable!("two hosts were asked for") };
        let mut engine = case.map(|(on, impairment, flow, direction)| {
            let humble = name.ends_with("usual priority");
            let host = &world.hosts[on];
            let mut engine = if humble { Engine::humble(host) } else { Engine::on(host) };
            engine.shape(impairment, flow, direction);
            (world.hosts[on].agents().1.pid, engine)
        });
        let before = engine.as_ref().map(|(pid, _)| counted::processor_time(*pid));
        let outcome = plan.send(&near.netns, &far.netns, (far.v4, 9).into());
        let used =
            engine.as_ref().zip(before).map(|((pid, _), before)| counted::processor_time(*pid) - before);
        let first = outcome.arrivals.first().unwrap().at;
        let last = outcome.arrivals.last().unwrap().at;
        let rate = outcome.arrivals.len() as f64 / (last - first).as_secs_f64();
        let cost = used.map_or("-".to_owned(), |used| {
            format!("{:.2}", used.as_secs_f64() * 1e6 / f64::from(outcome.sent))
        });
        let cells = [
            outcome.arrivals.len().to_string(),
            outcome.lost().len().to_string(),
            format!("{rate:.0}"),
            cost,
        ];
        row([name.to_owned()].into_iter().chain(cells));
        if let Some((_, engine)) = &mut engine {
            let evidence = engine.evidence();
            println!("    matched {}, engine {}", evidence["matched"], evidence["engine"]);
        }
        if let Some((_, engine)) = engine {
            engine.end();
        }
    }
}
