//! The interface of Toxiproxy over HTTP: routes, answers and words as its clients expect them.
//!
//! Nobody can keep it from others: connections are bounded in number, requests in size and time, and what may take a
//! while is done outside the thread that reads and writes.

mod answer;
mod callers;
mod decode;
mod metrics;
mod origin;
mod route;

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use squall_agent::proxy::control::Control;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use answer::{Answer, Refused};
use callers::{Callers, Place};
pub(super) use decode::{first, proxies};
pub(super) use metrics::Metrics;
use route::Route;

/// How long a request may take to arrive, its head and its body each.
const ARRIVAL: Duration = Duration::from_secs(15);
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
    let callers = Callers::new();
    loop {
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
        let place = callers.place().await;
        let api = api.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answered = respond(api.clone(), request, &place);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new()).header_read_timeout(ARRIVAL);
            let stream = TokioIo::new(place.watch(stream));
            tokio::select! {
                ended = connection.serve_connection(stream, service) => if let Err(error) = ended {
                    tracing::debug!("a caller's connection ended: {error}");
                },
                () = place.is_needed() => tracing::debug!("a caller that was idle made room for another"),
            }
        });
    }
}

async fn respond<B>(api: Arc<Api>, request: Request<B>, place: &Place) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if let Some(why) = origin::refused(request.headers()) {
        return Answer::text(StatusCode::FORBIDDEN, why).marked();
    }
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default();
    let Some(route) = Route::of(&path, query, api.metrics.any()) else {
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
    let answered = place.serve(spawn_blocking(move || api.answer(&method, &route, &body))).await;
    let answer =
        answered.unwrap_or_else(|_| Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n"));
    tracing::debug!(path, status = answer.status().as_u16(), "answered");
    answer.marked()
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

#[cfg(test)]
mod tests;
