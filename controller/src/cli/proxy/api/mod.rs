//! The interface of Toxiproxy over HTTP: routes, answers and words as its clients expect them.
//!
//! Nobody can keep it from others: connections are bounded in number, requests in size and time, and what may take a
//! while is done outside the thread that reads and writes.

mod answer;
mod decode;
mod metrics;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use squall_agent::proxy::control::Control;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use answer::{Answer, Refused};
pub(super) use decode::{first, proxies};
pub(super) use metrics::Metrics;

/// How long a request may take to arrive, its head and its body each.
const ARRIVAL: Duration = Duration::from_secs(15);
/// How many callers there may be at the same time; others wait.
const CALLERS: usize = 512;
/// The largest body that is read, in bytes: room for more than 100,000 proxies.
const LARGEST: usize = 32 << 20;
/// The version of the interface that is spoken here.
pub(super) const VERSION: &str = "2.12.0";

/// What answers requests.
pub(super) struct Api {
    pub(super) control: Arc<Control>,
    pub(super) metrics: Metrics,
}

/// Answers until the process ends.
pub(super) async fn serve(api: Arc<Api>, listener: TcpListener) {
    let callers = Arc::new(Semaphore::new(CALLERS));
    loop {
        let Ok(caller) = callers.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors are left, or the caller has gone.
                tracing::warn!("a caller cannot be answered: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let api = api.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(respond(api, request).await) }
            });
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new()).header_read_timeout(ARRIVAL);
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!("a caller's connection ended: {error}");
            }
            drop(caller);
        });
    }
}

async fn respond(api: Arc<Api>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let agent = request.headers().get(header::USER_AGENT);
    if agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/")) {
        return Answer::text(StatusCode::FORBIDDEN, "User agent not allowed\n").marked();
    }
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default();
    let Some(route) = Route::of(&path, query, &api) else {
        return Answer::text(StatusCode::NOT_FOUND, "404 page not found\n").respond();
    };
    let method = request.method().clone();
    if !route.allows(&method) {
        return Answer::empty(StatusCode::METHOD_NOT_ALLOWED).respond();
    }
    let wanted = matches!(method, Method::POST | Method::PATCH) && route != Route::Reset;
    let body = if wanted {
        match timeout(ARRIVAL, Limited::new(request.into_body(), LARGEST).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return Answer::from(Refused::body("http: request body too large")).last(),
            Err(_) => return Answer::from(Refused::body("i/o timeout")).last(),
        }
    } else {
        Bytes::new()
    };
    let answered = spawn_blocking(move || api.answer(&method, &route, &body)).await;
    let answer =
        answered.unwrap_or_else(|_| Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n"));
    tracing::debug!(path, status = answer.status().as_u16(), "answered");
    answer.marked()
}

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Proxies,
    Populate,
    Reset,
    Version,
    Metrics,
    /// What was seen, from this number on.
    Observations(u64),
    Proxy(String),
    Toxics(String),
    Toxic(String, String),
}

impl Route {
    fn of(path: &str, query: &str, api: &Api) -> Option<Route> {
        let parts: Option<Vec<String>> = path.strip_prefix('/')?.split('/').map(decoded).collect();
        let parts = parts?;
        if parts.iter().any(String::is_empty) {
            return None;
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts[..] {
            ["proxies"] => Some(Route::Proxies),
            ["populate"] => Some(Route::Populate),
            ["reset"] => Some(Route::Reset),
            ["version"] => Some(Route::Version),
            ["squall", "observations"] => Some(Route::Observations(from(query)?)),
            ["metrics"] if api.metrics.any() => Some(Route::Metrics),
            ["proxies", proxy] => Some(Route::Proxy(proxy.to_owned())),
            ["proxies", proxy, "toxics"] => Some(Route::Toxics(proxy.to_owned())),
            ["proxies", proxy, "toxics", toxic] => Some(Route::Toxic(proxy.to_owned(), toxic.to_owned())),
            _ => None,
        }
    }

    fn allows(&self, method: &Method) -> bool {
        let methods: &[Method] = match self {
            Route::Metrics => return true,
            Route::Version | Route::Observations(_) => &[Method::GET],
            Route::Populate | Route::Reset => &[Method::POST],
            Route::Proxies | Route::Toxics(_) => &[Method::GET, Method::POST],
            Route::Proxy(_) | Route::Toxic(..) => &[Method::GET, Method::POST, Method::PATCH, Method::DELETE],
        };
        methods.contains(method)
    }
}

/// `from=N`, by default 0; anything else is not understood.
fn from(query: &str) -> Option<u64> {
    match query {
        "" => Some(0),
        query => query.strip_prefix("from=")?.parse().ok(),
    }
}

/// A part of a path, its escapes undone: a name may hold any character, `/` too.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// How many observations one answer has at most: a little more than a megabyte.
const PAGE: usize = 2_000;

/// What was seen from a number on: first where this begins and ends and how much of it is no longer kept, then a line
/// for each.
fn observed(control: &Control, from: u64) -> Vec<Value> {
    let page = control.observations().page(from, PAGE);
    let next = page.records.last().map_or(page.next, |last| last["seq"].as_u64().unwrap_or_default() + 1);
    let head = json!({ "kind": "log", "next": next, "more": next < page.next, "dropped": page.dropped });
    std::iter::once(head).chain(page.records).collect()
}

impl Api {
    fn answer(&self, method: &Method, route: &Route, body: &[u8]) -> Answer {
        self.result(method, route, body).unwrap_or_else(Answer::from)
    }

    fn result(&self, method: &Method, route: &Route, body: &[u8]) -> Result<Answer, Refused> {
        let control = &self.control;
        match route {
            Route::Version => {
                return Ok(Answer::version(&format!("{{\"version\": \"{VERSION}\"}}\n")));
            }
            Route::Metrics => return Ok(Answer::metrics(self.metrics.text(control))),
            Route::Observations(from) => return Ok(Answer::lines(&observed(control, *from))),
            Route::Reset => {
                control.reset()?;
                return Ok(Answer::empty(StatusCode::NO_CONTENT));
            }
            Route::Populate => return self.populate(body),
            _ => {}
        }
        if *method == Method::DELETE {
            match route {
                Route::Proxy(proxy) => control.delete(proxy)?,
                Route::Toxic(proxy, toxic) => control.remove_toxic(proxy, toxic)?,
                _ => {}
            }
            return Ok(Answer::empty(StatusCode::NO_CONTENT));
        }
        let reads = *method == Method::GET;
        match route {
            Route::Proxies if reads => {
                let proxies: serde_json::Map<String, Value> = control
                    .list()
                    .into_iter()
                    .map(|proxy| (proxy.name.clone(), answer::value(&proxy)))
                    .collect();
                Answer::json(StatusCode::OK, &proxies)
            }
            Route::Proxies => {
                let wanted = decode::proxy(&decode::first(body)?)?;
                Answer::json(StatusCode::CREATED, &control.create(&wanted)?)
            }
            Route::Proxy(proxy) if reads => Answer::json(StatusCode::OK, &control.get(proxy)?),
            Route::Proxy(proxy) => {
                control.get(proxy)?;
                let difference = decode::difference(&decode::first(body)?)?;
                Answer::json(StatusCode::OK, &control.update(proxy, &difference)?)
            }
            Route::Toxics(proxy) if reads => Answer::json(StatusCode::OK, &control.toxics(proxy)?),
            Route::Toxics(proxy) => {
                control.get(proxy)?;
                let wanted = decode::toxic(&decode::first(body)?)?;
                Answer::json(StatusCode::OK, &control.add_toxic(proxy, &wanted)?)
            }
            Route::Toxic(proxy, toxic) if reads => {
                Answer::json(StatusCode::OK, &control.toxic(proxy, toxic)?)
            }
            Route::Toxic(proxy, toxic) => {
                control.toxic(proxy, toxic)?;
                let (attributes, toxicity) = decode::toxic_difference(&decode::first(body)?)?;
                Answer::json(StatusCode::OK, &control.update_toxic(proxy, toxic, &attributes, toxicity)?)
            }
            _ => Ok(Answer::empty(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    fn populate(&self, body: &[u8]) -> Result<Answer, Refused> {
        let wanted = decode::proxies(&decode::first(body)?)?;
        let (done, result) = self.control.populate(&wanted);
        let proxies = match done[..] {
            [] => Value::Null,
            _ => Value::Array(done.iter().map(answer::value).collect()),
        };
        match result {
            Ok(()) => Answer::json(StatusCode::CREATED, &json!({ "proxies": proxies })),
            Err(error) => {
                let refused = Refused::from(error);
                let status = refused.status;
                let body = json!({ "error": refused.text, "status": status.as_u16(), "proxies": proxies });
                Answer::json(status, &body)
            }
        }
    }
}
