use super::*;
use crate::faults::{Fault, Kill, Partition};
use crate::scope::Scope;

fn experiment(method: Vec<Step>) -> Experiment {
    Experiment {
        squall: 1,
        title: "a title".to_owned(),
        description: None,
        tags: Vec::new(),
        vars: Default::default(),
        seed: None,
        hypothesis: Vec::new(),
        baseline: None,
        method,
        on: None,
        on_partial: Default::default(),
        ramp: None,
        stages: None,
        stop_when: Vec::new(),
        recovery: Period::from_secs(30),
        weight: 1,
    }
}

fn partition(to: &[&str], seconds: u64) -> Step {
    let to = to.iter().map(|peer| peer.parse().unwrap()).collect();
    Step {
        fault: Some(Fault::Partition(Partition { to, ..Default::default() })),
        r#for: Some(Period::from_secs(seconds)),
        ..Default::default()
    }
}

fn kill(user: &str, seconds: u64) -> Step {
    Step {
        fault: Some(Fault::Kill(Kill::default())),
        r#in: Some(Scope::User(user.to_owned())),
        r#for: Some(Period::from_secs(seconds)),
        ..Default::default()
    }
}

fn plan(method: Vec<Step>) -> Plan {
    Plan::of(&experiment(method), 7, &["b".to_owned(), "a".to_owned()], "none")
}

#[test]
fn parts_count_faults_in_the_order_of_the_document_and_parallel_children_too() {
    let wait = Step { wait: Some(Period::from_secs(5)), ..Default::default() };
    let parallel = Step {
        parallel: Some(vec![kill("shop", 10), wait.clone(), partition(&["db:1"], 20)]),
        ..Default::default()
    };
    let plan = plan(vec![partition(&["db"], 60), wait, parallel, kill("shop", 3)]);
    let parts: Vec<u32> = plan
        .faults()
        .map(|step| match step {
            PlanStep::Fault { part, .. } => *part,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(parts, [1, 2, 3, 4]);
    assert_eq!(plan.expiry, Period::from_secs(60 + 5 + 20 + 3 + 30));
    assert!(plan.has_changes());
    assert_eq!(plan.hosts, ["a", "b"]);
}

#[test]
fn the_hash_covers_what_is_done_and_nothing_else() {
    let base = plan(vec![partition(&["db", "cache:1"], 60)]);
    let mut named = partition(&["cache:1", "db", "db"], 60);
    named.name = Some("the same in other words".to_owned());
    assert_eq!(base.hash(), plan(vec![named]).hash());
    assert_eq!(base.hash().len(), 64);

    for other in [
        plan(vec![partition(&["db", "cache:2"], 60)]),
        plan(vec![partition(&["db", "cache:1"], 61)]),
        Plan { seed: 8, ..base.clone() },
        Plan { policy: "0badc0de".to_owned(), ..base.clone() },
        Plan { hosts: vec!["a".to_owned()], ..base.clone() },
        Plan { carve_outs: Vec::new(), ..base.clone() },
    ] {
        assert_ne!(base.hash(), other.hash());
    }
}

#[test]
fn a_plan_without_faults_has_no_changes() {
    let wait = Step { wait: Some(Period::from_secs(5)), ..Default::default() };
    assert!(!plan(vec![wait]).has_changes());
}

fn claim(name: &str, url: &str) -> crate::probe::Hypothesis {
    serde_json::from_value(json!({ "name": name, "http": { "url": url } })).unwrap()
}

fn warnings(url: &str, step: Step) -> usize {
    let mut experiment = experiment(vec![step]);
    experiment.hypothesis = vec![claim("site is up", url)];
    Plan::of(&experiment, 1, &[], "none").warnings.len()
}

#[test]
fn a_fault_that_would_hit_a_probe_is_said() {
    let mut experiment = experiment(vec![partition(&["127.0.0.1"], 5)]);
    experiment.stop_when = vec![claim("site is up", "http://127.0.0.1:8080/")];
    assert_eq!(
        Plan::of(&experiment, 1, &[], "none").warnings,
        [
            "part 1 would also hit the probe of `site is up` (127.0.0.1:8080): its samples then show the fault itself, not how the system copes"
        ]
    );
    for (url, peer, hit) in [
        ("http://127.0.0.1:8080/", "127.0.0.1:8080", true),
        ("http://127.0.0.1:8080/", "127.0.0.0/8:8000-9000", true),
        ("http://localhost/", "127.0.0.1:80", true),
        ("http://127.0.0.1:8080/", "127.0.0.1:8081", false),
        ("http://127.0.0.1:8080/", "any", false),
        ("http://127.0.0.1:8080/", "0.0.0.0/0", false),
        ("http://10.0.0.7/", "any", true),
        ("https://10.0.0.7/", "any:80", false),
        ("https://shop.example/", "shop.example:443", true),
        ("https://shop.example/", "db.example", false),
        ("http://[::1]/", "127.0.0.1", false),
    ] {
        assert_eq!(warnings(url, partition(&[peer], 5)), usize::from(hit), "{peer} {url}");
    }
    let mut scoped = partition(&["127.0.0.1"], 5);
    scoped.r#in = Some(Scope::User("shop".to_owned()));
    assert_eq!(warnings("http://127.0.0.1/", scoped), 0, "the prober is nobody of the shop's");
    for (except, hit) in
        [("10.0.0.7", false), ("10.0.0.7:80", false), ("10.0.0.7:81", true), ("10.0.0.8", true)]
    {
        let mut all = partition(&["10.0.0.0/8"], 5);
        all.fault = Some(Fault::Partition(Partition {
            to: vec!["10.0.0.0/8".parse().unwrap()],
            except: vec![except.parse().unwrap()],
            ..Default::default()
        }));
        assert_eq!(warnings("http://10.0.0.7/", all), usize::from(hit), "{except}");
    }
    let mut callers = partition(&[], 5);
    callers.fault = Some(Fault::Partition(Partition {
        from: vec!["127.0.0.1:80".parse().unwrap()],
        ..Default::default()
    }));
    assert_eq!(warnings("http://127.0.0.1/", callers.clone()), 1);
    assert_eq!(warnings("http://127.0.0.1:81/", callers), 0);
}

#[test]
fn load_is_said_with_its_requests_and_is_hit_like_any_probe() {
    let mut experiment = experiment(vec![partition(&["127.0.0.1"], 60)]);
    let load =
        json!({ "name": "checkout is fast", "load": { "url": "http://127.0.0.1:8080/", "rate": "50/s" } });
    experiment.hypothesis = vec![serde_json::from_value(load.clone()).unwrap()];
    let mut guard = load;
    guard["name"] = json!("site is up");
    guard["load"]["rate"] = json!("60/m");
    experiment.stop_when = vec![serde_json::from_value(guard).unwrap()];
    let plan = Plan::of(&experiment, 1, &[], "none");
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    let said: Vec<_> =
        plan.loads.iter().map(|load| (load.name.as_str(), load.at_most, load.requests)).collect();
    // Three samples of the baseline, the fault, the recovery; guards rest in the last.
    let expected =
        [("checkout is fast", Period::from_secs(93), 4650), ("site is up", Period::from_secs(63), 63)];
    assert_eq!(said, expected);
    experiment.baseline = Some(Period::from_secs(10));
    assert_eq!(Plan::of(&experiment, 1, &[], "none").loads[0].requests, 5000);
}

#[test]
fn faults_at_the_same_time_that_want_the_same_thing_are_said() {
    let parallel = |a: Step, b: Step| Step { parallel: Some(vec![a, b]), ..Default::default() };
    let count = |step: Step| plan(vec![step]).warnings.len();
    assert_eq!(count(parallel(partition(&["10.0.0.7:1"], 5), partition(&["10.0.0.0/8"], 5))), 1);
    assert_eq!(count(parallel(partition(&["10.0.0.7:1"], 5), partition(&["10.0.0.7:2"], 5))), 0);
    assert_eq!(count(parallel(kill("a", 5), kill("a", 5))), 1);
    assert_eq!(plan(vec![kill("a", 5), kill("a", 5)]).warnings.len(), 0, "one after the other");
}

#[test]
fn a_fault_without_a_name_is_called_by_what_it_does_to_whom() {
    let name = |step: Step| match plan(vec![step]).steps.remove(0) {
        PlanStep::Fault { name, .. } => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(partition(&["db:1", "cache"], 5)), "partition to db:1, cache");
    assert_eq!(name(kill("shop", 5)), "kill all of user shop");
    assert_eq!(name(Step { name: Some("cut".to_owned()), ..kill("shop", 5) }), "cut");
}

#[test]
fn plans_that_may_want_the_same_do_not_run_at_the_same_time() {
    let on_db = plan(vec![partition(&["10.0.0.1:5432"], 60)]);
    let on_cache = plan(vec![partition(&["10.0.0.2"], 60)]);
    let killing = plan(vec![kill("shop", 10)]);
    let nothing = plan(vec![]);
    assert!(on_db.collides(&on_db) && on_db.collides(&plan(vec![partition(&["10.0.0.0/24"], 1)])));
    assert!(!on_db.collides(&on_cache) && !on_db.collides(&killing));
    // Names are not resolved, and processes not looked for.
    assert!(on_db.collides(&plan(vec![partition(&["db"], 1)])));
    assert!(killing.collides(&plan(vec![kill("another", 10)])));
    assert!(!nothing.collides(&on_db) && !nothing.collides(&nothing));
}
