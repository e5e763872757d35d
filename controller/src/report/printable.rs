//! Keeps a terminal from being driven by what is shown on it: answers of servers, names of processes.

use std::borrow::Cow;

use serde_json::Value;
use squall_experiments::summary::Summary;

/// The text with every control character but line feed and tab replaced.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect())
}

/// The summary with every text made printable.
pub(super) fn summary(summary: &Summary) -> Summary {
    let mut value = serde_json::to_value(summary).unwrap_or_default();
    walk(&mut value);
    serde_json::from_value(value).unwrap_or_else(|_| summary.clone())
}

fn walk(value: &mut Value) {
    match value {
        Value::String(found) => {
            if let Cow::Owned(printable) = text(found) {
                *found = printable;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(map) => map.values_mut().for_each(walk),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(super::text("a\x1b[2Jb\u{9b}c\r"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
        assert_eq!(super::text("a\tb\n"), "a\tb\n");
    }
}
