//! Texts of requests of which parts differ from request to request.

use crate::quantity::QuantityError;

/// A text with words in double braces:
///
/// * `{{n}}`: which request to its endpoint it is, from 1;
/// * `{{n % 100}}`: the same, beginning again with 0 at every hundredth: one of a hundred users, by turns;
/// * `{{uuid}}`: a random UUID (version 4, RFC 9562), a new one wherever it stands;
/// * `{{time}}`: milliseconds since the beginning of 1970;
/// * `{{'{{'}}`: two braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Number,
    Turn(u64),
    Uuid,
    Time,
}

/// What a template is filled with.
pub struct Filling<'f> {
    /// Which request to its endpoint it is, from 1.
    pub number: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// 128 random bits, new ones each time.
    pub random: &'f mut dyn FnMut() -> u128,
}

const HELP: &str = "what can stand there is `{{n}}`, `{{n % 100}}`, `{{uuid}}` and `{{time}}`; two braces are written `{{'{{'}}`";

impl Template {
    /// Understands a text; an error names the word that is not known.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            plain.push_str(before);
            if let Some(literal) = after.trim_start().strip_prefix("'{{'")
                && let Some(left) = literal.trim_start().strip_prefix("}}")
            {
                plain.push_str("{{");
                rest = left;
                continue;
            }
            let (word, left) = after
                .split_once("}}")
                .ok_or_else(|| QuantityError::new("`{{` is not closed by `}}`", HELP))?;
            let part = Part::of(word.trim())
                .ok_or_else(|| QuantityError::new(format!("`{{{{{word}}}}}` is not known"), HELP))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
            rest = left;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template(parts))
    }

    /// Whether it is the same for each request.
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The text for one request. What is filled in are letters, digits and `-`.
    pub fn fill(&self, filling: &mut Filling<'_>) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Number => filling.number.to_string(),
            Part::Turn(of) => (filling.number % of).to_string(),
            Part::Uuid => uuid((filling.random)()),
            Part::Time => filling.time_ms.to_string(),
        };
        self.0.iter().map(text).collect()
    }

    /// The text for the first request, with what is random left at zero.
    pub fn example(&self) -> String {
        self.fill(&mut Filling { number: 1, time_ms: 0, random: &mut || 0 })
    }
}

impl Part {
    fn of(word: &str) -> Option<Part> {
        match word {
            "n" => return Some(Part::Number),
            "uuid" => return Some(Part::Uuid),
            "time" => return Some(Part::Time),
            _ => {}
        }
        let of: u64 = word.strip_prefix('n')?.trim_start().strip_prefix('%')?.trim().parse().ok()?;
        (of > 0).then_some(Part::Turn(of))
    }
}

/// Random bits as a UUID of version 4 (RFC 9562, 5.4).
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, number: u64) -> String {
        let mut random = || u128::MAX;
        let template = Template::parse(text).unwrap();
        template.fill(&mut Filling { number, time_ms: 1700, random: &mut random })
    }

    #[test]
    fn words_are_filled_in_and_nothing_else() {
        let json = r#"{"id":{{n}},"at":{"ms":{{ time }}}}"#;
        assert_eq!(filled(json, 7), r#"{"id":7,"at":{"ms":1700}}"#);
        assert_eq!(filled("/user/{{n % 3}}?{{n%10}}", 23), "/user/2?3");
        assert_eq!(filled("{{uuid}}", 1), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(filled("a{b}}{c", 1), "a{b}}{c");
        assert_eq!(filled("{{'{{'}}n}}{{n}}", 5), "{{n}}5");
        assert!(Template::parse("{ plain }").unwrap().is_fixed());
        assert!(!Template::parse("{{n}}").unwrap().is_fixed());
        assert_eq!(
            Template::parse("{{n}}{{uuid}}").unwrap().example(),
            "100000000-0000-4000-8000-000000000000"
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in ["{{m}}", "{{}}", "{{n % 0}}", "{{n % x}}", "{{n / 2}}", "{{N}}"] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.what.contains(text) && error.help.unwrap().contains("{{uuid}}"), "{text}");
        }
        assert_eq!(Template::parse("{{n").unwrap_err().what, "`{{` is not closed by `}}`");
    }
}
