//! Samples of several looks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squall_experiments::probe::{ProberRequest, Sample};

use crate::prober::Prober;
use crate::server::{Kept, answer, kept};

/// Answers 503 to so many requests, then 200.
fn well_after(bad: usize) -> Kept {
    kept(move |count| answer(if count < bad { "503 Busy" } else { "200 OK" }, "", ""))
}

fn sampled(server: &Kept, looks: Value) -> Sample {
    let mut prober = Prober::start();
    let what = json!({ "http": { "url": format!("http://{}/", server.address) } });
    prober.say(&ProberRequest::Load {
        probe: 1,
        what: serde_json::from_value(what).unwrap(),
        expect: Box::default(),
        looks: Some(serde_json::from_value(looks).unwrap()),
        promptly: false,
    });
    prober.say(&ProberRequest::Once { probe: 1 });
    prober.sample()
}

fn requests(server: &Kept) -> usize {
    server.requests.load(std::sync::atomic::Ordering::SeqCst)
}

#[test]
fn the_first_good_attempt_is_enough_and_more_are_not_made() {
    let server = well_after(2);
    let sample = sampled(&server, json!({ "attempts": 5, "pause": "1ms" }));
    assert!(sample.good && sample.seen.starts_with("1 of 3 looks good: 200 in "), "{}", sample.seen);
    assert_eq!(requests(&server), 3);
    let server = well_after(9);
    let sample = sampled(&server, json!({ "attempts": 3, "pause": "1ms" }));
    assert_eq!((sample.good, &*sample.seen), (false, "0 of 3 looks good: 503 (expected 2xx)"));
    assert_eq!(requests(&server), 3);
}

#[test]
fn a_quota_ends_when_it_is_reached_or_cannot_be() {
    let server = well_after(1);
    assert!(sampled(&server, json!({ "at-least": "3 of 5", "pause": "1ms" })).good);
    assert_eq!(requests(&server), 4);
    let server = well_after(3);
    let sample = sampled(&server, json!({ "at-least": "3 of 5", "pause": "1ms" }));
    assert!(!sample.good, "{}", sample.seen);
    assert_eq!(requests(&server), 3, "two good ones of the last two are not three");
}

#[test]
fn what_must_become_true_within_a_time_may_take_that_time() {
    let server = well_after(4);
    assert!(sampled(&server, json!({ "within": "20s", "pause": "10ms" })).good);
    let begun = Instant::now();
    let sample = sampled(&well_after(usize::MAX), json!({ "within": "300ms", "pause": "50ms" }));
    assert!(!sample.good && sample.seen.ends_with("503 (expected 2xx)"), "{}", sample.seen);
    assert!(begun.elapsed() >= Duration::from_millis(200));
}
