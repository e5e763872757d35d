//! A controller, as the verbs that ask one know it.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use axum::http::Method;
use serde_json::Value;
use squall_controller::api::client::Remote;
use squall_experiments::exit::Exit;
use squall_experiments::muster::Line;

/// Which controller is asked, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub struct At {
    /// The controller's address; plain `http://` only on this machine.
    #[arg(long, env = "SQUALL_CONTROLLER", default_value = "http://127.0.0.1:8416", value_name = "URL")]
    controller: String,
    #[command(flatten)]
    shown: Shown,
}

/// As whom a controller is asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Shown {
    /// The file that holds the token [default: the environment's SQUALL_TOKEN]. There is no argument for the token itself:
    /// every user of a machine can read the arguments of its processes.
    #[arg(long, env = "SQUALL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificates (PEM) by which the controller is known [default: those that this machine trusts].
    #[arg(long, env = "SQUALL_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// What a controller answered, or the exit code after its refusal was printed.
pub type Answered = Result<Value, Exit>;

impl At {
    /// The controller.
    pub fn remote(&self) -> anyhow::Result<Remote> {
        self.shown.remote(&self.controller)
    }

    /// Asks, and waits for the answer.
    pub fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answered> {
        match self.remote() {
            Ok(remote) => ask(&remote, method, path, body),
            Err(error) => {
                eprintln!("error: {error:#}");
                Ok(Err(Exit::Usage))
            }
        }
    }
}

impl Shown {
    /// A controller by its URL.
    pub fn remote(&self, url: &str) -> anyhow::Result<Remote> {
        let token = match &self.token_file {
            Some(file) => fs::read_to_string(file)
                .with_context(|| format!("cannot read the token in `{}`", file.display()))?,
            None => std::env::var("SQUALL_TOKEN")
                .ok()
                .context("a token is needed: set SQUALL_TOKEN, or name its file with --token-file")?,
        };
        Ok(Remote::new(url, token.trim(), self.ca.as_deref())?)
    }
}

/// Why a controller did not do what it was asked for.
#[derive(Debug)]
pub struct Refused {
    /// The exit code that it names.
    pub exit: Exit,
    /// Why, as a person reads it: an error, and help where there is one.
    pub why: String,
}

impl At {
    /// A whole list, page by page: the first page's answer with what all of them hold in this member.
    pub fn all(&self, path: &str, member: &str) -> anyhow::Result<Answered> {
        let mut whole: Option<Value> = None;
        let mut from = String::new();
        loop {
            let mut page = match self.ask(Method::GET, &format!("{path}?limit=1000{from}"), None)? {
                Ok(page) => page,
                Err(exit) => return Ok(Err(exit)),
            };
            let next = page["next"].take();
            match &mut whole {
                None => whole = Some(page),
                Some(whole) => {
                    let more = page[member].as_array_mut().map(std::mem::take).unwrap_or_default();
                    whole[member].as_array_mut().context("a list is none")?.extend(more);
                }
            }
            // A controller of a version before tells of no further page: it gives everything at once.
            match next.as_str() {
                Some(next) => from = format!("&after={}", part(next)),
                None => return Ok(Ok(whole.unwrap_or_default())),
            }
        }
    }
}

/// Asks a controller, and waits. That there was no answer is printed as a refusal is.
pub fn ask(remote: &Remote, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answered> {
    Ok(attempt(remote, method, path, body)?.map_err(|refused| {
        eprint!("{}", refused.why);
        refused.exit
    }))
}

/// [`ask`], and nothing is printed.
pub fn attempt(
    remote: &Remote,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Result<Value, Refused>> {
    // A request that alters something is done once, also when it must be sent again.
    let key = (method == Method::POST).then(|| format!("{:032x}", rand::random::<u128>()));
    let (status, answer) = match runtime()?.block_on(remote.call(method, path, body, key.as_deref())) {
        Ok(answered) => answered,
        Err(error) => return Ok(Err(Refused { exit: Exit::Refused, why: format!("error: {error}\n") })),
    };
    Ok(if (200..300).contains(&status) { Ok(answer) } else { Err(Refused::of(&answer)) })
}

/// The log of a run of the controller.
pub fn lines(remote: &Remote, run: &str) -> anyhow::Result<Vec<Line>> {
    let (mut log, mut from) = (Vec::new(), 0);
    loop {
        let path = format!("/v1/runs/{}/events?limit=1000&from={from}", part(run));
        let page = match ask(remote, Method::GET, &path, None)? {
            Ok(page) => page,
            Err(_) => anyhow::bail!("the controller does not give the events of `{run}`"),
        };
        let events = page["events"].as_array().map_or(&[][..], Vec::as_slice);
        if events.is_empty() {
            return Ok(log);
        }
        for event in events {
            log.push(serde_json::from_value(event["event"].clone()).context("an event is none")?);
        }
        from = page["next"].as_u64().unwrap_or_default();
    }
}

/// The runtime of a verb that asks.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Prints why a controller refused, and gives the exit code that it names.
pub fn refused(problem: &Value) -> Exit {
    let refused = Refused::of(problem);
    eprint!("{}", refused.why);
    refused.exit
}

impl Refused {
    /// What a controller says of it.
    fn of(problem: &Value) -> Refused {
        let detail = problem["detail"].as_str().map_or_else(|| problem.to_string(), str::to_owned);
        // What is wrong with a document is told as it is everywhere, each problem with its place.
        let told = if detail.starts_with("error: ") { "" } else { "error: " };
        let help =
            problem["help"].as_str().map_or_else(String::new, |help| format!("help: {}\n", plain(help)));
        let exit = match problem["exit"].as_u64() {
            Some(code) if code == Exit::Usage as u64 => Exit::Usage,
            Some(code) if code == Exit::Invalid as u64 => Exit::Invalid,
            Some(code) if code == Exit::Bug as u64 => Exit::Bug,
            _ => Exit::Refused,
        };
        Refused { exit, why: format!("{told}{}\n{help}", plain(detail.trim_end())) }
    }
}

/// Text of others without what would command a terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A name as a part of a path.
pub fn part(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    name.bytes().map(escape).collect()
}

/// Lines of columns, each as wide as its widest value; the last as it is.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|value| plain(value)).collect()).collect();
    let width = |at: usize| {
        let values = rows.iter().filter_map(|row| row.get(at)).map(|value| value.chars().count());
        values.chain([heads[at].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let heads: Vec<String> = heads.iter().map(|head| head.to_uppercase()).collect();
    let mut out = String::new();
    for row in std::iter::once(&heads).chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(value, width)| format!("{value:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// The text of a member, or a dash.
pub fn text(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A time in milliseconds since 1970 as date and time, UTC.
pub fn time(value: &Value) -> String {
    let Some(ms) = value.as_u64() else { return "-".to_owned() };
    // Civil from days, as in the proleptic Gregorian calendar: eras of 400 years begin in March.
    let (days, seconds) = (ms / 86_400_000, ms / 1000 % 86_400);
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_dates() {
        for (ms, date) in [
            (0_u64, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_795_316_305_000, "2026-11-22 02:58:25"),
            (4_102_444_799_000, "2099-12-31 23:59:59"),
        ] {
            assert_eq!(time(&json!(ms)), date);
        }
        assert_eq!(time(&Value::Null), "-");
    }

    #[test]
    fn a_table_is_as_wide_as_its_values_and_commands_no_terminal() {
        let rows = [vec!["a\u{1b}[31m".to_owned(), "b".to_owned()], vec!["c".to_owned(), String::new()]];
        assert_eq!(table(&["name", "x"], &rows), "NAME    X\na\u{fffd}[31m  b\nc\n");
        assert_eq!(part("a/b ü"), "a%2Fb%20%C3%BC");
    }
}
