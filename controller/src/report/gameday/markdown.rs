//! The report as Markdown, to be pasted where post-mortems are kept.

use super::GameDayReport;
use super::parts::{Block, sections};
use crate::report::markdown::{code, text};

/// The whole report.
pub fn gameday_markdown(report: &GameDayReport) -> String {
    let mut page = format!("# Game day: {}\n", text(&report.day.title));
    for section in sections(report) {
        page.push_str(&format!("\n## {}\n", section.title));
        for block in &section.blocks {
            page.push('\n');
            match block {
                Block::Text(text) => page.push_str(&format!("{}\n", prose(text))),
                Block::Title(title) => page.push_str(&format!("### {}\n", prose(title))),
                Block::List(items) => {
                    items.iter().for_each(|item| page.push_str(&format!("- {}\n", prose(item))));
                }
                Block::Numbered(items) => {
                    (1..)
                        .zip(items)
                        .for_each(|(at, item)| page.push_str(&format!("{at}. {}\n", prose(item))));
                }
                Block::Table(caption, heads, rows) => {
                    page.push_str(&format!("{}\n\n| {} |\n", prose(caption), heads.join(" | ")));
                    page.push_str(&format!("|{}\n", "---|".repeat(heads.len())));
                    for row in rows {
                        let cells: Vec<String> = row.iter().map(|cell| prose(cell)).collect();
                        page.push_str(&format!("| {} |\n", cells.join(" | ")));
                    }
                }
            }
        }
    }
    page
}

/// Text in which names stand in backticks.
fn prose(plain: &str) -> String {
    let pieces: Vec<&str> = plain.split('`').collect();
    let last = pieces.len() - 1;
    let piece = |(at, piece): (usize, &&str)| match at % 2 == 1 && at < last {
        true => code(&piece.replace('|', "\\|")),
        false if at % 2 == 1 => text(&format!("`{piece}")),
        false => text(piece),
    };
    pieces.iter().enumerate().map(piece).collect()
}
