//! Talk, on standard error: words for people, or one JSON object a line for whoever collects logs.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing_subscriber::EnvFilter;

/// Whether this process talks in JSON. It stays as its arguments say.
static JSON: AtomicBool = AtomicBool::new(false);

/// How a process that stays talks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// Each line is one JSON object with `timestamp`, `level` and `message`, and with `run` and `host` where it concerns one.
    Json,
}

/// Begins to talk; where `SQUALL_LOG` says nothing, of what `otherwise` says. Once for a process.
pub fn begin(format: LogFormat, otherwise: &str) {
    let filter = EnvFilter::try_from_env("SQUALL_LOG").unwrap_or_else(|_| EnvFilter::new(otherwise));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Another one that has begun before stays.
    let _ = match format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => {
            keep(format);
            log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
    };
}

/// Talks as it is told to, for a process that has no log of its own.
pub fn keep(format: LogFormat) {
    if format == LogFormat::Json && !JSON.swap(true, Ordering::SeqCst) {
        std::panic::set_hook(Box::new(|panic| error(panic, None)));
    }
}

/// Lets a child of this program talk as this process does. Its verb must know the option.
pub fn hand_on(command: &mut Command) {
    if JSON.load(Ordering::SeqCst) {
        command.args(["--log-format", "json"]);
    }
}

/// Says something that whoever started the process wants to know, whatever is logged; `about` is what it concerns, such as a
/// host.
pub fn notice(words: impl Display, about: &[(&str, &str)]) {
    say("INFO", "", &words, None, about);
}

/// Says what is not as it should be.
pub fn warning(words: impl Display, help: Option<&str>) {
    say("WARN", "warning: ", &words, help, &[]);
}

/// Says why something was not done.
pub fn error(words: impl Display, help: Option<&str>) {
    say("ERROR", "error: ", &words, help, &[]);
}

fn say(level: &str, before: &str, words: &dyn Display, help: Option<&str>, about: &[(&str, &str)]) {
    let text = match JSON.load(Ordering::SeqCst) {
        true => line(level, &words.to_string(), help, about),
        false => {
            let help = help.map(|help| format!("help: {help}\n"));
            format!("{before}{words}\n{}", help.unwrap_or_default())
        }
    };
    // A line is written at once: others write here, too. Nobody can be told that nobody can be told.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A line as the log writes it.
fn line(level: &str, words: &str, help: Option<&str>, about: &[(&str, &str)]) -> String {
    let mut line = Map::new();
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let head = [("timestamp", now.as_str()), ("level", level), ("message", words)];
    let members = head.into_iter().chain(help.map(|help| ("help", help))).chain(about.iter().copied());
    for (name, value) in members.chain([("target", env!("CARGO_CRATE_NAME"))]) {
        line.insert(name.to_owned(), Value::from(value));
    }
    format!("{}\n", Value::Object(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_object_whatever_is_said() {
        let text = line("ERROR", "two\nlines \"and\" \u{1b}[2J", Some("a\nhelp"), &[("host", "web-1")]);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        let said = |name: &str| read[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(said("message"), "two\nlines \"and\" \u{1b}[2J");
        assert_eq!(
            (said("level"), said("help"), said("host")),
            ("ERROR".into(), "a\nhelp".into(), "web-1".into())
        );
        assert!(said("timestamp").parse::<Timestamp>().is_ok(), "{text}");
        assert_eq!(
            said("timestamp").len(),
            "2026-11-22T00:00:00.000000Z".len(),
            "as the rest of the log: {text}"
        );
    }
}
