//! Load as a hypothesis and as a guard, against nginx.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use squall_tests::client::{Steady, connect};
use squall_tests::needs;
use squall_tests::squall::lines;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{CALM, CUT, SHORT, Trial, calm, document, peer, run};

/// A load of the nginx on the other host.
const LOAD: &str = "  - name: the page is served\n    \
                    load: { url: \"http://10.77.1.2/\", rate: 200/s, timeout: 1s }\n    \
                    expect: { errors: \"<= 1%\", p99: \"<= 1s\" }\n    every: 500ms\n";

/// The fault that makes it fail.
const CUT_NGINX: &str = "{ fault: { partition: { to: [\"10.77.1.2:80\"] } }, for: 3s }";

#[track_caller]
fn count(figures: &Value, key: &str) -> u64 {
    figures[key].as_u64().unwrap_or_else(|| panic!("no `{key}` in {figures:#}"))
}

#[test]
fn a_load_holds_while_a_fault_hits_somebody_else() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.nginx(1, 80);
    let echo = world.echo(1, 7);
    // Somebody must run into the fault, or it is not measured.
    let (netns, address) = (near.netns.clone(), SocketAddr::new(far.v4, echo.port));
    let victim = Steady::start("the other service", Duration::from_millis(20), move || {
        connect(&netns, address, SHORT).map(drop)
    });
    let finished = run(&world, near, &document(LOAD, &[CUT]));
    victim.finish();
    let report = finished.expect_exit(0).json();
    let claim = &report["hypotheses"][0];
    for phase in ["before", "during", "after"] {
        let load = &claim[phase]["load"];
        assert_eq!(count(load, "failed"), 0, "{phase}: {report:#}");
        assert!(count(load, "p99_us") > 0 && count(load, "late_p99_us") > 0, "{phase}: {report:#}");
    }
    // That one of a hundred fails at most, and is slow at most, takes 380 good requests to show.
    let found = claim["findings"].as_array().expect("a finding for each bound");
    let bounds: Vec<&Value> = found.iter().map(|found| &found["bound"]).collect();
    assert_eq!(bounds, ["errors <= 1%", "p99 <= 1s"], "{report:#}");
    assert!(found.iter().all(|found| found["outcome"] == "held"), "{report:#}");
    // Three samples of half a second, and a fault of three: exact but for what a machine was too late to send, and for
    // the moments in which the fault begins and ends.
    let due = |phase: &str| count(&claim[phase]["load"], "requests") + count(&claim[phase]["load"], "unsent");
    assert_eq!(due("before"), 300, "{report:#}");
    assert!((500..=900).contains(&due("during")), "{report:#}");
}

#[test]
fn a_load_deviates_when_nobody_answers_and_is_well_again_after_it() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let trial = Trial::begin(&world, &world.hosts[0], &document(LOAD, &[CUT_NGINX]));
    let events = trial.events.clone();
    let report = trial.finish().expect_exit(5).json();
    let claim = &report["hypotheses"][0];
    let during = &claim["during"]["load"];
    // Open loop: nobody answered, and the requests went on being sent.
    let sent = count(during, "requests") + count(during, "unsent");
    assert!((500..=900).contains(&sent), "{report:#}");
    assert!(count(during, "failed") * 10 >= count(during, "requests") * 8, "{report:#}");
    assert!(during["p99_us"].is_null(), "an error is slower than any answer: {report:#}");
    let kind = during["errors"][0]["seen"].as_str().expect("a kind of error");
    assert!(kind.starts_with("timed out after 1s "), "{report:#}");
    assert_eq!(claim["recovered"], true, "{report:#}");
    let sentence = report["sentence"].as_str().expect("a sentence");
    for words in ["requests failed", "at most 1 % allowed; sure after ", "; well again "] {
        assert!(sentence.contains(words), "`{words}` is missing: {sentence}");
    }
    // Everything in the report follows from the events, so it can be made again from them.
    let again = world.hosts[0].squall(&["verdict", &events.to_string_lossy(), "--format", "json"]).run();
    assert_eq!(again.expect_exit(5).json()["hypotheses"], report["hypotheses"], "{}", again.story());
    assert_eq!(again.json()["sentence"], report["sentence"]);
    let samples: Vec<Value> = lines(&events).into_iter().filter(|event| event["event"] == "sample").collect();
    let longest = samples.iter().map(|sample| sample.to_string().len()).max();
    assert!(longest.is_some_and(|bytes| bytes < 8192), "an event of {longest:?} bytes");
}

/// The same page of two servers, of which the fault concerns one.
#[test]
fn a_group_with_the_fault_is_compared_with_one_without() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    world.nginx(1, 81);
    let claim = |name: &str, tested: u16, control: u16| {
        format!(
            "  - name: {name}\n    load:\n      url: \"http://10.77.1.2:{tested}\"\n      \
             endpoints: [{{ path: \"/?{{{{n}}}}\", weight: 3 }}, {{ path: \"/?{{{{uuid}}}}\" }}]\n      \
             rate: 100/s\n      timeout: 1s\n      control: {{ server: \"http://10.77.1.2:{control}\" }}\n    \
             expect: {{ errors: \"<= 2x control\" }}\n    every: 500ms\n"
        )
    };
    let claims = claim("the cut one is as good", 80, 81) + &claim("the other one is as good", 81, 80);
    let report = run(&world, &world.hosts[0], &document(&claims, &[CUT_NGINX])).expect_exit(5).json();
    let found = |place: usize| &report["hypotheses"][place]["findings"][0];
    assert_eq!(
        (&found(0)["outcome"], &found(1)["outcome"]),
        (&"deviated".into(), &"held".into()),
        "{report:#}"
    );
    let why = found(0)["why"].as_str().expect("a reason");
    for words in [
        "requests failed, and 0 % of ",
        " in the control group at the same time, at most 2 times that allowed",
    ] {
        assert!(why.contains(words), "`{words}` is missing: {why}");
    }
    for (place, group) in [(0, "tested"), (1, "control")] {
        let load = &report["hypotheses"][place]["during"]["load"];
        let broken = if group == "tested" { load } else { &load["control"] };
        assert!(count(broken, "failed") * 10 >= count(broken, "requests") * 8, "{group}: {report:#}");
        let kind = broken["errors"][0]["seen"].as_str().expect("a kind of error");
        assert!(kind.starts_with("`/?{{n}}`: timed out after 1s "), "{report:#}");
        let well = if group == "tested" { &load["control"] } else { load };
        assert_eq!(count(well, "failed"), 0, "{group}: {report:#}");
    }
}

/// Two servers that are as fast as each other, until a fault slows one of them down.
#[test]
fn a_group_that_is_slower_is_told_from_one_that_is_not() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    world.nginx(1, 81);
    let claim = |name: &str, tested: u16, control: u16| {
        format!(
            "  - name: {name}\n    load: {{ url: \"http://10.77.1.2:{tested}/\", rate: 100/s, \
             control: {{ server: \"http://10.77.1.2:{control}\" }} }}\n    \
             expect: {{ errors: \"<= 99%\", p90: \"<= 3x control\", latency: no worse than control }}\n    mode: fast\n    \
             every: 200ms\n"
        )
    };
    let slow = "{ fault: { latency: { delay: 100ms, to: [\"10.77.1.2:80\"] } }, for: 6s }";
    let claims = claim("the slow one is as fast", 80, 81) + &claim("the other one is as fast", 81, 80);
    let report = run(&world, &world.hosts[0], &document(&claims, &[slow])).expect_exit(5).json();
    let found = |place: usize, bound: usize| &report["hypotheses"][place]["findings"][bound];
    for (bound, words) in
        [(1, " times the control group's "), (2, "slower than those to the control group in the same sample")]
    {
        let outcomes = (&found(0, bound)["outcome"], &found(1, bound)["outcome"]);
        assert_eq!(outcomes, (&"deviated".into(), &"held".into()), "{report:#}");
        let why = found(0, bound)["why"].as_str().expect("a reason");
        assert!(why.contains(words), "{why}");
    }
}

#[test]
fn a_baseline_that_is_not_met_says_which_errors() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let finished = run(&world, &world.hosts[0], &document(LOAD, &[CUT_NGINX]));
    finished.expect_exit(4);
    for text in ["the page is served", "connection refused", "expected errors <= 1%"] {
        assert!(finished.stdout.contains(text), "`{text}` is missing: {}", finished.story());
    }
}

#[test]
fn a_load_as_a_guard_reverts() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let long = CUT_NGINX.replace("for: 3s", "for: 60s");
    let text =
        format!("{}stop-when:\n{}", calm(&[&long]), LOAD.replace("the page is served", "the site is up"));
    let mut trial = Trial::begin(&world, &world.hosts[0], &text);
    trial.event("guard-tripped");
    holds("the run to end", PATIENCE, || trial.run.ended());
    let report = trial.finish().expect_exit(5).json();
    assert!(
        report["guards"][0]["tripped"].as_str().is_some_and(|seen| seen.contains("errors")),
        "{report:#}"
    );
}

#[test]
fn plan_and_check_say_what_would_be_sent() {
    needs!(Root);
    let world = World::new(1);
    let text = document(&format!("{CALM}{LOAD}"), &[CUT_NGINX]);
    let file = world.file("load.yaml", &text);
    let checked = world.hosts[0].squall(&["check", &file]).run();
    // Three samples of half a second, three seconds, and the recovery of ten.
    let said = ", load of 200/s (at most 2900 requests)";
    assert!(checked.expect_exit(0).stdout.contains(said), "{}", checked.story());
    let planned = world.hosts[0].squall(&["plan", &file]).run();
    let said = "  the page is served: 200/s to http://10.77.1.2/, at most 2900 requests in 14s500ms\n";
    assert!(planned.expect_exit(0).stdout.contains(said), "{}", planned.story());
    let warning =
        format!("would also hit the probe of `the page is served` ({})", peer([10, 77, 1, 2].into(), 80));
    assert!(planned.stdout.contains(&warning), "{}", planned.story());
}
