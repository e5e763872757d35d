//! What happened when: phases, faults, and what ended them.

use std::fmt::Write;

use squall_experiments::run::{Event, Record};
use squall_experiments::summary::Summary;

use super::frame::{Frame, extent, labels};
use super::markup::{MOST, Markup};
use super::scale::WIDE;

/// How high a row of the picture is, in units of the drawing and in pixels.
const ROW: f64 = 30.0;

/// A bar of the picture.
struct Bar {
    row: usize,
    class: &'static str,
    from_ms: u64,
    to_ms: u64,
    word: String,
}

/// Writes the section.
pub(super) fn timeline(page: &mut Markup, frame: &Frame, summary: &Summary, log: &[Record]) {
    page.element("section", &[], |page| {
        page.text("h2", &[], "What happened");
        let bars = bars(frame, summary, log);
        picture(page, frame, &bars, &ends(log));
        let moments = summary.timeline.iter().take(MOST);
        let mut rows: Vec<Vec<String>> = moments
            .map(|moment| vec![format!("{:.2} s", moment.at_ms as f64 / 1000.0), moment.what.clone()])
            .collect();
        if summary.timeline.len() > MOST {
            rows.push(vec!["…".to_owned(), format!("and {} more", summary.timeline.len() - MOST)]);
        }
        page.table("Every event, counted from the begin of the run", &["when", "what"], &rows);
    });
}

fn picture(page: &mut Markup, frame: &Frame, bars: &[Bar], ends: &[u64]) {
    let rows = bars.iter().map(|bar| bar.row + 1).max().unwrap_or(1);
    let high = rows as f64 * ROW;
    let told: Vec<String> = bars
        .iter()
        .map(|bar| {
            let second = |ms: u64| ms as f64 / 1000.0;
            format!("{} from {:.1} s to {:.1} s", bar.word, second(bar.from_ms), second(bar.to_ms))
        })
        .collect();
    page.element("figure", &[("class", "timeline")], |page| {
        page.element("div", &[("class", "frame wide")], |page| {
            page.element("div", &[("class", "plot")], |page| {
                frame.svg(page, "rows", high, "Phases and faults over time", &told.join("; "), |drawn| {
                    for bar in bars {
                        let (from, to) = (frame.time.x(bar.from_ms), frame.time.x(bar.to_ms));
                        let (y, wide, class) = (bar.row as f64 * ROW + 3.0, (to - from).max(2.0), bar.class);
                        let _ = write!(
                            drawn,
                            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y}\" width=\"{wide:.1}\" height=\"{}\"/>",
                            ROW - 6.0
                        );
                    }
                    for end in ends {
                        let x = frame.time.x(*end).min(WIDE - 1.0);
                        let _ = write!(drawn, "<path class=\"stop\" d=\"M{x:.1} 0V{high}\"/>");
                    }
                });
                labels(page, "bars", |text| {
                    for bar in bars {
                        let middle = (bar.row as f64 + 0.5) * ROW;
                        let (from, to) = (frame.time.share(bar.from_ms), frame.time.share(bar.to_ms));
                        // A word begins with its bar, or ends with it where it would leave the page.
                        let (at, class) = if from > 0.55 { (to, "end") } else { (from, "") };
                        text.label((&extent(at), &middle.to_string()), class, &bar.word);
                    }
                });
            });
            frame.axis(page);
        });
        if !ends.is_empty() {
            page.element("p", &[("class", "legend"), ("aria-hidden", "true")], |page| {
                page.element("span", &[], |page| {
                    page.text("i", &[("class", "stop")], "");
                    page.words("the run was stopped");
                });
            });
        }
    });
}

/// The phases in the first row, and a row for each fault.
fn bars(frame: &Frame, summary: &Summary, log: &[Record]) -> Vec<Bar> {
    let when = |wanted: fn(&Event) -> bool| {
        log.iter().find(|record| wanted(&record.event)).map(|record| record.at_ms)
    };
    let met = when(|event| matches!(event, Event::BaselineMet));
    let last_ms = frame.faults.iter().map(|fault| fault.1).max();
    let again = when(|event| matches!(event, Event::RecoveryBegan));
    let end = summary.took_ms;
    let phase =
        |class, from_ms, to_ms, word: &str| Bar { row: 0, class, from_ms, to_ms, word: word.to_owned() };
    let mut bars = vec![phase("before", 0, met.unwrap_or(end), "baseline")];
    if let Some(from_ms) = met {
        let ended = when(|event| matches!(event, Event::MethodEnded));
        let to_ms = again.or(ended.max(last_ms)).unwrap_or(end);
        bars.push(phase("method", from_ms, to_ms, "method"));
    }
    if let Some(from_ms) = again {
        bars.push(phase("after", from_ms, end, "recovery"));
    }
    let faults = (1..).zip(frame.faults.iter().take(20));
    bars.extend(faults.map(|(row, (from_ms, to_ms, name))| Bar {
        row,
        class: "live",
        from_ms: *from_ms,
        to_ms: *to_ms,
        word: name.clone(),
    }));
    // A phase too short for its word says it in the table only.
    bars.retain(|bar| bar.row > 0 || bar.to_ms > bar.from_ms || bar.from_ms == 0);
    bars
}

/// When the run was stopped before its time.
fn ends(log: &[Record]) -> Vec<u64> {
    let stops = log.iter().filter(|record| {
        matches!(
            record.event,
            Event::GuardTripped { .. }
                | Event::GaveWay { .. }
                | Event::Interrupted { .. }
                | Event::AgentLost { .. }
                | Event::Blind { .. }
                | Event::BaselineNotMet { .. }
                | Event::Refused { .. }
        )
    });
    stops.map(|record| record.at_ms).collect()
}
