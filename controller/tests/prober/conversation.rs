use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use squall_experiments::probe::{ProberReply, ProberRequest, Sample};
use squall_experiments::quantity::Period;

use crate::prober::{Prober, command, eventually, expect_nothing};
use crate::process::{pid_file, pids, runs};
use crate::server::{answer, serve, silent};

fn get(address: std::net::SocketAddr, timeout: &str) -> Value {
    json!({ "http": { "url": format!("http://{address}/"), "timeout": timeout } })
}

#[test]
fn a_sample_never_waits_for_an_earlier_one() {
    let first_hangs = serve(|stream, _, count| {
        if count == 0 {
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let _ = stream.write_all(answer("200 OK", "", "").as_bytes());
    });
    let mut prober = Prober::start();
    prober.load(7, get(first_hangs, "3s"), expect_nothing());
    prober.say(&ProberRequest::Every { probe: 7, period: Period::from_millis(50) });
    let samples: Vec<Sample> = (0..10).map(|_| prober.sample()).collect();
    assert!(samples.iter().all(|sample| sample.good && sample.probe == 7), "{samples:?}");
    // The one that hung is reported too, after Stop.
    prober.say(&ProberRequest::Stop { probe: 7 });
    let late = std::iter::repeat_with(|| prober.sample()).find(|sample| !sample.good).unwrap();
    assert_eq!(late.seen, "timed out after 3s waiting for the answer");
    assert!(late.begun_ns < samples[0].begun_ns, "it was the first to begin");
}

fn boot() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap().into()
}

#[test]
fn samples_begin_on_time_by_the_boot_clock() {
    let mut prober = Prober::start();
    prober.load(1, json!({ "tcp": { "address": silent().to_string() } }), expect_nothing());
    let before = boot();
    prober.say(&ProberRequest::Every { probe: 1, period: Period::from_millis(100) });
    let begun: Vec<u64> = (0..6).map(|_| prober.sample().begun_ns).collect();
    let after = boot();
    assert!(u128::from(begun[0]) >= before.as_nanos() && u128::from(begun[5]) <= after.as_nanos());
    let gaps: Vec<u64> = begun.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    let mut sorted = gaps.clone();
    sorted.sort_unstable();
    assert!((60..=300).contains(&sorted[2]), "median of {gaps:?} ms");
}

#[test]
fn stop_ends_a_schedule_and_every_begins_it_anew() {
    let mut prober = Prober::start();
    prober.load(1, json!({ "tcp": { "address": silent().to_string() } }), expect_nothing());
    prober.say(&ProberRequest::Every { probe: 1, period: Period::from_millis(1) });
    prober.sample();
    prober.say(&ProberRequest::Stop { probe: 1 });
    // The reply to a request that comes after shows that the schedule has ended by then.
    prober.say(&ProberRequest::Once { probe: 2 });
    while !matches!(prober.hear(), Some(ProberReply::Unusable { probe: 2, .. })) {}
    let stopped = boot().as_nanos();
    std::thread::sleep(Duration::from_millis(100));
    // What was under way is still reported; nothing is begun any more.
    prober.say(&ProberRequest::Once { probe: 3 });
    while let Some(ProberReply::Sample(sample)) = prober.hear() {
        assert!(u128::from(sample.begun_ns) <= stopped, "a sample was begun after Stop");
    }
    prober.say(&ProberRequest::Every { probe: 1, period: Period::from_millis(10) });
    assert!(prober.sample().good);
}

#[test]
fn at_most_64_samples_are_under_way() {
    let mut prober = Prober::start();
    prober.load(1, get(silent(), "30s"), expect_nothing());
    for _ in 0..70 {
        prober.say(&ProberRequest::Once { probe: 1 });
    }
    for _ in 0..6 {
        let sample = prober.sample();
        assert_eq!(sample.seen, "still waiting for 64 earlier samples");
        assert!(!sample.good && sample.took_ns == 0);
    }
    // Another probe is not concerned.
    prober.load(2, json!({ "process": { "argv": ["true"] } }), expect_nothing());
    prober.say(&ProberRequest::Once { probe: 2 });
    let other = prober.sample();
    assert!(other.good && other.probe == 2, "{other:?}");
    let begun = Instant::now();
    assert_eq!(prober.end(), 0);
    assert!(begun.elapsed() < Duration::from_secs(20), "the end does not wait for samples");
}

#[test]
fn a_number_that_was_never_loaded_is_answered() {
    let mut prober = Prober::start();
    prober.say(&ProberRequest::Once { probe: 9 });
    assert_eq!(prober.unusable(), "nothing is loaded under the number 9");
    prober.load(1, json!({ "tcp": { "address": "127.0.0.1:1" } }), expect_nothing());
    prober.say(&ProberRequest::Every { probe: 1, period: Period::ZERO });
    assert_eq!(prober.unusable(), "a period of zero never ends");
    // An unusable probe answers every request, so that nobody waits for its sample.
    prober.load(2, json!({ "process": { "argv": ["/no/such"] } }), expect_nothing());
    assert_eq!(prober.unusable(), "`/no/such` does not exist");
    prober.say(&ProberRequest::Once { probe: 2 });
    assert_eq!(prober.unusable(), "`/no/such` does not exist");
}

#[test]
fn a_line_that_is_not_understood_ends_it_with_a_message() {
    let mut command = command();
    command.stderr(std::process::Stdio::piped());
    let mut prober = Prober::with(command);
    prober.say_raw("{\"explode\":{}}\n");
    assert!(prober.hear().is_none());
    let mut talk = String::new();
    prober.child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
    assert!(talk.starts_with("error: a request is not understood: unknown variant `explode`"), "{talk}");
    assert_eq!(prober.end(), 1);
}

#[test]
fn it_ends_and_cleans_up_when_nobody_reads_it_or_it_is_told_to() {
    let file = pid_file("sigterm");
    let mut prober = Prober::start();
    let script = format!("echo $$ >> {}; sleep 60", file.display());
    prober.load(
        1,
        json!({ "process": { "argv": ["sh", "-c", script], "timeout": "50s" } }),
        expect_nothing(),
    );
    prober.say(&ProberRequest::Once { probe: 1 });
    let pid = pids(&file, 1)[0];
    kill(Pid::from_raw(prober.pid().cast_signed()), Signal::SIGTERM).unwrap();
    eventually("it has ended", || prober.child.try_wait().unwrap().is_some());
    assert!(!runs(pid));
    std::fs::remove_file(file).unwrap();
}
