//! How often packets are lost, doubled, damaged and overtaken, by what arrives, beside what chance allows.

use std::time::Duration;

use serde_json::{Value, json};
use squall_tests::odds::{self, ONE_IN_A_THOUSAND};
use squall_tests::traffic::counted;
use squall_tests::traffic::numbered::{Numbered, Outcome};
use squall_tests::world::World;

use super::{Engine, entering};
use crate::table::{head, row};

const PLAN: Numbered =
    Numbered { count: 120_000, rate: 40_000, size: 64, quiet: Duration::from_millis(300), urgent: false };

/// What is counted at the receiver.
fn lost(outcome: &Outcome) -> u32 {
    u32::try_from(outcome.lost().len()).unwrap()
}

/// 120,000 datagrams for each share.
pub fn counts() {
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { unreachable!("two hosts were asked for") };
    let mut engine = Engine::on(far);
    let send = || PLAN.send(&near.netns, &far.netns, (far.v4, 9).into());
    head(
        "shares: of 120,000 datagrams, by what arrived",
        &["", "seen", "expected", "99.9 % from", "to", "within"],
    );
    let outcome = send();
    let print = |what: &str, seen: u32, expected: f64, allowed: std::ops::RangeInclusive<u32>| {
        let within = if allowed.contains(&seen) { "yes" } else { "NO" };
        let cells = [seen.to_string(), format!("{expected:.0}"), allowed.start().to_string()];
        row([what.to_owned()].into_iter().chain(cells).chain([allowed.end().to_string(), within.to_owned()]));
    };
    print("control: lost without a fault", lost(&outcome), 0.0, 0..=0);
    for percent in ["0.1", "1", "10", "30"] {
        engine.shape(json!({ "loss": { "random": chance(percent) } }), entering("udp"), "ingress");
        binomial(print, &format!("lost, {percent} %"), lost(&send()), percent);
        engine.lift();
    }
    for percent in ["1", "10"] {
        engine.shape(json!({ "duplicate": chance(percent) }), entering("udp"), "ingress");
        binomial(print, &format!("doubled, {percent} %"), send().doubled(), percent);
        engine.lift();
        engine.shape(
            json!({ "reorder": { "chance": chance(percent), "late": "10ms" } }),
            entering("udp"),
            "ingress",
        );
        binomial(print, &format!("overtaken, {percent} % by 10 ms"), send().overtaken(), percent);
        engine.lift();
        engine.shape(json!({ "corrupt": chance(percent) }), entering("udp"), "ingress");
        let errors = || counted::v4(&far.netns, "Udp", "InErrors");
        let before = errors();
        binomial(print, &format!("damaged, {percent} %: missing"), lost(&send()), percent);
        let refused = u32::try_from(errors() - before).unwrap();
        binomial(print, &format!("damaged, {percent} %: refused by the kernel"), refused, percent);
        engine.lift();
    }
    bursts(&mut engine, send);
    engine.end();
}

fn chance(percent: &str) -> Value {
    json!({ "percent": format!("{percent}%") })
}

fn binomial(
    print: impl Fn(&str, u32, f64, std::ops::RangeInclusive<u32>),
    what: &str,
    seen: u32,
    percent: &str,
) {
    let share = percent.parse::<f64>().unwrap() / 100.0;
    let allowed = odds::binomial(PLAN.count, share, ONE_IN_A_THOUSAND);
    print(what, seen, f64::from(PLAN.count) * share, allowed);
}

/// Gilbert and Elliott's network: how many are lost, and how long the bursts are, by chi-square.
fn bursts(engine: &mut Engine, send: impl Fn() -> Outcome) {
    for (p, r) in [(0.02, 0.2), (0.005, 0.1)] {
        let model = json!({ "p": format!("{}%", p * 100.0), "r": format!("{}%", r * 100.0) });
        engine.shape(json!({ "loss": { "gilbert-elliott": model } }), entering("udp"), "ingress");
        let outcome = send();
        engine.lift();
        let (lost, bursts) = (lost(&outcome), outcome.bursts());
        let allowed = odds::bursty(PLAN.count, p, r, ONE_IN_A_THOUSAND);
        // Lengths are geometric: so many are one long, two, … and the rest together, while at least five are expected.
        let many = bursts.len() as f64;
        let mut pairs = Vec::new();
        let mut left = many;
        let mut length = 1;
        while left * (1.0 - r) >= 5.0 && length < 30 {
            let expected = left * r;
            pairs.push((bursts.iter().filter(|burst| **burst == length).count() as f64, expected));
            left -= expected;
            length += 1;
        }
        pairs.push((bursts.iter().filter(|burst| **burst >= length).count() as f64, left));
        let (statistic, critical) = odds::chi_square(&pairs);
        let mean = f64::from(lost) / many;
        println!(
            "bursts, p {p}, r {r}: {lost} lost ({} to {} expected), {} bursts of {mean:.2} on average ({:.2} expected), \
             chi-square of their lengths {statistic:.1}, {critical:.1} is exceeded once in a thousand times",
            allowed.start(),
            allowed.end(),
            bursts.len(),
            1.0 / r
        );
    }
}
