//! JUnit XML, for pipelines that show tests: one case for each hypothesis, one for each fault ("measured"), and one
//! for the run itself, so that a run that was refused or interrupted is never green.

use quick_xml::events::{BytesDecl, BytesText, Event};
use quick_xml::writer::Writer;
use squall_experiments::exit::Exit;
use squall_experiments::summary::{Claim, Part, Summary};
use squall_experiments::verdict::Outcome;

/// How a test case ended.
enum Case {
    Passed,
    /// The statement is known to be false.
    Failed(String),
    /// Nothing can be said.
    Error(String),
    Skipped(String),
}

/// One test case.
struct Tested {
    class: &'static str,
    name: String,
    case: Case,
    /// Shown whatever came out.
    figures: String,
}

/// The document. `Err` never happens: it is written to memory.
pub fn junit(summary: &Summary) -> std::io::Result<String> {
    let case = |class, name, case| Tested { class, name, case, figures: String::new() };
    let mut cases = vec![case("run", summary.title.clone(), run(summary))];
    let hypotheses = summary.hypotheses.iter();
    cases.extend(hypotheses.map(|claim| Tested {
        figures: figures(claim),
        ..case("hypothesis", claim.name.clone(), hypothesis(claim))
    }));
    let parts = summary.parts.iter();
    cases.extend(parts.map(|part| case("fault", format!("{} is measured", part.name), fault(part))));

    let count =
        |wanted: fn(&Case) -> bool| cases.iter().filter(|tested| wanted(&tested.case)).count().to_string();
    let totals = [
        ("tests", cases.len().to_string()),
        ("failures", count(|case| matches!(case, Case::Failed(_)))),
        ("errors", count(|case| matches!(case, Case::Error(_)))),
        ("skipped", count(|case| matches!(case, Case::Skipped(_)))),
        ("time", format!("{:.3}", summary.took_ms as f64 / 1000.0)),
    ];
    let totals = || totals.iter().map(|(key, value)| (*key, value.as_str()));
    let title = legal(&summary.title);
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let suites = writer.create_element("testsuites").with_attribute(("name", "squall"));
    suites.with_attributes(totals()).write_inner_content(|writer| {
        let suite = writer.create_element("testsuite").with_attribute(("name", title.as_str()));
        let suite = suite.with_attributes(totals()).with_attribute(("timestamp", summary.date.as_str()));
        suite.write_inner_content(|writer| {
            let property = |writer: &mut Writer<Vec<u8>>, name: &str, value: &str| {
                let element = writer.create_element("property");
                let element = element.with_attribute(("name", name)).with_attribute(("value", value));
                element.write_empty().map(drop)
            };
            writer.create_element("properties").write_inner_content(|writer| {
                property(writer, "run", &summary.run.0)?;
                property(writer, "seed", &summary.seed.to_string())?;
                property(writer, "plan", &summary.plan)?;
                property(writer, "exit", &(summary.exit as u8).to_string())
            })?;
            cases.iter().try_for_each(|tested| write(writer, tested))
        })?;
        Ok(())
    })?;
    let mut text = String::from_utf8(writer.into_inner()).map_err(std::io::Error::other)?;
    text.push('\n');
    Ok(text)
}

fn write(writer: &mut Writer<Vec<u8>>, tested: &Tested) -> std::io::Result<()> {
    let name = legal(&tested.name);
    let element = writer.create_element("testcase");
    let element = element.with_attribute(("classname", tested.class)).with_attribute(("name", name.as_str()));
    let ended = match &tested.case {
        Case::Passed => None,
        Case::Failed(why) => Some(("failure", legal(why))),
        Case::Error(why) => Some(("error", legal(why))),
        Case::Skipped(why) => Some(("skipped", legal(why))),
    };
    if ended.is_none() && tested.figures.is_empty() {
        return element.write_empty().map(drop);
    }
    element
        .write_inner_content(|writer| {
            if let Some((tag, why)) = &ended {
                let element = writer.create_element(*tag).with_attribute(("message", why.as_str()));
                element.write_text_content(BytesText::new(why))?;
            }
            if !tested.figures.is_empty() {
                let figures = legal(&tested.figures);
                writer.create_element("system-out").write_text_content(BytesText::new(&figures))?;
            }
            Ok(())
        })
        .map(drop)
}

/// What the requests of a load came to, a line for each phase.
fn figures(claim: &Claim) -> String {
    let phases = [("before", &claim.before), ("during", &claim.during), ("after", &claim.after)];
    let lines = phases.into_iter().filter_map(|(phase, figures)| {
        let load = figures.load.as_ref()?;
        Some(format!("{phase}: {load}\n"))
    });
    lines.collect()
}

fn run(summary: &Summary) -> Case {
    let sentence = summary.sentence.clone();
    match summary.exit {
        Exit::Held => Case::Passed,
        Exit::Deviated | Exit::Modified => Case::Failed(sentence),
        _ => Case::Error(sentence),
    }
}

fn hypothesis(claim: &Claim) -> Case {
    let before = claim.before.bad_in_words();
    match &claim.judgement {
        None if before.is_empty() => Case::Skipped("the run did not get that far".to_owned()),
        None => Case::Error(format!("before anything was done: {before}")),
        Some(judgement) => match (judgement.outcome, claim.recovered) {
            (Outcome::Deviated, _) => {
                Case::Failed(format!("{} ({})", judgement.why, claim.during.bad_in_words()))
            }
            (_, Some(false)) => Case::Failed("did not hold again in time after the revert".to_owned()),
            (Outcome::Inconclusive | Outcome::NoData | Outcome::NotSteady, _) => {
                Case::Error(judgement.why.clone())
            }
            (Outcome::Held, _) => Case::Passed,
        },
    }
}

fn fault(part: &Part) -> Case {
    match (part.injected_at_ms, part.measured) {
        (None, _) => Case::Skipped("it was not injected".to_owned()),
        (Some(_), true) => Case::Passed,
        (Some(_), false) => Case::Error(part.evidence_in_words()),
    }
}

/// XML 1.0 has no place for control characters, not even escaped.
fn legal(text: &str) -> String {
    let allowed =
        |c: char| c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}') || matches!(c, '\t' | '\n' | '\r');
    text.chars().map(|c| if allowed(c) { c } else { '\u{fffd}' }).collect()
}
