//! Secrets: used where they stand, shown nowhere.

use std::borrow::Cow;

/// Replaces every known secret by `‹secret:NAME›`, by its value, wherever it stands.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Redactor {
    /// Needle and name, the longest first, so that a secret that contains another is replaced as a whole.
    needles: Vec<(String, String)>,
}

/// A shorter value would be found in words that have nothing to do with it.
pub const SHORTEST_SECRET: usize = 4;

impl Redactor {
    /// Know a secret, and its form inside of JSON text. Values below [`SHORTEST_SECRET`] bytes are ignored; `read`
    /// refuses them.
    pub fn learn(&mut self, name: &str, value: &str) {
        if value.len() < SHORTEST_SECRET {
            return;
        }
        let json = serde_json::Value::from(value).to_string();
        let json = json[1..json.len() - 1].to_owned();
        for needle in [value.to_owned(), json] {
            if !self.needles.iter().any(|(known, _)| *known == needle) {
                self.needles.push((needle, name.to_owned()));
            }
        }
        self.needles.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
    }

    /// Whether nothing is secret.
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// The text without any secret.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (needle, name) in &self.needles {
            if text.contains(needle.as_str()) {
                text = Cow::Owned(text.replace(needle.as_str(), &format!("‹secret:{name}›")));
            }
        }
        text
    }

    /// The text with every secret overwritten byte by byte, so that offsets and lines stay right.
    pub(super) fn redact_in_place(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (needle, _) in &self.needles {
            let stars = |c: char| std::iter::repeat_n(if c == '\n' { c } else { '*' }, c.len_utf8());
            let mask: String = needle.chars().flat_map(stars).collect();
            text = text.replace(needle.as_str(), &mask);
        }
        text
    }

    /// Every text of a JSON value, keys too, without any secret.
    pub fn redact_value(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => {
                if let Cow::Owned(redacted) = self.redact(text) {
                    *text = redacted;
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| self.redact_value(item)),
            serde_json::Value::Object(map) => {
                for (key, mut value) in std::mem::take(map) {
                    self.redact_value(&mut value);
                    map.insert(self.redact(&key).into_owned(), value);
                }
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.needles.iter().map(|(_, name)| name.as_str()).collect();
        f.debug_tuple("Redactor").field(&names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_by_value_in_text_and_in_json() {
        let mut redactor = Redactor::default();
        redactor.learn("A", "hunter2");
        redactor.learn("B", "hunter2-and-\"more\"");
        assert_eq!(redactor.redact("x hunter2-and-\"more\" y hunter2"), "x ‹secret:B› y ‹secret:A›");
        assert_eq!(redactor.redact(r#"{"k":"hunter2-and-\"more\""}"#), r#"{"k":"‹secret:B›"}"#);
        assert!(!format!("{redactor:?}").contains("hunter"));

        let mut value = serde_json::json!({ "hunter2": ["Bearer hunter2", 5] });
        redactor.redact_value(&mut value);
        assert_eq!(value.to_string(), r#"{"‹secret:A›":["Bearer ‹secret:A›",5]}"#);
    }

    #[test]
    fn redaction_in_place_keeps_offsets() {
        let mut redactor = Redactor::default();
        redactor.learn("A", "pässword");
        redactor.learn("B", "-----BEGIN\nKEY");
        assert_eq!(redactor.redact_in_place("a: pässword # b"), "a: ********* # b");
        assert_eq!(redactor.redact_in_place("-----BEGIN\nKEY"), "**********\n***");
    }
}
