use std::collections::BTreeSet;

use super::*;
use crate::document::{Document, Problems, Sources, read};
use crate::plan::PlanStep;
use crate::targets::{Candidate, Share, Targets, shares};

fn grow(factor: &str) -> Stages {
    serde_json::from_value(serde_json::json!({ "grow": factor, "bake": "1s" })).unwrap()
}

fn sizes(list: &[&str], hosts: usize) -> Option<Vec<usize>> {
    let stages: Stages = serde_json::from_value(serde_json::json!({ "sizes": list, "bake": "1s" })).unwrap();
    stages.of(hosts)
}

#[test]
fn hosts_grow_by_a_factor_until_all_have_it() {
    assert_eq!(grow("2x").of(10), Some(vec![1, 2, 4, 8, 10]));
    assert_eq!(grow("1.5x").of(10), Some(vec![1, 2, 3, 4, 5, 7, 10]));
    assert_eq!(grow("100x").of(3), Some(vec![1, 3]));
    assert_eq!(grow("2x").of(1), Some(vec![1]));
    assert_eq!(grow("2x").of(0), None);
    for factor in ["1.1x", "1.5x", "2x", "3x", "7x"] {
        for hosts in 1..200 {
            let sizes = grow(factor).of(hosts).unwrap();
            assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{factor} of {hosts}: {sizes:?}");
            assert_eq!((sizes[0], sizes.last().copied()), (1, Some(hosts)), "{factor}");
        }
    }
}

#[test]
fn listed_sizes_are_of_the_chosen_hosts() {
    assert_eq!(sizes(&["1", "10%", "50%", "all"], 40), Some(vec![1, 4, 20, 40]));
    assert_eq!(sizes(&["1", "10%", "50%"], 4), Some(vec![1, 2]), "alike are one");
    assert_eq!(sizes(&["5", "all"], 4), None, "too few hosts");
    assert_eq!(sizes(&["50%", "3"], 10), None, "fewer than before");
}

const TEXT: &str = "squall: 1
title: A
on: { labels: { role: web }, spread: zone, pick: 90% }
hypothesis:
  - name: up
    http: { url: \"http://127.0.0.1:8080/\" }
method:
  - parallel:
      - fault: { latency: { delay: 5ms, to: [\"10.0.0.1:80\"] } }
        for: 20s
      - fault: { refuse: { to: [\"10.0.0.2:80\"] } }
        for: 10s
stages: STAGES
";

fn document(text: &str, stages: &str) -> Result<Document, Problems> {
    read("a.yaml", text.replace("STAGES", stages).as_bytes(), &Sources::default())
}

fn hosts(count: usize) -> Vec<Candidate> {
    let host = |number: usize| Candidate {
        name: format!("h{number}"),
        labels: [("role".to_owned(), "web".to_owned())].into(),
        zone: Some(["a", "b", "c"][number % 3].to_owned()),
        connected: true,
        ..Candidate::default()
    };
    (0..count).map(host).collect()
}

fn staged(count: usize, seed: u64) -> (Targets, Vec<Share>) {
    let experiment = document(TEXT, "{ grow: 2x, bake: 30s }").unwrap().experiment;
    let targets = Targets::of(&experiment, &hosts(count), seed).unwrap();
    let shares = shares(&experiment, &targets, seed);
    (targets, shares)
}

#[test]
fn a_host_that_had_the_fault_keeps_it() {
    for seed in 0..50 {
        for count in [2, 5, 20] {
            let (targets, _) = staged(count, seed);
            let chosen = targets.hosts.len();
            let sizes: Vec<usize> = targets.stages.iter().map(BTreeSet::len).collect();
            assert_eq!(Some(sizes), grow("2x").of(chosen));
            assert!(targets.stages.windows(2).all(|pair| pair[0].is_subset(&pair[1])), "{targets:?}");
            assert_eq!(targets.stages.last(), Some(&targets.hosts));
        }
    }
}

/// What a host does in each stage: `-` is waiting, `+` beginning, `=` going on, `!` ending with it.
fn course(share: &Share) -> String {
    let word = |step: &PlanStep| {
        let PlanStep::Parallel(children) = step else { panic!("{step:?}") };
        let words: BTreeSet<char> = children
            .iter()
            .map(|child| match child {
                PlanStep::Elsewhere { .. } => '-',
                PlanStep::Fault { .. } => '+',
                PlanStep::Stays { last: false, .. } => '=',
                PlanStep::Stays { last: true, .. } => '!',
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(words.len(), 1, "faults of a step go together");
        words.into_iter().collect::<String>()
    };
    share.plan.steps.iter().map(word).collect()
}

#[test]
fn each_stage_is_a_step_of_every_host() {
    // 90 % of six are five hosts: 1, 2, 4, 5.
    let (targets, shares) = staged(6, 3);
    let mut courses: Vec<String> = shares.iter().map(course).collect();
    courses.sort();
    assert_eq!(courses, ["+==!", "-+=!", "--+!", "--+!", "---+"]);
    for share in &shares {
        let first = targets.stages.iter().position(|hosts| hosts.contains(&share.host)).unwrap();
        assert_eq!(course(share).find('+'), Some(first), "{}", share.host);
        assert_eq!(share.plan.stages, 4);
        // Three stages of 30 s, the last of 20 s, and half a minute beside them: the faults end before.
        let takes: u64 = share.plan.steps.iter().map(|step| step.takes().as_millis()).sum();
        assert_eq!(takes, 110_000);
        assert!(share.plan.expiry.as_millis() >= 140_000);
        for step in share.plan.faults() {
            let PlanStep::Fault { lasts, stays, .. } = step else { panic!("{step:?}") };
            assert_eq!(stays.is_some(), first < 3);
            let further = u64::try_from(3 - first).unwrap();
            assert!(lasts.as_millis() >= further * 30_000 + 10_000 && *lasts < share.plan.expiry);
        }
        assert_eq!(share.plan.begins_elsewhere(), first > 0);
        assert_eq!(share.experiment.stages, None);
    }
    let hashes: BTreeSet<String> = shares.iter().map(|share| share.plan.hash()).collect();
    assert_eq!(hashes.len(), 5, "a host's stage is part of its plan");
}

#[test]
fn too_few_hosts_for_a_stage_are_refused() {
    let experiment = document(TEXT, "{ sizes: [1, 7], bake: 30s }").unwrap().experiment;
    let refusal = Targets::of(&experiment, &hosts(6), 1).unwrap_err();
    assert!(refusal.what.contains("the stages do not fit 5 hosts"), "{refusal}");
}

#[test]
fn stages_that_do_not_grow_are_refused_with_their_place() {
    for (stages, said, line) in [
        ("{ bake: 1s }", "do not say how they grow", 13),
        ("{ grow: 2x, sizes: [1, 2], bake: 1s }", "no meaning beside `grow`", 13),
        ("{ grow: 1x, bake: 1s }", "`1x` does not grow", 13),
        ("{ grow: 2x }", "bake", 13),
        ("{ grow: 2x, bake: 0s }", "`bake` is zero", 13),
        ("{ sizes: [all], bake: 1s }", "this is one stage", 13),
        ("{ sizes: [1, 5, 5], bake: 1s }", "`5` has no more hosts than those before", 13),
        ("{ sizes: [50%, 30%, 20%], bake: 1s }", "`30%` has no more hosts than those before", 13),
        ("{ sizes: [50%, 110%], bake: 1s }", "`110%` is not between 0% and 100%", 13),
        ("{ sizes: [100%, all], bake: 1s }", "`all` has no more hosts than those before", 13),
        ("{ sizes: [all, 2], bake: 1s }", "`2` has no more hosts than those before", 13),
    ] {
        let shown = document(TEXT, stages).unwrap_err().render(false);
        assert!(shown.contains(said) && shown.contains(&format!("a.yaml:{line}")), "{stages}: {shown}");
    }
    let wrong = |from: &str, to: &str| {
        let shown = document(&TEXT.replace(from, to), "{ grow: 2x, bake: 1s }").unwrap_err();
        shown.render(false)
    };
    let shown = wrong("on: { labels: { role: web }, spread: zone, pick: 90% }\n", "");
    assert!(shown.contains("`stages` has no meaning without `on`"), "{shown}");
    let shown = wrong("method:\n", "method:\n  - wait: 1s\n");
    assert!(shown.contains("a method in stages is one fault"), "{shown}");
    let shown = wrong("for: 10s\n", "for: 10s\n        on: { pick: all }\n");
    assert!(shown.contains("all faults of a stage are for the same hosts"), "{shown}");
    let ramp = "ramp: { parameter: latency.delay, levels: [1ms, 2ms] }\nstages:";
    let shown = wrong("stages:", ramp);
    assert!(shown.contains("one at a time"), "{shown}");
}
