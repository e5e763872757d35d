//! What was asked of each fault, and what was measured of it; and what the user's own actions came to.

use squall_experiments::evidence::Evidence;
use squall_experiments::summary::{Part, Summary, in_words, seconds};

use super::markup::Markup;

/// Writes the sections.
pub(super) fn faults(page: &mut Markup, summary: &Summary, ended: bool) {
    if !summary.parts.is_empty() {
        page.element("section", &[], |page| {
            page.text("h2", &[], "Faults: asked and measured");
            summary.parts.iter().for_each(|part| page.element("article", &[], |page| one(page, part, ended)));
        });
    }
    if !summary.actions.is_empty() {
        page.element("section", &[], |page| {
            page.text("h2", &[], "Actions of the experiment's own");
            let said = summary.actions.iter().map(|action| {
                let how = match action.good {
                    Some(true) => "succeeded",
                    Some(false) => "failed",
                    None => "its end was not seen",
                };
                let seen = action.seen.as_ref().map_or_else(String::new, |seen| format!(": {seen}"));
                format!("`{}` {how}{seen}", action.name)
            });
            page.list(&said.collect::<Vec<_>>());
        });
    }
}

fn one(page: &mut Markup, part: &Part, ended: bool) {
    page.element("h3", &[], |page| {
        page.text("bdi", &[], &part.name);
        page.words(" ");
        let (tone, word) = match (part.injected_at_ms, part.measured) {
            (None, _) if ended => ("unclear", "not injected"),
            (None, _) => ("unclear", "being injected"),
            (Some(_), true) => ("held", "✓ measured"),
            (Some(_), false) if !ended => ("unclear", "not measured yet"),
            (Some(_), false) => ("unclear", "NOT measured"),
        };
        page.text("span", &[("class", &format!("badge {tone}"))], word);
    });
    page.element("dl", &[("class", "pairs")], |page| {
        let asked: Vec<&str> = part.changes.iter().map(|change| change.what.as_str()).collect();
        page.fact("asked", &format!("{} for {}", asked.join("; "), seconds(part.lasts_ms)));
        if let Some(from) = part.injected_at_ms {
            let lasted = part.lifted_at_ms.map_or_else(
                || if ended { "its end is not known" } else { "live" }.to_owned(),
                |to| format!("live for {}", seconds(to.saturating_sub(from))),
            );
            let made = part.apply_us.map_or_else(String::new, |us| format!(", made in {}", in_words(us)));
            let undone = part.lift_us.filter(|_| !part.undone.is_empty());
            let undone = undone.map_or_else(String::new, |us| format!(", undone in {}", in_words(us)));
            page.fact("done", &format!("at {:.2} s, {lasted}{made}{undone}", from as f64 / 1000.0));
            page.fact("measured", &part.evidence_in_words());
        }
        let targets: Vec<&str> = part.targets.iter().take(20).map(String::as_str).collect();
        let more = part.targets.len().saturating_sub(targets.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        page.fact("aimed at", &format!("{}{more}", targets.join(", ")));
    });
    let deeds: Vec<String> = part.evidence.iter().flat_map(Evidence::deeds).collect();
    page.list(&deeds);
    let notes = part.evidence.iter().flat_map(|evidence| &evidence.notes);
    let notes: Vec<String> = part.notes.iter().chain(notes).map(|note| format!("note: {note}")).collect();
    page.list(&notes);
}
