//! `squall faults`.

use std::fmt::Write;

use squall_experiments::document::{self, suggest};
use squall_experiments::exit::Exit;
use squall_experiments::faults::{Entry, Kind, Parameter, catalogue};

use super::{Common, Format, print};

/// Options of `squall faults`.
#[derive(Debug, clap::Args)]
pub struct Faults {
    /// Explain this one.
    name: Option<String>,
    /// Print the whole catalogue as docs/faults.md has it.
    #[arg(long, hide = true, conflicts_with = "name")]
    markdown: bool,
}

impl Faults {
    /// Prints the catalogue, or everything about one fault.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let catalogue = catalogue();
        if self.markdown {
            print::result(&markdown(&catalogue))?;
            return Ok(Exit::Held);
        }
        let Some(name) = &self.name else {
            match common.format {
                Format::Json => print::json(&catalogue.iter().map(json).collect::<Vec<_>>())?,
                Format::Human => print::result(&list(&catalogue))?,
            }
            return Ok(Exit::Held);
        };
        let Some(entry) = catalogue.iter().find(|entry| entry.name == name) else {
            eprintln!("error: unknown fault `{name}`");
            match suggest::nearest(name, catalogue.iter().map(|entry| entry.name)) {
                Some(near) => eprintln!("help: did you mean `{near}`?"),
                None => eprintln!("help: `squall faults` lists them"),
            }
            return Ok(Exit::Usage);
        };
        match common.format {
            Format::Json => print::json(&json(entry))?,
            Format::Human => print::result(&explain(entry))?,
        }
        Ok(Exit::Held)
    }
}

fn list(catalogue: &[Entry]) -> String {
    let width = catalogue.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for entry in catalogue {
        let _ = writeln!(out, "{:width$}  {}", entry.name, entry.summary);
    }
    out.push_str("\n`squall faults NAME` explains one, `squall inject NAME --help` shows its flags.\n");
    out
}

fn undone(entry: &Entry) -> &'static str {
    if entry.reversible {
        "yes, and read back"
    } else {
        "no: what it did to the target stays done; nothing of Squall's own stays"
    }
}

/// Whether a parameter must be given, and what applies without it.
fn default(parameter: &Parameter) -> String {
    match (&parameter.default, parameter.path.as_slice()) {
        (Some(default), _) => format!("default `{default}`"),
        (None, [group, _, ..]) if parameter.required => format!("required with `{group}`"),
        (None, _) if parameter.required => "required".to_owned(),
        (None, _) => "optional".to_owned(),
    }
}

/// The meanings of a parameter's words, but only where they have not been said of an earlier parameter.
fn meanings<'p>(parameter: &'p Parameter, said: &mut Vec<&'p Kind>) -> &'p [(String, String)] {
    match &parameter.kind {
        Kind::Word(words) if !said.contains(&&parameter.kind) => {
            said.push(&parameter.kind);
            words
        }
        _ => &[],
    }
}

fn explain(entry: &Entry) -> String {
    let mut out = format!("{}: {}\n", entry.name, entry.summary);
    let _ = writeln!(out, "\n{}", entry.description());
    out.push_str("\nParameters\n");
    let parameters = entry.parameters();
    let mut said = Vec::new();
    for parameter in &parameters {
        let _ = writeln!(out, "  {} [{}]", parameter.name(), default(parameter).replace('`', ""));
        let _ = writeln!(out, "      {}", parameter.description);
        let _ = writeln!(out, "      {}", parameter.words());
        for (word, meaning) in meanings(parameter, &mut said) {
            let _ = writeln!(out, "        {word}: {meaning}");
        }
    }
    let _ = writeln!(out, "\nEngine   {}", entry.engine);
    let _ = writeln!(out, "Undone   {}", undone(entry));
    out.push_str("\nExample\n");
    for line in entry.example.lines() {
        let _ = writeln!(out, "  {line}");
    }
    out
}

fn json(entry: &Entry) -> serde_json::Value {
    let parameters: Vec<_> = entry
        .parameters()
        .iter()
        .map(|parameter| {
            let words = match &parameter.kind {
                Kind::Word(words) => words.iter().map(|(word, _)| word.as_str()).collect(),
                _ => Vec::new(),
            };
            serde_json::json!({
                "name": parameter.name(),
                "flag": format!("--{}", parameter.flag()),
                "description": parameter.description,
                "values": parameter.words(),
                "words": words,
                "list": parameter.list,
                "required": parameter.required,
                "default": parameter.default,
            })
        })
        .collect();
    serde_json::json!({
        "name": entry.name,
        "summary": entry.summary,
        "description": entry.description(),
        "engine": entry.engine,
        "reversible": entry.reversible,
        "parameters": parameters,
        "example": entry.example,
        "schema": entry.schema,
    })
}

/// docs/faults.md.
fn markdown(catalogue: &[Entry]) -> String {
    let mut out = String::from(
        "<!-- Generated by `squall faults --markdown > docs/faults.md`; a test compares. -->\n# Faults\n\n\
         A fault is one key with its parameters, in a step that says how long it lasts (`for:`) and, where that is \
         narrower than the host, whose traffic or processes it concerns (`in:`). Every network fault names its traffic \
         with `to:`, `from:` or `in:`; every process fault names its processes with `in:`. Nothing chosen is an error, \
         never everything.\n\n| fault | what the target experiences | undone |\n|---|---|---|\n",
    );
    for entry in catalogue {
        let undone = if entry.reversible { "yes" } else { "no" };
        let _ = writeln!(out, "| [`{0}`](#{0}) | {1} | {undone} |", entry.name, entry.summary);
    }
    for entry in catalogue {
        let _ = writeln!(out, "\n## {}\n\n{}\n", entry.name, entry.description());
        out.push_str("| parameter | values | given | meaning |\n|---|---|---|---|\n");
        let parameters = entry.parameters();
        let mut said = Vec::new();
        for parameter in &parameters {
            let mut meaning = parameter.description.clone();
            for (word, words) in meanings(parameter, &mut said) {
                let _ = write!(meaning, "<br>`{word}`: {words}");
            }
            let cells = [format!("`{}`", parameter.name()), parameter.words(), default(parameter), meaning];
            let _ = writeln!(out, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        let _ = writeln!(out, "\nEngine: {}.\n\nUndone: {}.\n", entry.engine, undone(entry));
        let _ = writeln!(out, "```yaml\n{}```", entry.example);
    }
    out.push_str(&scopes());
    out
}

/// The part of docs/faults.md on `in:`.
fn scopes() -> String {
    let definitions = &document::schema()["$defs"];
    let text =
        |schema: &serde_json::Value| schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    let mut out = format!("\n## in\n\n{}\n\n| scope | meaning |\n|---|---|\n", text(&definitions["Scope"]));
    for scope in definitions["Scope"]["oneOf"].as_array().into_iter().flatten() {
        let name = scope["required"][0].as_str().unwrap_or_default();
        let _ = writeln!(out, "| `{name}` | {} |", text(scope));
        if name == "process" {
            for (field, schema) in
                definitions["ProcessSelector"]["properties"].as_object().into_iter().flatten()
            {
                let _ = writeln!(out, "| `process: {{ {field}: … }}` | {} |", text(schema));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_documentation_is_the_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/faults.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert!(
            page == markdown(&catalogue()),
            "docs/faults.md is out of date: run `cargo run -- faults --markdown > docs/faults.md`"
        );
    }

    #[test]
    fn the_guide_shows_the_smallest_fault_as_it_is() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let fault = std::fs::read_to_string(format!("{root}/experiments/src/faults/pause.rs")).unwrap();
        let guide = std::fs::read_to_string(format!("{root}/docs/adding-a-fault.md")).unwrap();
        assert!(
            guide.contains(&format!("```rust\n{fault}```")),
            "docs/adding-a-fault.md shows an older `pause.rs`"
        );
    }

    #[test]
    fn one_fault_is_explained_in_full() {
        let entry = catalogue().into_iter().find(|entry| entry.name == "kill").unwrap();
        let text = explain(&entry);
        for part in
            ["then.after [required with then]", "pick [default all]", "Undone   no", "- fault: { kill:"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
