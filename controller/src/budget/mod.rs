//! How much all runs together may touch: pure arithmetic over what is in use, what is about to come, and what is wanted.
//!
//! The store asks it within the transaction that keeps the run (`Store::admit`), so that two runs cannot both find
//! room for one.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squall_experiments::plan::PlanStep;
use squall_experiments::quantity::Pick;

use crate::config::Budget;

/// What one run does with one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostUse {
    /// The host.
    pub host: String,
    /// Its labels, when the run was planned.
    pub labels: BTreeMap<String, String>,
    /// Its zone.
    pub zone: Option<String>,
    /// How many faults it gets.
    pub faults: u64,
}

/// What is in use or wanted by one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The run, or the schedule that is about to begin one.
    pub run: String,
    /// Whether it goes on already.
    pub live: bool,
    /// Its hosts.
    pub uses: Vec<HostUse>,
}

/// What is known of the fleet and of the last 24 hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Labels and zone of every host.
    pub hosts: Vec<(BTreeMap<String, String>, Option<String>)>,
    /// How many faults each host had within 24 hours.
    pub faults: BTreeMap<String, u64>,
}

/// To what a host counts, by its labels and its zone.
type Key<'a> = &'a dyn Fn(&BTreeMap<String, String>, &Option<String>) -> Option<String>;

impl Budget {
    /// Whether anything is limited.
    pub fn is_none(&self) -> bool {
        *self == Budget { service: self.service.clone(), ..Budget::default() }
    }

    /// Why a run does not fit beside others; empty: it does.
    pub fn exceeded(&self, wanted: &[HostUse], others: &[Footprint], known: &Known) -> Vec<String> {
        let wanted: Vec<&HostUse> = wanted.iter().filter(|used| used.faults > 0).collect();
        let used: Vec<&HostUse> =
            others.iter().flat_map(|other| &other.uses).filter(|used| used.faults > 0).collect();
        let mut why = Vec::new();
        if let Some(most) = self.runs {
            let live = others.iter().filter(|other| other.live).count();
            let coming = others.len() - live;
            if others.len() >= most as usize {
                why.push(format!(
                    "{live} runs go on and {coming} are about to (the budget is {most} at once)"
                ));
            }
        }
        let service =
            |labels: &BTreeMap<String, String>, _: &Option<String>| labels.get(&self.service).cloned();
        let zone = |_: &BTreeMap<String, String>, zone: &Option<String>| zone.clone();
        self.shares(self.hosts_per_service, "service", &service, (&wanted, &used, known), &mut why);
        self.shares(self.hosts_per_zone, "zone", &zone, (&wanted, &used, known), &mut why);
        if let Some(most) = self.faults_per_host_and_day {
            for one in &wanted {
                let had = known.faults.get(&one.host).copied().unwrap_or(0);
                if had + one.faults > u64::from(most) {
                    why.push(format!(
                        "`{}` had {had} faults within 24 hours and would get {} (the budget is {most})",
                        one.host, one.faults
                    ));
                }
            }
        }
        for (group, labels) in &self.quorum {
            let belongs =
                |used: &HostUse| labels.iter().all(|(name, value)| used.labels.get(name) == Some(value));
            let ours: BTreeSet<&str> =
                wanted.iter().filter(|used| belongs(used)).map(|used| used.host.as_str()).collect();
            if ours.is_empty() {
                continue;
            }
            let theirs = used.iter().filter(|used| belongs(used));
            let all: BTreeSet<&str> =
                theirs.map(|used| used.host.as_str()).chain(ours.iter().copied()).collect();
            if all.len() > 1 {
                let names: Vec<String> = all.iter().map(|host| format!("`{host}`")).collect();
                why.push(format!(
                    "{} are members of the quorum `{group}` (never two at once)",
                    names.join(" and ")
                ));
            }
        }
        why
    }

    /// The limit on hosts of each service or zone.
    fn shares(
        &self,
        most: Option<Pick>,
        kind: &str,
        of: Key<'_>,
        (wanted, used, known): (&[&HostUse], &[&HostUse], &Known),
        why: &mut Vec<String>,
    ) {
        let Some(most) = most else { return };
        let mut hosts: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for one in wanted {
            if let Some(key) = of(&one.labels, &one.zone) {
                hosts.entry(key).or_default().insert(&one.host);
            }
        }
        for one in used {
            // A service that this run does not touch is no concern of it.
            if let Some(set) = of(&one.labels, &one.zone).and_then(|key| hosts.get_mut(&key)) {
                set.insert(&one.host);
            }
        }
        for (key, set) in hosts {
            let all =
                known.hosts.iter().filter(|(labels, zone)| of(labels, zone).as_ref() == Some(&key)).count();
            let allowed = match most {
                Pick::All => continue,
                Pick::Count(count) => count as usize,
                // Of a share of nothing, nothing.
                share => share.of(all).unwrap_or(0),
            };
            if set.len() > allowed {
                why.push(format!(
                    "{} hosts of the {kind} `{key}` would have faults at the same time (the budget is {most}: {allowed} of {all})",
                    set.len()
                ));
            }
        }
    }
}

/// How many faults some steps do on their host.
pub fn faults(steps: &[PlanStep]) -> u64 {
    let one = |step: &PlanStep| match step {
        PlanStep::Fault { .. } => 1,
        PlanStep::Parallel(steps) => faults(steps),
        _ => 0,
    };
    steps.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, service: &str, zone: &str) -> HostUse {
        let labels = BTreeMap::from([("service".to_owned(), service.to_owned())]);
        HostUse { host: name.to_owned(), labels, zone: Some(zone.to_owned()), faults: 1 }
    }

    fn run(name: &str, live: bool, uses: &[HostUse]) -> Footprint {
        Footprint { run: name.to_owned(), live, uses: uses.to_vec() }
    }

    fn known(hosts: &[HostUse]) -> Known {
        let hosts = hosts.iter().map(|one| (one.labels.clone(), one.zone.clone())).collect();
        Known { hosts, faults: BTreeMap::new() }
    }

    #[test]
    fn runs_that_go_on_and_runs_that_come_count_together() {
        let budget = Budget { runs: Some(2), ..Budget::default() };
        let (one, other) = (run("a", true, &[]), run("b", false, &[]));
        assert!(budget.exceeded(&[], std::slice::from_ref(&one), &Known::default()).is_empty());
        let why = budget.exceeded(&[], &[one, other], &Known::default());
        assert_eq!(why, ["1 runs go on and 1 are about to (the budget is 2 at once)"]);
    }

    #[test]
    fn a_share_of_a_service_is_of_the_hosts_that_are_known_and_one_host_counts_once() {
        let hosts: Vec<HostUse> = (0..4).map(|n| host(&format!("shop-{n}"), "shop", "a")).collect();
        let share = Some("50%".parse().expect("a share"));
        let budget = Budget { service: "service".to_owned(), hosts_per_service: share, ..Budget::default() };
        let live = [run("a", true, &hosts[..1])];
        assert!(budget.exceeded(&hosts[1..2], &live, &known(&hosts)).is_empty());
        assert!(budget.exceeded(&hosts[..2], &live, &known(&hosts)).is_empty(), "shop-0 is the same host");
        let why = budget.exceeded(&hosts[1..3], &live, &known(&hosts));
        assert_eq!(
            why,
            ["3 hosts of the service `shop` would have faults at the same time (the budget is 50%: 2 of 4)"]
        );
        assert!(
            budget.exceeded(&[host("db", "stock", "a")], &live, &known(&hosts)).len() == 1,
            "of none, none"
        );
        let watched = HostUse { faults: 0, ..hosts[3].clone() };
        assert!(budget.exceeded(&[watched], &[run("a", true, &hosts[..2])], &known(&hosts)).is_empty());
    }

    #[test]
    fn zones_and_the_faults_of_a_day_have_limits() {
        let budget = Budget {
            hosts_per_zone: Some(Pick::Count(1)),
            faults_per_host_and_day: Some(3),
            ..Budget::default()
        };
        let live = [run("a", true, &[host("one", "shop", "a")])];
        assert!(budget.exceeded(&[host("two", "shop", "b")], &live, &Known::default()).is_empty());
        assert_eq!(budget.exceeded(&[host("two", "stock", "a")], &live, &Known::default()).len(), 1);
        let tired = Known { faults: BTreeMap::from([("two".to_owned(), 3)]), ..Known::default() };
        let why = budget.exceeded(&[host("two", "shop", "b")], &[], &tired);
        assert_eq!(why, ["`two` had 3 faults within 24 hours and would get 1 (the budget is 3)"]);
    }

    #[test]
    fn two_members_of_a_quorum_are_never_hit_at_once_also_by_one_run() {
        let members = BTreeMap::from([("service".to_owned(), "etcd".to_owned())]);
        let budget = Budget { quorum: BTreeMap::from([("etcd".to_owned(), members)]), ..Budget::default() };
        let (one, two) = (host("e1", "etcd", "a"), host("e2", "etcd", "b"));
        let none = Known::default();
        assert!(budget.exceeded(std::slice::from_ref(&one), &[], &none).is_empty());
        let why = budget.exceeded(&[one.clone(), two.clone()], &[], &none);
        assert_eq!(why, ["`e1` and `e2` are members of the quorum `etcd` (never two at once)"]);
        assert_eq!(
            budget
                .exceeded(std::slice::from_ref(&two), &[run("a", false, std::slice::from_ref(&one))], &none)
                .len(),
            1
        );
        assert!(budget.exceeded(&[host("shop", "shop", "a")], &[run("a", true, &[one])], &none).is_empty());
    }
}
