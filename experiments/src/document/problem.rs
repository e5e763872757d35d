//! What is wrong with a document, where, and what to do: for people as rustc shows it, for programs as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::secret::Redactor;

/// A range of bytes of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` where it is not in the source, such as a variable of the command line.
    pub span: Option<Span>,
    /// Where in the document, for programs: `method[0].fault.partition.to[1]`; empty is the document as a whole.
    pub path: String,
    /// A lowercase fragment with the object in backticks.
    pub what: String,
    /// What to do.
    pub help: Option<String>,
}

/// Everything that is wrong with one source, in the order of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    name: String,
    source: String,
    /// Where each line begins.
    lines: Vec<usize>,
    list: Vec<Problem>,
}

/// How wide a line of the source is shown, in characters; a longer one is cut around the place.
const WIDEST: usize = 100;

/// How many problems are shown to people; programs get all of them.
const MOST_SHOWN: usize = 1000;

impl Problems {
    /// `source` is shown in snippets; nothing of it is interpreted.
    pub(super) fn new(name: &str, source: &str, mut list: Vec<Problem>, redactor: &Redactor) -> Self {
        // An alias shows the same place as often as it stands.
        list.sort_by_key(|problem| problem.span);
        let mut seen = std::collections::HashSet::new();
        list.retain(|problem| seen.insert((problem.span, problem.what.clone())));
        for problem in &mut list {
            problem.what = redactor.redact(&problem.what).into_owned();
            problem.help = problem.help.as_ref().map(|help| redactor.redact(help).into_owned());
        }
        let source = redactor.redact_in_place(source);
        let lines = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Problems { name: name.to_owned(), source, lines, list }
    }

    /// One problem with a source that cannot be read at all.
    pub fn unreadable(name: &str, what: impl Into<String>, help: impl Into<String>) -> Self {
        let problem = Problem { span: None, path: String::new(), what: what.into(), help: Some(help.into()) };
        Problems { name: name.to_owned(), source: String::new(), lines: vec![0], list: vec![problem] }
    }

    /// What the source is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of them, at least one.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// The line and the column, both from 1, the column in characters.
    pub fn place(&self, span: Span) -> (usize, usize) {
        let start = floor(&self.source, span.start);
        let line = self.lines.partition_point(|line| *line <= start);
        let line_start = self.lines[line - 1];
        (line, self.source[line_start..start].chars().count() + 1)
    }

    /// For people: each problem with its place, the line of the source and a suggestion. `colour` is for terminals.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for problem in self.list.iter().take(MOST_SHOWN) {
            self.render_one(problem, colour, &mut out);
            out.push('\n');
        }
        if let Some(more) = self.list.len().checked_sub(MOST_SHOWN).filter(|more| *more > 0) {
            let _ = writeln!(out, "... and {more} more problems\n");
        }
        out
    }

    fn render_one(&self, problem: &Problem, colour: bool, out: &mut String) {
        let paint = |code: &str, text: &str| match colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let blue = |text: &str| paint("1;34", text);
        let _ =
            writeln!(out, "{}{}", paint("1;31", "error"), paint("1", &format!(": {}", plain(&problem.what))));
        let Some(span) = problem.span else {
            let _ = writeln!(out, " {} {}", blue("-->"), plain(&self.name));
            if let Some(help) = &problem.help {
                let _ = writeln!(out, "  {} {}: {}", blue("="), paint("1", "help"), plain(help));
            }
            return;
        };
        let (line, column) = self.place(span);
        let margin = " ".repeat(line.to_string().len());
        let _ = writeln!(out, "{margin}{} {}:{line}:{column}", blue("-->"), plain(&self.name));
        let _ = writeln!(out, "{margin} {}", blue("|"));
        let (text, caret) = self.excerpt(span, line, column);
        let shown = format!("{} {} {text}", blue(&line.to_string()), blue("|"));
        let _ = writeln!(out, "{}", shown.trim_end());
        let _ = writeln!(out, "{margin} {} {}", blue("|"), paint("1;31", &caret));
        if let Some(help) = &problem.help {
            let _ = writeln!(out, "{margin} {} {}: {}", blue("="), paint("1", "help"), plain(help));
        }
    }

    /// The line of a place, cut to a readable width, and the carets below it.
    fn excerpt(&self, span: Span, line: usize, column: usize) -> (String, String) {
        let start = floor(&self.source, span.start);
        let line_start = self.lines[line - 1];
        let line_end = self.source[start..].find('\n').map_or(self.source.len(), |at| start + at);
        let line: Vec<char> = self.source[line_start..line_end].trim_end_matches('\r').chars().collect();
        let end = floor(&self.source, span.end.clamp(start, line_end));
        let width = self.source[start..end].trim_end().chars().count().max(1);

        let before = column - 1;
        // About half before the place and half after it, but never less than the width allows.
        let first = before.saturating_sub(WIDEST / 2).min(line.len().saturating_sub(WIDEST));
        let last = line.len().min(first + WIDEST);
        let lead = if first > 0 { "..." } else { "" };
        let tail = if last < line.len() { "..." } else { "" };
        let text: String = line[first.min(last)..last].iter().copied().map(printable).collect();
        let caret = "^".repeat(width.min((first + WIDEST).saturating_sub(before).max(1)));
        let indent = " ".repeat(lead.len() + before - first);
        (format!("{lead}{text}{tail}").trim_end().to_owned(), format!("{indent}{caret}"))
    }
}

/// For programs: file, line and column from 1, path, what and help.
impl Serialize for Problems {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.list.iter().map(|problem| {
            let place = problem.span.map(|span| self.place(span));
            serde_json::json!({
                "file": self.name,
                "line": place.map(|(line, _)| line),
                "column": place.map(|(_, column)| column),
                "path": problem.path,
                "what": problem.what,
                "help": problem.help,
            })
        }))
    }
}

/// A byte offset that can be sliced at.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A document may hold characters that move a terminal's cursor or turn its text around: none of them is printed.
fn plain(text: &str) -> String {
    text.chars().map(printable).collect()
}

fn printable(c: char) -> char {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match c {
        '\t' => ' ',
        c if c.is_control() || turns => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(source: &str, start: usize, end: usize) -> Problems {
        let problem = Problem {
            span: Some(Span { start, end }),
            path: String::new(),
            what: "`\x1b[2J` is wrong".to_owned(),
            help: Some("write another".to_owned()),
        };
        Problems::new("a.yaml", source, vec![problem.clone(), problem], &Redactor::default())
    }

    #[test]
    fn the_caret_stands_below_the_place_and_nothing_reaches_the_terminal_raw() {
        let source = "é: 1\nkey: \x1b[2J\u{202e}\n";
        let text = one(source, 11, 15).render(false);
        assert_eq!(
            text,
            "error: `\u{fffd}[2J` is wrong\n --> a.yaml:2:6\n  |\n2 | key: \u{fffd}[2J\u{fffd}\n  |      ^^^^\n  = help: write another\n\n"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let source = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let text = one(&source, 500, 501).render(false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], " --> a.yaml:1:501");
        assert!(lines[3].len() < 120, "{}", lines[3]);
        assert_eq!(lines[3].find('X'), lines[4].find('^'));
    }

    #[test]
    fn places_outside_the_source_do_not_panic() {
        for (start, end) in [(0, 0), (99, 99), (3, 1), (1, 2)] {
            one("é", start, end).render(true);
            one("", start, end).render(false);
        }
    }
}
