//! What it costs when the worker is killed while it holds packets.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use squall_tests::client::{Glance, Steady};
use squall_tests::netns::signal;
use squall_tests::traffic::numbered::Numbered;
use squall_tests::wait;
use squall_tests::world::World;

use super::Engine;
use super::delay::delayed;
use crate::table::{head, milliseconds, percentile, row};

const ROUNDS: usize = 20;

/// When, after the traffic has begun, the worker is killed.
const MOMENT: Duration = Duration::from_millis(700);

/// Datagrams lost of a stream at 1 kHz, and the longest wait of a TCP echo.
pub fn losses() {
    head(
        &format!(
            "crash: the worker is killed (kill -9) while it holds packets, {} times",
            crate::rounds(ROUNDS)
        ),
        &["", "lost p50", "lost most", "gap p50 ms", "gap most ms", "before ms"],
    );
    for delay in [10, 100] {
        for (way, killed) in [(Way::In, false), (Way::In, true), (Way::Out, false), (Way::Out, true)] {
            rounds(delay, way, killed);
        }
    }
}

/// Where packets are held.
#[derive(Clone, Copy)]
enum Way {
    /// In the kernel's queue of the host that they enter.
    In,
    /// In the memory of the worker of the host that they leave.
    Out,
}

/// The longest of some waits.
fn longest<'g>(glances: impl Iterator<Item = &'g Glance>) -> Duration {
    glances.map(|glance| glance.took).max().unwrap_or_default()
}

fn rounds(delay: u32, way: Way, killed: bool) {
    let plan = Numbered { count: 1500, rate: 1000, ..Numbered::default() };
    let mut lost = Vec::new();
    let [mut gaps, mut before] = [const { Vec::new() }; 2];
    for _ in 0..crate::rounds(ROUNDS) {
        let world = World::new(2);
        let [near, far] = &world.hosts[..] else { unreachable!("two hosts were asked for") };
        let echo = world.echo(1, 7);
        let (host, flow, direction) = match way {
            Way::In => (far, json!({ "from": ["any:9", "any:7"] }), "ingress"),
            Way::Out => (near, json!({ "to": ["10.77.1.2:9", "10.77.1.2:7"] }), "egress"),
        };
        let mut engine = Engine::on(host);
        engine.shape(delayed(delay), flow, direction);
        let mut talk = echo.dial(near, far.v4).unwrap();
        let worker = host.agents().1;
        let steady = Steady::start("echo", Duration::from_millis(1), move || talk.talk());
        let (outcome, struck) = thread::scope(|scope| {
            let sending = scope.spawn(|| plan.send(&near.netns, &far.netns, (far.v4, 9).into()));
            thread::sleep(MOMENT);
            let struck = Instant::now();
            if killed {
                assert!(signal(&worker, Signal::KILL));
                wait::holds("the table to go", wait::PATIENCE, || host.tables().is_empty());
            }
            (sending.join().unwrap(), struck)
        });
        let glances = steady.finish();
        let failed = glances.iter().filter(|glance| glance.outcome.is_err()).count();
        assert_eq!(failed, 0, "the connection broke");
        lost.push(outcome.lost().len() as f64);
        let (early, late) = (
            longest(glances.iter().filter(|glance| glance.at + glance.took < struck)),
            longest(glances.iter().filter(|glance| glance.at + glance.took >= struck)),
        );
        before.push(early);
        gaps.push(late);
        drop(engine);
    }
    let middle = |figures: Vec<f64>| {
        let mut figures = figures;
        figures.sort_by(f64::total_cmp);
        (percentile(&figures, 50.0), percentile(&figures, 100.0))
    };
    let ((lost, most), (gap, widest), (early, _)) =
        (middle(lost), middle(milliseconds(gaps)), middle(milliseconds(before)));
    let way = match way {
        Way::In => "in",
        Way::Out => "out",
    };
    let what = format!("{delay} ms {way}, {}", if killed { "killed" } else { "control: not killed" });
    let cells = [lost, most].map(|cell| format!("{cell:.0}")).into_iter();
    let times = [gap, widest, early].map(|cell| format!("{cell:.1}"));
    row([what].into_iter().chain(cells).chain(times));
}
