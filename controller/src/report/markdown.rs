//! Markdown, for the summary of a pipeline's step and for comments on changes: GitHub's and GitLab's dialect.

use squall_experiments::exit::Exit;
use squall_experiments::suite::{Ran, Suite, Tested};
use squall_experiments::summary::{Claim, Summary, seconds};

use super::figures::{good, of_claim, of_part};

/// GitHub takes at most a mebibyte for a step: of a suite that is longer the table alone is written.
const LONGEST: usize = 900_000;

/// The whole report: a table of the experiments, the score, and the details of each, folded.
pub fn markdown(suite: &Suite) -> String {
    let mut page = format!("## Squall: {}\n\n", text(&suite.sentence));
    page.push_str("| verdict | experiment | what was seen |\n|---|---|---|\n");
    for tested in &suite.experiments {
        let verdict = match tested.exit {
            Some(Exit::Held) => text(&tested.verdict),
            _ => format!("**{}**", text(&tested.verdict)),
        };
        let story = tested.story.as_ref().map_or_else(String::new, |story| format!("<br>{}", text(story)));
        let sentence = if tested.exit.is_some() { text(&tested.sentence) } else { String::new() };
        page.push_str(&format!("| {verdict} | {} | {sentence}{story} |\n", text(&tested.name())));
    }
    page.push('\n');
    if let Some(score) = &suite.score {
        page.push_str(&format!("{}, took {}.\n\n", text(&score.in_words()), seconds(suite.took_ms)));
    }
    if let Some(head) = &suite.audit {
        page.push_str(&format!("Audit log: {}.\n\n", code(&head.to_string())));
    }
    let details: String = suite.experiments.iter().flat_map(details).collect();
    if page.len() + details.len() <= LONGEST {
        page.push_str(&details);
    } else {
        page.push_str("The details are too long for this page.\n");
    }
    page
}

fn details(tested: &Tested) -> Vec<String> {
    let runs = (1..).zip(&tested.runs).map(|(number, ran)| {
        let time = match tested.repeats {
            1 => String::new(),
            repeats => format!(", run {number} of {repeats}"),
        };
        run(tested, ran, &time)
    });
    runs.collect()
}

fn run(tested: &Tested, ran: &Ran, time: &str) -> String {
    let summary = &ran.summary;
    let title = html(&format!("{}{time}: {}", tested.subject.title, summary.verdict));
    let mut page = format!("<details><summary>{title}</summary>\n\n{}\n\n", text(&summary.sentence));
    if !summary.hypotheses.is_empty() {
        page.push_str("| hypothesis | before | during | after | verdict |\n|---|---|---|---|---|\n");
    }
    for claim in &summary.hypotheses {
        let verdict = claim.judgement.as_ref().map_or("-", |judgement| judgement.outcome.word());
        let cells = [&claim.before, &claim.during, &claim.after].map(|figures| text(&good(figures)));
        page.push_str(&format!("| {} | {} | {} |\n", text(&claim.name), cells.join(" | "), verdict));
    }
    page.push('\n');
    // The table says all of what was only counted and always good.
    let more = |claim: &&Claim| {
        let phases = [&claim.before, &claim.during, &claim.after];
        !claim.findings.is_empty() || phases.iter().any(|figures| figures.tally.bad > 0)
    };
    for claim in summary.hypotheses.iter().filter(more) {
        items(&format!("Hypothesis {}", claim.name), &of_claim(claim), &mut page);
    }
    if let Some(regression) = &summary.regression {
        let lines = regression.comparisons.iter().map(|compared| {
            let (trend, what) = (compared.trend.word(), compared.aspect.word());
            format!("{}, {what}: {trend}: {}", compared.claim, compared.why)
        });
        let title = format!("Compared with run {} of {}", regression.run, regression.date);
        items(&title, &lines.collect::<Vec<_>>(), &mut page);
    }
    for guard in summary.guards.iter().filter(|guard| guard.tripped.is_some()) {
        let seen = guard.tripped.clone().into_iter().collect::<Vec<_>>();
        items(&format!("Guard {} tripped", guard.name), &seen, &mut page);
    }
    for part in &summary.parts {
        let measured = match (part.injected_at_ms, part.measured) {
            (None, _) => "not injected",
            (Some(_), true) => "measured",
            (Some(_), false) => "not measured",
        };
        items(&format!("Fault {}, {measured}", part.name), &of_part(part), &mut page);
    }
    undo(summary, &mut page);
    let reasons: Vec<String> = summary.reasons.iter().filter_map(|reason| reason.help.clone()).collect();
    items("What to do", &reasons, &mut page);
    page.push_str(&again(tested, ran));
    page.push_str("\n</details>\n\n");
    page
}

fn undo(summary: &Summary, page: &mut String) {
    items("Still there", &summary.stuck, page);
    items("Not undone", &summary.not_undone, page);
    if summary.stuck.is_empty() && summary.not_undone.is_empty() {
        let host = summary.host.as_ref().filter(|host| host.ours == 0);
        let host = host.map_or_else(String::new, |host| {
            format!("; the host is as before: {} things compared", host.things)
        });
        page.push_str(&format!("Nothing is left that was not undone{host}.\n\n"));
    }
}

/// Which run it was, and how to have it again.
fn again(tested: &Tested, ran: &Ran) -> String {
    let summary = &ran.summary;
    let mut page =
        format!("Run {}, {}, took {}", text(&summary.run.0), text(&summary.date), seconds(summary.took_ms));
    if !tested.subject.file.is_empty() && tested.subject.file != "-" {
        let command = format!("squall run {} --seed {}", tested.subject.file, summary.seed);
        page.push_str(&format!("; again with {}", code(&command)));
    }
    if let Some(events) = &ran.events {
        page.push_str(&format!("; events in {}", code(events)));
    }
    page.push_str(".\n");
    page
}

fn items(title: &str, items: &[String], page: &mut String) {
    if items.is_empty() {
        return;
    }
    page.push_str(&format!("{}:\n\n", text(title)));
    items.iter().for_each(|item| page.push_str(&format!("* {}\n", text(item))));
    page.push('\n');
}

/// A text that is shown as it is, in a paragraph and in a table: nothing in it is markup.
pub(super) fn text(plain: &str) -> String {
    let mut shown = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '|' | '~' | '$' | '!' => {
                shown.push('\\');
                shown.push(c);
            }
            c if c.is_control() => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

/// The same inside of a tag, where nothing but entities is read.
fn html(plain: &str) -> String {
    let shown: String = plain.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A code span: its fence is longer than any row of backticks in it.
pub(super) fn code(plain: &str) -> String {
    let shown: String = plain.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let longest = shown.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if shown.starts_with('`') || shown.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{shown}{pad}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_is_markup() {
        assert_eq!(
            text("a|b\n`c` *d* <e> [f](g) \\ & #1"),
            "a\\|b \\`c\\` \\*d\\* &lt;e&gt; \\[f\\](g) \\\\ &amp; \\#1"
        );
        assert_eq!(html("</summary>\n<b> & c"), "&lt;/summary&gt; &lt;b&gt; &amp; c");
        assert_eq!(code("plain"), "`plain`");
        assert_eq!(code("`a``b"), "``` `a``b ```");
    }
}
