//! The table of routes: what there is, who may call it, what it takes and gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, on};
use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::problem::Problem;
use super::{
    Api, access, audit, engine, gamedays, gate, halts, hosts, notify, plans, runs, schedules, state,
};
use crate::store::{self, Answered, Asked, Role, Token};
use crate::traces::{self, Context};

/// A schema in an OpenAPI document.
type Shape = fn(&mut SchemaGenerator) -> Schema;
/// What answers a request that got through.
type Handler = fn(Arc<Api>, Call) -> BoxFuture<'static, Result<Answer, Problem>>;

/// One route.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; a part in braces is a parameter.
    pub path: &'static str,
    /// The least role that may call it; `None`: anybody who reaches the server.
    pub least: Option<Role>,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Its query, by name and meaning.
    pub query: &'static [(&'static str, &'static str)],
    /// The body that it takes.
    pub takes: Option<Shape>,
    /// The status of success, its media type and its body.
    pub gives: (StatusCode, &'static str, Option<Shape>),
    handler: Handler,
}

/// A request that got through the gate.
pub(crate) struct Call {
    /// Whose it is; nobody's for a route that anybody may call.
    pub who: Option<Token>,
    /// The parameters of the path.
    pub path: BTreeMap<String, String>,
    /// The query.
    pub query: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
    /// The header `Last-Event-ID`.
    pub last_event: Option<String>,
    /// To what belongs what is done because of it, where traces are sent.
    pub trace: Option<Context>,
}

/// What a handler gives.
pub(crate) enum Answer {
    /// JSON with a status.
    Json(StatusCode, String),
    /// Anything else, whole.
    Other(Response<Body>),
}

impl Answer {
    /// JSON with status 200.
    pub(crate) fn ok(value: &impl Serialize) -> Result<Answer, Problem> {
        Answer::json(StatusCode::OK, value)
    }

    /// JSON with a status.
    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Result<Answer, Problem> {
        let text = serde_json::to_string(value).map_err(|error| {
            tracing::error!(%error, "an answer is no JSON");
            Problem::bare(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written")
        })?;
        Ok(Answer::Json(status, text))
    }

    /// Done, and nothing to say.
    pub(crate) fn none() -> Result<Answer, Problem> {
        Ok(Answer::Json(StatusCode::NO_CONTENT, String::new()))
    }

    fn response(self) -> Response<Body> {
        match self {
            Answer::Other(response) => response,
            Answer::Json(status, text) => {
                let mut response = Response::new(Body::from(text));
                *response.status_mut() = status;
                if status != StatusCode::NO_CONTENT {
                    let json = HeaderValue::from_static("application/json");
                    response.headers_mut().insert(header::CONTENT_TYPE, json);
                }
                response
            }
        }
    }
}

impl Call {
    /// The name of whoever calls, as it stands in the audit log.
    pub(crate) fn name(&self) -> String {
        self.who.as_ref().map_or_else(|| "nobody".to_owned(), |who| format!("{} ({})", who.name, who.id))
    }

    /// A parameter of the path.
    pub(crate) fn part(&self, name: &str) -> String {
        self.path.get(name).cloned().unwrap_or_default()
    }

    /// The body as a value; every mistake in it is the caller's.
    pub(crate) fn value<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the body is not understood: {error}"),
                "GET /v1/openapi.json says what it may hold",
            )
        })
    }

    /// A number of the query, between 1 and the most that is allowed.
    pub(crate) fn number(&self, name: &str, usual: u64, most: u64) -> Result<u64, Problem> {
        let Some(text) = self.query.get(name) else { return Ok(usual) };
        text.parse::<u64>()
            .map(|number| number.min(most))
            .map_err(|_| Problem::bare(StatusCode::BAD_REQUEST, format!("`{name}` is not a number")))
    }
}

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

macro_rules! route {
    ($method:ident $path:literal, $least:expr, $summary:literal, [$($query:expr),*],
     $takes:expr, $status:ident $kind:literal $gives:expr, $handler:path) => {
        Route {
            method: Method::$method,
            path: $path,
            least: $least,
            summary: $summary,
            query: &[$($query),*],
            takes: $takes,
            gives: (StatusCode::$status, $kind, $gives),
            handler: |api, call| Box::pin($handler(api, call)),
        }
    };
}

const ANYBODY: Option<Role> = None;
const LIMIT: (&str, &str) = ("limit", "how many at most: 100 unless said, never more than 1000");

const AFTER: (&str, &str) = ("after", "the `next` of the page before");

/// Every route that there is.
pub fn table() -> Vec<Route> {
    let (viewer, operator, admin) = (Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin));
    vec![
        route!(GET "/health", ANYBODY, "The process answers.", [], None, OK "application/json" Some(shape::<state::Well>), state::health),
        route!(GET "/ready", ANYBODY, "The store answers.", [], None, OK "application/json" Some(shape::<state::Well>), state::ready),
        route!(GET "/metrics", viewer, "Figures in Prometheus' text form.", [], None, OK "text/plain" None, state::metrics),
        route!(GET "/v1/openapi.json", viewer, "This interface as an OpenAPI document.", [], None, OK "application/json" None, state::openapi),
        route!(GET "/v1/me", viewer, "Whose token this is, and what it may do.", [], None, OK "application/json" Some(shape::<store::Token>), access::me),
        route!(GET "/v1/hosts", viewer, "Hosts by their names, enrolled and connected, the revoked ones too.", [LIMIT, AFTER], None, OK "application/json" Some(shape::<hosts::Hosts>), hosts::list),
        route!(GET "/v1/hosts/{name}", viewer, "One host.", [], None, OK "application/json" Some(shape::<hosts::Host>), hosts::show),
        route!(PUT "/v1/hosts/{name}/labels", admin, "Sets all labels of a host.", [], Some(shape::<BTreeMap<String, String>>), OK "application/json" Some(shape::<hosts::Host>), hosts::labels),
        route!(POST "/v1/hosts/{name}/revoke", admin, "Revokes a host: it is cut off at once, and its certificates are refused.", [], None, NO_CONTENT "" None, hosts::revoke),
        route!(GET "/v1/join-tokens", admin, "Join tokens without their secrets, the oldest first.", [LIMIT, AFTER], None, OK "application/json" Some(shape::<access::JoinTokens>), access::join_tokens),
        route!(POST "/v1/join-tokens", admin, "Makes a join token, by which hosts enrol. Its secret is in this answer and nowhere else.", [], Some(shape::<access::WantedJoin>), CREATED "application/json" Some(shape::<access::Made>), access::new_join_token),
        route!(POST "/v1/join-tokens/{id}/revoke", admin, "Revokes a join token.", [], None, NO_CONTENT "" None, access::revoke_join_token),
        route!(GET "/v1/tokens", admin, "Tokens without their secrets, the oldest first.", [LIMIT, AFTER], None, OK "application/json" Some(shape::<access::Tokens>), access::tokens),
        route!(POST "/v1/tokens", admin, "Makes a token. Its secret is in this answer and nowhere else.", [], Some(shape::<access::Wanted>), CREATED "application/json" Some(shape::<access::Made>), access::new_token),
        route!(POST "/v1/tokens/{id}/revoke", admin, "Revokes a token; live streams of it end.", [], None, NO_CONTENT "" None, access::revoke_token),
        route!(GET "/v1/plans", viewer, "Plans that were submitted, the newest first.", [LIMIT], None, OK "application/json" Some(shape::<plans::Plans>), plans::list),
        route!(POST "/v1/plans", operator, "Plans an experiment and keeps the plan for a day, to be approved; nothing is done.", [], Some(shape::<engine::Submission>), CREATED "application/json" Some(shape::<store::PlanRow>), plans::submit),
        route!(GET "/v1/plans/{id}", viewer, "The plan of a hash.", [], None, OK "application/json" Some(shape::<store::PlanRow>), plans::show),
        route!(POST "/v1/plans/{id}/approve", operator, "Approves a plan, for one run.", [], Some(shape::<plans::Approval>), OK "application/json" Some(shape::<store::PlanRow>), plans::approve),
        route!(POST "/v1/plans/{id}/run", operator, "Begins the run of an approved plan.", [], Some(shape::<plans::Order>), CREATED "application/json" Some(shape::<store::RunRow>), plans::run),
        route!(GET "/v1/experiments", viewer, "Experiments by their last runs of 90 days, each with its history, and the resilience score over all.", [], None, OK "application/json" Some(shape::<squall_experiments::suite::Standing>), runs::standing),
        route!(GET "/v1/runs", viewer, "Runs, the newest first.", [LIMIT, AFTER], None, OK "application/json" Some(shape::<runs::Runs>), runs::list),
        route!(POST "/v1/runs", operator, "Begins a run, unless a halt blocks new ones.", [], Some(shape::<engine::Submission>), CREATED "application/json" Some(shape::<store::RunRow>), runs::submit),
        route!(GET "/v1/runs/{id}", viewer, "One run, with its document and the history of its experiment.", [], None, OK "application/json" Some(shape::<runs::WithHistory>), runs::show),
        route!(GET "/v1/runs/{id}/events", viewer, "Events of a run.", [LIMIT, ("from", "the number of the first: 0 unless said")], None, OK "application/json" Some(shape::<runs::Events>), runs::events),
        route!(GET "/v1/runs/{id}/gates", viewer, "What every gate said of a run before it began, or was refused.", [], None, OK "application/json" Some(shape::<runs::Gates>), runs::gates),
        route!(GET "/v1/runs/{id}/observations", viewer, "What the proxies of a run's outages saw of connections and requests, where it was begun with `observe`.", [LIMIT, ("from", "the number of the first: 0 unless said")], None, OK "application/json" Some(shape::<crate::sights::Page>), runs::observations),
        route!(GET "/v1/runs/{id}/stream", viewer, "Events of a run as they come (server-sent events); `Last-Event-ID` continues.", [("from", "the number of the first: 0 unless said")], None, OK "text/event-stream" None, runs::stream),
        route!(POST "/v1/runs/{id}/halt", operator, "Halts one run.", [], Some(shape::<halts::Reason>), ACCEPTED "application/json" Some(shape::<store::RunRow>), halts::run),
        route!(GET "/v1/game-days", viewer, "Game days, the newest first.", [LIMIT, ("name", "of this name alone")], None, OK "application/json" Some(shape::<gamedays::Days>), gamedays::list),
        route!(POST "/v1/game-days", operator, "Begins a game day, unless a halt blocks new runs.", [], Some(shape::<gamedays::Wanted>), CREATED "application/json" Some(shape::<gamedays::Told>), gamedays::begin),
        route!(GET "/v1/game-days/{id}", viewer, "One game day, by its id or as the newest of a name: where it stands, its figures, and the day before.", [], None, OK "application/json" Some(shape::<gamedays::Told>), gamedays::show),
        route!(GET "/v1/game-days/{id}/events", viewer, "What happened on a game day.", [LIMIT, ("from", "the number of the first: 0 unless said")], None, OK "application/json" Some(shape::<gamedays::Events>), gamedays::events),
        route!(GET "/v1/game-days/{id}/report", viewer, "The report of a game day for people, as the text of a file.", [("as", "`html` or `md`")], None, OK "application/json" Some(shape::<gamedays::Report>), gamedays::reported),
        route!(GET "/v1/game-days/{id}/stream", viewer, "What happens on a game day as it happens (server-sent events); `Last-Event-ID` continues.", [("from", "the number of the first: 0 unless said")], None, OK "text/event-stream" None, gamedays::follow),
        route!(POST "/v1/game-days/{id}/go", operator, "Says go to a step. To one whose run has ended and that waits for marks: on to what comes next.", [], Some(shape::<gamedays::Going>), OK "application/json" Some(shape::<gamedays::Told>), gamedays::go),
        route!(POST "/v1/game-days/{id}/no-go", operator, "Says no-go to a step: it is skipped; one that has run is not tried again.", [], Some(shape::<gamedays::NotGoing>), OK "application/json" Some(shape::<gamedays::Told>), gamedays::no_go),
        route!(POST "/v1/game-days/{id}/mark", operator, "Marks a step as detected, acknowledged or mitigated; the earliest counts.", [], Some(shape::<gamedays::Marking>), OK "application/json" Some(shape::<gamedays::Told>), gamedays::mark),
        route!(POST "/v1/game-days/{id}/take-back", operator, "Takes a mark back.", [], Some(shape::<gamedays::Marking>), OK "application/json" Some(shape::<gamedays::Told>), gamedays::take_back),
        route!(POST "/v1/game-days/{id}/alert", operator, "The same as a mark, for tools that alert: any JSON is taken, and an alert that is resolved marks nothing.", [("mark", "detected unless said"), ("step", "the last in which something was injected unless said")], None, OK "application/json" Some(shape::<gamedays::Told>), gamedays::alert),
        route!(POST "/v1/game-days/{id}/note", operator, "Writes something down, also after the day is over.", [], Some(shape::<gamedays::Noting>), OK "application/json" Some(shape::<gamedays::Told>), gamedays::note),
        route!(POST "/v1/game-days/{id}/stop", operator, "Stops a game day: its run is halted, and nothing more begins.", [], Some(shape::<gamedays::Reason>), OK "application/json" Some(shape::<gamedays::Told>), gamedays::stop),
        route!(GET "/v1/schedules", viewer, "All schedules.", [], None, OK "application/json" Some(shape::<schedules::Schedules>), schedules::list),
        route!(POST "/v1/schedules", operator, "Adds a schedule.", [], Some(shape::<schedules::Wanted>), CREATED "application/json" Some(shape::<schedules::Shown>), schedules::add),
        route!(GET "/v1/schedules/{name}", viewer, "One schedule, with what is coming of it.", [], None, OK "application/json" Some(shape::<schedules::Shown>), schedules::show),
        route!(POST "/v1/schedules/{name}/pause", operator, "Lets nothing of a schedule run until it is resumed.", [], Some(shape::<schedules::Reason>), OK "application/json" Some(shape::<schedules::Shown>), schedules::pause),
        route!(POST "/v1/schedules/{name}/resume", operator, "Lets a schedule run again, from now on.", [], Some(shape::<schedules::Reason>), OK "application/json" Some(shape::<schedules::Shown>), schedules::resume),
        route!(POST "/v1/schedules/{name}/approve", operator, "Approves a schedule as it is, for all its entries.", [], Some(shape::<schedules::Approval>), OK "application/json" Some(shape::<schedules::Shown>), schedules::approve),
        route!(POST "/v1/schedules/{name}/remove", operator, "Removes a schedule; what became of its entries is kept.", [], None, NO_CONTENT "" None, schedules::remove),
        route!(GET "/v1/calendar", viewer, "What schedules did and will do, and why something did not or will not run.", [("from", "milliseconds since 1970, or RFC 3339: now unless said"), ("to", "the end: a week later unless said, 366 days at most"), ("schedule", "of this schedule alone")], None, OK "application/json" Some(shape::<crate::scheduler::calendar::Pages>), schedules::calendar),
        route!(GET "/v1/halt", viewer, "Whether new runs are blocked, by whom and why.", [], None, OK "application/json" Some(shape::<halts::State>), halts::show),
        route!(POST "/v1/halt", operator, "Undoes everything, on all hosts or on some. On all, new runs are blocked until it is lifted.", [], Some(shape::<halts::Wanted>), OK "application/json" Some(shape::<halts::Done>), halts::set),
        route!(POST "/v1/halt/lift", operator, "Lets new runs begin again.", [], Some(shape::<halts::Lift>), OK "application/json" Some(shape::<halts::State>), halts::lift),
        route!(GET "/v1/notify", viewer, "Who is notified of what happens, and whether that works.", [], None, OK "application/json" Some(shape::<notify::Receivers>), notify::list),
        route!(POST "/v1/notify/{name}/test", admin, "Sends a receiver a trial message, once, and gives what it answers.", [], None, OK "application/json" Some(shape::<notify::Tried>), notify::test),
        route!(GET "/v1/audit", admin, "The audit log, oldest first.", [LIMIT, ("from", "the number of the first: 1 unless said")], None, OK "application/json" Some(shape::<audit::Entries>), audit::page),
        route!(GET "/v1/audit/head", viewer, "The end of the audit log: its length and last hash.", [], None, OK "application/json" Some(shape::<squall_experiments::muster::Head>), audit::head),
        route!(GET "/v1/audit/verify", admin, "Computes every hash of the audit log again.", [], None, OK "application/json" Some(shape::<store::Verified>), audit::verify),
    ]
}

/// The router over the table.
pub fn router(api: &Arc<Api>) -> Router {
    let mut router = Router::new();
    for route in table() {
        let Ok(filter) = MethodFilter::try_from(route.method.clone()) else { continue };
        let path = route.path;
        let (route, state) = (Arc::new(route), Arc::clone(api));
        router = router.route(
            path,
            on(filter, move |path: RawPathParams, request: Request| {
                answer(Arc::clone(&state), Arc::clone(&route), path, request)
            }),
        );
    }
    let stranger =
        |detail: &'static str, status| move || async move { Problem::bare(status, detail).response() };
    router
        .fallback(stranger("there is nothing at this path", StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(stranger(
            "this path does not take that method",
            StatusCode::METHOD_NOT_ALLOWED,
        ))
}

async fn answer(api: Arc<Api>, route: Arc<Route>, path: RawPathParams, request: Request) -> Response<Body> {
    let mut asked = api.traces.request(&route.method, route.path, request.headers());
    let answered = through(&api, &route, path, request, &mut asked).await;
    let mut response = match answered {
        Ok(answer) => answer.response(),
        Err(problem) => problem.response(),
    };
    api.counts.answered(response.status());
    asked.answered(response.status());
    // Nothing of this may be shown inside another page, kept by a proxy, or taken for another type.
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.into_response()
}

/// The gate, in its order, then the handler.
async fn through(
    api: &Arc<Api>,
    route: &Route,
    path: RawPathParams,
    request: Request,
    asked: &mut traces::Asked,
) -> Result<Answer, Problem> {
    let (parts, body) = request.into_parts();
    api.right_name(&parts)?;
    if !route.halts() {
        api.address_in_pace(&parts)?;
    }
    let who = match route.least {
        Some(least) => Some(api.let_in(&parts, least, route.halts()).await?),
        None => None,
    };
    if who.is_some() {
        asked.let_in();
    }
    let body = gate::body(&parts.headers, body).await?;
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned();
    let last_event = gate::header(&parts.headers, "last-event-id").map(str::to_owned);
    let trace = asked.context();
    let call = Call { who, path, query: query.collect(), body, last_event, trace };
    if route.method == Method::GET {
        return (route.handler)(Arc::clone(api), call).await;
    }
    match gate::header(&parts.headers, "idempotency-key").map(str::to_owned) {
        // A halt is idempotent by itself, and does not wait for the store.
        Some(key) if !route.halts() => once(api, route, parts.uri.path(), &key, call).await,
        _ => {
            let (api, path) = (Arc::clone(api), parts.uri.path().to_owned());
            let (method, handler, halts) = (route.method.clone(), route.handler, route.halts());
            to_its_end(async move { act(&api, &method, handler, halts, &path, call).await }).await
        }
    }
}

/// Does what a request with an idempotency key asks for, unless it was done before: then it is answered as it was then.
async fn once(api: &Arc<Api>, route: &Route, path: &str, key: &str, call: Call) -> Result<Answer, Problem> {
    if key.is_empty() || key.len() > 200 {
        return Err(Problem::bare(StatusCode::BAD_REQUEST, "an idempotency key has 1 to 200 characters"));
    }
    let who = call.name();
    let request = digest(&[route.method.as_str().as_bytes(), path.as_bytes(), &call.body]);
    match api.store.ask(&who, key, &request).await? {
        Asked::Anew => {}
        Asked::Before(Answered { status, body }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(Answer::Json(status, body));
        }
        Asked::UnderWay => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "a request with this idempotency key is under way, or was broken off",
                "look whether it was done; a new key begins anew",
            ));
        }
        Asked::Differently => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this idempotency key belongs to another request",
                "take a new key for each request",
            ));
        }
    }
    let (api, path) = (Arc::clone(api), path.to_owned());
    let (method, handler, key) = (route.method.clone(), route.handler, key.to_owned());
    let secret = route.takes_secret_away();
    to_its_end(async move {
        let answered = act(&api, &method, handler, false, &path, call).await;
        let kept = match &answered {
            // What is shown once is not kept: who asks again is told that it was done.
            Ok(Answer::Json(..)) if secret => Some(Answered {
                status: StatusCode::CONFLICT.as_u16(),
                body: json!({ "detail": "this was done; its secret was shown once and is not kept" })
                    .to_string(),
            }),
            Ok(Answer::Json(status, body)) => Some(Answered { status: status.as_u16(), body: body.clone() }),
            _ => None,
        };
        if let Err(error) = api.store.answered(&who, &key, kept).await {
            tracing::error!(%error, "an answer was not kept");
        }
        answered
    })
    .await
}

/// Does what was asked for in a task of its own: a request is dropped when its caller hangs up, and what it began would stay half
/// done, a halt with it.
pub(crate) async fn to_its_end<T: Send + 'static>(
    doing: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::spawn(doing).await;
    done.map_err(|_| Problem::bare(StatusCode::INTERNAL_SERVER_ERROR, "the request failed"))?
}

/// Writes down who asks for what, then does it.
async fn act(
    api: &Arc<Api>,
    method: &Method,
    handler: Handler,
    halts: bool,
    path: &str,
    call: Call,
) -> Result<Answer, Problem> {
    let what = json!({ "did": format!("{method} {path}"), "body": digest(&[&call.body]) });
    written_down(api, &call.name(), what, halts, handler(Arc::clone(api), call)).await
}

/// Writes down who asks for what, then does it. A halt is done first: it must work when the store does not.
pub(crate) async fn written_down<T>(
    api: &Api,
    who: &str,
    what: serde_json::Value,
    halts: bool,
    doing: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    if !halts {
        api.store.audit(who, what).await?;
        return doing.await;
    }
    let done = doing.await;
    let (store, who) = (api.store.clone(), who.to_owned());
    let written = halts::soon(async move {
        if let Err(error) = store.audit(&who, what).await {
            tracing::error!(%error, %who, "a halt was done and is missing in the audit log");
        }
    });
    if written.await.is_none() {
        tracing::warn!("a halt was done, and is written down when the store answers");
    }
    done
}

/// Whether what is asked for undoes what is active.
pub(crate) fn is_halt(method: &Method, path: &str) -> bool {
    *method == Method::POST && path.ends_with("/halt")
}

impl Route {
    /// Whether it undoes what is active.
    pub(crate) fn halts(&self) -> bool {
        is_halt(&self.method, self.path)
    }

    /// Whether its answer holds a secret that is shown once.
    fn takes_secret_away(&self) -> bool {
        self.method == Method::POST && matches!(self.path, "/v1/tokens" | "/v1/join-tokens")
    }
}

/// A digest of some parts, each with its length, so that they cannot run into each other.
pub(crate) fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}
