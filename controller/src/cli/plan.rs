//! `squall plan`: what a run would do, without doing it.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::json;
use squall_agent::policy::Policy;
use squall_controller::report;
use squall_experiments::document::Document;
use squall_experiments::exit::Exit;
use squall_experiments::plan::{self, PlanStep};
use squall_experiments::ramp::Ramp;
use squall_experiments::targets::only_here;

use super::appendix::Appendix;
use super::approve;
use super::host::{host_name, recover};
use super::load::{self, Vars};
use super::remote::At;
use super::{Common, Format, print};

/// Options of `squall plan`.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// The experiment file; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    vars: Vars,
    /// The seed of every choice; without it the document's own, else one chosen now.
    #[arg(long)]
    seed: Option<u64>,
    /// Not for this host: let a controller make the plan for its hosts and keep it for a day, to be approved.
    #[arg(long)]
    submit: bool,
    #[command(flatten)]
    at: At,
}

impl Plan {
    /// Prints changes, carve-outs, claims, expiry and hash. Needs no root and changes nothing but what a dead agent has
    /// left behind, which is undone; where that is not possible, that is said beside the plan.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        if self.submit {
            return approve::submit(&self.at, &self.file, &self.vars, self.seed, common);
        }
        let document = match load::document(&self.file, &self.vars, common) {
            Ok(document) => document,
            Err(exit) => return Ok(exit),
        };
        let _ = recover(common);
        let policy = match only_here(&document.experiment).and_then(|()| Policy::of_this_host()) {
            Ok(policy) => policy,
            Err(refusal) => {
                eprintln!("error: {refusal}");
                refusal.help.iter().for_each(|help| eprintln!("help: {help}"));
                return Ok(Exit::Refused);
            }
        };
        let given = self.seed.or(document.experiment.seed);
        let seed = given.unwrap_or_else(rand::random);
        let mut plan = plan::Plan::of(&document.experiment, seed, &[host_name()], &policy.version);
        plan.warnings.extend(plan.faults().flat_map(|fault| forbidden(fault, &policy)).collect::<Vec<_>>());
        let ramp = document.experiment.ramp.as_ref();
        let appendix = Appendix::of_this_host(&plan, &policy);
        match common.format {
            Format::Human => {
                let seed = if given.is_some() { "" } else { " (chosen now: `--seed` repeats it)" };
                let text = human(&plan, seed)
                    + &ramp.map_or_else(String::new, |ramp| climb(ramp, &document))
                    + &appendix.to_string();
                print::result(&document.redactor.redact(&text))?;
            }
            Format::Json => {
                let mut value = json!({ "plan": plan, "hash": plan.hash(), "on-this-host-now": appendix });
                if let Some(ramp) = ramp {
                    value["ramp"] = json!({
                        "ramp": ramp,
                        "steps": ramp.rungs(),
                        "most": ramp.most(),
                        "injects": ramp.injects(&document.experiment),
                        "takes": ramp.takes(&document.experiment),
                    });
                }
                document.redactor.redact_value(&mut value);
                print::json(&value)?;
            }
        }
        Ok(Exit::Held)
    }
}

/// The steps of a ramp, of which the plan shows the first.
fn climb(ramp: &Ramp, document: &Document) -> String {
    let experiment = &document.experiment;
    let mut out = format!("\nRamp      {}; the plan above is that of the first step\n", ramp.parameter);
    let rungs: Vec<String> = ramp.rungs().iter().map(ToString::to_string).collect();
    let _ = writeln!(out, "  while the hypothesis holds: {}", rungs.join(", "));
    match ramp.within {
        Some(within) => {
            let _ =
                writeln!(out, "  then halves what lies between the last two, until they are {within} apart");
        }
        None => out.push_str("  ends with the first step that does not hold\n"),
    }
    let (most, injects, takes) = (ramp.most(), ramp.injects(experiment), ramp.takes(experiment));
    let _ = writeln!(out, "  at most {most} steps, {injects} of faults and {takes} in all");
    out
}

/// What the policy of this host says against a fault.
fn forbidden(step: &PlanStep, policy: &Policy) -> Vec<String> {
    let PlanStep::Fault { part, changes, lasts, .. } = step else { return Vec::new() };
    let refusals = changes.iter().filter_map(|change| policy.permits(change, *lasts).err());
    refusals.map(|refusal| format!("part {part} would be refused: {refusal}")).collect()
}

fn human(plan: &plan::Plan, seed: &str) -> String {
    let mut out = format!("{}\n\nOn {}\n", plan.title, plan.hosts.join(", "));
    out.push_str(&report::steps(plan, "  "));
    if !plan.loads.is_empty() {
        out.push_str("\nLoad\n");
        for load in &plan.loads {
            let (name, rate, url) = (&load.name, load.rate, &load.url);
            let most = format!("at most {} requests in {}", load.requests, load.at_most);
            let control = if load.control { ", each to a control group too" } else { "" };
            let _ = writeln!(out, "  {name}: {rate} to {url}{control}, {most}");
        }
    }
    out.push_str("\nNever hit\n");
    for rule in &plan.carve_outs {
        let _ = writeln!(out, "  {rule}");
    }
    if !plan.warnings.is_empty() {
        out.push_str("\nWarnings\n");
        for warning in &plan.warnings {
            let _ = writeln!(out, "  {warning}");
        }
    }
    let _ = writeln!(out, "\nExpires   {} after the first injection, whatever happens", plan.expiry);
    let _ = writeln!(out, "Seed      {}{seed}", plan.seed);
    let _ = writeln!(out, "Policy    {}", plan.policy);
    let _ = writeln!(out, "Hash      {}", plan.hash());
    out
}
