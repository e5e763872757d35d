//! The report as a page: by itself, or in the frame of the controller's pages.

use super::GameDayReport;
use super::parts::{Block, Section, sections};
use crate::report::html::markup::Markup;
use crate::report::html::{Piece, bare};

/// One HTML file that needs no network, as that of a run.
pub fn gameday_html(report: &GameDayReport) -> String {
    bare(&format!("Game day: {}", report.day.title), |page| gameday_page(page, report))
}

/// Title and sections.
fn gameday_page(page: &mut Markup, report: &GameDayReport) {
    page.text("p", &[("class", "kicker")], "Game day");
    page.text("h1", &[], &report.day.title);
    if let Some(description) = &report.day.description {
        page.text("p", &[], description);
    }
    let roles: Vec<String> = report.day.roles.iter().map(|(role, who)| format!("{role}: {who}")).collect();
    page.list(&roles);
    for section in sections(report) {
        write(page, &section);
    }
}

/// Its sections, each as a piece of a page that is renewed.
pub(crate) fn gameday_pieces(report: &GameDayReport) -> Vec<Piece> {
    let piece = |section: Section| {
        let mut page = Markup::piece(section.key);
        write(&mut page, &section);
        (section.key, page.finish())
    };
    sections(report).into_iter().map(piece).collect()
}

fn write(page: &mut Markup, section: &Section) {
    page.element("section", &[], |page| {
        page.text("h2", &[], section.title);
        for block in &section.blocks {
            match block {
                Block::Text(text) => page.prosaic("p", &[], text),
                Block::Title(title) => page.prosaic("h3", &[], title),
                Block::List(items) => page.list(items),
                Block::Numbered(items) => page.element("ol", &[], |page| {
                    items.iter().for_each(|item| page.prosaic("li", &[], item));
                }),
                Block::Table(caption, heads, rows) => page.table(caption, heads, rows),
            }
        }
    });
}
