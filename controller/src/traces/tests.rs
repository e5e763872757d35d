//! From a log to what a collector hears, through a real one on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use squall_experiments::muster::Line;
use tokio::net::TcpListener;

use super::{Context, Traces};

const RUN: &str = "20261121-105112000-0a1b2c";

/// A collector, and the spans that it was given, by name.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Value>>>,
    /// With which status it answers first, one after the other.
    first: Arc<Mutex<Vec<u16>>>,
}

impl Collector {
    async fn listens(first: &[u16]) -> (Self, String) {
        let collector = Collector { first: Arc::new(Mutex::new(first.to_vec())), ..Collector::default() };
        let router = Router::new().route("/v1/traces", post(Collector::takes)).with_state(collector.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let at = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, format!("http://{at}"))
    }

    async fn takes(State(own): State<Collector>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
        let mut first = own.first.lock().expect("nobody panics with it");
        if !first.is_empty() {
            let status = StatusCode::from_u16(first.remove(0)).expect("a status");
            return (status, Json(json!({})));
        }
        let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
        own.spans.lock().expect("nobody panics with it").extend(spans);
        (StatusCode::OK, Json(json!({ "partialSuccess": {} })))
    }

    fn all(&self, name: &str) -> Vec<Value> {
        let spans = self.spans.lock().expect("nobody panics with it");
        spans.iter().filter(|span| span["name"] == name).cloned().collect()
    }

    fn one(&self, name: &str) -> Value {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "`{name}`: {:#?}", self.spans.lock().expect("nobody panics with it"));
        all[0].clone()
    }
}

fn attribute(span: &Value, name: &str) -> Value {
    let all = span["attributes"].as_array().expect("attributes");
    let found = all.iter().find(|it| it["key"] == name).map(|it| it["value"].clone());
    found.unwrap_or_else(|| panic!("no `{name}`: {span:#}"))
}

fn lines(log: &[Value]) -> Vec<Line> {
    let line = |(seq, line): (u64, &Value)| {
        let mut line = line.clone();
        line["seq"] = json!(seq);
        serde_json::from_value(line.clone()).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    (1..).zip(log).map(line).collect()
}

fn log() -> Vec<Line> {
    let lifted = |stuck: &[&str], took_us: u64| json!({ "evidence": [], "undone": ["4 rules"], "stuck": stuck, "others": [], "took_us": took_us });
    let on = |at_ms: u64, event: &str, rest: Value| {
        let mut line = json!({ "host": "web-1", "at_ms": at_ms, "event": event });
        let line_of = line.as_object_mut().expect("an object");
        line_of.extend(rest.as_object().expect("an object").clone());
        line
    };
    let started = json!({
        "run": RUN, "title": "T", "date": "2026-11-21T10:51:12Z", "seed": 7, "plan": "00", "faults": 2,
        "version": "0.1.0", "agent": null, "hypotheses": [], "guards": [],
    });
    let injecting =
        |part: u32| json!({ "part": part, "name": format!("fault {part}"), "changes": [], "lasts_ms": 2000 });
    let applied = json!({ "targets": [], "notes": [], "took_us": 100 });
    lines(&[
        json!({ "at_ms": 0, "fleet": "began", "run": RUN, "title": "T", "date": "2026-11-21T10:51:12Z",
                "at": 1_795_258_272_000u64, "seed": 7, "plan": "00", "version": "0.1.0", "on_partial": "revert", "hosts": ["web-1"] }),
        on(1, "started", started),
        on(5, "baseline-met", json!({})),
        on(5, "step-began", json!({ "step": "1", "what": "fault 1 for 2s" })),
        on(5, "injecting", injecting(1)),
        on(8, "injected", json!({ "part": 1, "applied": applied })),
        on(2010, "lifted", json!({ "part": 1, "lifted": lifted(&[], 1500), "why": null })),
        on(2010, "step-ended", json!({ "step": "1" })),
        on(2010, "step-began", json!({ "step": "2", "what": "fault 2 for 2s" })),
        on(2011, "injecting", injecting(2)),
        on(2012, "injected", json!({ "part": 2, "applied": applied })),
        on(2500, "guard-tripped", json!({ "name": "site is up", "seen": "503" })),
        on(2600, "lifted", json!({ "part": null, "lifted": lifted(&[], 4000), "why": null })),
        on(2600, "recovery-began", json!({})),
        on(2700, "well-again", json!({ "after_ms": 1 })),
        on(2710, "finished", json!({ "exit": 5, "sentence": "deviated: a guard" })),
        json!({ "at_ms": 2720, "fleet": "finished", "exit": 5, "sentence": "deviated: a guard" }),
    ])
}

fn nanos(span: &Value, name: &str) -> u64 {
    span[name].as_str().expect("64 bits are text").parse().expect("a number")
}

#[tokio::test]
async fn a_log_becomes_a_tree_of_spans_that_a_collector_takes_at_its_second_try() {
    let (collector, url) = Collector::listens(&[503]).await;
    let traces = Traces::begin(Some(&url), |_| None).expect("an address");
    let mut spans = traces.of_run(RUN, None);
    log().iter().for_each(|line| spans.hear(line));
    drop(spans);
    // The first attempt is refused; the end of the program is the second.
    while !collector.first.lock().expect("nobody panics with it").is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    traces.close().await;

    let (run, host) = (collector.one("run"), collector.one("host"));
    assert!(run.get("parentSpanId").is_none(), "{run:#}");
    assert_eq!(attribute(&run, "squall.run"), json!({ "stringValue": RUN }));
    assert_eq!(attribute(&run, "squall.exit"), json!({ "intValue": "5" }));
    assert_eq!(run["status"], json!({ "code": 2, "message": "deviated: a guard" }));
    assert_eq!(nanos(&run, "startTimeUnixNano"), 1_795_258_272_000_000_000);
    assert_eq!(nanos(&run, "endTimeUnixNano"), 1_795_258_274_720_000_000);
    assert_eq!(host["parentSpanId"], run["spanId"]);
    assert_eq!(host["events"][0]["name"], "guard tripped");
    let mut phases = BTreeMap::new();
    for name in ["baseline", "method", "revert", "recovery"] {
        let phase = collector.one(name);
        assert_eq!(phase["parentSpanId"], host["spanId"], "{phase:#}");
        phases.insert(name, phase);
    }
    let (steps, injections, undos) =
        (collector.all("step"), collector.all("injection"), collector.all("undo"));
    assert_eq!((steps.len(), injections.len(), undos.len()), (2, 2, 2));
    for of_method in steps.iter().chain(&injections) {
        assert_eq!(of_method["parentSpanId"], phases["method"]["spanId"], "{of_method:#}");
        assert_eq!(attribute(of_method, "squall.host"), json!({ "stringValue": "web-1" }));
    }
    assert_eq!(steps[0].get("status"), None);
    assert_eq!(steps[1]["status"]["message"], "broken off", "{steps:#?}");
    assert_eq!(undos[0]["parentSpanId"], injections[0]["spanId"], "{undos:#?}");
    assert_eq!(undos[1]["parentSpanId"], phases["revert"]["spanId"], "{undos:#?}");
    let took = nanos(&undos[1], "endTimeUnixNano") - nanos(&undos[1], "startTimeUnixNano");
    assert_eq!(took, 4_000_000);
    let all = collector.spans.lock().expect("nobody panics with it");
    let ids: Vec<&str> = all.iter().map(|span| span["spanId"].as_str().expect("text")).collect();
    for (at, span) in all.iter().enumerate() {
        assert_eq!(span["traceId"], run["traceId"]);
        assert_eq!((span["traceId"].as_str().map(str::len), ids[at].len()), (Some(32), 16));
        assert!(!ids[at + 1..].contains(&ids[at]), "two have one name");
    }
}

#[tokio::test]
async fn a_run_that_is_cut_off_says_so_and_one_under_a_trace_belongs_to_it_or_is_not_sent() {
    let (collector, url) = Collector::listens(&[]).await;
    let traces = Traces::begin(Some(&url), |_| None).expect("an address");
    let under = Context { trace: 0xabc, span: 0xdef, kept: true };
    let mut spans = traces.of_run(RUN, Some(under));
    log()[..6].iter().for_each(|line| spans.hear(line));
    drop(spans);
    let mut unkept = traces.of_run("other", Some(Context { kept: false, ..under }));
    log().iter().for_each(|line| unkept.hear(line));
    drop(unkept);
    traces.close().await;
    let run = collector.one("run");
    assert_eq!(run["traceId"], format!("{:032x}", 0xabc));
    assert_eq!(run["parentSpanId"], format!("{:016x}", 0xdef));
    assert_eq!(run["status"]["code"], 2, "{run:#}");
    assert_eq!(collector.one("injection")["status"]["message"], "broken off");
}

#[tokio::test]
async fn a_request_takes_over_the_trace_of_its_caller_and_strangers_are_not_told_of() {
    let (collector, url) = Collector::listens(&[]).await;
    let traces = Traces::begin(Some(&url), |_| None).expect("an address");
    let headers = |flags: &str| {
        let value = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        HeaderMap::from_iter([(
            axum::http::HeaderName::from_static("traceparent"),
            HeaderValue::try_from(value).expect("a value"),
        )])
    };
    let comes = |path: &str, headers: &HeaderMap| traces.request(&Method::POST, path, headers);
    let asks = |path: &str, headers: &HeaderMap| {
        let mut asked = comes(path, headers);
        asked.let_in();
        asked
    };
    let asked = asks("/v1/runs", &headers("01"));
    let context = asked.context().expect("it is sent");
    asked.answered(StatusCode::CREATED);
    for stranger in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::MISDIRECTED_REQUEST] {
        comes("/v1/runs", &HeaderMap::new()).answered(stranger);
    }
    asks("/health", &headers("01")).answered(StatusCode::OK);
    let unkept = asks("/v1/runs", &headers("00"));
    assert!(unkept.context().is_some_and(|context| !context.kept), "what it begins is not kept either");
    unkept.answered(StatusCode::CREATED);
    drop(comes("/v1/runs", &HeaderMap::new()));
    drop(asks("/v1/halt", &HeaderMap::new()));
    traces.close().await;
    let run = collector.one("POST /v1/runs");
    assert_eq!(run["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(run["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(run["spanId"], format!("{:016x}", context.span));
    assert_eq!(run["kind"], 2);
    assert_eq!(attribute(&run, "http.response.status_code"), json!({ "intValue": "201" }));
    let halt = collector.one("POST /v1/halt");
    assert_eq!(attribute(&halt, "error.type"), json!({ "stringValue": "the caller hung up" }));
    assert_eq!(collector.spans.lock().expect("nobody panics with it").len(), 2);
}

#[tokio::test]
async fn a_collector_that_is_not_there_keeps_nobody_waiting() {
    // Nobody listens at port 9 of loopback; more spans than wait are dropped.
    let traces = Traces::begin(Some("http://127.0.0.1:9"), |_| None).expect("an address");
    for _ in 0..10_000 {
        let mut asked = traces.request(&Method::GET, "/v1/runs", &HeaderMap::new());
        asked.let_in();
        asked.answered(StatusCode::OK);
    }
    tokio::time::timeout(Duration::from_secs(60), traces.close()).await.expect("it ends");
}
