//! Whole messages, because a message is what a user sees.

mod hostile;
mod loads;
mod references;
mod rules;

use super::*;
use crate::faults::catalogue;

/// A document in which everything but `method:` is right.
fn with_method(method: &str) -> String {
    format!("squall: 1\ntitle: t\nhypothesis: []\nmethod:\n{method}")
}

fn messages(text: &str) -> String {
    messages_with(text, &Sources::default())
}

pub(super) fn messages_with(text: &str, sources: &Sources<'_>) -> String {
    match read("shop.yaml", text.as_bytes(), sources) {
        Ok(document) => panic!("no problem in {text}\n{document:?}"),
        Err(problems) => problems.render(false),
    }
}

/// What and help of each problem, a line each.
pub(super) fn short(text: &str) -> Vec<String> {
    let problems = read("shop.yaml", text.as_bytes(), &Sources::default()).expect_err(text);
    let line = |problem: &Problem| format!("{} | {}", problem.what, problem.help.as_deref().unwrap_or(""));
    problems.list().iter().map(line).collect()
}

pub(super) const DESIGN: &str = r#"squall: 1
title: Checkout survives a slow payment provider
tags: [latency, dependency]
vars:
  shop: http://127.0.0.1:8080
  lasts: 60s
hypothesis:
  - name: checkout answers
    http: { url: "${shop}/checkout", timeout: 2s }
    expect: { status: 200, json: { "$.items[0].name": "NO" } }
  - name: the database takes connections
    tcp: { address: "db.internal:5432" }
  - name: the queue is short
    process: { argv: [queue-length, --below, "10"] }
    expect: { exit: 0, stdout: "^ok", tolerate: 1% }
  - name: checkout stays fast and correct
    load: { url: "${shop}/checkout", rate: 50/s }
    expect: { status: 200, errors: "<= 1%", p99: "<= 300ms" }
baseline: 15s
method:
  - fault: { partition: { to: ["payments.internal:443"] } }
    in: { user: shop }
    for: ${lasts}
  - wait: 5s
  - parallel:
      - fault: { pause: {} }
        in: { process: { listening: 6379 } }
        for: 10s
      - action: { process: { argv: [/usr/local/bin/drain, NO] } }
        undo: { http: { url: "http://127.0.0.1:9/undrain", method: POST } }
stop-when:
  - name: site is up
    http: { url: "http://127.0.0.1:8080/health" }
recovery: 30s
"#;

#[test]
fn the_documented_form_reads_in_full() {
    let experiment = read("a", DESIGN.as_bytes(), &Sources::default()).unwrap().experiment;
    assert_eq!(experiment.hypothesis[0].http.as_ref().unwrap().url, "http://127.0.0.1:8080/checkout");
    assert_eq!(
        experiment.hypothesis[0].expect.json["$.items[0].name"],
        serde_json::json!("NO").try_into().unwrap()
    );
    let load = &experiment.hypothesis[3];
    assert_eq!(load.load.as_ref().unwrap().rate.to_string(), "50/s");
    assert_eq!(load.expect.quantiles().next().unwrap().2.to_string(), "<= 300ms");
    assert_eq!(experiment.method[0].r#for, Some(Period::from_secs(60)));
    assert_eq!(experiment.method[2].parallel.as_ref().unwrap().len(), 2);
}

#[test]
fn json_is_the_same_document() {
    let document = read("a", DESIGN.as_bytes(), &Sources::default()).unwrap();
    let json = serde_json::to_string_pretty(&document.experiment).unwrap();
    let tabs = json.replace("  ", "\t");
    for text in [json, tabs] {
        let again = read("a.json", text.as_bytes(), &Sources::default()).unwrap();
        assert_eq!(again.experiment, document.experiment);
    }
}

#[test]
fn every_example_of_the_catalogue_passes() {
    for entry in catalogue() {
        let text = with_method(entry.example);
        let experiment = read(entry.name, text.as_bytes(), &Sources::default())
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
            .experiment;
        assert_eq!(experiment.method[0].fault.as_ref().unwrap().name(), entry.name);
    }
}

#[test]
fn a_misspelt_key() {
    let text = "squall: 1\ntitle: t\nhypothesis: []\nmethod:\n  - fualt: { pause: {} }\n    for: 3s\n";
    assert_eq!(
        messages(text),
        "\
error: unknown key `fualt` in `method[0]`
 --> shop.yaml:5:5
  |
5 |   - fualt: { pause: {} }
  |     ^^^^^
  = help: did you mean `fault`?

"
    );
}

#[test]
fn a_wrong_unit() {
    let text = with_method("  - fault: { partition: { to: [db] } }\n    for: 60sec\n");
    assert_eq!(
        messages(&text),
        "\
error: `sec` in `60sec` is not a unit of time
 --> shop.yaml:6:10
  |
6 |     for: 60sec
  |          ^^^^^
  = help: write it as `250ms`, `30s`, `1m30s` or `2h` (units: ns, us, ms, s, m, h, d)

"
    );
}

#[test]
fn an_unknown_fault() {
    let text = with_method("  - fault: { partiton: { to: [db] } }\n    for: 60s\n");
    assert_eq!(
        messages(&text),
        "\
error: unknown fault `partiton`
 --> shop.yaml:5:14
  |
5 |   - fault: { partiton: { to: [db] } }
  |              ^^^^^^^^
  = help: did you mean `partition`?

"
    );
    let text = with_method("  - fault: { gremlin: {} }\n    for: 60s\n");
    let help = "faults: `latency`, `loss`, `duplicate`, `corrupt`, `reorder`, `bandwidth`, `degrade`, `partition`, `refuse`, `outage`, `disconnect`, `kill`, `pause`; `squall faults` explains them";
    assert_eq!(short(&text), [format!("unknown fault `gremlin` | {help}")]);
}

#[test]
fn an_empty_selector() {
    let text = with_method("  - fault: { kill: {} }\n    in: { process: {} }\n    for: 60s\n");
    assert_eq!(
        messages(&text),
        "\
error: `process` is empty
 --> shop.yaml:6:11
  |
6 |     in: { process: {} }
  |           ^^^^^^^
  = help: give at least one of `exe`, `name`, `args`, `pid`, `listening`

"
    );
    let step =
        |fault: &str, scope: &str| with_method(&format!("  - fault: {fault}\n    for: 1s\n    {scope}\n"));
    for (text, what) in [
        (step("{ partition: { to: [] } }", "in: { user: shop }"), "`to` is empty"),
        (step("{ partition: {} }", ""), "nothing says whose traffic is meant"),
        (step("{ partition: { to: [\"\"] } }", ""), "an empty peer would match nothing"),
        (step("{ kill: {} }", ""), "nothing says whose processes are meant"),
        (step("{ kill: {} }", "in: { user: \"\" }"), "`user` is empty"),
        (step("{ kill: {} }", "in: { cgroup: / }"), "the root cgroup is the whole host"),
        (
            step("{ kill: {} }", "in: { process: { args: \"\" } }"),
            "`args` is empty and would match every process",
        ),
        (step("{ kill: {} }", "in: {}"), "`in` must name one scope"),
        (step("{ kill: {} }", "in:"), "`in` has no value"),
        (
            step("{ kill: {} }", "in: { process: { pid: 1 } }"),
            "process 1 is the host itself and is never hit",
        ),
        (step("{ pause: {} }", "in: { port: 80 }"), "`port` chooses traffic, not processes"),
    ] {
        let found = short(&text);
        assert!(found.len() == 1 && found[0].starts_with(what), "{text}{found:?}");
    }
}

#[test]
fn an_unresolvable_reference() {
    let text =
        "squall: 1\ntitle: run of ${naem}\nvars: { name: x }\nhypothesis: []\nmethod: [{ wait: 1s }]\n";
    assert_eq!(
        messages(text),
        "\
error: nothing is known of the variable `naem`
 --> shop.yaml:2:15
  |
2 | title: run of ${naem}
  |               ^^^^^^^
  = help: did you mean `name`?

"
    );
    let text = text.replace("${naem}", "${secret:TOKEN}");
    let help = "set the environment variable `SQUALL_SECRET_TOKEN`, or `SQUALL_SECRET_TOKEN_FILE` to the path of a file";
    assert_eq!(short(&text), [format!("the secret `TOKEN` is not set | {help}")]);
}

#[test]
fn a_duplicate_name() {
    let text = "\
squall: 1
title: t
hypothesis:
  - name: site is up
    tcp: { address: \"127.0.0.1:80\" }
method: [{ wait: 1s }]
stop-when:
  - name: site is up
    tcp: { address: \"127.0.0.1:80\" }
";
    assert_eq!(
        messages(text),
        "\
error: the name `site is up` is taken by `hypothesis[0]`
 --> shop.yaml:8:11
  |
8 |   - name: site is up
  |           ^^^^^^^^^^
  = help: the report needs a name of its own for each claim

"
    );
}

#[test]
fn a_percentage_over_100() {
    let text = with_method("  - fault: { kill: { pick: 150% } }\n    in: { user: shop }\n    for: 60s\n");
    assert_eq!(
        messages(&text),
        "\
error: `150%` is not between 0% and 100%
 --> shop.yaml:5:28
  |
5 |   - fault: { kill: { pick: 150% } }
  |                            ^^^^
  = help: write it as `50%`

"
    );
}

#[test]
fn a_missing_a_negative_and_a_zero_duration() {
    let text = with_method("  - fault: { pause: {} }\n    in: { user: shop }\n");
    assert_eq!(
        messages(&text),
        "\
error: this fault has no duration
 --> shop.yaml:5:5
  |
5 |   - fault: { pause: {} }
  |     ^^^^^
  = help: every fault ends: write `for: 30s` beside `fault:`

"
    );
    let text = with_method("  - fault: { pause: {} }\n    in: { user: shop }\n    for: -5s\n");
    assert_eq!(
        messages(&text),
        "\
error: `-5s` is negative
 --> shop.yaml:7:10
  |
7 |     for: -5s
  |          ^^^
  = help: write it as `250ms`, `30s`, `1m30s` or `2h`

"
    );
    let lasting = |time: &str| {
        with_method(&format!("  - fault: {{ pause: {{}} }}\n    in: {{ user: a }}\n    for: {time}\n"))
    };
    assert_eq!(short(&lasting("0s")), ["a fault of no duration does nothing | write `for: 30s`"]);
    assert_eq!(short(&lasting("30")), ["`30` has no unit | did you mean `30s` or `30ms`?"]);
    assert_eq!(
        short(&lasting("61m")),
        ["`1h1m` is longer than the `1h` that a fault may last here | shorten it, or repeat the step"]
    );
    let longer = Sources { longest: Period::from_secs(4000), ..Default::default() };
    assert!(read("a", lasting("61m").as_bytes(), &longer).is_ok());
}

#[test]
fn everything_is_reported_at_once_in_the_order_of_the_file() {
    let text = "\
squall: 1
titel: t
hypothesis:
  - name: a
    http: { url: nowhere }
    expect: { exit: 0, tolerate: 101% }
method:
  - fault: { partiton: {} }
  - fault: { pause: {} }
    for: 0s
";
    let problems = read("a", text.as_bytes(), &Sources::default()).unwrap_err();
    let found: Vec<(usize, &str)> = problems
        .list()
        .iter()
        .map(|problem| (problems.place(problem.span.unwrap()).0, problem.what.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (1, "the experiment has no `title`"),
            (2, "unknown key `titel` in the experiment"),
            (5, "`nowhere` does not begin with `http://` or `https://`"),
            (6, "`exit` is an answer of `process`, and this probe is `http`"),
            (6, "`101%` is not between 0% and 100%"),
            (8, "this fault has no duration"),
            (8, "unknown fault `partiton`"),
            (9, "nothing says whose processes are meant"),
            (10, "a fault of no duration does nothing"),
        ]
    );
}

#[test]
fn problems_are_json_too() {
    let text = with_method("  - fault: { pause: {} }\n    in: { user: shop }\n    for: 3\n");
    let problems = read("shop.yaml", text.as_bytes(), &Sources::default()).unwrap_err();
    assert_eq!(
        serde_json::to_value(&problems).unwrap(),
        serde_json::json!([{
            "file": "shop.yaml", "line": 7, "column": 10, "path": "method[0].for",
            "what": "`3` has no unit", "help": "did you mean `3s` or `3ms`?",
        }])
    );
}

#[test]
fn the_content_of_a_document_is_what_it_does_and_claims() {
    let content = |text: &str| read("a.yaml", text.as_bytes(), &Sources::default()).unwrap().content();
    let text = "squall: 1\ntitle: A\nvars: { host: db }\nhypothesis: []\nmethod:\n  - fault: { refuse: { to: [\"${host}:1\"] } }\n    for: 3s\n";
    assert_eq!(
        content(text),
        content(&format!("{}seed: 4\nweight: 3\ntags: [x]\n", text.replace("title: A", "title: B")))
    );
    assert_ne!(content(text), content(&text.replace("3s", "4s")));
    assert_ne!(content(text), content(&text.replace("host: db", "host: cache")));
}
