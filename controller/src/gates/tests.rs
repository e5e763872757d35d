//! Gates against real hooks on loopback: what they answer, and all the ways in which they do not.

use std::net::SocketAddr;
use std::path::Path;

use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Active, RunId};
use squall_experiments::schedule::Calendar;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::budget::HostUse;
use crate::config::Budget;
use crate::fleet::HostInfo;
use crate::store::Admission;
use crate::store::tests::{Scratch, a_run};

/// A hook that answers everything alike and gives back what it was asked; `None` never answers.
async fn hook(answer: Option<String>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
    let at = listener.local_addr().expect("an address");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut asked = Vec::new();
        let mut bytes = [0; 4096];
        // A request is over with its head, and with its body where it has one.
        loop {
            let read = stream.read(&mut bytes).await.expect("a request");
            asked.extend_from_slice(&bytes[..read]);
            let text = String::from_utf8_lossy(&asked);
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head.to_ascii_lowercase();
                let length = length.split_once("content-length: ").map_or("0", |(_, rest)| rest);
                let length: usize = length.lines().next().unwrap_or("0").parse().unwrap_or(0);
                body.len() >= length
            });
            if whole || read == 0 {
                break;
            }
        }
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).await.expect("it is written"),
            None => std::future::pending().await,
        }
        String::from_utf8_lossy(&asked).lines().map(str::to_owned).collect()
    });
    (at, serving)
}

fn answer(status: &str, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"))
}

fn configured(gate: &str) -> Config {
    let text = format!("controller: 1\ngates:\n  - {gate}\n");
    Config::read("c.yaml", text.as_bytes(), Path::new("/nowhere"))
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

fn planned() -> Planned {
    let used = HostUse { host: "web".to_owned(), ..HostUse::default() };
    Planned { title: "A title".to_owned(), hash: "abc".to_owned(), uses: vec![used], ..Planned::default() }
}

/// What one gate says of a run.
async fn said(gate: &str) -> Outcome {
    configured(gate).gates[0].ask(&planned()).await
}

#[tokio::test]
async fn a_hook_that_answers_as_expected_lets_pass_and_is_told_of_the_run() {
    let (at, asked) = hook(answer("200 OK", "{\"open\": 0}")).await;
    let gate = format!(
        "{{ name: quiet, http: {{ url: \"http://{at}/open?team=a\", method: POST, expect: {{ json: {{ \"$.open\": 0 }} }} }} }}"
    );
    let outcome = said(&gate).await;
    assert_eq!(outcome, Outcome::passes("quiet", "it answered 200"));
    let asked = asked.await.expect("it was asked");
    assert_eq!(asked.first().map(String::as_str), Some("POST /open?team=a HTTP/1.1"));
    let body: serde_json::Value = serde_json::from_str(asked.last().expect("a body")).expect("JSON");
    assert_eq!(body, serde_json::json!({ "title": "A title", "plan": "abc", "hosts": ["web"] }));
}

#[test]
fn a_host_that_is_not_connected_refuses() {
    let host = |name: &str, connected| HostInfo { name: name.to_owned(), connected, ..HostInfo::default() };
    let used = |name: &str| HostUse { host: name.to_owned(), ..HostUse::default() };
    let planned = Planned { uses: vec![used("web"), used("db")], ..Planned::default() };
    let both = [host("web", true), host("db", true), host("other", false)];
    assert_eq!(hosts::well(&planned, &both), Outcome::passes("hosts healthy", "2 connected"));
    let away = "1 of 2 are not connected, among them `db`";
    for hosts in [&[host("web", true), host("db", false)][..], &[host("web", true)]] {
        assert_eq!(hosts::well(&planned, hosts), Outcome::refuses("hosts healthy", away));
    }
}

/// A run that was on a host, and how it ended there.
async fn was_on(store: &Store, run: &str, host: &str, ended: &str, events: &[serde_json::Value]) {
    let used = HostUse { host: host.to_owned(), ..HostUse::default() };
    let admission = Admission {
        run: a_run(run),
        uses: vec![used],
        outcomes: Vec::new(),
        entry: None,
        coming: Vec::new(),
        overruled: None,
        approval: None,
    };
    assert!(store.admit(admission, Budget::default()).await.expect("the store").begins);
    let line = |(at, event): (usize, &serde_json::Value)| {
        let mut line = serde_json::json!({ "seq": at + 1, "host": host, "at_ms": 0 });
        for (name, value) in event.as_object().expect("an event") {
            line[name] = value.clone();
        }
        assert!(serde_json::from_value::<squall_experiments::muster::Line>(line.clone()).is_ok(), "{line}");
        line.to_string()
    };
    let lines: Vec<String> = events.iter().enumerate().map(line).collect();
    store.append(0, run, 0, &lines).await.expect("events");
    store.set_run_state(run, ended, 0).await.expect("it ended");
}

#[tokio::test]
async fn a_host_that_a_run_left_modified_gets_no_other() {
    let scratch = Scratch::new("clean");
    let store = scratch.store();
    let host = |holds| HostInfo { name: "web".to_owned(), connected: true, holds, ..HostInfo::default() };
    let held = |run: &str, stuck| {
        let (title, changes) = ("T".to_owned(), Vec::new());
        vec![Active { run: RunId(run.to_owned()), title, expires_s: 9, stuck, changes }]
    };
    let said = async |holds| hosts::clean(&planned(), &[host(holds)], &store).await;
    let clean = Outcome::passes("hosts clean", "nothing is left there by runs that ended");
    assert_eq!(said(Vec::new()).await, clean);

    // What the agent holds: of a run that goes on it is no reason, of one that left it there it is.
    was_on(&store, "goes-on", "web", "running", &[]).await;
    assert_eq!(said(held("goes-on", false)).await, clean);
    let refuses = |why: &str| Outcome::refuses("hosts clean", why);
    assert_eq!(said(held("goes-on", true)).await, refuses("`web` holds what run `goes-on` could not undo"));
    let modified = Exit::Modified.meaning();
    was_on(&store, "left", "web", modified, &[]).await;
    assert_eq!(said(held("left", false)).await, refuses("`web` is still modified by run `left`"));
    assert_eq!(said(Vec::new()).await, clean, "the agent has undone it since");

    // What no agent holds: an action whose undo failed, or was not played.
    let began = |step: &str| serde_json::json!({ "event": "action-began", "step": step, "name": format!("step {step}"), "undo": true });
    let undone = |step: &str, good: bool| serde_json::json!({ "event": "undo-played", "step": step, "good": good, "seen": "exit 1" });
    was_on(&store, "undone", "web", modified, &[began("1"), undone("1", false), undone("1", true)]).await;
    was_on(&store, "elsewhere", "db", modified, &[began("1")]).await;
    assert_eq!(said(Vec::new()).await, clean);
    was_on(
        &store,
        "failed",
        "web",
        modified,
        &[began("1"), began("2"), undone("2", true), undone("1", false)],
    )
    .await;
    let why = "the action `step 1` of run `failed` is not undone on `web`";
    let no = said(Vec::new()).await;
    assert!(!no.passed && no.why.starts_with(why), "{no:?}");

    // A controller that was killed played no undo.
    was_on(&store, "cut", "web", Exit::Interrupted.meaning(), &[began("3")]).await;
    let why = "the action `step 3` of run `cut` is not undone on `web`";
    let cut = said(Vec::new()).await;
    assert!(!cut.passed && cut.why.starts_with(why), "{cut:?}");

    // Somebody undid it, and said so.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let admission = Admission {
        run: a_run("overruled"),
        uses: planned().uses,
        outcomes: vec![no],
        entry: None,
        coming: Vec::new(),
        overruled: Some("removed by hand".to_owned()),
        approval: None,
    };
    assert!(store.admit(admission, Budget::default()).await.expect("the store").begins);
    assert_eq!(said(Vec::new()).await, clean);
}

#[tokio::test]
async fn whatever_else_a_hook_does_refuses() {
    for (answered, because) in [
        (answer("200 OK", "{\"open\": 2}"), "`$.open` is 2 (expected 0)"),
        (answer("200 OK", "{}"), "`$.open` is"),
        (answer("200 OK", "<html>"), "its answer is no JSON"),
        (answer("500 Internal Server Error", "{\"open\": 0}"), "it answered 500 (expected 200)"),
        (
            Some(
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned(),
            ),
            "it answered 302 (expected 200); redirects are not followed",
        ),
        (answer("200 OK", &"x".repeat(300 << 10)), "there is no answer: length limit exceeded"),
        (Some("nonsense\r\n\r\n".to_owned()), "there is no answer"),
        (Some(String::new()), "there is no answer"),
    ] {
        let (at, _serving) = hook(answered.clone()).await;
        let gate = format!(
            "{{ name: quiet, http: {{ url: \"http://{at}/\", timeout: 20s, expect: {{ json: {{ \"$.open\": 0 }} }} }} }}"
        );
        let outcome = said(&gate).await;
        assert!(!outcome.passed && outcome.why.contains(because), "{answered:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_hook_that_hangs_or_is_not_there_refuses_in_time() {
    let (at, serving) = hook(None).await;
    let gate = format!("{{ name: slow, http: {{ url: \"http://{at}/\", timeout: 200ms, expect: {{}} }} }}");
    assert_eq!(said(&gate).await, Outcome::refuses("slow", "there is no answer within 200ms"));
    serving.abort();
    // What listened there is gone.
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("it listens").local_addr().expect("an address");
    let gate = format!("{{ name: gone, http: {{ url: \"http://{gone}/\", timeout: 20s, expect: {{}} }} }}");
    let outcome = said(&gate).await;
    assert!(!outcome.passed && outcome.why.contains("there is no answer"), "{outcome:?}");
}

#[tokio::test]
async fn the_error_budget_is_a_figure_of_prometheus_and_one_sample() {
    let vector = |samples: &str| {
        answer(
            "200 OK",
            &format!(
                "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{samples}]}}}}"
            ),
        )
    };
    let sample = |value: &str| format!("{{\"metric\":{{}},\"value\":[1.5,\"{value}\"]}}");
    for (answered, passed, because) in [
        (vector(&sample("0.53")), true, "0.53 (expected >= 0.4)"),
        (vector(&sample("0.39")), false, "0.39 (expected >= 0.4)"),
        (vector(&sample("NaN")), false, "NaN"),
        (vector(""), false, "gave 0 samples"),
        (vector(&format!("{},{}", sample("1"), sample("1"))), false, "gave 2 samples"),
        (answer("400 Bad Request", "{}"), false, "Prometheus answered 400"),
    ] {
        let (at, asked) = hook(answered).await;
        let gate = format!(
            "{{ name: error budget, prometheus: {{ url: \"http://{at}\", query: \"a + b\", timeout: 20s, value: \">= 0.4\" }} }}"
        );
        let outcome = said(&gate).await;
        assert!(outcome.passed == passed && outcome.why.contains(because), "{because}: {outcome:?}");
        let asked = asked.await.expect("it was asked");
        assert_eq!(asked.first().map(String::as_str), Some("GET /api/v1/query?query=a+%2B+b HTTP/1.1"));
    }
}

#[test]
fn a_freeze_bars_while_it_goes_on_and_one_that_cannot_be_read_is_said() {
    let text = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20271224\nDTEND;VALUE=DATE:20271227\nSUMMARY:Christmas\n\
                END:VEVENT\nEND:VCALENDAR\n";
    let config = "controller: 1\nzone: Europe/Berlin\ncalendars: { year: year.ics }\nfreezes: [year]\n";
    let config = Config::read("c.yaml", config.as_bytes(), Path::new("/nowhere")).expect("it is read");
    let calendars = BTreeMap::from([("year".to_owned(), Calendar::read(text).expect("a calendar"))]);
    let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
    let bars = Gates::frozen(&config, &calendars, at("2027-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
    let bars = bars.expect("bars");
    assert_eq!(bars.at(at("2027-12-23T23:00:00Z")).map(|bar| bar.why.as_str()), Some("Christmas"));
    assert!(bars.at(at("2027-12-23T22:59:59Z")).is_none() && bars.at(at("2027-12-26T23:00:00Z")).is_none());
    let unread = config.calendars().expect_err("there is no such file").to_string();
    assert!(unread.contains("the calendar `year` in `/nowhere/year.ics` cannot be read"), "{unread}");
}

#[test]
fn what_is_wrong_with_a_configuration_is_told_with_its_place() {
    for (text, because) in [
        ("freezes: [year]", "there is no calendar `year`"),
        ("gates: [{ name: a }]", "the gate `a` must ask one thing"),
        ("gates: [{ name: a, http: { url: nowhere, expect: {} } }]", "does not begin with `http://`"),
        (
            "gates: [{ name: a, http: { url: \"http://h/\", token-file: t, expect: {} } }]",
            "`http://h/` is not encrypted and not on this machine",
        ),
        (
            "gates: [{ name: a, prometheus: { url: \"http://10.0.0.1\", token-file: t, query: q, value: 1 } }]",
            "`http://10.0.0.1` is not encrypted and not on this machine",
        ),
        ("gates: [{ name: a, http: { url: \"http://h/\" } }]", "has no `expect`"),
        (
            "gates: [{ name: a, http: { url: \"http://h/\", timeout: 0s, expect: {} } }]",
            "`timeout: 0s` leaves no time to answer",
        ),
        (
            "gates: [{ name: a, prometheus: { url: \"http://h\", query: q, value: 1, timeout: 1h } }]",
            "`timeout: 1h` is longer than anybody waits for a gate",
        ),
        (
            "gates: [{ name: a, http: { url: \"http://h/\", expect: { json: { open: 1 } } } }]",
            "is not a JSONPath",
        ),
        ("budget: { quorum: { etcd: {} } }", "every host would be in it"),
        ("budget: { run: 1 }", "did you mean `runs`?"),
        ("budgt: {}", "unknown key `budgt` in the configuration"),
    ] {
        let text = format!("controller: 1\n{text}\n");
        let problems =
            Config::read("c.yaml", text.as_bytes(), Path::new("/")).expect_err("it is wrong").render(false);
        assert!(problems.contains(because) && problems.contains("c.yaml:2:"), "{text}: {problems}");
    }
}
