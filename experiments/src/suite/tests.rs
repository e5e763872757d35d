use serde_json::json;

use super::history::day;
use super::*;
use crate::run::Record;

/// A run of one rate claim that ended so.
fn run(name: &str, bad_share: u64) -> Summary {
    let second = |phase: &str, begun_ms: u64, bad: u64| {
        json!({
            "at_ms": begun_ms, "event": "sample", "name": "a", "phase": phase, "good": bad == 0,
            "begun_ms": begun_ms, "took_us": 1, "seen": "", "load": {
                "requests": 50, "errors": [{ "seen": "503", "times": bad }], "latency": [[1_000_000, 50 - bad]],
                "late": [], "slots": [[50, bad]]
            }
        })
    };
    let mut log = vec![
        json!({
            "at_ms": 0, "event": "started", "run": name, "title": "t", "date": "", "seed": 1, "plan": "p",
            "faults": 0, "version": "0", "agent": null, "planned_ms": 60_000, "guards": [], "hypotheses": [{
                "name": "a", "tolerate": "0%",
                "rate": { "bounds": [{ "errors": "1%" }], "mode": "fast", "confidence": "95%" }
            }]
        }),
        json!({ "at_ms": 0, "event": "baseline-met" }),
    ];
    log.extend((0..60).map(|at| second("during", at * 1000, if at % 10 < bad_share { 1 } else { 0 })));
    log.push(json!({ "at_ms": 60_000, "event": "method-ended" }));
    let log: Vec<Record> = log.into_iter().map(|event| serde_json::from_value(event).unwrap()).collect();
    Summary::of(&log).unwrap()
}

fn tested(title: &str, weight: u32, exit: Option<Exit>) -> Tested {
    let mut summary = run("r", 0);
    summary.title = title.to_owned();
    let runs = exit.map(|exit| (Summary { exit, ..summary }, None)).into_iter().collect();
    Tested::of(
        Subject { title: title.to_owned(), weight, hash: "h".to_owned(), ..Subject::default() },
        1,
        runs,
    )
}

fn repeated(shares: &[u64], planned: u32) -> Tested {
    let runs = shares.iter().map(|share| (run("r", *share), None)).collect();
    Tested::of(Subject::default(), planned, runs)
}

#[test]
fn one_run_is_judged_by_itself() {
    let one = run("r", 0);
    assert_eq!(one.exit, Exit::Held, "{}", one.sentence);
    let tested = repeated(&[0], 1);
    assert_eq!((tested.exit, tested.sentence.as_str()), (Some(Exit::Held), one.sentence.as_str()));
    let none = repeated(&[], 1);
    assert_eq!((none.exit, none.verdict.as_str()), (None, "not run"));
}

#[test]
fn all_runs_must_hold() {
    assert_eq!(repeated(&[0, 0, 0], 3).exit, Some(Exit::Held));
    let short = repeated(&[0, 0], 3);
    assert_eq!(short.exit, Some(Exit::Inconclusive));
    assert_eq!(short.sentence, "inconclusive: held in 2 runs, but 3 were asked for");
}

#[test]
fn what_one_run_calls_deviated_may_be_chance_among_many() {
    // Evidence of 20 decides one run; five ask for 100 in one of them.
    let found = |share| run("r", share).hypotheses[0].findings[0].clone();
    let share = (1..=10).find(|share| found(*share).against >= 20.0).expect("one of them is enough");
    let weak = found(share);
    assert_eq!(weak.judgement.outcome, crate::verdict::Outcome::Deviated, "{weak:?}");
    let many = (weak.against * weak.alpha).ceil() as u32 + 1;
    let mut shares = vec![0; many as usize];
    shares[1] = share;
    let tested = repeated(&shares, many);
    assert_eq!(tested.exit, Some(Exit::Inconclusive), "{}", tested.sentence);
    assert!(
        tested.sentence.contains("deviated by itself, which so many runs do by chance"),
        "{}",
        tested.sentence
    );
    assert!(tested.runs[1].may_be_chance && !tested.runs[0].may_be_chance);
    // The same run among as many as its evidence is worth has deviated.
    let few = (weak.against * weak.alpha).floor() as u32;
    let tested = repeated(&[&[share], &vec![0; few as usize - 1][..]].concat(), few);
    assert_eq!(tested.exit, Some(Exit::Deviated), "{}", tested.sentence);
}

#[test]
fn an_outage_needs_no_correction() {
    let mut out = run("r", 10);
    out.hypotheses[0].findings[0].against = 0.0;
    out.hypotheses[0].findings[0].outage = true;
    let runs = (0..9).map(|_| (run("r", 0), None)).chain([(out, None)]).collect();
    let tested = Tested::of(Subject::default(), 10, runs);
    assert_eq!(tested.exit, Some(Exit::Deviated), "{}", tested.sentence);
    assert!(tested.sentence.starts_with("deviated: in 1 of 10 runs; in run 10 "), "{}", tested.sentence);
}

#[test]
fn a_reason_that_is_no_rate_is_not_excused() {
    let mut tripped = run("r", 0);
    tripped.exit = Exit::Deviated;
    let what = "the guard `up` did not hold: 503".to_owned();
    tripped.reasons.push(crate::summary::Reason::new(Exit::Deviated, what));
    let tested = Tested::of(Subject::default(), 2, vec![(tripped, None), (run("r", 0), None)]);
    assert_eq!(tested.exit, Some(Exit::Deviated));
}

#[test]
fn the_suite_is_as_bad_as_its_worst_experiment() {
    let some = vec![
        tested("a", 1, Some(Exit::Held)),
        tested("b", 1, Some(Exit::Deviated)),
        tested("c", 1, Some(Exit::Inconclusive)),
        tested("d", 1, Some(Exit::Held)),
        tested("e", 1, None),
    ];
    let suite = Suite::of(some, "2026-11-21T10:00:00Z", 1, None, None);
    assert_eq!(suite.exit, Exit::Deviated);
    assert_eq!(suite.sentence, "deviated: 1 of 5 experiments deviated, 2 held, 1 inconclusive, 1 not run");
    let score = suite.score.unwrap();
    assert_eq!((score.percent, score.held, score.deviated, score.unclear), (40.0, 2, 1, 2));
    assert_eq!(
        score.in_words(),
        "resilience score 40 of 100 (2 held, 1 deviated, 2 without a verdict, not passed)"
    );
}

#[test]
fn a_suite_that_ended_before_its_last_experiment_has_not_held() {
    let all = vec![tested("a", 1, Some(Exit::Held)), tested("b", 1, None)];
    let suite = Suite::of(all, "2026-11-21T10:00:00Z", 1, None, None);
    assert_eq!(suite.exit, Exit::Interrupted);
    assert_eq!(suite.sentence, "interrupted: 1 of 2 experiments held, 1 not run");
}

#[test]
fn the_score_weighs_and_what_is_old_counts_less() {
    let line = |at: &str, title: &str, exit: u8, weight: u32| {
        let verdict = Exit::try_from(exit).unwrap().meaning();
        json!({ "at": at, "title": title, "hash": "h", "verdict": verdict, "exit": exit, "weight": weight, "runs": [] })
            .to_string()
    };
    let text = [
        line("2026-07-01T00:00:00Z", "forgotten", 0, 100),
        line("2026-10-22T00:00:00Z", "old", 0, 2),
        line("2026-11-20T00:00:00Z", "broken", 0, 1),
        line("2026-11-21T00:00:00Z", "broken", 5, 1),
        line("2026-11-21T00:00:00Z", "now", 5, 9),
        String::new(),
    ]
    .join("\n");
    let mut history = History::read(text.as_bytes()).unwrap();
    let suite = Suite::of(
        vec![tested("now", 3, Some(Exit::Held)), tested("shown", 0, Some(Exit::Deviated))],
        "2026-11-21T10:00:00Z",
        1,
        Some(&mut history),
        Some("b7"),
    );
    let score = suite.score.unwrap();
    // 3 of 3 now, half of 2 from thirty days ago, 0 of 1.
    assert!((score.percent - 100.0 * (3.0 + 1.0) / 6.0).abs() < 1e-9, "{score:?}");
    assert_eq!(score.aged.len(), 2);
    assert_eq!(
        suite.experiments[0].story.as_deref(),
        Some("deviated once, held since 2026-11-21 (build b7)")
    );
    assert_eq!(history.news().lines().count(), 2);
    assert!(history.news().starts_with("{\"at\":\"2026-11-21T10:00:00Z\",\"title\":\"now\""));
    let nothing = Suite::of(vec![tested("a", 0, Some(Exit::Held))], "2026-11-21T10:00:00Z", 1, None, None);
    assert_eq!(nothing.score, None);
}

#[test]
fn a_history_tells_since_when() {
    let mut history = History::default();
    let mut run = |day: u32, exit: Exit, build: &str| {
        let at = format!("2026-11-{day:02}T10:00:00Z");
        Suite::of(vec![tested("a", 1, Some(exit))], &at, 1, Some(&mut history), Some(build));
        history.story("a").unwrap()
    };
    assert_eq!(run(1, Exit::Held, "x1"), "held once since 2026-11-01 (build x1)");
    for day in 2..=12 {
        run(day, Exit::Held, "x2");
    }
    assert_eq!(run(13, Exit::Deviated, "x3"), "held 12 times, deviated since 2026-11-13 (build x3)");
    let after = run(14, Exit::Inconclusive, "x4");
    assert_eq!(after, "held 12 times, deviated since 2026-11-13 (build x3), without a verdict once");
    assert!(run(15, Exit::Deviated, "x5").contains("deviated since 2026-11-13 (build x3)"));
    assert_eq!(history.story("b"), None);
}

#[test]
fn a_torn_line_is_passed_over_and_nothing_else() {
    let mut history = History::default();
    Suite::of(vec![tested("a", 1, Some(Exit::Held))], "2026-11-01T10:00:00Z", 1, Some(&mut history), None);
    let line = history.news();
    let mut torn = History::read(format!("{line}{}", &line[..20]).as_bytes()).unwrap();
    assert_eq!((torn.news().as_str(), torn.whole()), ("", line.len() as u64));
    Suite::of(vec![tested("a", 1, Some(Exit::Held))], "2026-11-02T10:00:00Z", 1, Some(&mut torn), None);
    assert_eq!(torn.story("a").unwrap(), "held twice since 2026-11-01");
    assert_eq!(torn.news().lines().count(), 1, "only what is new");
    let error = History::read(format!("{line}{}\n{line}", &line[..20]).as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("line 2 is not an entry of a history: "), "{error}");
    assert_eq!(History::read(line.replace("2026-11-01", "yesterday!").as_bytes()).unwrap_err().line, 1);
}

#[test]
fn days_are_counted() {
    assert_eq!(day("1970-01-01"), Some(0));
    assert_eq!(day("2000-02-29T00:00:00Z"), Some(11_016));
    assert_eq!(day("2026-11-21T10:51:12Z"), Some(20_778));
    assert_eq!(day("2026-13-21"), None);
    assert_eq!(day("soon"), None);
}
