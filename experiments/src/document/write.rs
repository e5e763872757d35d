//! The other way: a value as YAML that people like to read, and that reads back as the same value.

use std::fmt::Write;

use serde_json::Value;

use super::node::Data;
use super::parse::resolve;

/// Block style, two spaces, lists of scalars in one line. Keys keep their order.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    pad(indent, out);
                }
                out.push_str(&word(key));
                out.push(':');
                nested(value, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(indent, out);
                }
                out.push_str("- ");
                match inline(item) {
                    Some(text) => {
                        let _ = writeln!(out, "{text}");
                    }
                    None => block(item, indent + 2, out),
                }
            }
        }
        other => {
            let _ = writeln!(out, "{}", inline(other).unwrap_or_default());
        }
    }
}

/// What stands after a key.
fn nested(value: &Value, indent: usize, out: &mut String) {
    match inline(value) {
        Some(text) => {
            let _ = writeln!(out, " {text}");
        }
        None => {
            out.push('\n');
            pad(indent, out);
            block(value, indent, out);
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Scalars, empty collections and lists of scalars; `None` is anything that needs lines of its own.
fn inline(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("null".to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(word(text)),
        Value::Object(map) => map.is_empty().then(|| "{}".to_owned()),
        Value::Array(items) => {
            let scalar = |item: &Value| match item {
                // In a flow list more characters have a meaning.
                Value::String(text) => Some(quoted(text)),
                Value::Object(_) | Value::Array(_) => None,
                other => inline(other),
            };
            items
                .iter()
                .map(scalar)
                .collect::<Option<Vec<String>>>()
                .map(|items| format!("[{}]", items.join(", ")))
        }
    }
}

/// A text without quotes where that is safe by a wide margin.
fn word(text: &str) -> String {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '/');
    let rest = |c: char| c.is_ascii_alphanumeric() || " /._+%()=-".contains(c);
    let plain = first && text.chars().all(rest) && !text.ends_with(' ') && !text.starts_with("---");
    if plain && matches!(resolve(text), Data::Text(_)) { text.to_owned() } else { quoted(text) }
}

/// JSON's strings are YAML's, but for the line separators that some YAML parsers take for line breaks.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    };
    Value::from(text).to_string().chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::parse::parse;

    #[test]
    fn what_is_written_is_pleasant() {
        let value = json!({
            "squall": 1,
            "hypothesis": [],
            "method": [{ "fault": { "partition": { "to": ["db:1"] } }, "in": { "user": "a b" }, "for": "30s" }, { "wait": "1s" }],
        });
        assert_eq!(
            yaml(&value),
            "\
squall: 1
hypothesis: []
method:
  - fault:
      partition:
        to: [\"db:1\"]
    in:
      user: a b
    for: 30s
  - wait: 1s
"
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        let texts = [
            "",
            " ",
            "a",
            "NO",
            "null",
            "true",
            "1",
            "1.0",
            "0x1f",
            "-",
            "- a",
            "a: b",
            "a:",
            "#x",
            "a #b",
            "${x}",
            "\"",
            "'",
            "a\nb",
            "\t",
            "\u{85}x",
            "\u{2028}",
            "\u{feff}x",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "é",
            "{",
            "[a",
            "a]",
            "...",
            "---",
            "---a",
            "?",
            "=",
            "<<",
            "~",
            "1:30",
            "2026-11-21",
            "a ",
            "-1",
            "/x",
            ".5",
            "\u{7f}",
            "\\",
        ];
        for text in texts {
            for value in [
                json!({ "k": text }),
                json!({ text: "v" }),
                json!([text, [text]]),
                json!([{ text: [text], "k": {} }]),
            ] {
                let written = yaml(&value);
                let (node, problems) = parse(&written, "");
                assert!(problems.is_empty(), "{written}{problems:?}");
                assert_eq!(node.unwrap().value(), value, "{written}");
            }
        }
    }
}
