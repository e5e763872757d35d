//! What the selectors of a plan mean on this host at this moment. Outside the plan's hash: the agent looks again when
//! it prepares, and refuses what then matches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::ToSocketAddrs;

use serde::Serialize;
use squall_agent::host::aim::{Aim, Resolved as Addresses};
use squall_agent::host::carve::CarveOut;
use squall_agent::host::process::Processes;
use squall_agent::host::prospect::Prospect;
use squall_agent::policy::Policy;
use squall_agent::veto::Veto;
use squall_experiments::change::Change;
use squall_experiments::flow::Flow;
use squall_experiments::plan::{Plan, PlanStep};
use squall_experiments::scope::Scope;

/// Names, processes and carve-outs as they are now; only what the plan mentions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Appendix {
    names: BTreeMap<String, Resolved>,
    processes: BTreeMap<String, Found>,
    /// By what each fault would act.
    engines: Vec<Engine>,
    /// What no fault touches.
    never_touched: Vec<String>,
    /// What could not be seen, and why.
    unseen: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Resolved {
    Addresses(Vec<String>),
    Unknown(String),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Found {
    Processes { matching: Vec<String>, left_out: Vec<String> },
    Unknown(String),
}

/// By what one change of a fault would be made.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Engine {
    part: u32,
    #[serde(flatten)]
    prospect: Expected,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Expected {
    By(Prospect),
    Unknown { unknown: String },
}

impl Appendix {
    /// Looks, and changes nothing. Name servers are asked for the names of the plan.
    pub fn of_this_host(plan: &Plan, policy: &Policy) -> Self {
        let flows = plan.changes().filter_map(Change::flow);
        // The traffic of a user or a port is matched by its sockets: no process is chosen for it.
        let of_flows = flows.filter_map(|flow| flow.scope.as_ref());
        let of_flows = of_flows.filter(|scope| matches!(scope, Scope::Process(_) | Scope::Cgroup(_)));
        let of_processes = plan.changes().filter_map(|change| match change {
            Change::Signal(signal) => Some(&signal.scope),
            Change::Pause(pause) => Some(&pause.scope),
            Change::Block(_) | Change::Shape(_) | Change::Redirect(_) | Change::Disconnect(_) => None,
        });
        let scopes: Vec<&Scope> = of_flows.chain(of_processes).collect();
        let mut unseen = Vec::new();
        if !scopes.is_empty() && !nix::unistd::geteuid().is_root() {
            unseen.push(
                "executables and listening ports of other users' processes are seen by root only".to_owned(),
            );
        }
        let engines = match engines(plan, policy) {
            Ok(engines) => engines,
            Err(why) => {
                unseen.push(why);
                Vec::new()
            }
        };
        Appendix {
            engines,
            names: plan.names().into_iter().map(|name| (name.to_owned(), resolve(name))).collect(),
            processes: processes(&scopes, policy),
            never_touched: if plan.has_changes() { never_touched(policy) } else { Vec::new() },
            unseen,
        }
    }
}

/// What no fault touches on this host. The agent also leaves out its own connections.
pub fn never_touched(policy: &Policy) -> Vec<String> {
    let nothing = Addresses::new();
    CarveOut::all(&Aim::new(policy, &nothing, BTreeSet::new())).iter().map(ToString::to_string).collect()
}

/// Which engine does each fault of traffic.
fn engines(plan: &Plan, policy: &Policy) -> Result<Vec<Engine>, String> {
    let shapes = plan.changes().any(|change| matches!(change, Change::Shape(_)));
    if shapes && !nix::unistd::geteuid().is_root() {
        return Err("which engines this host offers is seen by root only".to_owned());
    }
    let mut addresses = Addresses::new();
    if shapes {
        for name in plan.names() {
            let found = (name, 0).to_socket_addrs().into_iter().flatten();
            addresses.insert(name.to_owned(), found.map(|address| address.ip().to_canonical()).collect());
        }
    }
    let aim = Aim::new(policy, &addresses, BTreeSet::new());
    let mut engines = Vec::new();
    for fault in plan.faults() {
        let PlanStep::Fault { part, changes, .. } = fault else { continue };
        for change in changes {
            let mut names = change.flow().into_iter().flat_map(Flow::names);
            if matches!(change, Change::Shape(_)) && names.any(|name| !addresses.contains_key(name)) {
                let unknown = "it depends on names that are seen from inside of its target".to_owned();
                engines.push(Engine { part: *part, prospect: Expected::Unknown { unknown } });
                continue;
            }
            let prospect = match Prospect::of(change, &aim) {
                Ok(None) => continue,
                Ok(Some(prospect)) => Expected::By(prospect),
                Err(refusal) => {
                    Expected::Unknown { unknown: format!("a run would be refused ({})", refusal.what) }
                }
            };
            let engine = Engine { part: *part, prospect };
            if !engines.contains(&engine) {
                engines.push(engine);
            }
        }
    }
    Ok(engines)
}

fn resolve(name: &str) -> Resolved {
    match (name, 0).to_socket_addrs() {
        Ok(found) => {
            let addresses: BTreeSet<_> = found.map(|address| address.ip().to_canonical()).collect();
            Resolved::Addresses(addresses.iter().map(ToString::to_string).collect())
        }
        Err(error) => Resolved::Unknown(error.to_string()),
    }
}

fn processes(scopes: &[&Scope], policy: &Policy) -> BTreeMap<String, Found> {
    if scopes.is_empty() {
        return BTreeMap::new();
    }
    let veto = Veto::now(policy, &BTreeSet::new());
    let seen = Processes::here();
    let found = |scope: &Scope| {
        let seen = seen.as_ref().map_err(ToString::to_string);
        match seen.and_then(|seen| seen.of(scope).map_err(|refusal| refusal.to_string())) {
            Ok(targets) => {
                let (matching, left_out) = veto.apply(targets);
                let matching = matching.iter().map(ToString::to_string).collect();
                Found::Processes { matching, left_out: grouped(left_out) }
            }
            Err(why) => Found::Unknown(why),
        }
    };
    scopes.iter().map(|scope| (scope.to_string(), found(scope))).collect()
}

/// One line for many that are left out for one reason.
fn grouped(lines: Vec<String>) -> Vec<String> {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let reason = line.rsplit_once(": ").map_or(line.as_str(), |(_, reason)| reason).to_owned();
        reasons.entry(reason).or_default().push(line);
    }
    let group = |(reason, lines): (String, Vec<String>)| match lines.len() {
        1..=3 => lines,
        many => vec![format!("left out {many} processes: each {reason}")],
    };
    reasons.into_iter().flat_map(group).collect()
}

/// How many processes a line names.
const MOST_NAMED: usize = 20;

fn named(matching: &[String]) -> String {
    match matching.len() {
        0 => "nothing, a run would be refused".to_owned(),
        many if many > MOST_NAMED => {
            format!("{} and {} more", matching[..MOST_NAMED].join(", "), many - MOST_NAMED)
        }
        _ => matching.join(", "),
    }
}

impl fmt::Display for Appendix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty()
            && self.processes.is_empty()
            && self.never_touched.is_empty()
            && self.engines.is_empty()
        {
            return Ok(());
        }
        writeln!(f, "\nOn this host now (outside the hash; the agent looks again)")?;
        for (name, resolved) in &self.names {
            match resolved {
                Resolved::Addresses(addresses) => writeln!(f, "  {name}: {}", addresses.join(", "))?,
                Resolved::Unknown(why) => {
                    writeln!(f, "  {name}: does not resolve here, a run would be refused ({why})")?
                }
            }
        }
        for (scope, found) in &self.processes {
            match found {
                Found::Processes { matching, left_out } => {
                    writeln!(f, "  {scope}: {}", named(matching))?;
                    left_out.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
                }
                Found::Unknown(why) => writeln!(f, "  {scope}: {why}")?,
            }
        }
        for Engine { part, prospect } in &self.engines {
            match prospect {
                Expected::By(Prospect { engine, why }) => {
                    writeln!(f, "  part {part}: engine {engine}")?;
                    why.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
                }
                Expected::Unknown { unknown } => {
                    writeln!(f, "  part {part}: no engine is known: {unknown}")?;
                }
            }
        }
        if !self.never_touched.is_empty() {
            writeln!(f, "  never touched: {}", self.never_touched.join(", "))?;
        }
        self.unseen.iter().try_for_each(|line| writeln!(f, "  not seen: {line}"))
    }
}
