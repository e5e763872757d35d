use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::document::{Sources, read};
use crate::mandate::Approved;
use crate::plan::PlanStep;
use crate::quantity::Period;

fn host(name: &str, role: &str, zone: &str) -> Candidate {
    Candidate {
        name: name.to_owned(),
        labels: BTreeMap::from([("role".to_owned(), role.to_owned())]),
        zone: (!zone.is_empty()).then(|| zone.to_owned()),
        cell: None,
        connected: true,
    }
}

fn on(json: serde_json::Value) -> Hosts {
    serde_json::from_value(json).unwrap()
}

fn experiment(text: &str) -> Experiment {
    read("a", text.as_bytes(), &Sources::default())
        .unwrap_or_else(|problems| panic!("{problems:?}"))
        .experiment
}

/// A fleet as it may be: up to 24 hosts of two roles in up to four zones, some of them not connected.
fn fleet(random: &mut ChaCha8Rng) -> Vec<Candidate> {
    let one = |number: usize, random: &mut ChaCha8Rng| {
        let role = if random.random_bool(0.7) { "web" } else { "db" };
        let zone = ["", "a", "b", "c"][random.random_range(0..4)];
        Candidate { connected: random.random_bool(0.8), ..host(&format!("h{number}"), role, zone) }
    };
    (0..random.random_range(0..24)).map(|number| one(number, random)).collect()
}

#[test]
fn a_choice_is_made_by_seed_and_names_alone() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut some, mut refused, mut moved) = (0, 0, 0);
    for seed in 0..400 {
        let candidates = fleet(&mut random);
        let pick = ["all", "1", "3", "50%", "10%"][random.random_range(0..5)];
        let mut selector = serde_json::json!({ "labels": { "role": "web" }, "pick": pick });
        let spread = random.random_bool(0.5) && pick != "all";
        if spread {
            selector["spread"] = "zone".into();
        }
        let on = on(selector);
        let choice = choose(&on, &candidates, seed);
        let mut shuffled = candidates.clone();
        shuffled.shuffle(&mut random);
        assert_eq!(choose(&on, &shuffled, seed), choice, "the order of the hosts changes nothing");
        let web = |host: &&Candidate| host.labels["role"] == "web";
        let there = candidates.iter().filter(web).filter(|host| host.connected).count();
        let Ok(choice) = choice else {
            refused += 1;
            assert!(on.pick.of(there).is_none(), "{there} of {candidates:?}");
            continue;
        };
        some += 1;
        assert_eq!(choice.chosen.len(), on.pick.of(there).unwrap());
        let find = |name: &String| candidates.iter().find(|host| host.name == *name).unwrap();
        for name in &choice.chosen {
            assert!(find(name).connected && web(&find(name)), "{name}");
        }
        let gone: Vec<&str> = choice.unconnected.iter().map(String::as_str).collect();
        let expected = candidates.iter().filter(web).filter(|host| !host.connected);
        assert_eq!(gone.len(), expected.count());
        if spread {
            evenly(&candidates, &choice, there);
        }
        moved += u32::from(choose(&on, &candidates, seed + 1000).unwrap().chosen != choice.chosen);
    }
    assert!(some > 100 && refused > 20 && moved > 50, "{some} {refused} {moved}");
}

/// No zone has two hosts more than another one that has one left.
fn evenly(candidates: &[Candidate], choice: &Choice, there: usize) {
    let zone = |name: &String| candidates.iter().find(|host| host.name == *name).unwrap().zone.clone();
    let (mut taken, mut all) = (BTreeMap::new(), BTreeMap::new());
    choice.chosen.iter().for_each(|name| *taken.entry(zone(name)).or_insert(0) += 1);
    let web = candidates.iter().filter(|host| host.connected && host.labels["role"] == "web");
    web.for_each(|host| *all.entry(host.zone.clone()).or_insert(0) += 1);
    assert_eq!(all.values().sum::<usize>(), there);
    for (zone, count) in &taken {
        for (other, whole) in &all {
            let own = taken.get(other).copied().unwrap_or(0);
            assert!(own == *whole || own + 1 >= *count, "{zone:?} has {count}, {other:?} {own} of {whole}");
        }
    }
}

#[test]
fn half_of_five_are_two_and_there_is_always_one() {
    let candidates: Vec<Candidate> = (0..5).map(|number| host(&format!("h{number}"), "web", "a")).collect();
    let count = |pick: &str, of: usize| {
        let on = on(serde_json::json!({ "zone": "a", "pick": pick }));
        choose(&on, &candidates[..of], 1).map(|choice| choice.chosen.len())
    };
    assert_eq!(count("50%", 5), Ok(2));
    assert_eq!(count("1%", 5), Ok(1));
    assert_eq!(count("all", 5), Ok(5));
}

#[test]
fn a_host_that_leaves_moves_no_other_out() {
    let candidates: Vec<Candidate> = (0..20).map(|number| host(&format!("h{number}"), "web", "")).collect();
    let on = on(serde_json::json!({ "pick": "5" }));
    let before = choose(&on, &candidates, 3).unwrap().chosen;
    let without: Vec<Candidate> = candidates.iter().filter(|host| host.name != before[0]).cloned().collect();
    let after = choose(&on, &without, 3).unwrap().chosen;
    assert!(before[1..].iter().all(|name| after.contains(name)), "{before:?} {after:?}");
}

#[test]
fn what_cannot_be_chosen_is_said_with_what_there_was() {
    let gone = Candidate { connected: false, ..host("web-3", "web", "b") };
    let candidates = [host("db-1", "db", "a"), host("web-1", "web", "a"), host("web-2", "web", "b"), gone];
    let refused = |selector: serde_json::Value| {
        let refusal = choose(&on(selector), &candidates, 1).unwrap_err();
        (refusal.what, refusal.help.unwrap())
    };
    let (what, help) = refused(serde_json::json!({ "labels": { "role": "cache" } }));
    assert_eq!(what, "no host matches `labels role=cache`");
    assert!(help.starts_with("there are: db-1 (role=db, zone a), web-1 ("), "{help}");
    assert!(help.ends_with("web-3 (not connected, role=web, zone b)"), "{help}");
    let (what, _) = refused(serde_json::json!({ "labels": { "role": "web" }, "pick": 3 }));
    let expected =
        "too few hosts match `labels role=web, pick 3`: only 2 connected: web-1, web-2; not connected: web-3";
    assert_eq!(what, expected);
    assert_eq!(refused(serde_json::json!({ "name": ["web-3"] })).0, "the host `web-3` is not connected");
    assert_eq!(refused(serde_json::json!({ "name": ["web-9"] })).0, "the host `web-9` is not known");
    let (what, help) = refused(serde_json::json!({ "name": ["web-1"], "zone": "b" }));
    assert_eq!(what, "the host `web-1` is named and does not match `zone b, name web-1`");
    assert_eq!(help, "it is: web-1 (role=web, zone a)");
    assert_eq!(choose(&on(serde_json::json!({ "pick": 1 })), &[], 1).unwrap_err().help.unwrap(), {
        "no host has joined this controller yet"
    });
}

const TWO_ROLES: &str = "
squall: 1
title: A
on: { labels: { role: web } }
on-partial: continue
hypothesis:
  - name: a
    load: { url: \"http://127.0.0.1/\", rate: 5/s }
    expect: { errors: \"<= 1%\" }
  - { name: b, process: { argv: [\"true\"] } }
stop-when:
  - { name: up, process: { argv: [\"true\"] } }
method:
  - wait: 1s
  - { fault: { refuse: { to: [\"10.0.0.1:7\"] } }, on: { name: [db-1] }, for: 2s }
  - parallel:
      - { fault: { refuse: { to: [\"10.0.0.2:7\"] } }, for: 3s }
      - { action: { process: { argv: [\"true\"] } }, on: { labels: { role: web }, pick: 1 } }
";

#[test]
fn each_host_has_its_own_part_and_all_keep_step() {
    let experiment = experiment(TWO_ROLES);
    let candidates = [host("web-2", "web", "b"), host("db-1", "db", "a"), host("web-1", "web", "a")];
    let targets = Targets::of(&experiment, &candidates, 5).unwrap();
    assert_eq!(targets.hosts.iter().collect::<Vec<_>>(), ["db-1", "web-1", "web-2"]);
    assert_eq!(targets.watching.iter().collect::<Vec<_>>(), ["web-1", "web-2"]);
    assert_eq!(targets.steps["2"].iter().collect::<Vec<_>>(), ["db-1"]);
    assert_eq!(targets.steps["3.2"].len(), 1);
    let shares = shares(&experiment, &targets, 5);
    let [db, web, _] = shares.as_slice() else { panic!("{shares:?}") };
    assert!(db.experiment.hypothesis.is_empty() && db.experiment.stop_when.is_empty());
    assert!(db.plan.has_changes() && web.plan.has_changes() && db.plan.has_faults());
    assert!(matches!(&db.plan.steps[1], PlanStep::Fault { part: 1, .. }));
    assert!(matches!(&web.plan.steps[1], PlanStep::Elsewhere { lasts, .. } if lasts.as_millis() == 2000));
    let PlanStep::Parallel(children) = &web.plan.steps[2] else { panic!("{web:?}") };
    assert!(matches!(&children[0], PlanStep::Fault { part: 2, .. }), "parts have one number on all hosts");
    let times: Vec<Vec<_>> =
        shares.iter().map(|share| share.plan.steps[..2].iter().map(PlanStep::takes).collect()).collect();
    assert!(times.iter().all(|own| *own == times[0]), "{times:?}");
    // Two hosts look: each has half of the error. What counts single looks has none to share.
    assert_eq!(web.experiment.hypothesis[0].confidence.unwrap().get(), 97.5);
    assert_eq!(web.experiment.hypothesis[1].confidence, None);
}

#[test]
fn without_hosts_of_its_own_an_experiment_is_looked_at_where_something_is_done() {
    let text = TWO_ROLES.replace("on: { labels: { role: web } }\non-partial: continue", "");
    let text = text.replace("10.0.0.2:7\"] } }, ", "10.0.0.2:7\"] } }, on: { name: [web-1] }, ");
    let experiment = experiment(&text);
    let candidates = [host("web-2", "web", "b"), host("db-1", "db", "a"), host("web-1", "web", "a")];
    let targets = Targets::of(&experiment, &candidates, 1).unwrap();
    assert_eq!(targets.watching, targets.hosts);
    assert!(only_here(&experiment).is_err());
    let mut nowhere = experiment.clone();
    nowhere.method[1].on = None;
    let refusal = Targets::of(&nowhere, &candidates, 1).unwrap_err();
    assert_eq!(refusal.what, "step 2 does not say on which hosts");
    nowhere.method.truncate(1);
    let refusal = Targets::of(&nowhere, &candidates, 1).unwrap_err();
    assert_eq!(refusal.what, "the experiment does not say on which hosts it is looked at");
    assert_eq!(only_here(&nowhere), Ok(()));
}

#[test]
fn a_plan_of_a_fleet_is_its_seed_and_hosts() {
    let experiment = experiment(TWO_ROLES);
    let candidates = [host("web-2", "web", "b"), host("db-1", "db", "a"), host("web-1", "web", "a")];
    let plan = FleetPlan::of(&experiment, &candidates, 5).unwrap();
    let mut turned = candidates.to_vec();
    turned.reverse();
    turned.push(Candidate { connected: false, ..host("web-4", "web", "c") });
    let other = FleetPlan::of(&experiment, &turned, 5).unwrap();
    assert_eq!((&other.hash, &other.hosts), (&plan.hash, &plan.hosts));
    assert_eq!(other.unconnected.iter().collect::<Vec<_>>(), ["web-4"]);
    assert_ne!(FleetPlan::of(&experiment, &candidates, 6).unwrap().hash, plan.hash);
    assert_ne!(FleetPlan::of(&experiment, &candidates[..2], 5).unwrap().hash, plan.hash);
    let mut more = experiment.clone();
    more.on_partial = OnPartial::Revert;
    assert_ne!(FleetPlan::of(&more, &candidates, 5).unwrap().hash, plan.hash);
    // Faults alone are not what somebody says yes to: what is looked at and what ends it are in the hash too.
    let alike = |change: &dyn Fn(&mut Experiment)| {
        let mut other = experiment.clone();
        change(&mut other);
        let other = FleetPlan::of(&other, &candidates, 5).unwrap();
        assert!(other.hosts.iter().zip(&plan.hosts).all(|(other, own)| other.hash == own.hash));
        other.hash == plan.hash
    };
    assert!(alike(&|other| other.title.push('!')));
    assert!(!alike(&|other| other.stop_when.extend(experiment.hypothesis.clone())));
    assert!(!alike(&|other| other.hypothesis.clear()));
    assert!(!alike(&|other| other.recovery = Period::from_secs(7)));
}

#[test]
fn an_approval_of_too_many_hosts_for_a_line_is_known_before() {
    let candidates = [host("web-1", "web", "a"), host("db-1", "db", "a")];
    let fleet = FleetPlan::of(&experiment(TWO_ROLES), &candidates, 5).unwrap();
    assert!(Approved::fits(&fleet));
    let hosts = vec![fleet.hosts[0].clone(); 15_000];
    assert!(!Approved::fits(&FleetPlan { hosts, ..fleet }));
}

#[test]
fn selectors_that_say_nothing_are_problems() {
    for (on, what) in [
        ("{}", "`on`"),
        ("{ labels: {} }", "`on` with empty `labels` would choose every host"),
        ("{ name: [] }", "`on` with empty `name` would choose every host"),
        ("{ zone: \"\" }", "`on` with empty `zone` would choose every host"),
        ("{ pick: 0 }", "takes nothing"),
        ("{ zone: a, spread: zone }", "`spread` has no meaning where every host is taken"),
        ("{ zone: a, pick: 2, spread: zone }", "`spread: zone` has no meaning in one `zone`"),
        ("{ name: [a, b, a] }", "this host is named twice"),
        ("{ label: { a: b } }", "label"),
    ] {
        let text = TWO_ROLES.replace("{ labels: { role: web } }\n", &format!("{on}\n"));
        let problems = read("a", text.as_bytes(), &Sources::default()).unwrap_err();
        assert!(problems.render(false).contains(what), "{on}: {}", problems.render(false));
    }
    let lonely = TWO_ROLES.replace("on: {", "# on: {").replace(", # on: { name: [db-1] }", "");
    let lonely = lonely.replace(", # on: { labels: { role: web }, pick: 1 }", "");
    let problems = read("a", lonely.as_bytes(), &Sources::default()).unwrap_err();
    assert!(
        problems.render(false).contains("`on-partial` has no meaning without `on`"),
        "{}",
        problems.render(false)
    );
}
