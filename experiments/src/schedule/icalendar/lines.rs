//! Content lines (RFC 5545, section 3.1): unfolded, with name, parameters and value.

use super::CalendarError;

/// A content line.
#[derive(Debug)]
pub(super) struct Line {
    /// Which line of the file it begins on, from 1.
    pub number: usize,
    /// Its name, in capitals.
    pub name: String,
    /// Its parameters, names in capitals.
    pub parameters: Vec<(String, String)>,
    /// Its value as it stands.
    pub value: String,
}

impl Line {
    /// The parameter of a name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str())
    }

    /// That this line is not understood.
    pub(super) fn wrong(&self, what: impl Into<String>) -> CalendarError {
        CalendarError::Line { line: self.number, what: what.into() }
    }
}

/// The content lines of a text, those without anything left out.
pub(super) fn content(text: &str) -> impl Iterator<Item = Result<Line, CalendarError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut unfolded: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // A line that begins with a blank goes on with the one before.
        match (line.strip_prefix([' ', '\t']), unfolded.last_mut()) {
            (Some(more), Some((_, last))) => last.push_str(more),
            _ => unfolded.push((at + 1, line.to_owned())),
        }
    }
    unfolded.into_iter().filter(|(_, line)| !line.trim().is_empty()).map(|(number, line)| read(number, &line))
}

fn read(number: usize, line: &str) -> Result<Line, CalendarError> {
    let wrong = |what: &str| CalendarError::Line { line: number, what: what.to_owned() };
    // A colon within quotes belongs to a parameter.
    let mut quoted = false;
    let colon = line.find(|c: char| {
        quoted ^= c == '"';
        c == ':' && !quoted
    });
    let colon = colon.ok_or_else(|| wrong("there is no `:`"))?;
    let (head, value) = (&line[..colon], line[colon + 1..].trim_end_matches('\r'));
    let mut quoted = false;
    let mut parts = head.split(|c: char| {
        quoted ^= c == '"';
        c == ';' && !quoted
    });
    let name = parts.next().unwrap_or_default().to_ascii_uppercase();
    let parameter = |part: &str| {
        let (name, value) = part.split_once('=').ok_or_else(|| wrong("a parameter has no `=`"))?;
        Ok((name.to_ascii_uppercase(), value.trim_matches('"').to_owned()))
    };
    let parameters = parts.map(parameter).collect::<Result<_, _>>()?;
    Ok(Line { number, name, parameters, value: value.to_owned() })
}
