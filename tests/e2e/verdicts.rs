//! How often verdicts err on a real service, and how soon they find what is broken. Nothing is injected here: the service
//! fails by itself, as often as it is told to.

use std::thread;

use serde_json::Value;
use squall_tests::needs;
use squall_tests::odds::{ONE_IN_A_MILLION, binomial};
use squall_tests::trial::Trial;
use squall_tests::world::World;

/// How often the same is run: a hundred times with `SQUALL_AA_RUNS=100`.
fn runs() -> usize {
    std::env::var("SQUALL_AA_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// How many standard deviations are no chance any more: one in two hundred, of a hundred runs that are looked at; so much less of
/// the few that every change is tested with.
fn beyond_chance() -> f64 {
    if runs() < 100 { ONE_IN_A_MILLION } else { 2.58 }
}

/// A request of a hundred fails, and one of a hundred may: whoever says that it does not hold is wrong, and may be in one
/// of twenty runs.
#[test]
fn a_service_that_is_at_its_bound_is_rarely_said_to_be_beyond_it() {
    needs!(Root, Nginx);
    at_the_bound("fast", 100, 8);
}

/// The same by blocks, of which it takes five seconds each.
#[test]
fn a_service_that_is_at_its_bound_is_rarely_said_to_be_beyond_it_by_blocks() {
    needs!(Root, Nginx);
    at_the_bound("robust", 50, 20);
}

/// Runs of so many seconds, six at once, in which nothing is done to a service at its bound.
fn at_the_bound(mode: &str, rate: u32, seconds: u32) {
    let world = World::new(1);
    world.nginx(0, 80);
    let text = format!(
        "squall: 1\ntitle: Nothing is done\nhypothesis:\n  - name: the service is well\n    \
         load: {{ url: \"http://127.0.0.1/flaky\", rate: {rate}/s, timeout: 10s }}\n    \
         expect: {{ errors: \"<= 1%\" }}\n    mode: {mode}\nmethod:\n  - wait: {seconds}s\nrecovery: 1s\n"
    );
    let fewest = u64::from(rate * seconds) / 4;
    let mut outcomes: Vec<String> = Vec::new();
    while outcomes.len() < runs() {
        let many = (runs() - outcomes.len()).min(6);
        outcomes.extend(thread::scope(|scope| {
            let one = || {
                let report = Trial::begin(&world, &world.hosts[0], &text).finish().json();
                let found = &report["hypotheses"][0]["findings"][0];
                // A baseline that is not met is the same mistake, made earlier.
                let outcome = found["outcome"].as_str().unwrap_or("deviated").to_owned();
                assert!(outcome == "deviated" || found["requests"].as_u64() > Some(fewest), "{report:#}");
                outcome
            };
            let all: Vec<_> = (0..many).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|run| run.join().expect("a run ends")).collect::<Vec<_>>()
        }));
    }
    let count = |word: &str| outcomes.iter().filter(|outcome| *outcome == word).count();
    let (deviated, held) = (count("deviated"), count("held"));
    println!(
        "{} runs at the bound, {mode}: {deviated} deviated, {held} held, the rest inconclusive",
        outcomes.len()
    );
    let many = u32::try_from(outcomes.len()).expect("a few");
    let bound = *binomial(many, 0.05, beyond_chance()).end() as usize;
    assert!(deviated <= bound, "{deviated} of {many} deviated, at most {bound} may: {outcomes:?}");
    assert!(held <= bound, "{held} of {many} held, at most {bound} may: {outcomes:?}");
}

/// From one moment on a fifth of all requests fail, twenty times as many as may: within the delays of `docs/verdicts.md`,
/// and one block more.
#[test]
fn a_service_that_breaks_is_found_out_in_time() {
    needs!(Root, Nginx);
    let world = World::new(1);
    world.nginx(0, 80);
    let broken = world.place("service-0").join("broken").display().to_string();
    let claim = |mode: &str| {
        format!(
            "  - name: well, {mode}\n    load: {{ url: \"http://127.0.0.1/breaks\", rate: 50/s, timeout: 10s }}\n    \
             expect: {{ errors: \"<= 1%\" }}\n    mode: {mode}\n"
        )
    };
    let act = |verb: &str| format!("{{ process: {{ argv: [{verb}, \"{broken}\"], user: root }} }}");
    let text = format!(
        "squall: 1\ntitle: It breaks\nhypothesis:\n{}{}method:\n  - action: {}\n    undo: {}\n  - wait: 16s\nrecovery: 10s\n",
        claim("fast"),
        claim("robust"),
        act("touch"),
        act("rm")
    );
    let report = Trial::begin(&world, &world.hosts[0], &text).finish().expect_exit(5).json();
    // At 50 requests a second the median is one second, or two blocks of five. Fast is given five seconds more, for a machine
    // that stands still; robust its one block.
    for (place, most_ms) in [(0, 6_000), (1, 15_000)] {
        let found: &Value = &report["hypotheses"][place]["findings"][0];
        let sure = found["sure-after-ms"].as_u64().unwrap_or_else(|| panic!("it was never sure: {report:#}"));
        println!("{}: sure after {sure} ms", found["mode"]);
        assert!(sure <= most_ms, "{sure} ms: {report:#}");
    }
}

/// Twice in 36 seconds half of all requests fail for two of them: half of what is allowed, in bursts. Each burst convinces who
/// takes every request for a witness of its own; blocks are not convinced, which is why they are the default.
#[test]
fn bursts_within_the_bound_alarm_the_fast_mode_and_not_the_robust_one() {
    needs!(Root, Nginx);
    let world = World::new(1);
    world.nginx(0, 80);
    let burst = world.place("service-0").join("burst").display().to_string();
    let claim = |mode: &str| {
        format!(
            "  - name: well, {mode}\n    load: {{ url: \"http://127.0.0.1/bursts\", rate: 50/s, timeout: 10s }}\n    \
             expect: {{ errors: \"<= 11%\" }}\n    mode: {mode}\n"
        )
    };
    let act = |verb: &str| format!("{{ process: {{ argv: [{verb}, \"{burst}\"], user: root }} }}");
    let once = format!(
        "  - action: {}\n    undo: {}\n  - wait: 2s\n  - action: {}\n  - wait: 16s\n",
        act("touch"),
        act("\"rm\", \"-f\""),
        act("rm")
    );
    let text = format!(
        "squall: 1\ntitle: It comes in bursts\nhypothesis:\n{}{}method:\n{once}{once}recovery: 10s\n",
        claim("fast"),
        claim("robust"),
    );
    let report = Trial::begin(&world, &world.hosts[0], &text).finish().expect_exit(5).json();
    let of = |place: usize| &report["hypotheses"][place]["findings"][0];
    println!("evidence of twenty decides: fast {}, robust {}", of(0)["against"], of(1)["against"]);
    assert_eq!(of(0)["outcome"], "deviated", "{report:#}");
    assert_ne!(of(1)["outcome"], "deviated", "{report:#}");
    for found in [of(0), of(1)] {
        let share = found["bad"].as_f64().expect("a count") / found["requests"].as_f64().expect("a count");
        assert!((0.02..0.11).contains(&share), "what failed is within the bound: {share}");
    }
}

/// Redis and PostgreSQL that refuse every connection, asked as often as a rate needs: found as soon as nginx is above.
#[test]
fn a_store_that_is_gone_is_found_out_in_time() {
    needs!(Root, Nftables, Redis, Postgres);
    let world = World::new(1);
    world.redis(0, 6379);
    world.postgres(0, 5432);
    let claim = |name: &str, probe: &str, mode: &str| {
        format!(
            "  - name: {name}, {mode}\n    {probe}\n    expect: {{ errors: \"<= 1%\" }}\n    mode: {mode}\n    \
             every: 100ms\n"
        )
    };
    let redis = "redis: { address: \"127.0.0.1:6379\", command: [PING], timeout: 5s }";
    let sql = "sql: { address: \"127.0.0.1:5432\", user: postgres, timeout: 5s }";
    let claims = ["fast", "robust"].map(|mode| claim("redis", redis, mode) + &claim("postgres", sql, mode));
    let text = format!(
        "squall: 1\ntitle: The stores are gone\nhypothesis:\n{}method:\n  - fault: {{ refuse: {{ to: \
         [\"127.0.0.1:6379\", \"127.0.0.1:5432\"] }} }}\n    for: 11s\nrecovery: 20s\n",
        claims.concat()
    );
    let report = Trial::begin(&world, &world.hosts[0], &text).finish().expect_exit(5).json();
    // At 10 looks a second, all of them bad: the table says three seconds for a share of a fifth, and two blocks of five.
    for (place, most_ms) in [(0, 8_000), (1, 8_000), (2, 15_000), (3, 15_000)] {
        let found: &Value = &report["hypotheses"][place]["findings"][0];
        let sure = found["sure-after-ms"].as_u64().unwrap_or_else(|| panic!("it was never sure: {report:#}"));
        println!("{}: sure after {sure} ms", report["hypotheses"][place]["name"]);
        assert!(sure <= most_ms, "{sure} ms: {report:#}");
        assert!(found["well-again"].is_object(), "{report:#}");
    }
}
