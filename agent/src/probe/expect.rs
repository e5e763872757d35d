//! What a good sample looks like, compiled once when a probe is loaded, and what is said of a bad one.

use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName};
use regex::Regex;
use squall_experiments::probe::compare::{Compared, Found};
use squall_experiments::probe::{Comparison, Expect};
use squall_experiments::quantity::Period;

use super::value::{ExpectJson, Objection};

/// What a sample saw, and whether that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) good: bool,
    /// It says nothing about the system.
    pub(super) unclear: bool,
    pub(super) text: String,
}

impl Seen {
    pub(super) fn good(text: impl Into<String>) -> Self {
        Seen { good: true, unclear: false, text: text.into() }
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Seen { good: false, unclear: false, text: text.into() }
    }

    /// What was to be compared is not there, or cannot be compared.
    pub(super) fn unclear(text: impl Into<String>) -> Self {
        Seen { good: false, unclear: true, text: text.into() }
    }
}

/// A failure in words is a bad sample.
impl From<String> for Seen {
    fn from(failure: String) -> Self {
        Seen::bad(failure)
    }
}

/// An HTTP answer, whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Expectations of an HTTP answer.
pub(super) struct ExpectHttp {
    status: Option<Comparison>,
    headers: Vec<(HeaderName, Comparison)>,
    body: Option<Regex>,
    json: ExpectJson,
    value: Option<Comparison>,
    within: Option<Period>,
}

/// Expectations of a program that ended.
pub(super) struct ExpectProcess {
    exit: Comparison,
    stdout: Option<Regex>,
    json: ExpectJson,
    value: Option<Comparison>,
    within: Option<Period>,
}

impl ExpectHttp {
    /// Compiles them; an error says which of them makes no sense, and why.
    pub(super) fn new(expect: &Expect) -> Result<Self, String> {
        let header = |(name, value): (&String, &Comparison)| {
            let parsed: HeaderName = name.parse().map_err(|_| format!("`{name}` is not a header name"))?;
            Ok((parsed, value.clone()))
        };
        Ok(ExpectHttp {
            status: expect.status.clone(),
            headers: expect.headers.iter().map(header).collect::<Result<_, String>>()?,
            body: expect.body.as_deref().map(regex).transpose()?,
            json: ExpectJson::new(expect)?,
            value: expect.value.clone(),
            within: expect.within,
        })
    }

    /// Judges an answer that took `took`, from the first look at the name to the last byte.
    pub(super) fn judge(&self, answer: &Answer, took: Duration) -> Seen {
        match self.objection(answer) {
            Some(objection) => objection.into(),
            None => in_time(answer.status, took, self.within),
        }
    }

    /// Whether the body must be looked at.
    pub(super) fn wants_body(&self) -> bool {
        self.body.is_some() || self.value.is_some() || !self.json.is_empty()
    }

    /// What is not as expected of an answer, but for its time.
    pub(super) fn objection(&self, answer: &Answer) -> Option<Objection> {
        let status = answer.status;
        match &self.status {
            Some(expected) => {
                let compared = expected.judge(&Found::Typed(status.into()));
                if let Some(objection) = Objection::of(compared, "") {
                    return Some(objection);
                }
            }
            None if !(200..300).contains(&status) => {
                return Some(Objection::Bad(format!("{status} (expected 2xx)")));
            }
            None => {}
        }
        if let Some(objection) = self.header_objection(answer) {
            return Some(objection);
        }
        if let Some(regex) = &self.body
            && !regex.is_match(&String::from_utf8_lossy(&answer.body))
        {
            return Some(Objection::Bad(format!("body does not match `{regex}`")));
        }
        let json = self.json.objection(&answer.body, "body");
        json.or_else(|| Objection::of(self.value.as_ref()?.judge(&trimmed(&answer.body)), "body is "))
    }

    fn header_objection(&self, answer: &Answer) -> Option<Objection> {
        for (name, expected) in &self.headers {
            let values: Vec<_> = (answer.headers.get_all(name).iter())
                .map(|value| Found::Text(String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect();
            if values.is_empty() {
                if expected.judge(&Found::Nothing) == Compared::Holds {
                    continue;
                }
                return Some(Objection::Bad(format!("header `{name}` is missing (expected {expected})")));
            }
            let mut judged = values.iter().map(|value| expected.judge(value)).collect::<Vec<_>>();
            if judged.contains(&Compared::Holds) {
                continue;
            }
            return Objection::of(judged.swap_remove(0), &format!("header `{name}` is "));
        }
        None
    }
}

impl ExpectProcess {
    /// Compiles them; an error says which of them makes no sense, and why.
    pub(super) fn new(expect: &Expect) -> Result<Self, String> {
        Ok(ExpectProcess {
            exit: match &expect.exit {
                Some(exit) => exit.clone(),
                None => Comparison::try_from(serde_json::Value::from(0)).map_err(|why| why.to_string())?,
            },
            stdout: expect.stdout.as_deref().map(regex).transpose()?,
            json: ExpectJson::new(expect)?,
            value: expect.value.clone(),
            within: expect.within,
        })
    }

    /// Judges an exit code and what was printed; `stderr` only explains.
    pub(super) fn judge(&self, exit: i32, stdout: &[u8], stderr: &[u8], took: Duration) -> Seen {
        if self.exit.judge(&Found::Typed(exit.into())) != Compared::Holds {
            return Seen::bad(format!("exit {exit} (expected {}){}", self.exit, last_line(stderr)));
        }
        if let Some(regex) = &self.stdout
            && !regex.is_match(&String::from_utf8_lossy(stdout))
        {
            return Seen::bad(format!("standard output does not match `{regex}`"));
        }
        let json = self.json.objection(stdout, "standard output");
        let value = || Objection::of(self.value.as_ref()?.judge(&trimmed(stdout)), "standard output is ");
        match json.or_else(value) {
            Some(objection) => objection.into(),
            None => in_time(format_args!("exit {exit}"), took, self.within),
        }
    }

    /// Judges an end by a signal, which no expectation allows.
    pub(super) fn killed(&self, signal: &str, stderr: &[u8]) -> Seen {
        Seen::bad(format!("ended by {signal} (expected exit {}){}", self.exit, last_line(stderr)))
    }
}

/// Good, if it was fast enough: `200 in 3.1 ms`.
pub(super) fn in_time(what: impl std::fmt::Display, took: Duration, within: Option<Period>) -> Seen {
    match within {
        Some(within) if took > within.get() => {
            Seen::bad(format!("{what} in {} (expected within {within})", readable(took)))
        }
        _ => Seen::good(format!("{what} in {}", readable(took))),
    }
}

/// A time with two or three digits: `0.42 ms`, `3.1 ms`, `312 ms`, `1.20 s`.
pub(super) fn readable(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|why| {
        // The error draws the pattern over several lines; its last line is the reason.
        let why = why.to_string();
        let reason = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
        format!("`{pattern}` is not a regular expression: {reason}")
    })
}

/// Bytes as a text, without white space around it.
fn trimmed(bytes: &[u8]) -> Found {
    Found::Text(String::from_utf8_lossy(bytes).trim().to_owned())
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.map_or_else(String::new, |line| format!(": {}", short(line)))
}

/// At most 120 characters, on one line.
pub(super) fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
