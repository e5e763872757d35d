//! The report on a terminal.

use std::fmt::Write;

use squall_experiments::evidence::Evidence;
use squall_experiments::exit::Exit;
use squall_experiments::probe::Count;
use squall_experiments::protocol::Compared;
use squall_experiments::summary::{Claim, Comparison, Figures, Guard, Part, Summary, Trend, seconds};

use super::{Paint, printable};

/// The whole report, ending with a line feed. `events` says where the event file is.
pub fn human(summary: &Summary, events: Option<&std::path::Path>, paint: Paint) -> String {
    let summary = &printable::summary(summary);
    let mut page = Page { text: String::new(), paint };
    page.head(summary);
    page.timeline(summary);
    page.hypotheses(summary);
    page.injected(summary);
    page.actions(summary);
    page.undone(summary);
    page.regression(summary);
    page.closing(summary, events);
    page.text
}

struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn section(&mut self, title: &str) {
        let title = self.paint.bold(title);
        self.line(format!("\n{title}"));
    }

    fn list(&mut self, title: &str, items: &[String]) {
        if items.is_empty() {
            return;
        }
        self.section(title);
        items.iter().for_each(|item| self.line(format!("  {item}")));
    }

    fn head(&mut self, summary: &Summary) {
        let title = self.paint.bold(&summary.title);
        self.line(title);
        let plan: String = summary.plan.chars().take(12).collect();
        let mut facts = format!(
            "run {}, {}, took {}, seed {}, plan {plan}",
            summary.run,
            summary.date,
            seconds(summary.took_ms),
            summary.seed
        );
        if let Some(agent) = &summary.agent {
            let _ = write!(facts, ", agent: {agent}");
        }
        let facts = self.paint.dim(&facts);
        self.line(facts);
    }

    fn timeline(&mut self, summary: &Summary) {
        self.section("Timeline");
        for moment in &summary.timeline {
            self.line(format!("  {:>9}  {}", at(moment.at_ms), moment.what));
        }
    }

    fn hypotheses(&mut self, summary: &Summary) {
        if summary.hypotheses.is_empty() && summary.guards.is_empty() {
            return;
        }
        let names = summary.hypotheses.iter().map(|claim| claim.name.chars().count());
        let guards = summary.guards.iter().map(|guard| guard.name.chars().count());
        let width = names.chain(guards).max().unwrap_or(0).max(10);
        if !summary.hypotheses.is_empty() {
            let title = self.paint.bold(&format!("{:<width$}", "Hypothesis"));
            self.line(format!("\n{title}    {:<18} {:<18} {:<18}", "before", "during", "after").trim_end());
        }
        for claim in &summary.hypotheses {
            self.claim(claim, width);
        }
        if !summary.guards.is_empty() {
            self.section("Guards");
        }
        for guard in &summary.guards {
            self.line(format!("  {:<width$}  {}", guard.name, guard_in_words(guard)));
        }
    }

    fn claim(&mut self, claim: &Claim, width: usize) {
        let phases = [&claim.before, &claim.during, &claim.after];
        let counts: Vec<String> = phases.map(|figures| format!("{:<18}", good(figures))).into();
        let judged = claim
            .judgement
            .as_ref()
            .map_or_else(String::new, |judgement| format!("{}: {}", judgement.outcome.word(), judgement.why));
        self.line(format!("  {:<width$}  {} {judged}", claim.name, counts.join(" ")).trim_end());
        let times: Vec<String> = phases.map(|figures| format!("{:<18}", times(figures))).into();
        let times = format!("  {:<width$}  {}", "", times.join(" "));
        if !times.trim().is_empty() {
            let times = self.paint.dim(times.trim_end());
            self.line(times);
        }
        for (phase, figures) in ["before", "during", "after"].into_iter().zip(phases) {
            if let Some(load) = &figures.load {
                self.line(format!("    {phase}: {load}"));
            }
            if !figures.bad_seen.is_empty() {
                self.line(format!("    {phase}: {}", figures.bad_in_words()));
            }
            if figures.unclear > 0 {
                let seen = Count::in_words(&figures.unclear_seen);
                self.line(format!(
                    "    {phase}: {} said nothing: {seen}",
                    Count::of(figures.unclear, "sample")
                ));
            }
        }
        self.findings(claim);
        if claim.recovered == Some(false) {
            self.line("    did not hold again in time after the revert");
        }
        if let Some(why) = &claim.unshown {
            self.line(format!("    not shown to hold again after the revert: {why}"));
        }
    }

    /// What the verdict on a rate rests on, one line for each bound.
    fn findings(&mut self, claim: &Claim) {
        for found in &claim.findings {
            let share = |share: f64| format!("{:.2}", share * 100.0);
            let again = found.well_again.map_or_else(String::new, |well| {
                let range = match well.from_ms < well.to_ms {
                    true => format!(" ({} to {})", seconds(well.from_ms), seconds(well.to_ms)),
                    false => String::new(),
                };
                let shown =
                    well.shown_ms.map_or_else(String::new, |ms| format!(", shown by {}", seconds(ms)));
                format!("; well again after {}{range}{shown}", seconds(well.after_ms))
            });
            self.line(format!(
                "    {} {}: {} to {} % bad, evidence against {}, for {}{again}",
                found.bound,
                found.judgement.outcome.word(),
                share(found.low),
                share(found.high),
                evidence(found.against),
                evidence(found.keeps),
            ));
        }
    }

    fn injected(&mut self, summary: &Summary) {
        if summary.parts.is_empty() {
            return;
        }
        self.section("Injected");
        for part in &summary.parts {
            self.part(part);
        }
    }

    fn part(&mut self, part: &Part) {
        self.line(format!("  {}", part.name));
        for change in &part.changes {
            if !part.name.contains(&change.what) {
                self.line(format!("    {}", change.what));
            }
        }
        let Some(from) = part.injected_at_ms else {
            self.line("    not injected");
            return;
        };
        let lasted = part.lifted_at_ms.map_or_else(
            || "its end is not known".to_owned(),
            |to| format!("for {}", seconds(to.saturating_sub(from))),
        );
        let undone = part.lift_us.filter(|_| !part.undone.is_empty());
        let speed = [("made", part.apply_us), ("undone", undone)];
        let speed = speed.into_iter().filter_map(|(what, us)| Some(format!("{what} in {}", millis(us?))));
        let speed: Vec<String> = speed.collect();
        self.line(format!("    at {}, {lasted}; {}", at(from).trim_start(), speed.join(", ")));
        if !part.targets.is_empty() {
            self.line(format!("    aimed at {}", part.targets.join(", ")));
        }
        let measured = if part.measured { "measured" } else { "NOT measured" };
        self.line(format!("    {measured}: {}", part.evidence_in_words()));
        for deed in part.evidence.iter().flat_map(Evidence::deeds) {
            self.line(format!("      {deed}"));
        }
        let notes = part.evidence.iter().flat_map(|evidence| &evidence.notes);
        for note in part.notes.iter().chain(notes) {
            self.line(format!("    note: {note}"));
        }
    }

    fn actions(&mut self, summary: &Summary) {
        if summary.actions.is_empty() {
            return;
        }
        self.section("Actions");
        for action in &summary.actions {
            let how = match action.good {
                Some(true) => "succeeded",
                Some(false) => "failed",
                None => "its end was not seen",
            };
            let seen = action.seen.as_ref().map_or_else(String::new, |seen| format!(": {seen}"));
            self.line(format!("  {} {how}{seen}", action.name));
        }
    }

    fn undone(&mut self, summary: &Summary) {
        self.list("Undone", &summary.undone);
        self.list("Still there", &summary.stuck);
        self.section("Not undone");
        if summary.not_undone.is_empty() && summary.stuck.is_empty() {
            let injected = summary.parts.iter().any(|part| part.injected_at_ms.is_some());
            let done = injected || !summary.actions.is_empty();
            self.line(if done { "  nothing: all of it was undone" } else { "  nothing: nothing was done" });
        } else if summary.not_undone.is_empty() {
            self.line("  what is still there, see above");
        }
        summary.not_undone.iter().for_each(|what| self.line(format!("  {what}")));
        if let Some(host) = &summary.host {
            self.host(host);
        }
        self.list("Changed by others meanwhile", &summary.others);
    }

    fn host(&mut self, host: &Compared) {
        let places = match host.namespaces {
            0 | 1 => String::new(),
            more => format!(" in {more} network namespaces"),
        };
        let changed = match (host.ours, host.others) {
            (0, 0) => "0 changed".to_owned(),
            (0, others) => format!("{others} changed by others"),
            (ours, 0) => format!("{ours} LEFT BY SQUALL"),
            (ours, others) => format!("{ours} LEFT BY SQUALL, {others} changed by others"),
        };
        let how = if host.ours == 0 { "Host as before" } else { "Host NOT as before" };
        self.section(&format!("{how}: {} things compared{places}, {changed}", host.things));
        host.notes.iter().for_each(|note| self.line(format!("  note: {note}")));
    }

    fn regression(&mut self, summary: &Summary) {
        let Some(regression) = &summary.regression else { return };
        self.section(&format!("Compared with run {} of {}", regression.run, regression.date));
        for compared in &regression.comparisons {
            let Comparison { claim, aspect, trend, why, .. } = compared;
            let trend =
                if *trend == Trend::Worse { trend.word().to_uppercase() } else { trend.word().to_owned() };
            self.line(format!("  {claim}, {}: {trend}: {why}", aspect.word()));
        }
    }

    fn closing(&mut self, summary: &Summary, events: Option<&std::path::Path>) {
        let further: Vec<String> = summary
            .reasons
            .iter()
            .filter(|reason| summary.reasons.len() > 1 || reason.help.is_some())
            .map(|reason| {
                let help =
                    reason.help.as_ref().map_or_else(String::new, |help| format!("\n    help: {help}"));
                format!("{}{help}", reason.what)
            })
            .collect();
        self.list("Reasons", &further);
        if let Some(events) = events {
            let events = self.paint.dim(&format!("\nevents: {}", events.display()));
            self.line(events);
        }
        if let Some(head) = &summary.audit {
            let head = self.paint.dim(&format!("audit log: {head}"));
            self.line(head);
        }
        let sentence = self.paint.verdict(summary.exit, &summary.sentence);
        let code = match summary.exit {
            Exit::Held => String::new(),
            exit => self.paint.dim(&format!(" (exit {})", exit as u8)),
        };
        self.line(format!("\n{sentence}{code}"));
    }
}

/// `14/20 good`.
fn good(figures: &Figures) -> String {
    match figures.tally.total() {
        0 => "-".to_owned(),
        total => format!("{}/{total} good", figures.tally.good),
    }
}

/// `3.1 (max 12 ms)`: median and slowest.
fn times(figures: &Figures) -> String {
    match (figures.median_us, figures.slowest_us) {
        (Some(median), Some(slowest)) => format!("{}, max {}", millis(median), millis(slowest)),
        _ => String::new(),
    }
}

fn guard_in_words(guard: &Guard) -> String {
    let held = format!("{} of {} samples good", guard.samples.good, guard.samples.total());
    match &guard.tripped {
        Some(seen) => format!("TRIPPED: {seen} ({held})"),
        None => held,
    }
}

/// `0.3`, `26.3`, `4e92`: from 20 on it decides where 95 % are asked for.
fn evidence(evidence: f64) -> String {
    match evidence {
        0.0..10_000.0 => format!("{evidence:.1}"),
        _ => format!("{evidence:.0e}"),
    }
}

/// A moment of the run: `12.3 s`.
fn at(ms: u64) -> String {
    format!("{:.2} s", ms as f64 / 1000.0)
}

fn millis(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1}ms", us as f64 / 1000.0),
        10_000..10_000_000 => format!("{}ms", us / 1000),
        _ => format!("{}s", us / 1_000_000),
    }
}
