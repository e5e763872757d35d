//! The report as one HTML file: no network, no script, nothing to load; readable on a telephone, on paper, in the dark,
//! and by who cannot see it. It is well-formed XML too.
//!
//! What can be long is bounded: curves have at most some hundred windows, lists at most 200 lines.

mod claims;
mod curves;
mod earlier;
mod faults;
mod frame;
pub(crate) mod markup;
mod repeat;
mod scale;
mod timeline;
mod undo;
mod verdict;

use std::path::Path;

use squall_experiments::curve::curves;
use squall_experiments::run::Record;
use squall_experiments::summary::Summary;

use frame::Frame;
use markup::Markup;

pub use repeat::quoted;

/// What the browser may do with the page: apply its own style, and nothing else.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// How it looks.
pub(crate) const STYLE: &str = include_str!("style.css");

/// The whole page. `log` holds the events that the summary was made of; `events` says where they are.
pub fn html(summary: &Summary, log: &[Record], events: Option<&Path>) -> String {
    let frame = Frame::new(summary);
    let known = curves(log);
    bare(&format!("{}: {}", summary.exit.meaning(), summary.title), |page| {
        verdict::head(page, summary);
        if let Some(regression) = &summary.regression {
            earlier::earlier(page, regression);
        }
        timeline::timeline(page, &frame, summary, log);
        claims::claims(page, &frame, summary, log, &known, true);
        faults::faults(page, summary, true);
        undo::undo(page, summary);
        repeat::repeat(page, summary, events);
        reading(page);
    })
}

/// A page that stands alone, with its style in it.
pub(super) fn bare(title: &str, content: impl FnOnce(&mut Markup)) -> String {
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n");
    page.element("html", &[("lang", "en")], |page| {
        page.element("head", &[], |page| head(page, title));
        page.element("body", &[], |page| page.element("main", &[], content));
    });
    let mut text = page.finish();
    text.push('\n');
    text
}

/// A piece of the report, for a page that has a frame of its own: what it is called there, and its markup.
pub(crate) type Piece = (&'static str, String);

/// What was drawn and found on one host, piece by piece. Of a run that goes on, what only its end can say is left out.
pub(crate) fn pieces(summary: &Summary, log: &[Record], ended: bool) -> Vec<Piece> {
    let frame = Frame::new(summary);
    let known = curves(log);
    let piece = |name: &'static str, write: &dyn Fn(&mut Markup)| {
        let mut page = Markup::piece(name);
        write(&mut page);
        (name, page.finish())
    };
    let mut pieces = vec![
        piece("claims", &|page| claims::claims(page, &frame, summary, log, &known, ended)),
        piece("faults", &|page| faults::faults(page, summary, ended)),
    ];
    pieces.push(piece("undo", &|page| match ended {
        true => undo::undo(page, summary),
        false => undo::later(page, summary),
    }));
    pieces.push(piece("timeline", &|page| timeline::timeline(page, &frame, summary, log)));
    pieces
}

fn head(page: &mut Markup, title: &str) {
    page.void("meta", &[("charset", "utf-8")]);
    page.void("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
    page.void("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
    page.void("meta", &[("name", "color-scheme"), ("content", "light dark")]);
    page.text("title", &[], title);
    page.element("style", &[], |page| page.raw(STYLE));
}

/// What the words and bands mean.
fn reading(page: &mut Markup) {
    page.element("footer", &[], |page| {
        page.text("h2", &[], "How to read it");
        let said = [
            "Held and deviated have a known error rate: with the usual confidence of 95 % at most one run of twenty that is exactly at its bound is said to deviate, over all bounds together.",
            "Evidence decides at 1/α: at 20 where 95 % are asked for. One that is below 1 speaks for the opposite.",
            "“Not excluded” is an interval of the confidence that was asked for. In the tables of phases and bounds it holds at every moment of the run at once; the band behind a curve is that of each window alone (Clopper and Pearson), so one window in twenty may lie outside.",
            "A request counts for the time when it was to begin. One without the expected answer is slower than any answer: a quantile among those has no time.",
            "A fault counts as injected only when the kernel's or the engine's own counters, or a probe, show its effect.",
        ];
        page.list(&said.map(str::to_owned));
    });
}

#[cfg(test)]
mod tests;
