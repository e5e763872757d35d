//! The guards of a run, looked at by the agent itself: an abort needs neither the command nor the way to it.
//!
//! An unprivileged child takes the samples; the arithmetic is that of the conductor, who is sent every sample. Nothing
//! here waits: what the child says comes back through the worker's loop.

mod prober;

use std::collections::BTreeMap;

use squall_experiments::guard::{Guarding, Stop};
use squall_experiments::probe::{Probe, ProberReply, ProberRequest, Sample};
use squall_experiments::protocol::{Guard, Refusal, Said};
use squall_experiments::quantity::Period;
use squall_experiments::run::Seen;
use squall_experiments::verdict::Phase;

use crate::policy::Probes;

use prober::Prober;

pub use prober::Told;

/// The guards of one run, looked at until this is dropped.
#[derive(Debug)]
pub struct Guards {
    /// By the numbers of their probes, which count from zero.
    watched: Vec<Watched>,
    /// One for each user that probes run as; of use only while they are kept.
    _probers: BTreeMap<Option<String>, Prober>,
}

#[derive(Debug)]
struct Watched {
    /// What the conductor calls it.
    number: u32,
    name: String,
    guarding: Guarding,
    last: String,
}

impl Guards {
    /// Begins to look. `told` is called in this thread, later. Refused where a guard is no probe, or wants to run a program
    /// as root: what the agent may do on this host is inject, and its journal would not know of that.
    /// Those of a controller reach what they may.
    pub fn start(
        guards: Vec<Guard>,
        within: Option<&Probes>,
        told: impl Fn(Told) + Clone + 'static,
    ) -> Result<Self, Refusal> {
        let mut watched = Vec::new();
        let mut probers: BTreeMap<Option<String>, Prober> = BTreeMap::new();
        let mut orders = Vec::new();
        for (probe, guard) in (0u32..).zip(guards) {
            let Guard { number, claim, so_far, bounds } = guard;
            let what =
                claim.probe().ok_or_else(|| Refusal::bare(format!("`{}` has no probe", claim.name)))?;
            let user = what.user().map(str::to_owned);
            if user.as_deref() == Some("root") {
                let help = "leave `user: root` out, or look at it in `hypothesis`";
                return Err(Refusal::new(format!("the agent runs no probe as root: `{}`", claim.name), help));
            }
            let period = pace(&what, claim.every);
            let mut guarding = Guarding::new(&claim, true).having_seen(so_far);
            guarding.beside(bounds.max(guarding.bounds()));
            let load = ProberRequest::Load {
                probe,
                what,
                expect: Box::new(claim.expect),
                looks: claim.sample,
                promptly: claim.budget.is_some(),
            };
            orders.extend([(user.clone(), load), (user, ProberRequest::Every { probe, period })]);
            watched.push(Watched { number, name: claim.name, guarding, last: String::new() });
        }
        for (user, order) in orders {
            if !probers.contains_key(&user) {
                let started = Prober::start(user.as_deref(), within, told.clone());
                let started = started.map_err(|error| {
                    Refusal::bare(format!("the guards' prober cannot be started: {error}"))
                })?;
                probers.insert(user.clone(), started);
            }
            if let Some(prober) = probers.get(&user) {
                prober.tell(&order);
            }
        }
        Ok(Guards { watched, _probers: probers })
    }

    /// Takes what a prober says: what the conductor must be told, in this order; a [`Said::Stopped`] among it is the end of
    /// the run.
    pub fn take(&mut self, told: Told) -> Vec<(u32, Said)> {
        match told {
            Told::Reply(ProberReply::Sample(sample)) => self.sampled(sample),
            Told::Reply(ProberReply::Failing { probe, begun_ns, failed }) => self
                .of(probe)
                .and_then(|watched| {
                    watched.guarding.failing(begun_ns, failed);
                    watched.stop()
                })
                .into_iter()
                .collect(),
            Told::Reply(ProberReply::Unusable { probe, why }) => {
                self.of(probe).map(|watched| watched.blind(why)).into_iter().collect()
            }
            Told::Reply(ProberReply::Rested { .. }) => Vec::new(),
            Told::Gone(why) => self.watched.first().map(|watched| watched.blind(why)).into_iter().collect(),
        }
    }

    fn of(&mut self, probe: u32) -> Option<&mut Watched> {
        self.watched.get_mut(probe as usize)
    }

    fn sampled(&mut self, sample: Sample) -> Vec<(u32, Said)> {
        let Some(watched) = self.of(sample.probe) else { return Vec::new() };
        let seen = Seen {
            name: watched.name.clone(),
            guard: true,
            phase: Phase::During,
            good: sample.good,
            unclear: sample.unclear,
            begun_ms: sample.begun_ns / 1_000_000,
            took_us: sample.took_ns / 1000,
            seen: sample.seen.clone(),
            load: sample.load.clone(),
        };
        watched.guarding.add(&seen, sample.begun_ns);
        watched.last = seen.seen;
        let stop = watched.stop();
        [Some((watched.number, Said::Sample(sample))), stop].into_iter().flatten().collect()
    }

    /// What a guard is called that a conductor knows by a number.
    pub fn name(&self, number: u32) -> &str {
        self.watched.iter().find(|watched| watched.number == number).map_or("", |watched| &watched.name)
    }
}

impl Watched {
    fn stop(&self) -> Option<(u32, Said)> {
        self.guarding.stop(&self.last).map(|stop| (self.number, Said::Stopped(stop)))
    }

    fn blind(&self, why: String) -> (u32, Said) {
        (self.number, Said::Stopped(Stop::Blind(why)))
    }
}

/// From one sample to the next; of a load the prober knows it already.
fn pace(what: &Probe, every: Period) -> Period {
    match what {
        Probe::Load { tick, .. } => *tick,
        _ => every.max(Period::from_millis(1)),
    }
}

/// Why a run was ended, for whoever asks the agent: `the guard “site is up” did not hold: 503`.
pub fn in_words(name: &str, stop: &Stop) -> String {
    match stop {
        Stop::Tripped(seen) => format!("the guard `{name}` did not hold: {seen}"),
        Stop::Spent { failed, budget } => {
            format!("`{name}` has spent its budget: {failed} failed, {} may", budget.0)
        }
        Stop::Blind(why) => format!("the guard `{name}` says nothing any more: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use serde_json::json;
    use squall_experiments::verdict::Tally;

    use super::*;

    fn guard(more: serde_json::Value) -> Guard {
        let mut claim = json!({ "name": "site is up", "tcp": { "address": "127.0.0.1:1" } });
        claim.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Guard {
            number: 7,
            claim: serde_json::from_value(claim).unwrap(),
            so_far: Tally { good: 9, bad: 0 },
            bounds: 0,
        }
    }

    /// Guards without a prober: what is told is the test's.
    fn guards(more: serde_json::Value) -> Guards {
        let Guard { number, claim, so_far, .. } = guard(more);
        let guarding = Guarding::new(&claim, true).having_seen(so_far);
        let watched = Watched { number, name: claim.name, guarding, last: String::new() };
        Guards { watched: vec![watched], _probers: BTreeMap::new() }
    }

    fn sample(good: bool) -> Told {
        let seen = if good { "connected" } else { "refused" }.to_owned();
        let sample = Sample { probe: 0, begun_ns: 5, took_ns: 1, good, unclear: false, seen, load: None };
        Told::Reply(ProberReply::Sample(sample))
    }

    fn stops(said: &[(u32, Said)]) -> Vec<&Stop> {
        let stops = said.iter().filter_map(|(_, said)| match said {
            Said::Stopped(stop) => Some(stop),
            Said::Sample(_) => None,
        });
        stops.collect()
    }

    #[test]
    fn every_sample_is_passed_on_and_a_bad_one_ends_the_run() {
        let mut guards = guards(json!({}));
        let good = guards.take(sample(true));
        assert!(matches!(good[..], [(7, Said::Sample(_))]), "{good:?}");
        let bad = guards.take(sample(false));
        assert!(matches!(bad[..], [(7, Said::Sample(_)), (7, Said::Stopped(Stop::Tripped(_)))]), "{bad:?}");
        assert_eq!(in_words(guards.name(7), stops(&bad)[0]), "the guard `site is up` did not hold: refused");
    }

    #[test]
    fn what_the_conductor_saw_before_counts() {
        let mut tolerant = guards(json!({ "expect": { "tolerate": "10%" } }));
        assert!(stops(&tolerant.take(sample(false))).is_empty());
        assert_eq!(stops(&tolerant.take(sample(false))).len(), 1);
    }

    #[test]
    fn a_budget_ends_the_run_before_the_sample_is_complete() {
        let load = json!({ "tcp": null, "load": { "url": "http://127.0.0.1/", "rate": "50/s" }, "budget": "5 failed" });
        let mut guards = guards(load);
        let failing = |failed| Told::Reply(ProberReply::Failing { probe: 0, begun_ns: 5, failed });
        assert!(guards.take(failing(4)).is_empty());
        let spent = guards.take(failing(6));
        let words = in_words("a", stops(&spent)[0]);
        assert_eq!(words, "`a` has spent its budget: 6 failed, 5 may");
    }

    #[test]
    fn a_prober_that_is_gone_or_cannot_look_ends_the_run() {
        for told in [
            Told::Gone("the prober ended".to_owned()),
            Told::Reply(ProberReply::Unusable { probe: 0, why: "no such program".to_owned() }),
        ] {
            let said = guards(json!({})).take(told);
            assert!(matches!(stops(&said)[..], [Stop::Blind(_)]), "{said:?}");
        }
    }

    #[test]
    fn no_probe_of_the_agents_runs_as_root() {
        let root = json!({ "tcp": null, "process": { "argv": ["true"], "user": "root" } });
        let told = Rc::new(RefCell::new(0));
        let refused = Guards::start(vec![guard(root)], None, move |_| *told.borrow_mut() += 1).unwrap_err();
        assert_eq!(refused.what, "the agent runs no probe as root: `site is up`");
    }
}
