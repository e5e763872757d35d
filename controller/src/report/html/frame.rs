//! The frame of a chart: axes, the faults behind it, and what it says to who cannot see it.
//!
//! The drawing is stretched to the width of the page; words stand beside and above it as ordinary text, so that they are as
//! large on a telephone as on paper.

use std::fmt::Write;

use squall_experiments::summary::Summary;

use super::markup::Markup;
use super::scale::{HIGH, Marks, Time, WIDE};

/// What all charts of a run share.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) time: Time,
    /// When each fault was live, with its name.
    pub(super) faults: Vec<(u64, u64, String)>,
}

/// One chart.
pub(super) struct Chart<'a> {
    /// What it shows.
    pub(super) title: &'a str,
    /// The same with its figures, for who cannot see it.
    pub(super) told: &'a str,
    /// Marks of the upright axis.
    pub(super) marks: Marks,
    /// A limit, where there is one: how high it is drawn, in units of the drawing, and what it says.
    pub(super) limits: &'a [(f64, String)],
    /// What is drawn, as SVG.
    pub(super) drawn: &'a str,
    /// What each kind of line means: its class and its name.
    pub(super) legend: &'a [(&'a str, &'a str)],
}

impl Frame {
    pub(super) fn new(summary: &Summary) -> Frame {
        let faults = summary.parts.iter().filter_map(|part| {
            let from_ms = part.injected_at_ms?;
            let to_ms = part.lifted_at_ms.unwrap_or(summary.took_ms);
            Some((from_ms, to_ms.max(from_ms), part.name.clone()))
        });
        Frame { time: Time::new(summary.took_ms), faults: faults.collect() }
    }

    /// Writes a chart.
    pub(super) fn chart(&self, page: &mut Markup, chart: &Chart<'_>) {
        page.element("figure", &[], |page| {
            page.prosaic("figcaption", &[], chart.title);
            page.element("div", &[("class", "frame")], |page| {
                labels(page, "upright", |text| {
                    for (share, word) in &chart.marks {
                        text.label(("100%", &extent(1.0 - share)), "", word);
                    }
                });
                page.element("div", &[("class", "plot")], |page| {
                    self.svg(page, "curve", HIGH, chart.title, chart.told, |text| {
                        for (share, _) in &chart.marks {
                            let y = (1.0 - share) * HIGH;
                            let _ = write!(text, "<path class=\"grid\" d=\"M0 {y:.1}H{WIDE}\"/>");
                        }
                        text.push_str(chart.drawn);
                        for (y, _) in chart.limits {
                            let _ = write!(text, "<path class=\"limit\" d=\"M0 {y:.1}H{WIDE}\"/>");
                        }
                    });
                    labels(page, "tags", |text| {
                        for (y, word) in chart.limits {
                            // Where there is no room above its line it stands below.
                            let side = if *y < HIGH * 0.12 { "tag below" } else { "tag" };
                            text.label(("100%", &extent(y / HIGH)), side, word);
                        }
                    });
                });
                self.axis(page);
            });
            self.legend(page, chart.legend);
        });
    }

    /// A drawing with the faults behind it. `draw` appends SVG.
    pub(super) fn svg(
        &self,
        page: &mut Markup,
        class: &str,
        high: f64,
        title: &str,
        told: &str,
        draw: impl FnOnce(&mut String),
    ) {
        let (name, description) = (page.name(), page.name());
        let (view, tall) = (format!("0 0 {WIDE} {high}"), high.to_string());
        let attributes = [
            ("class", class),
            ("height", tall.as_str()),
            ("viewBox", view.as_str()),
            ("preserveAspectRatio", "none"),
            ("role", "img"),
            ("aria-labelledby", &format!("{name} {description}")),
        ];
        page.element("svg", &attributes, |page| {
            page.text("title", &[("id", &name)], &title.replace('`', ""));
            page.text("desc", &[("id", &description)], told);
            let mut drawn = String::new();
            for (from_ms, to_ms, _) in &self.faults {
                let (from, to) = (self.time.x(*from_ms), self.time.x(*to_ms));
                let wide = (to - from).max(1.0);
                let _ = write!(
                    drawn,
                    "<rect class=\"fault\" x=\"{from:.1}\" y=\"0\" width=\"{wide:.1}\" height=\"{high}\"/>"
                );
            }
            draw(&mut drawn);
            page.raw(&drawn);
        });
    }

    /// The axis of time.
    pub(super) fn axis(&self, page: &mut Markup) {
        labels(page, "along", |text| {
            let marks = self.time.marks();
            let last = marks.len().saturating_sub(1);
            for (at, (share, word)) in marks.iter().enumerate() {
                let class = match at {
                    0 => "first",
                    at if at == last => "last",
                    _ => "",
                };
                text.label((&extent(*share), "0"), class, word);
            }
        });
    }

    fn legend(&self, page: &mut Markup, legend: &[(&str, &str)]) {
        page.element("p", &[("class", "legend"), ("aria-hidden", "true")], |page| {
            let fault = (!self.faults.is_empty()).then_some(("fault", "a fault was live"));
            for (class, word) in legend.iter().copied().chain(fault) {
                page.element("span", &[], |page| {
                    page.text("i", &[("class", class)], "");
                    page.words(word);
                });
            }
        });
    }
}

/// Words on a drawing, in their own size however wide the drawing is: SVG without a view, because a policy that allows no
/// inline style would ignore places that stand in a `style`.
pub(super) fn labels(page: &mut Markup, class: &str, write: impl FnOnce(&mut Labels<'_>)) {
    page.element("svg", &[("class", class), ("aria-hidden", "true")], |page| write(&mut Labels(page)));
}

/// A drawing of words.
pub(super) struct Labels<'a>(&'a mut Markup);

impl Labels<'_> {
    /// A word at a place: lengths of SVG, from the upper left corner.
    pub(super) fn label(&mut self, (x, y): (&str, &str), class: &str, word: &str) {
        let place = [("x", x), ("y", y), ("class", class)];
        self.0.text("text", if class.is_empty() { &place[..2] } else { &place }, word);
    }
}

/// A share of the width or height.
pub(super) fn extent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}
