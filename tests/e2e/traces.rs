//! Traces of runs and requests, at a collector that reads OTLP: through the real controller and its agents.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::routing::post;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use squall_tests::client::connect;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::serve::{Fleet, Manner};

const AT: &str = "127.0.0.1:4318";
/// A trace that a pipeline began, and its span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// The body of a request, as opentelemetry-proto 1.x has it: a name that is not in it is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Export {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    name: String,
    #[serde(rename = "version")]
    _version: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: Option<String>,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    #[serde(rename = "events")]
    _events: Vec<Event>,
    #[serde(default)]
    status: Option<Status>,
    flags: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Event {
    #[serde(rename = "timeUnixNano")]
    _time: String,
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "attributes")]
    _attributes: Vec<Attribute>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    key: String,
    value: Any,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
enum Any {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "intValue")]
    Whole(String),
    #[serde(rename = "boolValue")]
    Yes(bool),
    #[serde(rename = "doubleValue")]
    Real(f64),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    code: u8,
    #[serde(rename = "message")]
    _message: String,
}

impl Span {
    fn is(&self, key: &str, value: &str) -> bool {
        let same = |it: &Attribute| match &it.value {
            Any::Text(text) | Any::Whole(text) => it.key == key && text == value,
            Any::Yes(_) | Any::Real(_) => false,
        };
        self.attributes.iter().any(same)
    }

    fn times(&self) -> (u64, u64) {
        let read = |text: &str| text.parse().expect("a number as text");
        (read(&self.start_time_unix_nano), read(&self.end_time_unix_nano))
    }
}

/// What a collector has taken.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    /// Listens on a host, until the test ends.
    fn on(host: &Host) -> Self {
        let (own, netns) = (Collector::default(), host.netns.clone());
        let theirs = own.clone();
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            netns.enter().expect("the host can be entered");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let router = Router::new().route("/v1/traces", post(takes)).with_state(theirs);
                let listener = tokio::net::TcpListener::bind(AT).await.expect("it listens");
                tell.send(()).expect("somebody waits");
                axum::serve(listener, router).await.expect("it serves");
            });
        });
        told.recv().expect("it listens");
        own
    }

    fn spans(&self) -> Vec<Span> {
        let wrong = self.wrong.lock().expect("nobody panics with it");
        assert!(wrong.is_empty(), "what came is no OTLP: {wrong:?}");
        self.spans.lock().expect("nobody panics with it").clone()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }
}

/// Read as JSON only where the header says that it is.
async fn takes(State(own): State<Collector>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    match serde_json::from_value::<Export>(body) {
        Ok(export) => {
            for of in export.resource_spans {
                let service = Any::Text("squall".to_owned());
                let named = |it: &Attribute| it.key == "service.name" && it.value == service;
                assert!(of.resource.attributes.iter().any(named), "whose spans are they?");
                for spans in of.scope_spans {
                    assert_eq!(spans.scope.name, "squall");
                    own.spans.lock().expect("nobody panics with it").extend(spans.spans);
                }
            }
            (StatusCode::OK, Json(json!({})))
        }
        Err(error) => {
            own.wrong.lock().expect("nobody panics with it").push(error.to_string());
            (StatusCode::BAD_REQUEST, Json(json!({})))
        }
    }
}

/// Begins a run as a pipeline does that belongs to a trace; gives its name.
fn begins(fleet: &Fleet, document: &str) -> String {
    let token = std::fs::read_to_string(fleet.data.join("admin-token")).expect("it was written");
    let body = json!({ "document": document }).to_string();
    let request = format!(
        "POST /v1/runs HTTP/1.1\r\nHost: 127.0.0.1:8416\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         traceparent: 00-{TRACE}-{SPAN}-01\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    let at = SocketAddr::from(([127, 0, 0, 1], 8416));
    let mut stream = connect(&fleet.controller().netns, at, PATIENCE).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 201"), "{answer}");
    let run: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    run["id"].as_str().expect("a run").to_owned()
}

#[test]
fn a_run_is_a_trace_from_the_request_that_asked_for_it_to_each_undo() {
    needs!(Root, Nftables, Queue, Nginx);
    let controller = vec!["--otlp".to_owned(), format!("http://{AT}")];
    let mut fleet = Fleet::like(2, Manner { controller, ..Manner::default() });
    // It is there later than the controller, which does not mind.
    let collector = Collector::on(fleet.controller());
    let document = "squall: 1\ntitle: A page of every host\non: { labels: { role: web } }\nhypothesis:\n  \
         - name: the page is there\n    http: { url: \"http://127.0.0.1:8080/\", timeout: 2s }\n    every: 100ms\nmethod:\n  \
         - fault: { latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] } }\n    for: 1s\n";
    let run = begins(&fleet, document);
    fleet.asks(&["watch", &run]).run().expect_exit(0);
    let root = until("the run at the collector", PATIENCE, || collector.named("run").pop());
    assert!(root.is("squall.run", &run) && root.is("squall.exit", "0"), "{root:?}");
    assert!(root.status.is_none(), "{root:?}");
    assert_eq!((root.trace_id.as_str(), root.kind, root.flags), (TRACE, 1, 1));
    let asked = until("the request at the collector", PATIENCE, || collector.named("POST /v1/runs").pop());
    assert_eq!(
        (asked.trace_id.as_str(), asked.parent_span_id.as_deref(), asked.kind),
        (TRACE, Some(SPAN), 2)
    );
    assert_eq!(root.parent_span_id.as_deref(), Some(asked.span_id.as_str()));

    // Each host stands in it with what was done there, each part within the time of what it belongs to.
    let own: Vec<Span> = collector.spans().into_iter().filter(|span| span.trace_id == TRACE).collect();
    let below = |parent: &Span, name: &str| -> Vec<Span> {
        let of = own.iter().filter(|span| span.parent_span_id.as_deref() == Some(&parent.span_id));
        let named: Vec<Span> = of.filter(|span| span.name == name).cloned().collect();
        for span in &named {
            let ((from, to), (begun, ended)) = (parent.times(), span.times());
            assert!(from <= begun && begun <= ended && ended <= to, "{span:?} in {parent:?}");
            assert!(span.status.as_ref().is_none_or(|status| status.code != 2), "{span:?}");
        }
        named
    };
    let hosts = below(&root, "host");
    assert_eq!(hosts.len(), 2, "{own:#?}");
    for name in ["web-1", "web-2"] {
        let host = hosts.iter().find(|host| host.is("squall.host", name)).expect("each has one");
        for phase in ["baseline", "method", "revert", "recovery"] {
            assert_eq!(below(host, phase).len(), 1, "{phase}: {own:#?}");
        }
        let method = below(host, "method").remove(0);
        assert_eq!(below(&method, "step").len(), 1, "{own:#?}");
        let injection = below(&method, "injection");
        assert_eq!(injection.len(), 1, "{own:#?}");
        let (from, to) = injection[0].times();
        assert!(to - from >= 1_000_000_000, "it was live for a second: {injection:?}");
        assert!(injection[0].is("squall.run", &run) && injection[0].is("squall.host", name));
        let undone = below(&injection[0], "undo").len() + below(&below(host, "revert")[0], "undo").len();
        assert!(undone >= 1, "{own:#?}");
    }

    // What was said last is sent before the controller ends.
    fleet.asks(&["halt", "--run", &run, "--controller", fleet.url()]).run();
    let mut controller = fleet.controller.take().expect("it was started");
    controller.signal(Signal::TERM);
    holds("the controller to end", PATIENCE, || controller.ended());
    assert_eq!(collector.named("POST /v1/runs/{id}/halt").len(), 1, "{:#?}", collector.spans());
    fleet.serve();
    fleet.holds_connected();
    fleet.end();
}

#[test]
fn an_address_that_is_none_is_refused_before_anything_is_made() {
    needs!(Root);
    let world = World::new(1);
    let data = world.directory.join("data");
    let serve = ["serve", "--data", &data.display().to_string(), "--otlp", "collector:4317"];
    let refused = world.hosts[0].squall(&serve).run();
    refused.expect_exit(4).expect_told("`--otlp` is no address of a collector").expect_told("http://");
    assert!(!data.exists(), "{}", refused.story());
}
