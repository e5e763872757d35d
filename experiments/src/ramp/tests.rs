use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::document::{Document, Problems, Sources, read};
use crate::exit::Exit;
use crate::protocol::RunId;

fn ramp(json: serde_json::Value) -> Ramp {
    serde_json::from_value(json).unwrap()
}

fn by(from: &str, to: &str, by: &str, within: Option<&str>) -> Ramp {
    let mut json = serde_json::json!({ "parameter": "latency.delay", "from": from, "to": to, "by": by });
    if let Some(within) = within {
        json["within"] = within.into();
    }
    ramp(json)
}

fn words(levels: &[Level]) -> Vec<String> {
    levels.iter().map(Level::to_string).collect()
}

#[test]
fn a_factor_climbs_to_the_end_and_never_beyond() {
    assert_eq!(
        words(&by("50ms", "2s", "2x", None).rungs()),
        ["50ms", "100ms", "200ms", "400ms", "800ms", "1s600ms", "2s"]
    );
    assert_eq!(
        words(&by("10Mbit/s", "1Mbit/s", "2x", None).rungs()),
        ["10Mbit/s", "5Mbit/s", "2.5Mbit/s", "1.25Mbit/s", "1Mbit/s"]
    );
    // Numbers that are too small for the factor do not stand still.
    assert_eq!(words(&by("1", "4", "1.2x", None).rungs()), ["1", "4"]);
    assert_eq!(words(&by("1%", "3%", "bisection", Some("1%")).rungs()), ["1%", "3%"]);
}

/// What a system does that gives way at a value, as a search sees it; every value that was tried.
fn searched(ramp: &Ramp, gives_way: impl Fn(Level) -> bool) -> (Vec<Level>, Option<Level>, Option<Level>) {
    let mut search = Search::new(ramp);
    let mut tried = Vec::new();
    while let Some(level) = search.next() {
        assert!(tried.len() < 100, "a search ends");
        assert!(ramp.covers(level), "{level} lies outside of {ramp:?}");
        assert!(!tried.contains(&level), "{level} is tried twice");
        let before = search.held.zip(search.deviated).map(|(held, deviated)| held.apart(deviated));
        search.tell(level, if gives_way(level) { Came::Deviated } else { Came::Held });
        tried.push(level);
        let after = search.held.zip(search.deviated).map(|(held, deviated)| held.apart(deviated));
        if let (Some(before), Some(after)) = (before, after) {
            assert!(after < before && after * 3 <= before * 2 + 3, "{before} to {after}");
        }
    }
    (tried, search.held, search.deviated)
}

#[test]
fn a_search_finds_where_it_gives_way_within_what_was_asked_and_in_no_more_steps_than_announced() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (mut narrowed, mut full) = (0, 0);
    for _ in 0..2000 {
        let (from, to) = (random.random_range(1..500u64), random.random_range(501..5000u64));
        let (from, to) = if random.random_bool(0.3) { (to, from) } else { (from, to) };
        let factor = ["2x", "1.5x", "3x", "bisection"][random.random_range(0..4)];
        let within = random.random_range(from.abs_diff(to).div_ceil(200)..=from.abs_diff(to));
        let within =
            (factor == "bisection" || random.random_bool(0.5)).then(|| format!("{}ms", within.max(1)));
        let ramp = by(&format!("{from}ms"), &format!("{to}ms"), factor, within.as_deref());
        let limit: Level = format!("{}ms", random.random_range(1..5500u64)).parse().unwrap();
        let upward = from < to;
        let gives_way = |level: Level| match upward {
            true => !limit.exceeds(level),
            false => !level.exceeds(limit),
        };
        let (tried, held, deviated) = searched(&ramp, gives_way);
        assert!(tried.len() <= ramp.most(), "{} of {} in {ramp:?}", tried.len(), ramp.most());
        full += u32::from(tried.len() == ramp.most());
        assert!(held.is_none_or(|level| !gives_way(level)) && deviated.is_none_or(gives_way));
        let rungs = ramp.rungs();
        assert_eq!(deviated.is_none(), rungs.iter().all(|level| !gives_way(*level)), "{ramp:?} {limit}");
        if let (Some(held), Some(deviated), Some(within)) = (held, deviated, ramp.within) {
            narrowed += 1;
            assert!(held.apart(deviated) <= within.amount().max(1), "{held} {deviated} {ramp:?}");
        }
    }
    assert!(narrowed > 200 && full > 100, "{narrowed} {full}");
}

const TEXT: &str = "squall: 1
title: A
hypothesis:
  - name: fast
    load: { url: \"http://127.0.0.1:8080/\", rate: 100/s }
    expect: { errors: \"<= 1%\" }
method:
  - fault: { latency: { delay: 1ms, to: [\"127.0.0.1:8080\"] } }
    for: 20s
ramp: RAMP
";

fn document(ramp: &str, level: Option<&str>) -> Result<Document, Problems> {
    let vars = level.map(|level| ("latency.delay".to_owned(), level.to_owned())).into_iter().collect();
    let sources = Sources { vars, ..Sources::default() };
    read("a.yaml", TEXT.replace("RAMP", ramp).as_bytes(), &sources)
}

#[test]
fn a_step_is_the_document_with_its_value_and_its_share_of_the_error() {
    let text = "{ parameter: latency.delay, from: 50ms, to: 400ms, by: 2x }";
    let whole = document(text, None).unwrap();
    let ramp = whole.experiment.ramp.clone().unwrap();
    assert_eq!((whole.step.is_none(), ramp.most()), (true, 4));
    assert_eq!(ramp.injects(&whole.experiment), Period::from_secs(80));
    assert_eq!(ramp.takes(&whole.experiment), Period::from_secs(200));
    let step = document(text, Some("200ms")).unwrap();
    let fault = serde_json::to_value(&step.experiment.method[0].fault).unwrap();
    assert_eq!(fault["latency"]["delay"], "200ms");
    assert_eq!(step.experiment.ramp, None);
    let terms = step.experiment.hypothesis[0].terms().unwrap();
    assert!((terms.confidence.get() - 98.75).abs() < 1e-9, "{}", terms.confidence);
    let own = step.step.clone().unwrap();
    assert_eq!((own.at.to_string().as_str(), own.ramp), ("200ms", ramp));
    assert_ne!(step.content(), document(text, Some("100ms")).unwrap().content());
}

#[test]
fn what_is_no_ramp_is_refused_with_its_place() {
    for (text, level, said) in [
        ("{ parameter: latency.delay, from: 50ms, to: 2s }", None, "this ramp has no `by`"),
        ("{ parameter: latency.delay, from: 50ms, to: 50ms, by: 2x }", None, "`50ms` is no harder"),
        ("{ parameter: latency.delay, from: 50ms, to: 5%, by: 2x }", None, "`5%` is of another kind"),
        ("{ parameter: latency.delay, from: 0s, to: 5s, by: 2x }", None, "no factor leads to zero"),
        ("{ parameter: latency.delay, from: 1ms, to: 5s, by: 1x }", None, "`1x` does not grow"),
        ("{ parameter: latency.delay, from: 1ms, to: 5s, by: 200x }", None, "`200x` is too large a step"),
        ("{ parameter: latency.delay, from: 1ms, to: 5s, by: halves }", None, "`halves` is no factor"),
        ("{ parameter: latency.delay, from: 1ms, to: 5s, by: bisection }", None, "does not end by itself"),
        ("{ parameter: latency.delay, from: 1ms, to: 9s, by: 1.01x }", None, "more than 20 steps"),
        ("{ parameter: latency.delay, from: 1ms, to: 9s, by: 2x, within: 2% }", None, "`2%` is no distance"),
        ("{ parameter: latency.delay, levels: [1ms] }", None, "two levels at least"),
        ("{ parameter: latency.delay, levels: [1ms, 5ms, 3ms] }", None, "`3ms` turns back"),
        ("{ parameter: latency.delay, levels: [1ms, 3ms], by: 2x }", None, "no meaning beside `levels`"),
        ("{ parameter: latency.dealy, levels: [1ms, 3ms] }", None, "dealy"),
        ("{ parameter: latency.delay, levels: [1, 3] }", None, "the fault does not take `1`"),
        ("{ parameter: loss.chance, levels: [1%, 3%] }", None, "`loss.chance` is no parameter of a fault"),
        ("{ parameter: latency.delay, levels: [1ms, 3ms] }", Some("4ms"), "does not lie between"),
        ("{ parameter: latency.delay, levels: [1ms, 3ms] }", Some("3%"), "does not lie between"),
        ("{ parameter: latency.delay, levels: [1ms, 3ms] }", Some("x"), "no number with a unit"),
    ] {
        let problems = document(text, level).map(|document| document.experiment.ramp).unwrap_err();
        let shown = problems.render(false);
        assert!(shown.contains(said), "{text}: {shown}");
        assert!(shown.contains("a.yaml:8") || shown.contains("a.yaml:10"), "{text}: {shown}");
    }
    let long = document("{ parameter: latency.delay, from: 1us, to: 100ms, by: 2x }", None).unwrap();
    assert_eq!(long.experiment.ramp.as_ref().map(Ramp::most), Some(18));
    let vars = Sources { longest: Period::from_secs(359), ..Sources::default() };
    let text = TEXT.replace("RAMP", "{ parameter: latency.delay, from: 1us, to: 100ms, by: 2x }");
    let shown = read("a.yaml", text.as_bytes(), &vars).unwrap_err().render(false);
    assert!(shown.contains("its 18 steps inject for 6m together"), "{shown}");
}

fn rung(at: &str, exit: Exit, recovered: Option<bool>) -> Rung {
    Rung {
        at: at.parse().unwrap(),
        run: RunId(format!("run-{at}")),
        exit,
        verdict: exit.meaning().to_owned(),
        sentence: format!("{}: because", exit.meaning()),
        recovered,
    }
}

#[test]
fn a_ladder_says_between_what_the_system_gives_way() {
    let ramp = by("100ms", "800ms", "2x", None);
    let held = |at| rung(at, Exit::Held, Some(true));
    let said = |steps: Vec<Rung>| {
        let ladder = Ladder::of(&ramp, steps);
        (ladder.exit, ladder.sentence)
    };
    let deviated = rung("400ms", Exit::Deviated, Some(true));
    let found =
        "deviated: `latency.delay` held at 200ms, deviated at 400ms: gives way between 200ms and 400ms";
    assert_eq!(said(vec![held("100ms"), held("200ms"), deviated]), (Exit::Deviated, found.to_owned()));
    let all = vec![held("100ms"), held("200ms"), held("400ms"), held("800ms")];
    let through = "held: with `latency.delay` up to 800ms, the hardest that was to be tried";
    assert_eq!(said(all), (Exit::Held, through.to_owned()));
    let unwell = said(vec![held("100ms"), rung("200ms", Exit::Deviated, Some(false))]);
    assert!(unwell.1.ends_with("after 200ms it did not hold again in time, so nothing more was tried"));
    let ended = said(vec![held("100ms"), rung("200ms", Exit::Inconclusive, None)]);
    assert_eq!(ended.0, Exit::Inconclusive);
    assert!(
        ended.1.ends_with("the step at 200ms is inconclusive, and ended the search: because"),
        "{ended:?}"
    );
    assert_eq!(said(vec![held("100ms")]).0, Exit::Inconclusive, "a ramp that was ended early holds nothing");
    assert_eq!(said(vec![]).0, Exit::Inconclusive);
    // Runs of another order are no steps of this search.
    assert_eq!(Ladder::of(&ramp, vec![held("400ms"), held("100ms")]).steps.len(), 1);
}
