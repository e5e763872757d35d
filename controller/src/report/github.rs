//! What GitHub's runner reads in a log: workflow commands, which make annotations
//! (<https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>).

use std::borrow::Cow;

use squall_experiments::document::Problems;
use squall_experiments::suite::Suite;

use super::points::{Severity, points};

/// An annotation for everything that did not hold, at its place in the experiment's file.
pub fn annotations(suite: &Suite) -> String {
    let lines = points(suite).into_iter().map(|point| {
        let level = if point.severity == Severity::Warning { "warning" } else { "error" };
        command(level, &point.file, Some((point.line, None)), &point.name, &point.what)
    });
    lines.collect()
}

/// An annotation that is about no file.
pub fn annotation(what: &str) -> String {
    command("error", "", None, "squall", what)
}

/// An annotation for everything that is wrong with a document. `place` names its file as the repository does.
pub fn problems(problems: &Problems, place: impl Fn(&str) -> String) -> String {
    let file = place(problems.name());
    let lines = problems.list().iter().map(|problem| {
        let at = problem.span.map(|span| problems.place(span));
        let help = problem.help.as_ref().map_or_else(String::new, |help| format!("\nhelp: {help}"));
        let place = at.map(|(line, column)| (line, Some(column)));
        command("error", &file, place, "invalid experiment", &format!("{}{help}", problem.what))
    });
    lines.collect()
}

/// The same of a JSON document: its strings stay what they are. A line of it begins with no colon.
pub fn harmless_json(text: &str) -> Cow<'_, str> {
    match text.contains("##[") {
        true => text.replace("##[", "#\\u0023[").into(),
        false => text.into(),
    }
}

fn command(
    level: &str,
    file: &str,
    place: Option<(usize, Option<usize>)>,
    title: &str,
    what: &str,
) -> String {
    let mut properties = Vec::new();
    // A document of the command line or of standard input is no file of the repository.
    if !file.is_empty() && file != "-" && !file.starts_with('<') {
        properties.push(format!("file={}", property(file)));
        if let Some((line, column)) = place {
            properties.push(format!("line={line}"));
            properties.extend(column.map(|column| format!("col={column}")));
        }
    }
    properties.push(format!("title={}", property(title)));
    format!("::{level} {}::{}\n", properties.join(","), data(what))
}

/// A message: its line breaks are written out, and so is what writes them out.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property ends at a comma or a colon.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A text of which no line is a command: a service that is looked at may answer whatever it likes. The runner takes a
/// line that begins with `::`, and `##[` anywhere in it (`ActionCommand.cs` of actions/runner).
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains("::") && !text.contains("##[") {
        return Cow::Borrowed(text);
    }
    let lines = text.split_inclusive('\n').map(|line| {
        let (lead, rest) = line.split_at(line.len() - line.trim_start().len());
        let rest = rest.replace("##[", "## [");
        match rest.strip_prefix("::") {
            Some(rest) => format!("{lead}: :{rest}"),
            None => format!("{lead}{rest}"),
        }
    });
    Cow::Owned(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_properties_are_escaped_as_the_runner_reads_them() {
        let line =
            command("error", "a,b:c.yaml", Some((7, None)), "50% of\nall: a, b", "10%\r\nbad, very: bad");
        assert_eq!(
            line,
            "::error file=a%2Cb%3Ac.yaml,line=7,title=50%25 of%0Aall%3A a%2C b::10%25%0D%0Abad, very: bad\n"
        );
        assert_eq!(annotation("no"), "::error title=squall::no\n");
        assert_eq!(command("error", "-", Some((1, None)), "t", "w"), "::error title=t::w\n");
    }

    #[test]
    fn what_a_service_answers_is_no_command() {
        assert_eq!(
            harmless("a::b\n  ::stop-commands::x\n::error::no\nb ##[error]no\n"),
            "a::b\n  : :stop-commands::x\n: :error::no\nb ## [error]no\n"
        );
        assert!(matches!(harmless("plain: text\n"), Cow::Borrowed(_)));
        let text = serde_json::json!({ "seen": "a ##[error]b" }).to_string();
        let broken = harmless_json(&text);
        assert!(!broken.contains("##["), "{broken}");
        let read: serde_json::Value = serde_json::from_str(&broken).unwrap();
        assert_eq!(read["seen"], "a ##[error]b", "the document says the same");
    }
}
