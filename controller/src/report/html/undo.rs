//! The proof that nothing was left behind.

use std::collections::BTreeSet;

use squall_experiments::protocol::Compared;
use squall_experiments::summary::{Summary, in_words};

use super::markup::Markup;

/// Writes the section.
pub(super) fn undo(page: &mut Markup, summary: &Summary) {
    let injected = summary.parts.iter().any(|part| part.injected_at_ms.is_some());
    page.element("section", &[], |page| {
        page.text("h2", &[], "Undone");
        if !injected && summary.actions.is_empty() {
            page.text("p", &[], "Nothing was done, so there was nothing to undo.");
        }
        let list = |page: &mut Markup, title: &str, items: &[String]| {
            if !items.is_empty() {
                page.text("h3", &[], title);
                page.list(items);
            }
        };
        if !summary.stuck.is_empty() {
            page.text("p", &[("class", "alarm")], "Not everything could be undone.");
        }
        list(page, "Still there", &summary.stuck);
        list(page, "What was undone, and how that was verified", &summary.undone);
        list(page, "Not undone, because it cannot be", &summary.not_undone);
        list(page, "Changed by others meanwhile", &summary.others);
        if let Some(host) = &summary.host {
            compared(page, host);
        } else if injected {
            page.text("p", &[], "The agent's last word was not heard: the host was not compared.");
        }
    });
}

/// What stands in its place while the run goes on.
pub(super) fn later(page: &mut Markup, summary: &Summary) {
    page.element("section", &[], |page| {
        page.text("h2", &[], "Undone");
        let said = match summary.parts.iter().any(|part| part.injected_at_ms.is_some()) {
            true => "What is live is undone at its end, at a halt, or when its lease runs out. The proof stands here then.",
            false => "Nothing was injected so far.",
        };
        page.text("p", &[], said);
        page.list(&summary.undone);
    });
}

fn compared(page: &mut Markup, host: &Compared) {
    page.text("h3", &[], "The host before and after");
    let places = match host.namespaces {
        0 | 1 => String::new(),
        more => format!(" in {more} network namespaces"),
    };
    let changed = match (host.ours, host.others) {
        (0, 0) => "nothing differs".to_owned(),
        (0, others) => format!("nothing of Squall's is left; {others} changed by others"),
        (ours, others) => format!("{ours} LEFT BY SQUALL, {others} changed by others"),
    };
    let took = in_words(host.took_us);
    page.text("p", &[], &format!("{} things compared{places} in {took}: {changed}.", host.things));
    let sections: BTreeSet<&String> = host.before.keys().chain(host.after.keys()).collect();
    let rows: Vec<Vec<String>> = sections
        .into_iter()
        .map(|section| {
            let [before, after] = [&host.before, &host.after].map(|side| side.get(section));
            let same = if before == after { "✓ the same" } else { "✗ differs" };
            let word = |side: Option<&String>| side.cloned().unwrap_or_else(|| "-".to_owned());
            vec![section.clone(), word(before), word(after), same.to_owned()]
        })
        .collect();
    if !rows.is_empty() {
        page.table("Fingerprints: how many things, and a digest", &["section", "before", "after", ""], &rows);
    }
    page.list(&host.notes.iter().map(|note| format!("note: {note}")).collect::<Vec<_>>());
}
