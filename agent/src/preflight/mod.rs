//! What works on this host, fault by fault: by which engine, with which limits, and what brings the rest.

mod mechanisms;

use std::fmt;

use serde::Serialize;

use mechanisms::findings;
pub use mechanisms::{Finding, Mechanism, brings};

use crate::host::qdisc::choice;
use crate::host::redirect;
use crate::policy::{Graft, Policy};
use crate::rights;

/// What can be done on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Every fault.
    pub faults: Vec<Ability>,
    /// Every scope that needs something of its own, as it stands behind `in:`.
    pub scopes: Vec<Ability>,
    /// What they are made of.
    pub mechanisms: Vec<Finding>,
    /// Capabilities that an agent here gives up before it hears anybody: no fault that the policy allows needs them.
    pub given_up: Vec<&'static str>,
}

/// One fault or scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ability {
    /// Its name in a file.
    pub name: &'static str,
    /// Whether it works here, in one way at least.
    pub works: bool,
    /// The ways, the first choice first.
    pub ways: Vec<Way>,
}

/// One way to do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Way {
    /// By what; of a network fault, the word behind `engine:`.
    pub by: &'static str,
    /// Whether it works here.
    pub works: bool,
    /// Where it does not do everything.
    pub limits: Vec<String>,
    /// What is missing.
    pub missing: Vec<Lack>,
}

/// Something that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lack {
    /// What.
    pub what: String,
    /// Why, and what brings it.
    pub detail: String,
}

impl Report {
    /// Looks at the host under its policy. Changes nothing that anybody could see.
    pub fn of(policy: &Policy) -> Self {
        let mechanisms = findings();
        let way = |by, needs: &[Mechanism], limits: Vec<String>| {
            let lacks = |finding: &&Finding| needs.contains(&finding.mechanism) && !finding.works;
            let lacking = mechanisms.iter().filter(lacks);
            let lack = |one: &Finding| Lack { what: one.what.to_owned(), detail: one.detail.clone() };
            let missing: Vec<Lack> = lacking.map(lack).collect();
            Way { by, works: missing.is_empty(), limits, missing }
        };
        let lacks = |mechanism| mechanisms.iter().any(|one| one.mechanism == mechanism && !one.works);
        let queue = || {
            let mut limits = Vec::new();
            if lacks(Mechanism::RawSockets) {
                limits.push("no copies, and what leaves is not held: no raw sockets".to_owned());
            }
            if lacks(Mechanism::RealTime) {
                limits
                    .push("a few milliseconds late while the host is busy: no real-time priority".to_owned());
            }
            way("queue", &[Mechanism::Table, Mechanism::Queues], limits)
        };
        let disciplines = |name: &str| {
            let mut needs = vec![Mechanism::Table, Mechanism::Htb];
            needs.extend((name != "bandwidth").then_some(Mechanism::Netem));
            let mut limits = vec![if lacks(Mechanism::Entry) {
                "only what leaves (`direction: egress`): what enters cannot be led through a device"
                    .to_owned()
            } else {
                "of what enters only by address, port and interface".to_owned()
            }];
            limits.extend(disciplined(name));
            let mut way = way("netem", &needs, limits);
            if policy.graft == Graft::Never {
                way.works = false;
                way.missing.push(Lack {
                    what: "a policy without `graft: never`".to_owned(),
                    detail: format!("the owner of this host decides, in `{}`", crate::policy::FILE),
                });
            }
            way
        };
        let rules = [Mechanism::Table];
        let mut faults = Vec::new();
        for name in ["latency", "loss", "duplicate", "corrupt", "reorder", "bandwidth", "degrade"] {
            let ways = match name {
                // Where both do the same the kernel is faster.
                "latency" | "bandwidth" => vec![disciplines(name), queue()],
                _ => vec![queue(), disciplines(name)],
            };
            faults.push(Ability::of(name, ways));
        }
        let one = |name, by, needs: &[Mechanism]| Ability::of(name, vec![way(by, needs, Vec::new())]);
        faults.push(one("partition", "rules", &rules));
        faults.push(one("refuse", "rules", &[Mechanism::Table, Mechanism::Rejects]));
        // Two of its ways are the kernel's alone.
        let kernels = if lacks(Mechanism::Rejects) {
            "only `how: blackhole`".to_owned()
        } else {
            "only `how: refuse` and `how: blackhole`".to_owned()
        };
        let unseen = redirect::unseen().into_iter().map(|what| format!("`how: dns`: {what}")).collect();
        let proxy = way("proxy", &[Mechanism::Redirects, Mechanism::Cgroup], unseen);
        faults.push(Ability::of("outage", vec![proxy, way("rules", &rules, vec![kernels])]));
        faults.push(one("disconnect", "socket diagnosis", &[Mechanism::SocketDiagnosis]));
        faults.push(one("kill", "signals", &[Mechanism::Pidfd]));
        faults.push(one("pause", "tracing", &[Mechanism::Pidfd, Mechanism::Ptrace]));
        let groups = [Mechanism::Table, Mechanism::Cgroup, Mechanism::SocketGroups];
        let marks = [Mechanism::Table, Mechanism::Marks, Mechanism::SocketMarks];
        let scopes = vec![
            one("cgroup", "control groups", &groups),
            one("unit", "control groups", &groups),
            one("process", "marks", &marks),
            one("user", "marks", &marks),
            one("container", "namespaces", &[Mechanism::Table, Mechanism::Namespaces]),
            one("netns", "namespaces", &[Mechanism::Table, Mechanism::Namespaces]),
            one("interface", "rules", &rules),
            one("port", "rules", &rules),
        ];
        Report { faults, scopes, mechanisms, given_up: rights::needless(policy) }
    }

    /// Whether every fault works, by whichever way.
    pub fn is_whole(&self) -> bool {
        self.faults.iter().chain(&self.scopes).all(|ability| ability.works)
    }
}

/// The limits of the kernel's own disciplines.
fn disciplined(name: &str) -> Vec<String> {
    let mut limits = Vec::new();
    match name {
        "latency" => limits.push("jitter only with `reordering: true`".to_owned()),
        "degrade" => limits.push("no delay together with `reorder`".to_owned()),
        "loss" | "duplicate" | "reorder" => {
            limits.push("decides once for each large packet that the interface cuts up later".to_owned());
        }
        "corrupt" => limits.push("corrupts headers, too, and does not count what it corrupts".to_owned()),
        _ => {}
    }
    limits.extend(choice::reserved());
    limits
}

impl Ability {
    fn of(name: &'static str, ways: Vec<Way>) -> Self {
        Ability { name, works: ways.iter().any(|way| way.works), ways }
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let works = if self.works { "works  " } else { "missing" };
        write!(f, "{works}  {}", self.name)?;
        for way in &self.ways {
            let (by, limits) = (way.by, way.limits.join("; "));
            match (way.works, limits.is_empty()) {
                (true, true) => write!(f, "\n         by {by}")?,
                (true, false) => write!(f, "\n         by {by}: {limits}")?,
                (false, _) => {
                    let missing: Vec<&str> = way.missing.iter().map(|lack| lack.what.as_str()).collect();
                    write!(f, "\n         not by {by}: needs {}", missing.join(", "))?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        writeln!(f, "\nwhose, behind `in:`")?;
        for scope in &self.scopes {
            writeln!(f, "{scope}")?;
        }
        writeln!(f, "\nwhat they are made of")?;
        for Finding { what, works, detail, .. } in &self.mechanisms {
            let works = if *works { "works  " } else { "missing" };
            writeln!(f, "{works}  {what}\n         {detail}")?;
        }
        if !self.given_up.is_empty() {
            let given_up = self.given_up.join(", ");
            writeln!(
                f,
                "\nan agent gives up {given_up}: no fault that this host's policy allows needs them"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_catalogue_is_answered_for() {
        let report = Report::of(&Policy { graft: Graft::Never, ..Policy::default() });
        let mut known: Vec<&str> =
            squall_experiments::faults::catalogue().iter().map(|entry| entry.name).collect();
        let mut answered: Vec<&str> = report.faults.iter().map(|fault| fault.name).collect();
        known.sort_unstable();
        answered.sort_unstable();
        assert_eq!(known, answered);
        let forbidden = report.faults.iter().flat_map(|fault| &fault.ways).filter(|way| way.by == "netem");
        for way in forbidden {
            assert!(!way.works && way.missing.iter().any(|why| why.what.contains("graft: never")), "{way:?}");
        }
    }
}
