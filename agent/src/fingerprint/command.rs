//! `squall-agent fingerprint`: what this host is, and what has changed since.

use std::path::{Path, PathBuf};

use squall_experiments::exit::Exit;
use squall_experiments::protocol::Refusal;

use super::compare::Difference;
use super::{Fingerprint, VERSION};
use crate::cli::Format;
use crate::say;

/// Print what this host is, normalised, so that it can be compared later.
///
/// Links, queueing disciplines, nftables, routes, marks of sockets, packet queues, processes that do not run, control
/// groups, mounts, some files and the clock: without counters, handles, expiries, set contents and pids.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Compare with one that was written with `--format json`: exit 0 when nothing differs, 7 when what differs bears
    /// Squall's mark, 5 when something else differs.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(arguments: &Arguments) -> Result<Exit, Refusal> {
    let json = arguments.format == Format::Json;
    let now = Fingerprint::take();
    let Some(path) = &arguments.compare else {
        if json {
            say::json(&now);
        } else {
            say::line(now.to_string().trim_end());
        }
        return Ok(Exit::Held);
    };
    let differences = read(path)?.differences(&now);
    if json {
        let list: Vec<serde_json::Value> = differences.iter().map(in_json).collect();
        say::json(&list);
    } else {
        differences.iter().for_each(|one| say::line(in_words(one).trim_end()));
        say::line(format!("{} things compared, {} differ", now.len(), differences.len()));
        now.notes().iter().for_each(|note| say::line(format!("note: {note}")));
    }
    Ok(match differences.as_slice() {
        [] => Exit::Held,
        some if some.iter().any(|one| one.ours) => Exit::Modified,
        _ => Exit::Deviated,
    })
}

fn read(path: &Path) -> Result<Fingerprint, Refusal> {
    let help = "write one with `squall-agent fingerprint --format json`";
    let unusable = |why: String| Refusal::new(format!("`{}` is no fingerprint: {why}", path.display()), help);
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let read: Fingerprint = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    if read.version != VERSION {
        return Err(unusable(format!("its version is {}, not {VERSION}", read.version)));
    }
    Ok(read)
}

fn in_words(one: &Difference) -> String {
    let ours = if one.ours { " (Squall's)" } else { "" };
    let value = |sign: char, value: &Option<String>| {
        value.as_ref().map_or_else(String::new, |value| format!("  {sign} {value}\n"))
    };
    format!("{one}{ours}\n{}{}", value('-', &one.before), value('+', &one.after))
}

fn in_json(one: &Difference) -> serde_json::Value {
    serde_json::json!({
        "section": one.section,
        "name": one.name,
        "before": one.before,
        "after": one.after,
        "ours": one.ours,
    })
}
