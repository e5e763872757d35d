//! Game days in words.

use serde_json::Value;
use squall_controller::gameday::SQUALL;
use squall_controller::report::{gameday_clock, gameday_event, gameday_moment};
use squall_experiments::exit::Exit;
use squall_experiments::gameday::Record;

use crate::cli::remote::{plain, table, text, time};

/// The text of a member, and nothing where there is none.
pub fn said(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// The step whose turn it is.
pub fn current(shown: &Value) -> Option<&Value> {
    let over = |step: &Value| matches!(step["state"].as_str(), Some("done" | "skipped" | "stopped"));
    shown["course"]["steps"].as_array()?.iter().find(|step| !over(step))
}

pub fn list(answer: &Value) -> String {
    let days = answer["game_days"].as_array().map_or(&[][..], Vec::as_slice);
    if days.is_empty() {
        return "no game day yet; `squall gameday run FILE` begins one\n".to_owned();
    }
    let row = |day: &Value| {
        vec![text(day, "id"), text(day, "state"), text(day, "by"), time(&day["at"]), text(day, "title")]
    };
    let rows: Vec<Vec<String>> = days.iter().map(row).collect();
    table(&["id", "state", "by", "begun (utc)", "title"], &rows)
}

/// A time in milliseconds: `350 ms`, `1.2 s`, `4 min 5 s`.
fn took(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

/// How long something took: `1.2 s`, or `not within 60.0 s`; `late` where it came later than expected.
fn reaction(value: &Value) -> String {
    let late = if value["met"] == false { " (late)" } else { "" };
    match (value["after-ms"].as_u64(), value["not-within-ms"].as_u64()) {
        (Some(ms), _) => format!("{}{late}", took(ms)),
        (_, Some(ms)) => format!("not within {}", took(ms)),
        _ => "-".to_owned(),
    }
}

fn verdict(step: &Value) -> String {
    let code = step["exit"].as_u64().and_then(|code| u8::try_from(code).ok());
    let exit = code.and_then(|code| Exit::try_from(code).ok());
    exit.map_or_else(|| "-".to_owned(), |exit| exit.meaning().to_owned())
}

/// One day: where it stands, and what was measured.
pub fn one(shown: &Value) -> String {
    let mut out = format!(
        "{}: {}, {}, begun {} by {}\n",
        text(shown, "id"),
        text(shown, "title"),
        text(shown, "state"),
        time(&shown["at"]),
        text(shown, "by")
    );
    if let Some(why) = shown["course"]["stopped"]["why"].as_str() {
        out.push_str(&format!("stopped by {}: {why}\n", text(&shown["course"]["stopped"], "by")));
    }
    let row = |step: &Value| {
        vec![
            text(step, "step"),
            text(step, "state"),
            verdict(step),
            reaction(&step["detect"]),
            reaction(&step["acknowledge"]),
            reaction(&step["mitigate"]),
            reaction(&step["recover"]),
            text(step, "run"),
        ]
    };
    let steps = shown["figures"]["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<String>> = steps.iter().map(row).collect();
    let heads = ["step", "state", "verdict", "detected", "acknowledged", "mitigated", "recovered", "run"];
    let mut out = plain(&out) + "\n" + &table(&heads, &rows) + "\n";
    let days = shown["over"]["days"].as_u64().unwrap_or(1);
    let over = if days == 1 { "this day".to_owned() } else { format!("the last {days} days of this name") };
    for (name, what) in [("MTTD", "detect"), ("MTTA", "acknowledge"), ("MTTR", "recover")] {
        let (day, all) = (&shown["figures"]["means"][what], &shown["over"]["means"][what]);
        out.push_str(&match days {
            1 => format!("{name} {}\n", mean(day)),
            _ => format!("{name} {}; over {over}: {}\n", mean(day), mean(all)),
        });
    }
    let between = &shown["between"];
    let (runs, deviated) = (text(between, "runs"), text(between, "deviated"));
    match between["mean-ms"].as_u64() {
        Some(ms) => out.push_str(&format!("MTBF {} ({deviated} of {runs} runs deviated)\n", took(ms))),
        None if runs != "0" => out.push_str(&format!("no MTBF: none of {runs} runs deviated\n")),
        None => {}
    }
    for note in shown["course"]["notes"].as_array().into_iter().flatten() {
        let step = note["step"].as_str().map_or_else(String::new, |step| format!(" ({step})"));
        let line = format!("note {} {}{step}: {}", time(&note["at"]), text(note, "by"), text(note, "text"));
        out.push_str(&plain(&line.replace('\n', " ")));
        out.push('\n');
    }
    out
}

fn mean(value: &Value) -> String {
    let never = match value["never"].as_u64() {
        None | Some(0) => String::new(),
        Some(count) => format!(", and {count} never"),
    };
    match value["mean-ms"].as_u64() {
        Some(ms) => format!("{} (of {}{never})", took(ms), text(value, "n")),
        None => format!("none (of 0{never})"),
    }
}

/// An event as a line of the talk: when it was written down, by whom unless by the controller, what, and when that was, where it was
/// earlier.
pub fn line(record: &Record) -> String {
    let by = if record.by == SQUALL { String::new() } else { format!("{}: ", record.by) };
    let (told, happened) = (gameday_clock(record.at), gameday_clock(gameday_moment(record)));
    let at = if told == happened { String::new() } else { format!(" (at {happened})") };
    plain(&format!("{told} {by}{}{at}", gameday_event(record))).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_day_is_a_line_for_each_step_and_its_means() {
        let shown = json!({
            "id": "pay-1", "title": "Payments", "state": "open", "at": 0, "by": "ada (1)",
            "course": {
                "stopped": null,
                "steps": [{ "name": "slow", "state": "done" }, { "name": "debrief", "state": "asked" }],
                "notes": [{ "at": 1000, "by": "ben (2)", "step": "slow", "text": "the pager\nis silent" }],
            },
            "figures": {
                "steps": [{
                    "step": "slow", "state": "done", "run": "r1", "exit": 5,
                    "detect": { "after-ms": 61_000, "met": false }, "acknowledge": { "not-within-ms": 1500 },
                    "mitigate": null, "recover": { "after-ms": 900 },
                }],
                "means": {
                    "detect": { "n": 1, "mean-ms": 61_000, "never": 0 },
                    "acknowledge": { "n": 0, "mean-ms": null, "never": 1 },
                    "recover": { "n": 1, "mean-ms": 900, "never": 0 },
                },
            },
            "over": { "days": 1, "means": {} },
            "between": { "runs": 2, "deviated": 1, "mean-ms": 5000 },
        });
        assert_eq!(
            one(&shown),
            "pay-1: Payments, open, begun 1970-01-01 00:00:00 by ada (1)\n\n\
             STEP  STATE  VERDICT   DETECTED          ACKNOWLEDGED      MITIGATED  RECOVERED  RUN\n\
             slow  done   deviated  1 min 1 s (late)  not within 1.5 s  -          900 ms     r1\n\n\
             MTTD 1 min 1 s (of 1)\nMTTA none (of 0, and 1 never)\nMTTR 900 ms (of 1)\n\
             MTBF 5.0 s (1 of 2 runs deviated)\n\
             note 1970-01-01 00:00:01 ben (2) (slow): the pager is silent\n"
        );
        assert_eq!(current(&shown).map(|step| said(step, "name")).as_deref(), Some("debrief"));
    }
}
