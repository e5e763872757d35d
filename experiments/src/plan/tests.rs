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
        stop_when: Vec::new(),
        recovery: Period::from_secs(30),
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
