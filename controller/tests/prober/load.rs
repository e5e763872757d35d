//! Load: an open loop by its own clock. Counts are exact on any machine; times are only compared with one another.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use squall_experiments::probe::{Load, ProberReply, ProberRequest, Sample};
use squall_experiments::quantity::Period;

use crate::prober::{Prober, eventually, expect_nothing, once, refused};
use crate::server::{always, answer, kept, nobody, silent, tls};

/// A load with ticks of a fifth of a second.
fn load(address: SocketAddr, rate: &str, timeout: &str) -> Value {
    let url = format!("http://{address}/");
    json!({ "load": { "load": { "url": url, "rate": rate, "timeout": timeout }, "tick": "200ms" } })
}

fn ok() -> String {
    answer("200 OK", "", "a page")
}

/// One tick of a load that must be bad: its only kind of error.
fn failure(what: Value, expect: Value) -> String {
    let sample = once(what, expect);
    let load = sample.load.unwrap();
    assert!(!sample.good && load.failed() == load.requests && load.errors.len() == 1, "{}", sample.seen);
    load.errors[0].seen.clone()
}

/// What became of the requests that were due: all of them, whatever the machine was busy with.
fn due(load: &Load) -> u64 {
    load.requests + load.unsent
}

fn every(prober: &mut Prober) {
    prober.say(&ProberRequest::Every { probe: 1, period: Period::from_millis(200) });
}

/// Stops the load; every sample until it rests.
fn rest(prober: &mut Prober) -> Vec<Sample> {
    prober.say(&ProberRequest::Stop { probe: 1 });
    let mut samples = Vec::new();
    loop {
        match prober.hear() {
            Some(ProberReply::Sample(sample)) => samples.push(sample),
            Some(ProberReply::Rested { probe: 1 }) => return samples,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_good_tick_says_how_many_and_how_fast() {
    let sample = once(load(kept(|_| ok()).address, "100/s", "5s"), json!({ "p50": "<= 5s" }));
    assert!(sample.good, "{}", sample.seen);
    assert!(sample.seen.starts_with("20 requests, 0 errors, p50 "), "{}", sample.seen);
    let load = sample.load.unwrap();
    assert_eq!((load.requests, load.latency.total(), load.late.total()), (20, 20, 20));
}

#[test]
fn two_thousand_a_second_arrive_and_are_counted_exactly() {
    let server = kept(|_| ok());
    let url = format!("http://{}/", server.address);
    let mut prober = Prober::start();
    let what =
        json!({ "load": { "load": { "url": url, "rate": "2000/s", "timeout": "20s" }, "tick": "1s" } });
    prober.load(1, what, expect_nothing());
    prober.say(&ProberRequest::Once { probe: 1 });
    prober.say(&ProberRequest::Once { probe: 1 });
    for sample in [prober.sample(), prober.sample()] {
        assert!(sample.good, "{}", sample.seen);
        let load = sample.load.unwrap();
        assert_eq!((load.requests, load.unsent, load.latency.total()), (2000, 0, 2000));
    }
    assert_eq!(server.requests.load(Ordering::SeqCst), 4000);
    let connections = server.connections.load(Ordering::SeqCst);
    assert!(connections <= 512, "{connections} connections");
}

#[test]
fn the_rate_is_kept_while_the_server_hangs() {
    let mut prober = Prober::start();
    let server = kept(|count| {
        if count >= 20 {
            std::thread::sleep(Duration::from_secs(3600));
        }
        ok()
    });
    prober.load(1, load(server.address, "100/s", "1s"), expect_nothing());
    every(&mut prober);
    let mut samples: Vec<Sample> = (0..6).map(|_| prober.sample()).collect();
    samples.extend(rest(&mut prober));
    samples.sort_by_key(|sample| sample.begun_ns);
    // A closed loop would have sent one request for each of its connections and then waited.
    for sample in &samples[..6] {
        let load = sample.load.as_ref().unwrap();
        assert_eq!(due(load), 20, "{}", sample.seen);
    }
    let hung = samples[3].load.as_ref().unwrap();
    assert_eq!(hung.failed(), hung.requests);
    assert_eq!(hung.errors[0].seen, "timed out after 1s waiting for the answer", "{}", samples[3].seen);
    assert_eq!(hung.quantile(500), None);
}

#[test]
fn a_stall_of_the_server_delays_every_request_that_was_to_begin_in_it() {
    // Whoever asks while the door is shut waits until it opens.
    static DOOR: Mutex<()> = Mutex::new(());
    let server = kept(|count| {
        let guard = DOOR.lock().unwrap();
        if count == 10 {
            std::thread::sleep(Duration::from_millis(600));
        }
        drop(guard);
        ok()
    });
    let url = format!("http://{}/", server.address);
    let what = json!({ "load": { "load": { "url": url, "rate": "100/s", "timeout": "20s" }, "tick": "1s" } });
    let load = once(what, expect_nothing()).load.unwrap();
    assert_eq!(load.latency.total(), 100);
    // They began 10 ms apart, so the first waited 600 ms and the fortieth 200 ms. A closed loop of a few connections
    // would have seen a few slow ones and called its p90 fast.
    let slow = load.latency.beyond(Duration::from_millis(200));
    assert!(slow >= 30, "{slow} of 100 waited for the door: {load:?}");
}

#[test]
fn a_load_generator_that_was_held_up_says_so() {
    let mut prober = Prober::start();
    prober.load(1, load(kept(|_| ok()).address, "100/s", "20s"), expect_nothing());
    every(&mut prober);
    prober.sample();
    let pid = Pid::from_raw(prober.pid().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    kill(pid, Signal::SIGCONT).unwrap();
    let mut all = Load::default();
    while all.late.beyond(Duration::from_millis(300)) < 10 {
        all.merge(&prober.sample().load.unwrap());
    }
    // What was late on the way out is a part of the latency, because users would have waited that long.
    assert!(all.latency.beyond(Duration::from_millis(300)) >= 10, "{all:?}");
    assert!(all.generator_was_late());
    assert_eq!(all.unsent, 0);
}

#[test]
fn what_is_too_late_to_be_answered_in_time_is_not_sent_and_not_held_against_the_target() {
    let server = kept(|_| ok());
    let mut prober = Prober::start();
    prober.load(1, load(server.address, "100/s", "400ms"), expect_nothing());
    every(&mut prober);
    prober.sample();
    let pid = Pid::from_raw(prober.pid().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    kill(pid, Signal::SIGCONT).unwrap();
    let mut unsent = 0;
    while unsent < 40 {
        let sample = prober.sample();
        let load = sample.load.unwrap();
        assert_eq!(due(&load), 20, "{}", sample.seen);
        assert!(load.requests > 0 || load.short, "a tick without a request is no sample: {}", sample.seen);
        if load.unsent > 0 {
            assert!(sample.seen.contains("never sent: the load generator was late"), "{}", sample.seen);
        }
        unsent += load.unsent;
    }
}

#[test]
fn errors_are_told_apart() {
    let of = |address: SocketAddr| failure(load(address, "50/s", "300ms"), expect_nothing());
    assert_eq!(of(nobody()), "connection refused");
    assert_eq!(of(silent()), "timed out after 300ms waiting for the answer");
    assert_eq!(of(always("")), "connection closed without an answer");
    assert_eq!(of(always("SSH-2.0-OpenSSH_9.2\r\n")), "the answer is not HTTP");
    let unavailable = kept(|_| answer("503 Service Unavailable", "", "no")).address;
    assert_eq!(of(unavailable), "503 (expected 2xx)");
    let page = kept(|_| ok()).address;
    let wanted = json!({ "status": 200, "body": "^another page$" });
    assert_eq!(failure(load(page, "50/s", "5s"), wanted), "body does not match `^another page$`");
    assert!(once(load(unavailable, "50/s", "5s"), json!({ "status": 503, "body": "^no$" })).good);
    let name = json!({ "load": { "load": { "url": "http://no-such-host.invalid/", "rate": "10/s" }, "tick": "200ms" } });
    let unresolved = failure(name, expect_nothing());
    assert!(unresolved.starts_with("cannot resolve `no-such-host.invalid`: "), "{unresolved}");
}

#[test]
fn beyond_the_most_connections_a_request_is_an_error_and_does_not_wait() {
    let url = format!("http://{}/", silent());
    let request = json!({ "url": url, "rate": "50/s", "timeout": "2s", "connections": 3 });
    let sample = once(json!({ "load": { "load": request, "tick": "200ms" } }), expect_nothing());
    let load = sample.load.unwrap();
    let kinds: Vec<(&str, u64)> =
        load.errors.iter().map(|count| (count.seen.as_str(), count.times)).collect();
    assert_eq!(kinds, [("no connection free", 7), ("timed out after 2s waiting for the answer", 3)]);
    assert_eq!(
        sample.seen,
        "10 requests, 10 errors (7 × no connection free, 3 × timed out after 2s waiting for the answer), p99 no answer \
         (expected errors <= 0%)"
    );
}

#[test]
fn errors_that_are_allowed_and_times_that_are_not() {
    let half = kept(|count| if count % 2 == 0 { ok() } else { answer("500 Oops", "", "") }).address;
    let expect = |json: Value| {
        let sample = once(load(half, "50/s", "5s"), json);
        (sample.good, sample.load.unwrap().missed)
    };
    assert_eq!(expect(json!({ "errors": "<= 50%" })), (true, Vec::new()));
    let missed = vec!["errors <= 49%".to_owned(), "p90 <= 5s".to_owned()];
    assert_eq!(expect(json!({ "errors": "<= 49%", "p50": "<= 5s", "p90": "<= 5s" })), (false, missed));
}

#[test]
fn connections_are_kept_and_replaced_when_the_server_closes_them() {
    let server = kept(|_| ok());
    once(load(server.address, "50/s", "5s"), expect_nothing());
    let connections = server.connections.load(Ordering::SeqCst);
    assert!(connections < 10, "{connections} connections for 10 requests");
    let closing = kept(|_| answer("200 OK", "connection: close\r\n", ""));
    assert!(once(load(closing.address, "50/s", "5s"), expect_nothing()).good);
    assert_eq!(closing.connections.load(Ordering::SeqCst), 10);
    // This one goes without a word.
    let sample = once(load(always(ok()), "10/s", "5s"), expect_nothing());
    assert!(sample.good, "{}", sample.seen);
}

#[test]
fn stop_ends_it_and_says_when_everything_is_reported() {
    let server = kept(|_| ok());
    let mut prober = Prober::start();
    prober.load(1, load(server.address, "100/s", "5s"), expect_nothing());
    // What never began rests at once.
    assert!(rest(&mut prober).is_empty());
    every(&mut prober);
    let mut samples = vec![prober.sample()];
    samples.extend(rest(&mut prober));
    let sent: u64 = samples.iter().map(|sample| sample.load.as_ref().unwrap().requests).sum();
    assert_eq!(server.requests.load(Ordering::SeqCst) as u64, sent, "every request is in a sample");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.requests.load(Ordering::SeqCst) as u64, sent, "nothing is sent after it");
    // What hangs is reported before it rests.
    let hanging = kept(|_| {
        loop {
            std::thread::park();
        }
    });
    prober.load(1, load(hanging.address, "100/s", "500ms"), expect_nothing());
    every(&mut prober);
    eventually("a request hangs", || hanging.requests.load(Ordering::SeqCst) > 0);
    let hung = rest(&mut prober);
    assert!(hung[0].load.as_ref().unwrap().errors[0].seen.starts_with("timed out"), "{hung:?}");
    prober.say(&ProberRequest::Once { probe: 1 });
    assert_eq!(due(&prober.sample().load.unwrap()), 20, "and it can be asked again");
}

#[test]
fn a_new_sample_begins_on_demand_and_no_request_is_lost_or_moved() {
    let server = kept(|_| ok());
    let url = format!("http://{}/", server.address);
    let mut prober = Prober::start();
    let what = json!({ "load": { "load": { "url": url, "rate": "100/s", "timeout": "20s" }, "tick": "1h" } });
    prober.load(1, what, expect_nothing());
    for _ in 0..4 {
        every(&mut prober);
        let so_far = server.requests.load(Ordering::SeqCst);
        eventually("ten more", || server.requests.load(Ordering::SeqCst) >= so_far + 10);
    }
    let samples = rest(&mut prober);
    assert_eq!(samples.len(), 4, "{samples:?}");
    assert!(samples.is_sorted_by_key(|sample| sample.begun_ns));
    let loads: Vec<&Load> = samples.iter().map(|sample| sample.load.as_ref().unwrap()).collect();
    assert!(loads.iter().all(|load| load.short), "a fraction of an hour is not judged");
    // A request each 10 ms from the begin of the first sample to that of the last, and no more for the cuts; a busy
    // machine is behind. The clocks differ by microseconds.
    let sent: u64 = loads[..3].iter().map(|load| load.requests).sum();
    let time = samples[3].begun_ns - samples[0].begun_ns + 1_000_000;
    assert!(sent <= time.div_ceil(10_000_000), "{sent} in {time} ns");
    let all: u64 = loads.iter().map(|load| load.requests).sum();
    assert!(all >= 40 && server.requests.load(Ordering::SeqCst) as u64 == all, "{all}");
}

#[test]
fn a_load_disturbs_no_other_probe_and_ends_with_the_prober() {
    let mut prober = Prober::start();
    prober.load(1, load(silent(), "500/s", "30s"), expect_nothing());
    every(&mut prober);
    let url = format!("http://{}/", always(ok()));
    prober.load(2, json!({ "http": { "url": url } }), expect_nothing());
    for _ in 0..5 {
        prober.say(&ProberRequest::Once { probe: 2 });
        let sample = prober.sample();
        assert!(sample.good && sample.probe == 2, "{sample:?}");
    }
    let begun = Instant::now();
    assert_eq!(prober.end(), 0);
    assert!(begun.elapsed() < Duration::from_secs(3), "the end does not wait for answers");
}

#[test]
fn a_load_over_tls_trusts_whom_it_is_told_to() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let url = format!("https://localhost:{}/", tls(&certificate).port());
    let of = |tls: Value| {
        let request = json!({ "url": url, "rate": "20/s", "timeout": "10s", "tls": tls });
        once(json!({ "load": { "load": request, "tick": "200ms" } }), json!({ "body": "over TLS" }))
    };
    let trusted = of(json!({ "insecure": true }));
    assert!(trusted.good, "{}", trusted.seen);
    let folder = std::env::temp_dir().join(format!("squall-load-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("other.pem"), other.cert.pem()).unwrap();
    let untrusted = of(json!({ "ca": folder.join("other.pem") }));
    std::fs::remove_dir_all(folder).unwrap();
    let errors = untrusted.load.unwrap().errors;
    assert!(errors[0].seen.starts_with("TLS: invalid peer certificate: "), "{errors:?}");
}

#[test]
fn requests_that_fail_are_told_before_their_sample_is_complete_where_that_is_asked_for() {
    let mut prober = Prober::start();
    let what = json!({ "load": {
        "load": { "url": format!("http://{}/", nobody()), "rate": "200/s", "timeout": "5s" }, "tick": "60s"
    } });
    prober.say(&ProberRequest::Load {
        probe: 1,
        what: serde_json::from_value(what).unwrap(),
        expect: Box::default(),
        looks: None,
        promptly: true,
    });
    every(&mut prober);
    let mut told = Vec::new();
    while told.len() < 3 {
        match prober.hear() {
            Some(ProberReply::Failing { probe: 1, begun_ns, failed }) => told.push((begun_ns, failed)),
            other => panic!("{other:?}"),
        }
    }
    assert!(
        told.is_sorted_by(|a, b| a.0 == b.0 && a.1 < b.1),
        "one sample, more and more failures: {told:?}"
    );
    prober.say(&ProberRequest::Stop { probe: 1 });
    let sample = loop {
        match prober.hear() {
            Some(ProberReply::Sample(sample)) => break sample,
            Some(ProberReply::Failing { .. }) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(sample.begun_ns, told[0].0);
    assert!(sample.load.unwrap().failed() >= told[2].1, "the sample counts them all");
}

#[test]
fn nonsense_is_refused_when_it_is_loaded() {
    let of = |request: Value| refused(json!({ "load": { "load": request, "tick": "1s" } }), expect_nothing());
    assert_eq!(
        of(json!({ "url": "/checkout", "rate": "1/s" })),
        "`/checkout` is not an absolute `http://` or `https://` address"
    );
    let many = of(json!({ "url": "http://a/", "rate": "1/s", "connections": 2_000_000_000 }));
    assert!(many.starts_with("2000000000 connections are more than a process may open here ("), "{many}");
}
