//! What the demo says.

use std::fmt::Display;
use std::io::Write;

use serde_json::json;
use squall_experiments::exit::Exit;
use squall_experiments::summary::{Claim, Figures};

use super::super::shop::{Health, Tally};
use super::confine::Confined;
use super::rehearsal::Seen;
use super::services::REMEDY;

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
    customers: f64,
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
            "Squall demo: one fault, injected twice. It takes about half a minute; Ctrl-C ends it at any time.\n\
             This process is in {place} of its own: nothing here can reach this machine's network.\n"
        ));
    }

    pub(super) fn first(&self, health: Health, customers: Tally) {
        let workers = health.workers;
        self.say(format_args!(
            "A small shop runs here, as five processes:\n\
             \n\
             \x20  customers ──> storefront ─┬─> catalogue   for the front page\n\
             \x20  40 pages/s    {workers} workers   ├─> stock       for checkout\n\
             \x20                            └─> payments    for checkout\n\
             \n\
             It is well: {} pages served, {} lost.\n\
             \n\
             1 of 2  Payments stops answering. Checkout waits for it, without a time-out.\n\
             \x20       3 s of baseline, 8 s of fault, then the recovery …",
            customers.served, customers.lost
        ));
    }

    /// Says whether it came out as expected.
    pub(super) fn after_first(&mut self, seen: &Seen, expected: Exit) -> bool {
        let as_expected = self.seen("no time-out", seen, expected);
        if as_expected {
            let when = seen.exhausted_after.map_or_else(
                || "Soon".to_owned(),
                |after| format!("{:.1} s after the fault began", after.as_secs_f64().max(0.1)),
            );
            self.say(format_args!(
                "        Why: each checkout kept its worker while it waited for payments. {when} all {} workers\n\
                 \x20       were waiting, and up to {} requests queued for one, the front page's too,\n\
                 \x20       although the front page never asks payments.\n",
                seen.worst.workers, seen.worst.queued
            ));
        }
        as_expected
    }

    pub(super) fn second(&self) {
        self.say(format_args!(
            "2 of 2  The same fault. The storefront was started again with `{}`.\n\
             \x20       3 s of baseline, 8 s of fault, then the recovery …",
            REMEDY.join(" ")
        ));
    }

    /// Says whether it came out as expected.
    pub(super) fn after_second(&mut self, seen: &Seen, expected: Exit) -> bool {
        let as_expected = self.seen("time-out, fallback", seen, expected);
        if as_expected {
            self.say(format_args!(
                "        Why: after 200 ms checkout stops waiting and accepts the order; the payment is taken later.\n\
                 \x20       Of {} workers {} were busy at a typical moment, so the front page found a free one.\n",
                seen.worst.workers, seen.typically_busy
            ));
        }
        as_expected
    }

    pub(super) fn closing(&self, as_expected: bool) {
        if self.json {
            let runs: Vec<_> = self.runs.iter().map(|run| &run.report).collect();
            write(&mut std::io::stdout(), json!({ "as-expected": as_expected, "runs": runs }));
            return;
        }
        let mut table =
            String::from("While payments was silent   front page   checkout   customers served   verdict\n");
        for run in &self.runs {
            let Outcome { what, front, checkout, customers, verdict, .. } = run;
            table +=
                &format!("  {what:<24}{front:>10.0} %{checkout:>9.0} %{customers:>17.0} %   {verdict}\n");
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
             The two files of this demo are experiments/shipped/payments-silent*.yaml. Nothing was left behind.",
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

    /// The part of the explanation that is the same for both: what the report says.
    fn seen(&mut self, what: &'static str, seen: &Seen, expected: Exit) -> bool {
        let summary = &seen.summary;
        let as_expected = summary.exit == expected;
        let evidence = summary.parts.iter().flat_map(|part| &part.evidence);
        let packets: u64 = evidence.map(|found| found.impaired).sum();
        let Tally { served, lost } = seen.customers;
        let verdict = if as_expected { "as expected" } else { "NOT as expected" };
        self.say(format_args!("\n        Verdict, {verdict}: {}.", summary.sentence));
        self.say(format_args!(
            "        Injected and measured: {packets} packets to and from payments vanished."
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
            what,
            report: serde_json::to_value(summary).unwrap_or_default(),
            front: of(summary.hypotheses.first()),
            checkout: of(summary.hypotheses.get(1)),
            customers: share(served, lost),
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
