//! What the demo says.

use std::fmt::Display;
use std::io::Write;

use serde_json::json;
use squall_experiments::evidence::Evidence;
use squall_experiments::exit::Exit;
use squall_experiments::summary::{Claim, Figures};

use super::super::shop::{Health, Tally};
use super::act::Act;
use super::confine::Confined;
use super::rehearsal::Seen;

/// Tells what happens; with JSON wanted, the words go to standard error and the reports to standard output.
pub(super) struct Story {
    json: bool,
    runs: Vec<Outcome>,
}

/// One experiment, for the closing comparison.
struct Outcome {
    what: &'static str,
    report: serde_json::Value,
    front: f64,
    checkout: f64,
    served: u64,
    verdict: String,
}

impl Story {
    pub(super) fn new(json: bool) -> Self {
        Story { json, runs: Vec::new() }
    }

    pub(super) fn opening(&self, confined: Confined) {
        let place = match confined {
            Confined::UserAndNetwork => "a user and network namespace",
            Confined::NetworkOnly => "a network namespace",
        };
        self.say(format_args!(
            "Squall demo: two faults, each injected twice. It takes less than a minute; Ctrl-C ends it at any time.\n\
             This process is in {place} of its own: nothing here can reach this machine's network.\n"
        ));
    }

    pub(super) fn shop(&self, health: Health, customers: Tally) {
        let workers = health.workers;
        self.say(format_args!(
            "A small shop runs here, as five processes:\n\
             \n\
             \x20  customers ──> storefront ─┬─> catalogue   for the front page\n\
             \x20  40 pages/s    {workers} workers   ├─> stock       for checkout\n\
             \x20                            └─> payments    for checkout\n\
             \n\
             It is well: {} pages served, {} lost.\n",
            customers.served, customers.lost
        ));
    }

    /// Announces an act.
    pub(super) fn before(&self, number: usize, of: usize, act: &Act) {
        self.say(format_args!(
            "{number} of {of}  {}\n\x20       2 s of baseline, 7 s of fault, then the recovery …",
            act.announcement
        ));
    }

    /// Explains an act, and says whether it came out as expected.
    pub(super) fn after(&mut self, act: &Act, seen: &Seen) -> bool {
        let as_expected = self.seen(act, seen);
        if as_expected {
            self.say(format_args!("        Why: {}\n", (act.why)(seen)));
        }
        as_expected
    }

    pub(super) fn closing(&self, as_expected: bool) {
        if self.json {
            let runs: Vec<_> = self.runs.iter().map(|run| &run.report).collect();
            write(&mut std::io::stdout(), json!({ "as-expected": as_expected, "runs": runs }));
            return;
        }
        let mut table = String::from(
            "While the fault lasted               front page  checkout  pages served  verdict\n",
        );
        for run in &self.runs {
            let Outcome { what, front, checkout, served, verdict, .. } = run;
            table += &format!("  {what:<34}{front:>9.0} %{checkout:>8.0} %{served:>14}  {verdict}\n");
        }
        self.say(table);
        if !as_expected {
            return self.say(
                "This is not what the demo should show: see above for what was unexpected. A machine under heavy load\n\
                 can be the reason; the reports are printed whole by `squall demo --format json`.",
            );
        }
        self.say(
            "What next\n\
             \x20 squall init          write a first experiment for a service of yours\n\
             \x20 squall check FILE    say everything that is wrong with it\n\
             \x20 squall plan FILE     show what it would change, without changing anything\n\
             \x20 squall run FILE      run it; `sudo` where the plan needs it\n\
             \x20 squall faults        what else can go wrong\n\
             \x20 docs/operating.md    how to run it on hosts that matter\n\
             The files of this demo are payments-slow*.yaml and catalogue-lossy*.yaml in experiments/shipped.\n\
             Nothing was left behind.",
        );
    }

    /// With the exit code of the run that was interrupted, if one was.
    pub(super) fn interrupted(&self, run: Option<Option<i32>>) {
        self.say(match run {
            None => "\nInterrupted while no experiment ran. Every process of the demo has ended.",
            Some(Some(code)) if code == Exit::Interrupted as i32 => {
                "\nInterrupted. The run has undone its fault, and every process of the demo has ended."
            }
            Some(_) => {
                "\nInterrupted, and the run did not end as it should. Every process of the demo has ended, and its \
                 network is gone with the fault."
            }
        });
    }

    /// The part of the explanation that is the same for all: what the report says.
    fn seen(&mut self, act: &Act, seen: &Seen) -> bool {
        let summary = &seen.summary;
        let as_expected = summary.exit == act.expected;
        let evidence = summary.parts.iter().flat_map(|part| &part.evidence);
        let deeds: Vec<String> = evidence.flat_map(Evidence::deeds).collect();
        let Tally { served, lost } = seen.customers;
        let verdict = if as_expected { "as expected" } else { "NOT as expected" };
        self.say(format_args!("\n        Verdict, {verdict}: {}.", summary.sentence));
        self.say(format_args!(
            "        Injected and measured, packets from {}: {}.",
            act.supplier,
            deeds.join(", ")
        ));
        self.say(format_args!("        Customers, meanwhile: {served} pages served, {lost} lost."));
        self.say(format_args!("        {:<26}{:>9}{:>10}{:>9}", "Good looks", "before", "during", "after"));
        for claim in &summary.hypotheses {
            self.say(format_args!("        {}", figures(claim)));
        }
        if !as_expected {
            for reason in &summary.reasons {
                let help = reason.help.as_ref().map_or_else(String::new, |help| format!(" (help: {help})"));
                self.say(format_args!("        Unexpected: {}{help}", reason.what));
            }
        }
        let share = |good: u64, bad: u64| 100.0 * good as f64 / ((good + bad).max(1)) as f64;
        let of = |claim: Option<&Claim>| {
            claim.map_or(0.0, |claim| share(claim.during.tally.good, claim.during.tally.bad))
        };
        self.runs.push(Outcome {
            what: act.row,
            report: serde_json::to_value(summary).unwrap_or_default(),
            front: of(summary.hypotheses.first()),
            checkout: of(summary.hypotheses.get(1)),
            served,
            verdict: summary.verdict.clone(),
        });
        as_expected
    }

    fn say(&self, words: impl Display) {
        match self.json {
            false => write(&mut std::io::stdout(), words),
            true => write(&mut std::io::stderr(), words),
        }
    }
}

/// A line. That nobody reads it is no error.
fn write(to: &mut impl Write, words: impl Display) {
    let _ = writeln!(to, "{words}");
}

/// `checkout answers           7 of 7   0 of 16   3 of 9   16 × timed out after 1s`
fn figures(claim: &Claim) -> String {
    let of = |figures: &Figures| format!("{} of {}", figures.tally.good, figures.tally.total());
    let (before, during, after) = (of(&claim.before), of(&claim.during), of(&claim.after));
    let worst = claim.during.bad_seen.first();
    let worst = worst.map_or_else(String::new, |count| format!("   {} × {}", count.times, count.seen));
    format!("{:<26}{before:>9}{during:>10}{after:>9}{worst}", claim.name)
}
