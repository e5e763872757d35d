//! Real connections over loopback: a client, the proxy, and a dependency that speaks what the client speaks.

mod authority;
mod foreign;
mod heads;
mod reset;
mod tls;
mod unheard;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::body::{Broken, Flow};
use super::faults::{empty, full};
use super::prefixed::{Duplex, Prefixed};
use super::spoken::Spoken;
use crate::proxy::control::{Control, Wanted, WantedToxic};
use crate::proxy::observations::{KEPT, Observations};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs to its end, which has to come.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 3, test).await.expect("it ends") })
}

/// A proxy in front of a dependency.
struct World {
    control: Arc<Control>,
    listen: SocketAddr,
    asked: Arc<AtomicU64>,
}

impl World {
    async fn new() -> World {
        let asked = Arc::new(AtomicU64::new(0));
        let upstream = dependency(asked.clone(), None).await;
        World::before(upstream, asked, Wanted { protocol: "http".to_owned(), ..Wanted::default() })
    }

    fn before(upstream: SocketAddr, asked: Arc<AtomicU64>, wanted: Wanted) -> World {
        let control = Control::observing(7, Observations::new(KEPT)).expect("threads");
        let wanted = Wanted {
            name: "shop".to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            upstream: format!("localhost:{}", upstream.port()),
            enabled: true,
            ..wanted
        };
        let shown = control.create(&wanted).expect("a proxy");
        World { control, listen: shown.listen.parse().expect("an address"), asked }
    }

    fn toxic(&self, kind: &str, stream: &str, attributes: &Value, concerns: Value) {
        let attributes = attributes.as_object().cloned().unwrap_or_default();
        let (kind, stream) = (kind.to_owned(), stream.to_owned());
        let wanted = WantedToxic { kind, stream, attributes, concerns, ..WantedToxic::default() };
        self.control.add_toxic("shop", &wanted).expect("a toxic");
    }

    fn remove(&self, name: &str) {
        self.control.remove_toxic("shop", name).expect("it is there");
    }

    async fn first(&self) -> http1::SendRequest<Flow> {
        let stream = TcpStream::connect(self.listen).await.expect("it listens");
        let mut builder = http1::Builder::new();
        let connecting = builder.max_headers(1000).handshake(TokioIo::new(stream));
        let (sender, connection) = connecting.await.expect("a connection");
        tokio::spawn(connection.with_upgrades());
        sender
    }

    async fn second(&self) -> http2::SendRequest<Flow> {
        let stream = TcpStream::connect(self.listen).await.expect("it listens");
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_header_list_size(1 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }

    /// What was seen of requests so far.
    async fn seen(&self, count: usize) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let page = self.control.observations().page(0, 1000).records;
            let requests: Vec<Value> =
                page.into_iter().filter(|record| record["kind"] == "request").collect();
            if requests.len() >= count || begun.elapsed() > PATIENCE {
                return requests;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Speaks both versions. It sends back the body, with the method, the path and the tenant as headers; `/stream` sends
/// a body and trailers; `/chat` becomes an echo of bytes; `/hang` says nothing; `/headers` sends back those that begin with
/// `x-much-`.
async fn dependency(asked: Arc<AtomicU64>, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (asked, tls) = (asked.clone(), tls.clone());
            tokio::spawn(async move {
                let stream: Box<dyn Duplex> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let service = service_fn(move |request| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    async move { Ok::<_, Infallible>(answer(request).await) }
                });
                let mut stream = Prefixed::new(stream);
                let Ok(spoken) = stream.look().await else { return };
                let stream = TokioIo::new(stream);
                if spoken == Spoken::Second {
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.max_header_list_size(1 << 20);
                    let _ = builder.serve_connection(stream, service).await;
                } else {
                    let mut builder = hyper::server::conn::http1::Builder::new();
                    builder.half_close(true).max_headers(1000);
                    let _ = builder.serve_connection(stream, service).with_upgrades().await;
                }
            });
        }
    });
    address
}

async fn answer(mut request: Request<Incoming>) -> Response<Flow> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/hang" => std::future::pending().await,
        "/chat" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let Ok(upgraded) = upgrade.await else { return };
                let mut stream = TokioIo::new(upgraded);
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(UPGRADE, HeaderValue::from_static("chat"));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response
        }
        "/headers" => {
            let mut response = Response::new(empty());
            let much = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-much-"));
            response.headers_mut().extend(much.map(|(name, value)| (name.clone(), value.clone())));
            response
        }
        "/stream" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = Full::new(Bytes::from_static(b"onetwo")).with_trailers(async { Some(Ok(trailers)) });
            Response::new(body.map_err(|never: Infallible| -> Broken { match never {} }).boxed_unsync())
        }
        _ => {
            let tenant = request.headers().get("x-tenant").cloned();
            let method = request.method().to_string();
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut response = Response::builder().header("x-method", method).header("x-path", path);
            if let Some(tenant) = tenant {
                response = response.header("x-tenant", tenant);
            }
            response.body(full(body)).expect("an answer")
        }
    }
}

fn post(path: &str, body: &'static str) -> Request<Flow> {
    let request = Request::post(path).header("host", "shop").header("x-tenant", "acme");
    request.body(full(Bytes::from_static(body.as_bytes()))).expect("a request")
}

fn over_second(path: &str, body: &'static str) -> Request<Flow> {
    let request = Request::post(format!("http://shop{path}")).header("content-type", "application/grpc");
    request.body(full(Bytes::from_static(body.as_bytes()))).expect("a request")
}

async fn text(response: Response<Incoming>) -> Result<(String, HeaderMap), hyper::Error> {
    let body = response.into_body().collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok((String::from_utf8_lossy(&body.to_bytes()).into_owned(), trailers))
}

#[test]
fn requests_and_answers_pass_as_they_are_in_both_versions() {
    run(async {
        let world = World::new().await;
        let mut sender = world.first().await;
        for body in ["", "hello"] {
            sender.ready().await.expect("it stays open");
            let response = sender.send_request(post("/a/b?c=d", body)).await.expect("an answer");
            let headers = response.headers().clone();
            assert_eq!(headers["x-method"], "POST");
            assert_eq!(headers["x-path"], "/a/b");
            assert_eq!(headers["content-length"], body.len().to_string());
            assert_eq!(text(response).await.expect("a body").0, body);
        }
        let mut sender = world.second().await;
        let (one, two) = (over_second("/one", "1"), over_second("/stream", "2"));
        let (first, second) = tokio::join!(sender.clone().send_request(one), sender.send_request(two));
        assert_eq!(text(first.expect("an answer")).await.expect("a body").0, "1");
        let (body, trailers) = text(second.expect("an answer")).await.expect("a body");
        assert_eq!(body, "onetwo");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(
            world.control.get("shop").expect("it is there").counters.accepted.load(Ordering::Relaxed),
            2
        );
    });
}

#[test]
fn the_bytes_of_the_first_version_keep_their_case_their_half_close_and_their_end() {
    run(async {
        let world = World::new().await;
        let mut stream = TcpStream::connect(world.listen).await.expect("it listens");
        stream.write_all(b"HEAD /x HTTP/1.1\r\nHost: shop\r\nX-TeNaNt: a\r\n\r\n").await.expect("sent");
        stream.shutdown().await.expect("its half can be closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an orderly end");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        // What is no HTTP ends its own connection and nothing else.
        for garbage in
            [&b"\0\x01\x02\r\n\r\n"[..], b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot frames at all"]
        {
            let mut stream = TcpStream::connect(world.listen).await.expect("it listens");
            stream.write_all(garbage).await.expect("sent");
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        let mut sender = world.first().await;
        assert!(sender.send_request(post("/", "")).await.is_ok());
    });
}

#[test]
fn a_status_is_answered_instead_of_the_dependency_where_the_matcher_means_it() {
    run(async {
        let world = World::new().await;
        let concerns =
            json!({ "path": "/pay/*", "method": "POST", "header": { "x-tenant": "acme" }, "first": 2 });
        world.toxic("http_status", "downstream", &json!({ "status": 429, "body": "slow down" }), concerns);
        let mut sender = world.first().await;
        let mut statuses = Vec::new();
        for path in ["/", "/pay/1", "/pay/1", "/pay/1"] {
            sender.ready().await.expect("it stays open");
            let response = sender.send_request(post(path, "body")).await.expect("an answer");
            statuses.push(response.status().as_u16());
            let expected = if response.status() == 429 { "slow down" } else { "body" };
            assert_eq!(text(response).await.expect("a body").0, expected);
        }
        assert_eq!(statuses, [200, 429, 429, 200]);
        assert_eq!(world.asked.load(Ordering::Relaxed), 2);
        // No status that is no answer, and none with a body that has none.
        for (given, status) in [(0, 503), (101, 503), (99_999, 503), (204, 204)] {
            world.remove("http_status_downstream");
            world.toxic("http_status", "downstream", &json!({ "status": given, "body": "b" }), Value::Null);
            sender.ready().await.expect("it stays open");
            let response = sender.send_request(post("/", "")).await.expect("an answer");
            assert_eq!(response.status(), status);
            let _ = text(response).await.expect("a body");
        }
    });
}

#[test]
fn headers_and_bodies_are_altered_in_both_directions() {
    run(async {
        let world = World::new().await;
        world.toxic("http_header", "upstream", &json!({ "name": "X-Tenant", "value": "evil" }), Value::Null);
        world.toxic("http_header", "downstream", &json!({ "name": "x-method" }), Value::Null);
        world.toxic("http_body", "upstream", &json!({ "replace": "other" }), Value::Null);
        let mut sender = world.first().await;
        let response = sender.send_request(post("/", "mine")).await.expect("an answer");
        assert_eq!(response.headers()["x-tenant"], "evil");
        assert!(!response.headers().contains_key("x-method"));
        assert_eq!(text(response).await.expect("a body").0, "other");
        // What would make another message of it is left alone.
        for name in ["content-length", "transfer-encoding"] {
            world.remove("http_header_downstream");
            world.toxic("http_header", "downstream", &json!({ "name": name, "value": "1" }), Value::Null);
            sender.ready().await.expect("it stays open");
            let response = sender.send_request(post("/", "mine")).await.expect("an answer");
            assert_eq!(text(response).await.expect("a body").0, "other", "{name:?}");
        }
        world.toxic("http_body", "downstream", &json!({ "truncate": 3 }), Value::Null);
        sender.ready().await.expect("it stays open");
        let response = sender.send_request(post("/", "mine")).await.expect("an answer");
        assert_eq!(response.headers()["content-length"], "5");
        assert!(text(response).await.is_err(), "it breaks off");
        let mut sender = world.second().await;
        let response = sender.send_request(over_second("/", "mine")).await.expect("an answer");
        assert!(text(response).await.is_err(), "it breaks off");
        world.remove("http_body_downstream");
        let response = sender.send_request(over_second("/", "mine")).await.expect("an answer");
        assert_eq!(text(response).await.expect("the connection lives on").0, "other");
        let seen = world.seen(6).await;
        let cut = seen.iter().filter(|request| request["how"] == "fault").count();
        assert_eq!(cut, 2, "{seen:?}");
    });
}

#[test]
fn a_delay_holds_requests_until_it_is_removed() {
    run(async {
        let world = World::new().await;
        world.toxic("http_delay", "upstream", &json!({ "delay": 40 }), json!({ "path": "/late" }));
        let mut sender = world.second().await;
        let begun = Instant::now();
        sender.send_request(over_second("/late", "")).await.expect("an answer");
        assert!(begun.elapsed() >= Duration::from_millis(40), "{:?}", begun.elapsed());
        world.remove("http_delay_upstream");
        world.toxic("http_delay", "downstream", &json!({ "delay": 86_400_000 }), json!({ "path": "/late" }));
        let waiting = tokio::spawn(sender.clone().send_request(over_second("/late", "")));
        // Others of the same connection are not late.
        sender.send_request(over_second("/", "")).await.expect("an answer");
        assert!(!waiting.is_finished());
        world.remove("http_delay_downstream");
        waiting.await.expect("it ends well").expect("an answer");
    });
}

#[test]
fn calls_of_grpc_fail_by_method_and_nothing_else_does() {
    run(async {
        let world = World::new().await;
        let attributes = json!({ "status": 8, "message": "no room: 100 %" });
        world.toxic("grpc_status", "downstream", &attributes, json!({ "grpc": "shop.Payments/*" }));
        let mut sender = world.second().await;
        let response =
            sender.send_request(over_second("/shop.Payments/Charge", "x")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-message"], "no room: 100 %25");
        assert_eq!(text(response).await.expect("no body").0, "");
        let response = sender.send_request(over_second("/shop.Stock/Count", "x")).await.expect("an answer");
        assert_eq!(text(response).await.expect("a body").0, "x");
        let mut sender = world.first().await;
        let response = sender.send_request(post("/shop.Payments/Charge", "x")).await.expect("an answer");
        assert_eq!(text(response).await.expect("a body").0, "x");
        let seen = world.seen(3).await;
        let statuses: Vec<&Value> = seen.iter().map(|request| &request["grpc_status"]).collect();
        assert_eq!(statuses, [&json!("8"), &Value::Null, &Value::Null]);
    });
}

#[test]
fn one_toxic_fails_requests_and_calls_each_in_their_own_way() {
    run(async {
        let world = World::new().await;
        let attributes = json!({ "status": 502, "body": "gone", "grpc": 14 });
        world.toxic("http_status", "downstream", &attributes, Value::Null);
        let mut sender = world.second().await;
        let mut call = over_second("/shop.Payments/Charge", "x");
        call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let response = sender.send_request(call).await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["grpc-status"]),
            (200, &"14".parse().unwrap())
        );
        assert_eq!(response.headers()["grpc-message"], "gone");
        let mut request = over_second("/", "x");
        request.headers_mut().remove("content-type");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 502);
        assert_eq!(text(response).await.expect("a body").0, "gone");
        let counters = world.control.get("shop").expect("it is there").counters;
        let counted = (&counters.requests, &counters.requests_harmed);
        assert_eq!((counted.0.load(Ordering::Relaxed), counted.1.load(Ordering::Relaxed)), (2, 2));
    });
}

#[test]
fn what_no_header_can_be_is_refused() {
    run(async {
        let world = World::new().await;
        for (name, value) in [("", "1"), ("a b", "1"), ("\u{0}", "1"), ("x-tenant", "1\n")] {
            let attributes = json!({ "name": name, "value": value });
            let attributes = attributes.as_object().cloned().unwrap_or_default();
            let wanted = WantedToxic { kind: "http_header".to_owned(), attributes, ..WantedToxic::default() };
            let refused = world.control.add_toxic("shop", &wanted).expect_err("no header is so");
            assert!(refused.to_string().contains("of a header"), "{refused}");
        }
    });
}

#[test]
fn another_protocol_is_carried_once_both_sides_agree() {
    run(async {
        let world = World::new().await;
        let mut sender = world.first().await;
        let mut request = post("/chat", "");
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static("chat"));
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        *request.method_mut() = Method::GET;
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.expect("an upgrade"));
        for _ in 0..3 {
            stream.write_all(b"ping").await.expect("sent");
            let mut back = [0; 4];
            stream.read_exact(&mut back).await.expect("it comes back");
            assert_eq!(&back, b"ping");
        }
        // What belongs to the proxy ends with it.
        world.control.delete("shop").expect("it is there");
        assert!(matches!(stream.read(&mut [0; 4]).await, Ok(0) | Err(_)));
    });
}

#[test]
fn who_hangs_is_let_go_when_the_connection_is_over() {
    run(async {
        let world = World::new().await;
        let counters = world.control.get("shop").expect("it is there").counters;
        let mut sender = world.first().await;
        let waiting = tokio::spawn(async move { sender.send_request(post("/hang", "")).await.map(drop) });
        let begun = Instant::now();
        while world.asked.load(Ordering::Relaxed) == 0 && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(counters.requests_open.load(Ordering::Relaxed), 1);
        world.control.delete("shop").expect("it is there");
        assert!(waiting.await.expect("it ends").is_err());
        let seen = world.seen(1).await;
        assert_eq!((&seen[0]["how"], &seen[0]["status"]), (&json!("client"), &json!(0)));
        let begun = Instant::now();
        while counters.requests_open.load(Ordering::Relaxed) > 0 && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(counters.requests_open.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn what_is_sent_again_can_be_told_and_no_secret_is_kept() {
    run(async {
        let world = World::new().await;
        let mut sender = world.first().await;
        for (body, tenant) in [("one", "a"), ("one", "b"), ("two", "a")] {
            sender.ready().await.expect("it stays open");
            let mut request = post("/pay?token=hunter2", body);
            let headers = request.headers_mut();
            headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
            headers.insert("cookie", HeaderValue::from_static("session=hunter2"));
            headers.insert("x-request-id", HeaderValue::from_static("id-7"));
            headers.insert("x-tenant", HeaderValue::from_static(tenant));
            text(sender.send_request(request).await.expect("an answer")).await.expect("a body");
        }
        let seen = world.seen(3).await;
        assert_eq!(seen[0]["fingerprint"], seen[1]["fingerprint"]);
        assert_ne!(seen[0]["fingerprint"], seen[2]["fingerprint"]);
        assert_ne!(seen[0]["body_hash"], seen[2]["body_hash"]);
        assert_eq!(seen[0]["correlation"], json!([["x-request-id", "id-7"]]));
        assert_eq!((&seen[0]["target"], &seen[0]["status"]), (&json!("/pay"), &json!(200)));
        assert_eq!((&seen[0]["request_bytes"], &seen[0]["answer_bytes"]), (&json!(3), &json!(3)));
        let time = |name: &str| seen[0][name].as_u64().expect("a time");
        let order = ["begun_us", "request_end_us", "answer_begun_us", "answer_end_us"].map(time);
        assert!(order[0] > 0 && order[0] <= order[1] && order[2] <= order[3], "{order:?}");
        assert!(!format!("{seen:?}").contains("hunter2"));
    });
}
