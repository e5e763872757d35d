use std::path::Path;

use serde_json::json;
use squall_experiments::document::Places;
use squall_experiments::exit::Exit;
use squall_experiments::run::{Event, Record, State, next};
use squall_experiments::suite::{Subject, Suite, Tested};
use squall_experiments::summary::{Reason, Summary};
use squall_experiments::verdict::{Judgement, Outcome};

use super::progress::Shown;
use super::*;
use crate::conductor::Tell;

fn log() -> Vec<Record> {
    let text = include_str!("run.ndjson");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn summary() -> Summary {
    Summary::of(&log()).unwrap()
}

/// A suite of these runs, each of an experiment of its own.
fn suite_of(summaries: Vec<Summary>) -> Suite {
    let tested = summaries.into_iter().enumerate().map(|(at, summary)| {
        let subject = Subject {
            title: summary.title.clone(),
            file: format!("chaos/{at}.yaml"),
            hash: "h".to_owned(),
            weight: 1,
            places: Places { hypotheses: vec![4, 9], guards: vec![30], faults: vec![20, 25] },
        };
        Tested::of(subject, 1, vec![(summary, Some("/tmp/run.ndjson".to_owned()))])
    });
    Suite::of(tested.collect(), "2026-11-21T10:51:12Z", 4200, None, None)
}

fn junit_of(summary: Summary) -> String {
    junit(&suite_of(vec![summary])).unwrap()
}

#[test]
fn the_report_on_a_terminal() {
    let text = human(&summary(), Some(Path::new("/tmp/run.ndjson")), Paint::OFF);
    assert_eq!(text, include_str!("human.txt"), "the report is:\n{text}");
}

#[test]
fn a_run_that_did_nothing_says_that_nothing_is_left() {
    let log = log();
    let mut cut = log[..3].to_vec();
    cut.push(Record {
        at_ms: 5,
        event: Event::BaselineNotMet { name: "site is up".to_owned(), seen: "503".to_owned() },
    });
    let text = human(&Summary::of(&cut).unwrap(), None, Paint::OFF);
    assert!(text.contains("Not undone\n  nothing: nothing was done\n"), "{text}");
    assert!(text.ends_with(
        "refused: `site is up` did not hold before anything was done: 503; nothing was injected (exit 4)\n"
    ));
}

#[test]
fn the_json_document_names_everything_and_reads_back() {
    let document: serde_json::Value =
        serde_json::from_str(&json(&summary(), Some(Path::new("/tmp/e")), Some("held twice"))).unwrap();
    assert_eq!(document["exit"], 5);
    assert_eq!(document["verdict"], "deviated");
    assert_eq!(document["seed"], 7);
    assert_eq!(document["events"], "/tmp/e");
    assert_eq!(document["hypotheses"][0]["during"]["bad"], 3);
    assert_eq!(document["hypotheses"][0]["during"]["bad_seen"][0]["seen"], "timed out after 1s");
    assert_eq!(document["parts"][0]["evidence"][0]["impaired"], 14);
    assert_eq!(document["parts"][1]["measured"], false);
    assert_eq!(document["undone"][0], "4 rules removed, none left");
    assert_eq!(document["story"], "held twice");
    assert_eq!(serde_json::from_value::<Summary>(document).unwrap(), summary());
    let without: serde_json::Value = serde_json::from_str(&json(&summary(), None, None)).unwrap();
    assert!(without["events"].is_null());
}

#[test]
fn junit_has_a_case_for_the_run_each_hypothesis_and_each_fault() {
    let text = junit_of(summary());
    assert!(text.contains(r#"tests="5" failures="2" errors="1" skipped="0" time="3.221""#), "{text}");
    assert!(text.contains(r#"<testcase classname="run" name="Checkout survives">"#));
    assert!(text.contains(r#"<testcase classname="hypothesis" name="checkout answers">"#));
    assert!(text.contains(r#"<testcase classname="fault" name="payments is silent is measured">"#));
    assert!(text.contains(r#"<error message="0 of 0 matching processes impaired">"#));
    // What a server answered must not break the document.
    assert!(text.contains("1 × 503 &lt;busy&gt; &amp; \u{fffd})</failure>"), "{text}");
    let mut reader = quick_xml::Reader::from_str(&text);
    while !matches!(reader.read_event().unwrap(), quick_xml::events::Event::Eof) {}
}

/// The log with a load in it: two ticks of 50 requests before the fault, one with errors during it.
fn with_load() -> Vec<Record> {
    let mut log = log();
    if let Event::Started(started) = &mut log[0].event {
        let mut load = started.hypotheses[0].clone();
        load.name = "checkout is fast".to_owned();
        started.hypotheses.push(load);
    }
    let tick = |at_ms: u64, phase: &str, failed: u64| {
        let errors = json!([{ "seen": "connection refused", "times": failed }]);
        let load = json!({
            "requests": 50, "errors": if failed > 0 { errors } else { json!([]) },
            "latency": [[1_003_519, 40 - failed], [11_993_087, 10]], "late": [[40_191, 50]],
            "missed": if failed > 0 { json!(["errors <= 1%"]) } else { json!([]) },
        });
        let seen = json!({
            "at_ms": at_ms, "event": "sample", "name": "checkout is fast", "phase": phase, "good": failed == 0,
            "begun_ms": at_ms, "took_us": 1_000_000, "seen": "50 requests", "load": load,
        });
        serde_json::from_value::<Record>(seen).unwrap()
    };
    log.insert(3, tick(4, "baseline", 0));
    log.insert(4, tick(4, "baseline", 0));
    log.insert(9, tick(1009, "during", 20));
    log
}

#[test]
fn a_load_is_reported_with_its_figures() {
    let log = with_load();
    let summary = Summary::of(&log).unwrap();
    let before = "before: 100 requests, 0 errors; p50 1.0 ms, p90 12.0 ms, p99 12.0 ms, max 12.0 ms";
    let during = "during: 50 requests, 20 errors (20 × connection refused); p50 12.0 ms, p90 no answer, p99 no answer, \
                  max 12.0 ms";
    let text = human(&summary, None, Paint::OFF);
    assert!(
        text.contains(&format!("    {before}\n    {during}\n    during: 1 × missed errors <= 1%\n")),
        "{text}"
    );
    let text = junit_of(summary.clone());
    assert!(text.contains(&format!("<system-out>{before}\n{during}\n</system-out>")), "{text}");
    let document: serde_json::Value = serde_json::from_str(&super::json(&summary, None, None)).unwrap();
    let load = &document["hypotheses"][1]["during"]["load"];
    assert_eq!((&load["requests"], &load["failed"]), (&json!(50), &json!(20)));
    assert_eq!((&load["p50_us"], &load["p99_us"]), (&json!(11_994), &json!(null)));
    assert!(document["hypotheses"][0]["during"]["load"].is_null(), "other probes have none");
    let live = told_of(&log, true);
    assert!(live.contains("checkout is fast 2/2 p99 12.0 ms"), "{live}");
    assert!(live.contains("checkout is fast 0/1 p99 no answer"), "{live}");
}

#[test]
fn what_passed_by_itself_and_kept_the_run_from_holding_is_named_by_every_report() {
    let mut late = summary();
    let name = late.hypotheses[0].name.clone();
    let held = Judgement { outcome: Outcome::Held, why: "0 of 9 bad".to_owned() };
    late.hypotheses[0].judgement = Some(held);
    late.hypotheses[0].recovered = Some(true);
    let what = format!("`{name}` was well again 16 s after the fault ended, not within 10 s");
    late.exit = Exit::Deviated;
    late.reasons = vec![Reason::new(Exit::Deviated, what.clone()).about(&name)];
    let suite = suite_of(vec![late]);
    let cases = junit(&suite).unwrap();
    let (_, case) = cases.split_once("classname=\"hypothesis\"").unwrap();
    let (case, _) = case.split_once("</testcase>").unwrap();
    assert!(case.contains("<failure message=") && case.contains("not within 10 s"), "{case}");
    let told = annotations(&suite);
    assert!(told.contains("::error file=chaos/0.yaml,line=4,") && told.contains(&what), "{told}");
}

#[test]
fn junit_of_a_refused_run_is_not_green() {
    let mut log = log();
    log.truncate(4);
    log.push(Record { at_ms: 9, event: Event::Interrupted { by: "SIGINT".to_owned() } });
    let text = junit_of(Summary::of(&log).unwrap());
    assert!(text.contains(r#"failures="0" errors="1" skipped="1""#), "{text}");
    assert!(text.contains("<skipped message=\"the run did not get that far\">"), "{text}");
}

fn told(live: bool) -> String {
    told_of(&log(), live)
}

fn told_of(log: &[Record], live: bool) -> String {
    let mut out = Vec::new();
    let shown = if live { Shown::Living } else { Shown::Notes };
    tell(log, Progress::new(&mut out, shown, Paint::OFF));
    String::from_utf8(out).unwrap()
}

fn tell(log: &[Record], mut progress: Progress<&mut Vec<u8>>) {
    let mut state = State::New;
    for record in log {
        state = next(state, &record.event).unwrap();
        progress.tell(&Tell::Event(record, &state));
    }
    progress.tell(&Tell::Note("SIGINT: still reverting"));
}

#[test]
fn progress_is_for_terminals_and_notes_are_for_everybody() {
    assert_eq!(told(false), "SIGINT: still reverting\n");
    let live = told(true);
    assert!(live.contains("     0.0 s  `payments is silent` injected (took 2.1 ms)\n"), "{live}");
    assert!(live.contains("     1.3 s  during  checkout answers 1/4\r\x1b[K"), "{live}");
    assert!(
        live.ends_with("the run ended\nSIGINT: still reverting\n"),
        "no living line is left behind: {live}"
    );
}

/// The log with another name for its first fault.
fn injecting(other: &str) -> Vec<Record> {
    let mut log = log();
    let Event::Injecting { name, .. } = &mut log[5].event else { panic!("the sixth event is the injection") };
    *name = other.to_owned();
    log
}

#[test]
fn colour_reaches_the_terminal_and_nothing_else_does() {
    let log = injecting("x\u{1b}[2J");
    let mut out = Vec::new();
    tell(&log, Progress::new(&mut out, Shown::Living, Paint::ON));
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\u{1b}[2m     0.0 s\u{1b}[0m  the run began"), "{text}");
    assert!(text.contains("`x\u{fffd}[2J` injected"), "{text}");
}

#[test]
fn a_log_has_a_line_for_everything_and_none_that_lives() {
    let log = injecting("x\n::error::no");
    let mut out = Vec::new();
    let mut progress = Progress::log(&mut out, true);
    progress.label("a suite");
    tell(&log, progress);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("[a suite]      0.0 s  "), "{text}");
    assert!(text.ends_with("[a suite] SIGINT: still reverting\n"), "{text}");
    assert!(!text.contains(['\r', '\u{1b}']), "{text}");
    assert!(text.contains("`x\n: :error::no` injected"), "{text}");
}

#[test]
fn what_did_not_hold_is_pointed_at_in_the_file() {
    let suite = suite_of(vec![summary()]);
    let text = annotations(&suite);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("::error file=chaos/0.yaml,line=4,title=checkout answers::"), "{text}");
    assert!(
        lines.iter().any(|line| line.starts_with("::warning file=chaos/0.yaml,line=25,title=")),
        "{text}"
    );
    let found: serde_json::Value = serde_json::from_str(&code_quality(&suite)).unwrap();
    assert_eq!(found[0]["location"], json!({ "path": "chaos/0.yaml", "lines": { "begin": 4 } }));
    assert_eq!(
        (&found[0]["severity"], &found[0]["check_name"]),
        (&json!("critical"), &json!("squall-hypothesis"))
    );
    // The same finding with other figures is the same finding.
    let mut other = summary();
    other.hypotheses[0].judgement.as_mut().unwrap().why = "other figures".to_owned();
    let other: serde_json::Value = serde_json::from_str(&code_quality(&suite_of(vec![other]))).unwrap();
    assert_eq!(found[0]["fingerprint"], other[0]["fingerprint"]);
    assert_ne!(found[0]["description"], other[0]["description"]);
    assert_ne!(found[0]["fingerprint"], found[1]["fingerprint"]);
    let mut held = summary();
    held.exit = Exit::Held;
    assert_eq!(
        (annotations(&suite_of(vec![held.clone()])).as_str(), code_quality(&suite_of(vec![held])).trim()),
        ("", "[]")
    );
}

/// The run of the log, and one that held under a title with everything that is markup somewhere.
fn two() -> Suite {
    let mut held = summary();
    held.exit = Exit::Held;
    held.verdict = "held".to_owned();
    held.title = "50 % of `a|b`\n<script>".to_owned();
    held.sentence = "held: it was good".to_owned();
    suite_of(vec![held, summary()])
}

#[test]
fn what_is_worse_than_in_an_earlier_run_is_shown_as_such() {
    let regression = json!({
        "run": "r0", "date": "2026-11-01T00:00:00Z", "version": "0", "sentence": null, "comparisons": [
            { "claim": "site is up", "aspect": "errors", "trend": "worse", "why": "12 % were bad, 1 % then",
              "earlier": "1 % of 100 looks bad", "now": "12 % of 100 looks bad" },
            { "claim": "site is up", "aspect": "recovery", "trend": "no-worse", "why": "as soon", "earlier": "1.0 s", "now": "1.0 s" }
        ]
    });
    let suite = suite_of(vec![summary().compared(serde_json::from_value(regression).unwrap())]);
    let annotations = annotations(&suite);
    let worse =
        "site is up, errors::worse than in the run of 2026-11-01T00:00:00Z: 12 %25 were bad, 1 %25 then";
    assert!(annotations.contains(&worse.replace("up, e", "up%2C e")), "{annotations}");
    let page = markdown(&suite);
    assert!(
        page.contains("Compared with run r0 of 2026-11-01T00:00:00Z:\n\n* site is up, errors: worse: 12 %"),
        "{page}"
    );
    let xml = junit(&suite).unwrap();
    assert!(
        xml.contains(
            "<testcase classname=\"regression\" name=\"site is up, errors\">\n      <failure message=\"12 %"
        ),
        "{xml}"
    );
    assert!(xml.contains("name=\"site is up, recovery\""), "{xml}");
    assert_eq!(xml.matches("12 % were bad, 1 % then</failure>").count(), 1, "{xml}");
    assert!(code_quality(&suite).contains("worse than in the run of"));
}

#[test]
fn a_suite_is_a_page_of_markdown() {
    let page = markdown(&two());
    assert!(
        page.starts_with("## Squall: deviated: 1 of 2 experiments deviated, 1 held\n\n| verdict |"),
        "{page}"
    );
    assert!(
        page.contains(
            "\n| held | 50 % of \\`a\\|b\\` &lt;script&gt; | held: it was good |\n| **deviated** | "
        ),
        "{page}"
    );
    assert!(page.contains("\nresilience score 50 of 100 (1 held, 1 deviated), took 4.2 s.\n"), "{page}");
    assert!(page.contains("<details><summary>Checkout survives: deviated</summary>\n\n"), "{page}");
    assert!(page.contains("`squall run chaos/1.yaml --seed 7`"), "{page}");
    assert_eq!(page.matches("<details>").count(), page.matches("</details>").count());
    assert!(!page.contains("<script"), "{page}");
    let mut long = two();
    long.experiments[1].runs[0].summary.not_undone = vec!["x".repeat(1_000_000)];
    assert!(markdown(&long).len() < 10_000, "the table alone");
}

#[test]
fn a_suite_on_a_terminal_is_a_line_for_each() {
    let text = suite(&two(), Paint::OFF);
    assert!(text.starts_with("Experiments\n  held      50 % of `a|b` <script>\n"), "{text}");
    assert!(text.contains("  deviated  Checkout survives\n"), "{text}");
    assert!(text.contains("squall verdict /tmp/run.ndjson\n"), "{text}");
    assert!(text.ends_with("\ndeviated: 1 of 2 experiments deviated, 1 held (exit 5)\n"), "{text}");
    let document: serde_json::Value = serde_json::from_str(&suite_json(&two())).unwrap();
    assert_eq!((&document["exit"], &document["experiments"][1]["verdict"]), (&json!(5), &json!("deviated")));
    assert_eq!(document["experiments"][1]["runs"][0]["hypotheses"][0]["name"], "checkout answers");
}

#[test]
fn junit_has_a_suite_for_each_experiment_and_what_was_not_run_is_not_green() {
    let mut suite = two();
    let subject = Subject { title: "later".to_owned(), ..Subject::default() };
    suite.experiments.push(Tested::of(subject, 2, Vec::new()));
    let text = junit(&suite).unwrap();
    assert_eq!(text.matches("<testsuite ").count(), 3, "{text}");
    assert!(
        text.contains("<testsuite name=\"later\" tests=\"1\" failures=\"0\" errors=\"0\" skipped=\"1\""),
        "{text}"
    );
    assert!(text.contains("<property name=\"file\" value=\"chaos/1.yaml\"/>"), "{text}");
}
