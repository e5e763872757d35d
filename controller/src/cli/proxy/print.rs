//! How proxies and toxics are printed: tables for people, lines with tabs for programs, JSON for who asks for it.

use std::io::{self, IsTerminal};

use serde_json::Value;

use super::super::{Common, Format, print};

/// One line for each proxy.
pub(super) fn proxies(proxies: &Value, common: &Common) -> anyhow::Result<()> {
    if common.format == Format::Json {
        return print::json(proxies);
    }
    let rows: Vec<Vec<String>> =
        proxies.as_object().into_iter().flatten().map(|(_, proxy)| row(proxy)).collect();
    if !io::stdout().is_terminal() {
        let lines: String = rows.iter().map(|row| row.join("\t") + "\n").collect();
        return Ok(print::result(&lines)?);
    }
    if rows.is_empty() {
        return Ok(print::result("no proxies\n")?);
    }
    let head = ["Name", "Listen", "Upstream", "Enabled", "Toxics"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().enumerate().map(|(at, cell)| format!("{cell:<width$}", width = width(at))).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    Ok(print::result(&text)?)
}

fn row(proxy: &Value) -> Vec<String> {
    let text = |name: &str| proxy[name].as_str().unwrap_or_default().to_owned();
    let state = if proxy["enabled"] == true { "enabled" } else { "disabled" };
    let toxics = proxy["toxics"].as_array().map_or(0, Vec::len);
    vec![text("name"), text("listen"), text("upstream"), state.to_owned(), toxics.to_string()]
}

/// A proxy and its toxics.
pub(super) fn proxy(proxy: &Value, common: &Common) -> anyhow::Result<()> {
    if common.format == Format::Json {
        return print::json(proxy);
    }
    let terminal = io::stdout().is_terminal();
    let mut text = String::new();
    if terminal {
        let row = row(proxy);
        text += &format!("{}: {} -> {}, {}\n", row[0], row[1], row[2], row[3]);
    }
    for toxic in proxy["toxics"].as_array().into_iter().flatten() {
        let word = |name: &str| toxic[name].as_str().unwrap_or_default();
        let toxicity = toxic["toxicity"].as_f64().unwrap_or_default();
        let attributes = toxic["attributes"].as_object().into_iter().flatten();
        let attributes: Vec<String> = attributes.map(|(name, value)| format!("{name}={value}")).collect();
        let (name, kind, stream) = (word("name"), word("type"), word("stream"));
        text += &if terminal {
            format!("  {name}: {kind} {stream}, toxicity {toxicity:.2}, {}\n", attributes.join(" "))
        } else {
            let attributes: String = attributes.iter().map(|attribute| format!("{attribute}\t")).collect();
            format!(
                "{name}\ttype={kind}\tstream={stream}\ttoxicity={toxicity:.2}\tattributes=[\t{attributes}]\n"
            )
        };
    }
    Ok(print::result(&text)?)
}

/// That something was done; who wants JSON is shown the thing itself.
pub(super) fn done(words: &str, thing: &Value, common: &Common) -> anyhow::Result<()> {
    match common.format {
        Format::Json => print::json(thing),
        Format::Human => Ok(print::result(&format!("{words}\n"))?),
    }
}
