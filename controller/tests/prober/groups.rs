//! What a load asks for and over what: endpoints, templates, HTTP/2, a control group.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::task::{LocalSet, spawn_local};

use crate::prober::{expect_nothing, once};
use crate::server::{answer, kept, tls};

/// How a server behaves.
#[derive(Clone, Copy, Default)]
struct Manner {
    http2: bool,
    /// The most requests at the same time on one connection.
    streams: Option<u32>,
    /// No answer before so many requests wait for theirs.
    gather: usize,
    /// A connection says that it closes after so many requests.
    served: Option<usize>,
    status: u16,
}

/// A server of our own, and what came to it.
struct Server {
    address: SocketAddr,
    /// Method, path, host, `x-user` and body of every request.
    came: Arc<Mutex<Vec<[String; 5]>>>,
    connections: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

fn server(manner: Manner) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server { address, came: Arc::default(), connections: Arc::default() };
    let (came, connections) = (server.came.clone(), server.connections.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let waiting = Arc::new(AtomicUsize::new(0));
        LocalSet::new().block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (came, waiting) = (came.clone(), waiting.clone());
                let (leave, mut leaving) = tokio::sync::watch::channel(false);
                let served = Arc::new(AtomicUsize::new(0));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (came, waiting) = (came.clone(), waiting.clone());
                    if served.fetch_add(1, Ordering::SeqCst) + 1 == manner.served.unwrap_or(usize::MAX) {
                        leave.send(true).unwrap();
                    }
                    async move { Ok::<_, Infallible>(serve(request, manner, &came, &waiting).await) }
                });
                spawn_local(async move {
                    let stream = TokioIo::new(stream);
                    if manner.http2 {
                        let mut builder = http2::Builder::new(Local);
                        builder.max_concurrent_streams(manner.streams);
                        let connection = builder.serve_connection(stream, service);
                        let mut connection = std::pin::pin!(connection);
                        tokio::select! {
                            _ = connection.as_mut() => return,
                            Ok(()) = leaving.changed() => connection.as_mut().graceful_shutdown(),
                        }
                        let _ = connection.await;
                    } else {
                        let _ = http1::Builder::new().serve_connection(stream, service).await;
                    }
                });
            }
        });
    });
    server
}

async fn serve(
    request: Request<Incoming>,
    manner: Manner,
    came: &Mutex<Vec<[String; 5]>>,
    waiting: &AtomicUsize,
) -> Response<Full<Bytes>> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let uri = request.uri();
    let host = uri.authority().map_or_else(|| header("host"), ToString::to_string);
    let path = uri.path_and_query().unwrap().to_string();
    let (method, user) = (request.method().to_string(), header("x-user"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    came.lock().unwrap().push([method, path, host, user, body]);
    waiting.fetch_add(1, Ordering::SeqCst);
    while waiting.load(Ordering::SeqCst) < manner.gather {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Response::builder().status(manner.status.max(200)).body(Full::default()).unwrap()
}

impl Server {
    /// How often each of these came.
    fn count(&self, part: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        self.came.lock().unwrap().iter().for_each(|came| *counts.entry(came[part].clone()).or_default() += 1);
        counts
    }
}

/// One sample of a hundred requests.
fn hundred(load: Value) -> Value {
    let mut load = load;
    load["rate"] = "500/s".into();
    load["timeout"] = "20s".into();
    json!({ "load": { "load": load, "tick": "200ms" } })
}

#[test]
fn each_endpoint_gets_its_share_with_parts_of_its_own() {
    for http2 in [false, true] {
        let server = server(Manner { http2, ..Manner::default() });
        let sample = once(
            hundred(json!({
                "url": format!("http://{}", server.address), "http2": http2, "headers": { "x-user": "u{{n % 4}}" },
                "endpoints": [
                    { "path": "/cart/{{n}}", "weight": 3, "method": "POST", "body": "{\"id\":\"{{uuid}}\"}" },
                    { "path": "/catalog", "headers": { "x-user": "nobody" } }
                ]
            })),
            expect_nothing(),
        );
        assert!(sample.good, "{}", sample.seen);
        assert_eq!(server.count(0), BTreeMap::from([("GET".to_owned(), 25), ("POST".to_owned(), 75)]));
        let paths = server.count(1);
        assert_eq!(
            (paths.len(), paths["/catalog"], paths["/cart/75"]),
            (76, 25, 1),
            "each number once: {paths:?}"
        );
        assert_eq!(server.count(2), BTreeMap::from([(server.address.to_string(), 100)]));
        let users = server.count(3);
        assert_eq!((users.len(), users["nobody"]), (5, 25), "{users:?}");
        let bodies = server.count(4);
        assert_eq!((bodies.len(), bodies[""]), (76, 25), "each UUID once");
    }
}

#[test]
fn many_requests_share_a_connection_of_http2_and_no_more_than_the_server_allows() {
    for (streams, gather, connections) in [(None, 100, 1..=1), (Some(30), 90, 3..=4)] {
        let server = server(Manner { http2: true, streams, gather, ..Manner::default() });
        let url = format!("http://{}/", server.address);
        let sample = once(hundred(json!({ "url": url, "http2": true })), expect_nothing());
        assert!(sample.good, "{}", sample.seen);
        let open = server.connections.load(Ordering::SeqCst);
        assert!(connections.contains(&open), "{open} connections, {streams:?} on each");
    }
}

#[test]
fn a_connection_of_http2_that_its_server_ends_costs_no_request() {
    let server = server(Manner { http2: true, served: Some(20), ..Manner::default() });
    let url = format!("http://{}/", server.address);
    let sample = once(hundred(json!({ "url": url, "http2": true })), expect_nothing());
    assert!(sample.good, "{}", sample.seen);
    let open = server.connections.load(Ordering::SeqCst);
    assert!((2..=6).contains(&open), "{open} connections, twenty requests on each");
}

#[test]
fn who_does_not_speak_http2_is_told_from_who_does() {
    let kind = |url: String| {
        let load = json!({ "url": url, "http2": true, "tls": { "insecure": true } });
        let sample = once(hundred(load), expect_nothing());
        assert!(!sample.good, "{}", sample.seen);
        sample.load.unwrap().errors[0].seen.clone()
    };
    let certificate = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    assert_eq!(kind(format!("https://{}/", tls(&certificate))), "TLS: the server does not speak HTTP/2");
    let old = kept(|_| answer("200 OK", "", "a page"));
    let said = kind(format!("http://{}/", old.address));
    assert!(said.starts_with("HTTP/2: ") || said.contains("closed") || said.contains("reset"), "{said}");
}

#[test]
fn a_control_group_gets_the_same_requests_and_is_counted_apart() {
    let (broken, well) = (server(Manner { status: 503, ..Manner::default() }), server(Manner::default()));
    let load = json!({
        "url": format!("http://{}", broken.address),
        "endpoints": [{ "path": "/a/{{n}}", "weight": 3 }, { "path": "/b" }],
        "control": { "server": format!("http://{}", well.address), "headers": { "x-user": "control" } }
    });
    let sample = once(hundred(load), json!({ "errors": "<= 1.5x control" }));
    let load = sample.load.unwrap();
    let control = load.control.as_ref().unwrap();
    assert_eq!((load.requests, load.failed(), control.requests, control.failed()), (100, 100, 100, 0));
    let kinds: Vec<(&str, u64)> =
        load.errors.iter().map(|count| (count.seen.as_str(), count.times)).collect();
    assert_eq!(kinds, [("`/a/{{n}}`: 503 (expected 2xx)", 75), ("`/b`: 503 (expected 2xx)", 25)]);
    assert_eq!(broken.count(1), well.count(1), "the same requests");
    assert_eq!(broken.count(3), BTreeMap::from([(String::new(), 100)]));
    assert_eq!(well.count(3), BTreeMap::from([("control".to_owned(), 100)]));
    let begun = |load: &squall_experiments::probe::Load| -> Vec<u32> {
        load.slots.iter().map(|slot| slot.requests).collect()
    };
    assert_eq!(begun(&load), begun(control), "at the same times");
}
