//! The text of a message: words with places such as `{title}`.

use squall_experiments::document::suggest::nearest;

use super::story::Told;

/// What a place may stand for; what a happening does not have is empty.
pub const PLACES: [&str; 17] = [
    "title",
    "text",
    "kind",
    "id",
    "at",
    "experiment",
    "run",
    "verdict",
    "build",
    "by",
    "reason",
    "hosts",
    "tags",
    "fault",
    "schedule",
    "due",
    "url",
];

/// What is sent to people where a receiver has no template.
pub const USUAL: &str = "{title}\n{text}\n{url}";

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Words(String),
    Place(&'static str),
}

/// A template that is understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that nobody knows.
    #[error("there is no place `{{{name}}}`")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A brace that is not closed, or closes nothing.
    #[error("a brace stands alone")]
    Brace,
}

impl TemplateError {
    /// What to do.
    pub fn help(&self) -> String {
        let known = PLACES.map(|place| format!("{{{place}}}")).join(", ");
        match self {
            TemplateError::Unknown { name } => match nearest(name, PLACES) {
                Some(near) => format!("did you mean `{{{near}}}`? known are {known}"),
                None => format!("known are {known}"),
            },
            TemplateError::Brace => format!("write `{{{{` for a brace itself; places are {known}"),
        }
    }
}

impl Template {
    /// Reads a template. `{{` and `}}` are braces.
    pub fn read(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut words = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            words.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                words.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = match (brace, after.split_once('}')) {
                ("{", Some((name, after))) if !name.contains('{') => (name.trim(), after),
                _ => return Err(TemplateError::Brace),
            };
            let known = PLACES.into_iter().find(|place| *place == name);
            let place = known.ok_or_else(|| TemplateError::Unknown { name: name.to_owned() })?;
            parts.push(Part::Words(std::mem::take(&mut words)));
            parts.push(Part::Place(place));
            rest = after;
        }
        words.push_str(rest);
        parts.push(Part::Words(words));
        Ok(Template(parts))
    }

    /// The text for a happening; `escape` is for what stands in the places, which anybody may have written. Lines that come out
    /// empty at the end are left out.
    pub fn fill(&self, told: &Told, escape: impl Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Words(words) => words.clone(),
            Part::Place(place) => escape(told.place(place)),
        };
        self.0.iter().map(part).collect::<String>().trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let facts = [("run", "r1"), ("reason", "a {brace} & <this>")];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Told { title: "It fell".to_owned(), facts, ..Told::default() }
    }

    #[test]
    fn places_are_filled_and_what_stands_in_them_is_escaped_once() {
        let fill = |text: &str| {
            let template = Template::read(text).expect("a template");
            template.fill(&told(), |value| value.replace('&', "&amp;"))
        };
        assert_eq!(fill("{title}: {reason}"), "It fell: a {brace} &amp; <this>");
        assert_eq!(fill("a & b {{run}} { run }"), "a & b {run} r1");
        assert_eq!(fill(USUAL), "It fell", "what a happening does not have leaves no lines");
        assert_eq!(fill(""), "");
    }

    #[test]
    fn what_is_no_template_is_told_with_what_is_known() {
        let error = Template::read("run {rnu} ended").expect_err("there is no such place");
        assert_eq!(error.to_string(), "there is no place `{rnu}`");
        assert!(
            error.help().starts_with("did you mean `{run}`? known are {title}, {text}, "),
            "{}",
            error.help()
        );
        let error = Template::read("{whatever}").expect_err("there is no such place");
        assert!(error.help().starts_with("known are {title}") && error.help().contains("{schedule}"));
        for text in ["{", "}", "{title", "title}", "{ti{tle}", "a {} b {"] {
            Template::read(text).expect_err(text);
        }
    }
}
