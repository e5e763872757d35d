//! JUnit XML, for pipelines that show tests: a suite for each experiment, with one case for the experiment itself, so that
//! one that was refused or interrupted is never green, and for each of its runs one for each hypothesis, each
//! comparison with an earlier run, each guard and each fault ("measured").

use quick_xml::events::{BytesDecl, BytesText, Event};
use quick_xml::writer::Writer;
use squall_experiments::exit::Exit;
use squall_experiments::suite::{Ran, Suite, Tested};
use squall_experiments::summary::{Claim, Comparison, Guard, Part, Trend};
use squall_experiments::verdict::Outcome;

use super::figures::{of_claim, of_part};

/// How a test case ended.
enum Ended {
    Passed,
    /// The statement is known to be false.
    Failed(String),
    /// Nothing can be said.
    Error(String),
    Skipped(String),
}

/// One test case.
struct Case {
    class: String,
    name: String,
    ended: Ended,
    /// Shown whatever came out.
    evidence: Vec<String>,
}

/// The document. `Err` never happens: it is written to memory.
pub fn junit(suite: &Suite) -> std::io::Result<String> {
    let experiments: Vec<(&Tested, Vec<Case>)> =
        suite.experiments.iter().map(|tested| (tested, cases(tested))).collect();
    let all = totals(experiments.iter().flat_map(|(_, cases)| cases), suite.took_ms);
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let suites = writer.create_element("testsuites").with_attribute(("name", "squall"));
    let suites = suites.with_attributes(all.iter().map(|(key, value)| (*key, value.as_str())));
    suites.write_inner_content(|writer| {
        experiments.iter().try_for_each(|(tested, cases)| experiment(writer, tested, cases, &suite.date))
    })?;
    let mut text = String::from_utf8(writer.into_inner()).map_err(std::io::Error::other)?;
    text.push('\n');
    Ok(text)
}

fn experiment(
    writer: &mut Writer<Vec<u8>>,
    tested: &Tested,
    cases: &[Case],
    date: &str,
) -> std::io::Result<()> {
    let took_ms = tested.runs.iter().map(|ran| ran.summary.took_ms).sum();
    let own = totals(cases.iter(), took_ms);
    let title = legal(&tested.subject.title);
    let date = tested.runs.first().map_or(date, |ran| ran.summary.date.as_str());
    let suite = writer.create_element("testsuite").with_attribute(("name", title.as_str()));
    let suite = suite.with_attributes(own.iter().map(|(key, value)| (*key, value.as_str())));
    let mut properties: Vec<(&str, String)> = Vec::new();
    if !tested.subject.file.is_empty() {
        properties.push(("file", tested.subject.file.clone()));
    }
    for ran in &tested.runs {
        properties.push(("run", ran.summary.run.0.clone()));
        properties.push(("seed", ran.summary.seed.to_string()));
        properties.push(("plan", ran.summary.plan.clone()));
    }
    properties.extend(tested.exit.map(|exit| ("exit", (exit as u8).to_string())));
    suite
        .with_attribute(("timestamp", date))
        .write_inner_content(|writer| {
            if !properties.is_empty() {
                writer.create_element("properties").write_inner_content(|writer| {
                    properties.iter().try_for_each(|(name, value)| {
                        let element = writer.create_element("property").with_attribute(("name", *name));
                        let value = legal(value);
                        element.with_attribute(("value", value.as_str())).write_empty().map(drop)
                    })
                })?;
            }
            cases.iter().try_for_each(|case| write(writer, case))
        })
        .map(drop)
}

fn totals<'c>(cases: impl Iterator<Item = &'c Case> + Clone, took_ms: u64) -> [(&'static str, String); 5] {
    let count =
        |wanted: fn(&Ended) -> bool| cases.clone().filter(|case| wanted(&case.ended)).count().to_string();
    [
        ("tests", count(|_| true)),
        ("failures", count(|ended| matches!(ended, Ended::Failed(_)))),
        ("errors", count(|ended| matches!(ended, Ended::Error(_)))),
        ("skipped", count(|ended| matches!(ended, Ended::Skipped(_)))),
        ("time", format!("{:.3}", took_ms as f64 / 1000.0)),
    ]
}

fn cases(tested: &Tested) -> Vec<Case> {
    let whole = Case {
        class: "run".to_owned(),
        name: tested.subject.title.clone(),
        ended: run(tested),
        evidence: tested.story.iter().map(|story| format!("history: {story}")).collect(),
    };
    let runs = (1..).zip(&tested.runs).flat_map(|(number, ran)| {
        let time = match tested.repeats {
            1 => String::new(),
            repeats => format!(" (run {number} of {repeats})"),
        };
        let case = move |class: &str, name: String, ended, evidence| Case {
            class: format!("{class}{time}"),
            name,
            ended,
            evidence,
        };
        let summary = &ran.summary;
        let claims = summary.hypotheses.iter();
        let mut cases: Vec<Case> = claims
            .map(|claim| {
                let ended = because(hypothesis(claim, ran), ran, &claim.name);
                case("hypothesis", claim.name.clone(), ended, of_claim(claim))
            })
            .collect();
        cases.extend(summary.regression.iter().flat_map(|regression| {
            regression.comparisons.iter().map(|compared| {
                let name = format!("{}, {}", compared.claim, compared.aspect.word());
                let evidence = vec![
                    format!("run {} of {}: {}", regression.run, regression.date, compared.earlier),
                    format!("this run: {}", compared.now),
                ];
                case("regression", name, trend(compared), evidence)
            })
        }));
        cases.extend(summary.guards.iter().map(|watched| {
            let tally = watched.samples;
            let evidence = vec![format!("{} of {} samples good", tally.good, tally.total())];
            case("guard", watched.name.clone(), because(guard(watched), ran, &watched.name), evidence)
        }));
        cases.extend(
            summary
                .parts
                .iter()
                .map(|part| case("fault", format!("{} is measured", part.name), fault(part), of_part(part))),
        );
        cases
    });
    std::iter::once(whole).chain(runs).collect()
}

fn write(writer: &mut Writer<Vec<u8>>, case: &Case) -> std::io::Result<()> {
    let (class, name) = (legal(&case.class), legal(&case.name));
    let element = writer.create_element("testcase");
    let element =
        element.with_attribute(("classname", class.as_str())).with_attribute(("name", name.as_str()));
    let ended = match &case.ended {
        Ended::Passed => None,
        Ended::Failed(why) => Some(("failure", legal(why))),
        Ended::Error(why) => Some(("error", legal(why))),
        Ended::Skipped(why) => Some(("skipped", legal(why))),
    };
    if ended.is_none() && case.evidence.is_empty() {
        return element.write_empty().map(drop);
    }
    element
        .write_inner_content(|writer| {
            if let Some((tag, why)) = &ended {
                let element = writer.create_element(*tag).with_attribute(("message", why.as_str()));
                element.write_text_content(BytesText::new(why))?;
            }
            if !case.evidence.is_empty() {
                let evidence: String = case.evidence.iter().map(|line| format!("{line}\n")).collect();
                let evidence = legal(&evidence);
                writer.create_element("system-out").write_text_content(BytesText::new(&evidence))?;
            }
            Ok(())
        })
        .map(drop)
}

fn run(tested: &Tested) -> Ended {
    let sentence = tested.sentence.clone();
    match tested.exit {
        None => Ended::Skipped(sentence),
        Some(Exit::Held) => Ended::Passed,
        Some(Exit::Deviated | Exit::Modified) => Ended::Failed(sentence),
        Some(_) => Ended::Error(sentence),
    }
}

fn hypothesis(claim: &Claim, ran: &Ran) -> Ended {
    let before = claim.before.bad_in_words();
    match &claim.judgement {
        None if before.is_empty() => Ended::Skipped("the run did not get that far".to_owned()),
        None => Ended::Error(format!("before anything was done: {before}")),
        Some(judgement) => match (judgement.outcome, claim.recovered) {
            (Outcome::Deviated, _) if ran.may_be_chance => {
                Ended::Error(format!("{}; by chance among so many runs", judgement.why))
            }
            (Outcome::Deviated, _) => {
                Ended::Failed(format!("{} ({})", judgement.why, claim.during.bad_in_words()))
            }
            (_, Some(false)) => Ended::Failed("did not hold again in time after the revert".to_owned()),
            (Outcome::Inconclusive | Outcome::NoData | Outcome::NotSteady, _) => {
                Ended::Error(judgement.why.clone())
            }
            (Outcome::Held, _) => Ended::Passed,
        },
    }
}

/// What passed by itself, and for which the run did not hold all the same: it was well again too late, say, or its budget is spent.
fn because(ended: Ended, ran: &Ran, name: &str) -> Ended {
    match (&ended, ran.summary.reason_about(name)) {
        (Ended::Passed | Ended::Skipped(_) | Ended::Error(_), Some(reason))
            if reason.exit == Exit::Deviated && !ran.may_be_chance =>
        {
            Ended::Failed(reason.what.clone())
        }
        (Ended::Passed, Some(reason)) => Ended::Error(reason.what.clone()),
        _ => ended,
    }
}

/// That a run cannot be told from an earlier one is no failure of it.
fn trend(compared: &Comparison) -> Ended {
    match compared.trend {
        Trend::Worse => Ended::Failed(compared.why.clone()),
        Trend::NoData => Ended::Skipped(compared.why.clone()),
        _ => Ended::Passed,
    }
}

fn guard(guard: &Guard) -> Ended {
    guard.tripped.clone().map_or(Ended::Passed, Ended::Failed)
}

fn fault(part: &Part) -> Ended {
    match (part.injected_at_ms, part.measured) {
        (None, _) => Ended::Skipped("it was not injected".to_owned()),
        (Some(_), true) => Ended::Passed,
        (Some(_), false) => Ended::Error(part.evidence_in_words()),
    }
}

/// XML 1.0 has no place for control characters, not even escaped.
fn legal(text: &str) -> String {
    let allowed =
        |c: char| c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}') || matches!(c, '\t' | '\n' | '\r');
    text.chars().map(|c| if allowed(c) { c } else { '\u{fffd}' }).collect()
}
