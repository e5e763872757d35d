//! The curves of a claim: the share of bad requests with its band, how long answers took, and single looks.

use std::fmt::Write;
use std::time::Duration;

use squall_experiments::curve::{Curve, Window};
use squall_experiments::summary::{in_words, seconds};
use squall_experiments::verdict::percent;

use super::frame::{Chart, Frame};
use super::markup::Markup;
use super::scale::{HIGH, Height};

/// A limit of a claim: what is drawn for it where.
pub(super) struct Limits {
    /// Tolerated shares of bad requests, with what the file says.
    pub(super) shares: Vec<(f64, String)>,
    /// Latency limits in seconds, with what the file says.
    pub(super) times: Vec<(f64, String)>,
}

/// Writes the charts of a curve and the table of their figures.
pub(super) fn curve(page: &mut Markup, frame: &Frame, curve: &Curve, limits: &Limits) {
    if curve.windows.is_empty() {
        return;
    }
    if curve.load {
        errors(page, frame, curve, limits);
    } else {
        looks(page, frame, curve);
    }
    latency(page, frame, curve, limits);
    page.element("details", &[], |page| {
        page.text("summary", &[], "The same figures as a table");
        table(page, curve);
    });
}

fn errors(page: &mut Markup, frame: &Frame, curve: &Curve, limits: &Limits) {
    // What a window at an end says of its few requests may leave the picture.
    let usual = curve.windows.iter().map(|window| window.all).max().unwrap_or_default() / 4;
    let largest = curve.windows.iter().map(|window| match window.all > usual {
        true => window.high,
        false => window.share(),
    });
    let allowed = limits.shares.iter().map(|(share, _)| share * 1.25);
    let height = Height::of_shares(largest.chain(allowed).fold(0.0, f64::max));
    let mut drawn = String::new();
    for run in runs(curve, |window| window.all > 0) {
        let (mut upper, mut lower) = (String::new(), String::new());
        for window in &run {
            let (from, to) = (frame.time.x(window.from_ms), frame.time.x(window.to_ms));
            let high = height.y(window.high);
            let _ = write!(upper, "L{from:.1} {high:.1}L{to:.1} {high:.1}");
        }
        for window in run.iter().rev() {
            let (from, to) = (frame.time.x(window.from_ms), frame.time.x(window.to_ms));
            let low = height.y(window.low);
            let _ = write!(lower, "L{to:.1} {low:.1}L{from:.1} {low:.1}");
        }
        let _ = write!(drawn, "<path class=\"band\" d=\"M{}{lower}Z\"/>", &upper[1..]);
        let line = steps(frame, &run, |window| height.y(window.share()));
        let _ = write!(drawn, "<path class=\"bad\" d=\"{line}\"/>");
    }
    let tolerated: Vec<(f64, String)> =
        limits.shares.iter().map(|(share, word)| (height.y(*share), word.clone())).collect();
    let title = format!("Bad requests of `{}`: their share in each {}", curve.name, seconds(curve.window_ms));
    let chart = Chart {
        title: &title,
        told: &told(curve),
        marks: height.marks(),
        limits: &tolerated,
        drawn: &drawn,
        legend: &[("bad", "share of bad requests"), ("band", "not excluded by this window alone")],
    };
    frame.chart(page, &chart);
}

fn looks(page: &mut Markup, frame: &Frame, curve: &Curve) {
    let mut drawn = String::new();
    for window in &curve.windows {
        let (from, to) = (frame.time.x(window.from_ms), frame.time.x(window.to_ms));
        let wide = ((to - from) * 0.8).max(0.8);
        let mut bar = |class: &str, high: f64| {
            let (y, high) = ((1.0 - high) * HIGH, high * HIGH);
            let _ = write!(
                drawn,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\"/>"
            );
        };
        if window.bad < window.all {
            bar("good", 0.3);
        }
        if window.bad > 0 {
            bar("missed", 0.4 + 0.6 * window.share());
        }
        if window.unclear > 0 {
            bar("unclear", 0.3);
        }
    }
    let title = format!("Looks at `{}`, in each {}", curve.name, seconds(curve.window_ms));
    let legend = [("good", "good (low)"), ("missed", "bad (high)"), ("unclear", "said nothing")];
    let unclear = curve.windows.iter().any(|window| window.unclear > 0);
    let chart = Chart {
        title: &title,
        told: &told(curve),
        marks: Vec::new(),
        limits: &[],
        drawn: &drawn,
        legend: if unclear { &legend } else { &legend[..2] },
    };
    page.element("div", &[("class", "flat")], |page| frame.chart(page, &chart));
}

fn latency(page: &mut Markup, frame: &Frame, curve: &Curve, limits: &Limits) {
    let known = || curve.windows.iter().filter_map(|window| window.latency);
    let times = known().flat_map(|latency| {
        [latency.p50.time, latency.p50.low, latency.p50.high, latency.p99.time].into_iter().flatten()
    });
    let times = times.map(|time| time.as_secs_f64()).chain(limits.times.iter().map(|(time, _)| *time));
    let never = known().any(|latency| latency.p50.time.is_none() || latency.p99.time.is_none());
    // Limits alone are no course.
    let answered = known().any(|latency| latency.p50.time.is_some());
    let Some(height) = Height::of_times(times, never).filter(|_| answered) else { return };
    let place =
        |time: Option<Duration>| time.map_or_else(|| height.never(), |time| height.y(time.as_secs_f64()));
    let mut drawn = String::new();
    for run in runs(curve, |window| window.latency.is_some()) {
        let (mut upper, mut lower) = (String::new(), String::new());
        for (window, known) in run.iter().filter_map(|window| Some((window, window.latency?))) {
            let x = middle(frame, window);
            let (high, low) = (place(known.p50.high.or(known.p50.time)), place(known.p50.low));
            let _ = write!(upper, "L{x:.1} {high:.1}");
            lower.insert_str(0, &format!("L{x:.1} {low:.1}"));
        }
        if curve.load {
            let _ = write!(drawn, "<path class=\"calm\" d=\"M{}{lower}Z\"/>", &upper[1..]);
        }
        let quantile = |class: &str, of: fn(&Window) -> Option<Option<Duration>>| {
            let mut line = String::new();
            for window in &run {
                let (x, y) = (middle(frame, window), of(window).map_or(HIGH, place));
                let _ = write!(line, "{}{x:.1} {y:.1}", if line.is_empty() { "M" } else { "L" });
            }
            // A single point is a line without length, whose round ends are drawn.
            if run.len() == 1 {
                line.push_str("h0");
            }
            format!("<path class=\"{class}\" d=\"{line}\"/>")
        };
        if curve.load {
            drawn.push_str(&quantile("p99", |window| window.latency.map(|latency| latency.p99.time)));
        }
        drawn.push_str(&quantile("p50", |window| window.latency.map(|latency| latency.p50.time)));
    }
    let allowed: Vec<(f64, String)> =
        limits.times.iter().map(|(time, word)| (height.y(*time), word.clone())).collect();
    let what = if curve.load { "Latency" } else { "Response time" };
    let title =
        format!("{what} of `{}` in each {}, on a logarithmic scale", curve.name, seconds(curve.window_ms));
    let legend = [("p50", "p50"), ("p99", "p99"), ("calm", "p50: not excluded")];
    let chart = Chart {
        title: &title,
        told: &told(curve),
        marks: height.marks(),
        limits: &allowed,
        drawn: &drawn,
        legend: if curve.load { &legend } else { &legend[..1] },
    };
    frame.chart(page, &chart);
}

/// The stretches of windows that follow each other without a gap of more than two.
fn runs(curve: &Curve, wanted: impl Fn(&Window) -> bool) -> Vec<Vec<&Window>> {
    let mut runs: Vec<Vec<&Window>> = Vec::new();
    for window in curve.windows.iter().filter(|window| wanted(window)) {
        let near = |last: &&Window| window.from_ms <= last.to_ms + 2 * curve.window_ms;
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(near) => run.push(window),
            _ => runs.push(vec![window]),
        }
    }
    runs
}

/// A line that stays level within each window.
fn steps(frame: &Frame, run: &[&Window], y: impl Fn(&Window) -> f64) -> String {
    let mut line = String::new();
    for window in run {
        let (from, to, y) = (frame.time.x(window.from_ms), frame.time.x(window.to_ms), y(window));
        let _ = write!(line, "{}{from:.1} {y:.1}H{to:.1}", if line.is_empty() { "M" } else { "L" });
    }
    line
}

fn middle(frame: &Frame, window: &Window) -> f64 {
    frame.time.x(u64::midpoint(window.from_ms, window.to_ms))
}

/// A curve for who cannot see it: each phase in a few figures.
fn told(curve: &Curve) -> String {
    let kind = if curve.load { "requests" } else { "looks" };
    let phases = curve.phases.iter().map(|(phase, sum)| {
        let times = sum.latency.map_or_else(String::new, |latency| {
            format!(", p50 {}, p99 {}", time(latency.p50.time), time(latency.p99.time))
        });
        let name = super::claims::phase(*phase);
        format!("{name}: {} of {} {kind} bad ({}){times}", sum.bad, sum.all, percent(sum.share()))
    });
    phases.collect::<Vec<_>>().join("; ")
}

fn table(page: &mut Markup, curve: &Curve) {
    let rows = curve.windows.iter().map(|window| {
        let latency = |of: fn(squall_experiments::curve::Latency) -> Option<Duration>| {
            window.latency.map_or_else(|| "-".to_owned(), |latency| time(of(latency)))
        };
        let unclear =
            if window.unclear > 0 { format!(" (+{} unclear)", window.unclear) } else { String::new() };
        let (share, band) = match window.all {
            0 => ("-".to_owned(), "-".to_owned()),
            _ => (percent(window.share()), format!("{} to {}", percent(window.low), percent(window.high))),
        };
        vec![
            format!("{:.1} s", window.from_ms as f64 / 1000.0),
            format!("{}{unclear}", window.all),
            window.bad.to_string(),
            share,
            band,
            latency(|latency| latency.p50.time),
            latency(|latency| latency.p99.time),
        ]
    });
    let kind = if curve.load { "requests" } else { "looks" };
    let caption = format!("{} in windows of {}", curve.name, seconds(curve.window_ms));
    let heads = ["from", kind, "bad", "share", "not excluded", "p50", "p99"];
    page.table(&caption, &heads, &rows.collect::<Vec<_>>());
}

/// A latency, or that there is none.
pub(super) fn time(time: Option<Duration>) -> String {
    time.map_or_else(
        || "no answer".to_owned(),
        |time| in_words(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
    )
}
