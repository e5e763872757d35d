//! A fault against the time before it: claims that have no meaning without a baseline.

use serde_json::{Value, json};
use squall_experiments::exit::Exit;

use super::groups::latencies;
use super::record::{Second, summary};
use super::{Chance, Traffic, in_full, replicates};

/// How long the baseline and the fault are, in seconds.
const LASTS: usize = 60;

/// A baseline or a fault in which such a share of 50 requests a second is bad.
fn shares(chance: &mut Chance, bad: f64) -> Vec<Second> {
    Second::shared(chance, &Traffic::new(50.0, bad), LASTS)
}

/// The shares of runs that deviated and that held.
fn outcomes(seed: u64, many: usize, one: impl Fn(&mut Chance) -> Exit) -> (f64, f64) {
    let all: Vec<Exit> =
        (0..many as u64).map(|replicate| one(&mut Chance::new(seed * 1_000_003 + replicate))).collect();
    let share = |wanted: Exit| all.iter().filter(|exit| **exit == wanted).count() as f64 / many as f64;
    (share(Exit::Deviated), share(Exit::Held))
}

#[test]
fn what_is_exactly_at_its_multiple_of_the_baseline_is_rarely_said_to_be_beyond_it() {
    // Of the claim: the usual share of bad requests, and the one that is just allowed then.
    let served: f64 = 0.98;
    for (seed, bound, usual, just) in [
        (30, json!({ "errors-of-baseline": 1.0 }), 0.01, 0.01),
        (31, json!({ "errors-of-baseline": 1.5 }), 0.01, 0.015),
        (32, json!({ "throughput": "90%" }), 1.0 - served, 1.0 - 0.9 * served),
    ] {
        for mode in ["fast", "robust"] {
            let (deviated, held) = outcomes(seed, replicates(), |chance| {
                let baseline = shares(chance, usual);
                summary(&bound, mode, &baseline, &shares(chance, just)).exit
            });
            println!("{bound} at its bound, {mode}, 60 s after 60 s: {deviated:.4} deviated, {held:.4} held");
            assert!(deviated <= if in_full() { 0.05 } else { 0.08 }, "{bound} {mode}: {deviated}");
            // It is held to what the baseline does not exclude, which is more than what the baseline is.
            assert!(held <= 0.5, "{bound} {mode}: {held}");
        }
    }
}

#[test]
fn what_breaks_is_found_beside_a_baseline_and_what_does_not_is_said_to_hold() {
    // Of the claim: the usual share, that of the fault, and who is sure of it in nearly every run.
    let broken = |share: f64| (share, Exit::Deviated);
    for (seed, bound, usual, (during, expected), mode) in [
        (33, json!({ "errors-of-baseline": 1.5 }), 0.01, broken(0.05), "fast"),
        (34, json!({ "errors-of-baseline": 1.5 }), 0.01, broken(0.1), "robust"),
        (35, json!({ "throughput": "90%" }), 0.0, broken(0.2), "fast"),
        (36, json!({ "throughput": "90%" }), 0.0, broken(0.3), "robust"),
        (37, json!({ "errors-of-baseline": 5.0 }), 0.01, (0.01, Exit::Held), "robust"),
        (38, json!({ "throughput": "90%" }), 0.01, (0.01, Exit::Held), "robust"),
    ] {
        let found = outcomes(seed, replicates() / 4, |chance| {
            let baseline = shares(chance, usual);
            summary(&bound, mode, &baseline, &shares(chance, during)).exit
        });
        let (deviated, held) = found;
        println!(
            "{bound}, {usual} usual and {during} during, {mode}: {deviated:.4} deviated, {held:.4} held"
        );
        let right = if expected == Exit::Held { held } else { deviated };
        assert!(right >= 0.9, "{bound} {usual} {during} {mode}: {found:?}");
    }
}

/// Seconds of answers around 10 ms with a long tail, each second slowed by chance by up to so much.
fn slowed(chance: &mut Chance, times: f64, weather: f64) -> Vec<Second> {
    let mut second = || {
        let times = times * (1.0 + weather * chance.uniform());
        Second { latency: latencies(chance, 50, times, 0.0), bad: 0 }
    };
    (0..LASTS).map(|_| second()).collect()
}

#[test]
fn latencies_that_are_no_worse_are_rarely_called_slower_and_slower_ones_are() {
    let bound: Value = json!("latency");
    // How much slower, what varies from second to second, and what share may or must be called slower.
    for (seed, times, weather, least, most) in [
        (39, 1.0, 0.0, 0.0, 0.05),
        (40, 1.0, 0.3, 0.0, 0.05),
        (41, 1.5, 0.0, 0.95, 1.0),
        (42, 2.0, 0.3, 0.95, 1.0),
    ] {
        for mode in ["fast", "robust"] {
            let (deviated, held) = outcomes(seed, replicates() / 8, |chance| {
                let baseline = slowed(chance, 1.0, weather);
                summary(&bound, mode, &baseline, &slowed(chance, times, weather)).exit
            });
            println!(
                "latency {times} times the baseline's, {weather} of weather, {mode}: {deviated:.4} deviated, {held:.4} held"
            );
            let slack = if in_full() { 0.0 } else { 0.05 };
            assert!(
                (least - slack..=most + slack).contains(&deviated),
                "{times} {weather} {mode}: {deviated}"
            );
        }
    }
}
