//! Pages for people: the same interface as [`crate::api`], in a browser.
//!
//! Everything is written by the server and works without a script, but for what moves by itself: a script of the tree's own
//! takes pieces of a page as they change (`live`). Nothing is loaded from anywhere else. What a form asks for is done by the
//! handler of the interface that does it for a pipeline, after the same gate; the table of pages stands here for the same
//! reason for which that of routes does: the router and the test of every page against every role are made from it.
//!
//! | file | what it is for |
//! |---|---|
//! | `visit` | who looks: sessions, forms, what a page may ask |
//! | `shell` | what all pages have, and the headers that keep other pages out |
//! | `sign` | signing in and out |
//! | `overview`, `hosts`, `runs`, `run`, `start`, `halt`, `calendar`, `gamedays`, `audit` | the pages |
//! | `view`, `live` | a run as it goes, made once for all who look |
//! | `assets` | the style, the script and the sign |

mod assets;
mod audit;
mod calendar;
mod gamedays;
mod halt;
mod hosts;
mod live;
mod overview;
mod run;
mod runs;
mod shell;
mod sign;
mod start;
mod view;
mod visit;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::http::{Method, Response};
use axum::routing::{MethodFilter, on};
use futures_util::future::BoxFuture;

use crate::api::problem::Problem;
use crate::api::{Api, routes};
use crate::store::Role;
use visit::Visit;

pub use view::Views;

/// What answers a visit that got through.
type Handler = fn(Arc<Api>, Visit) -> BoxFuture<'static, Result<Response<Body>, Problem>>;

/// One page, or one thing that a form asks for.
pub struct Page {
    /// The method.
    pub method: Method,
    /// The path; a part in braces is a parameter.
    pub path: &'static str,
    /// The least role that may see or do it; `None`: anybody who reaches the server.
    pub least: Option<Role>,
    handler: Handler,
}

impl Page {
    /// Whether it undoes what is active: that is done before it is written down, and while the store is away.
    fn halts(&self) -> bool {
        routes::is_halt(&self.method, self.path)
    }
}

macro_rules! page {
    ($method:ident $path:literal, $least:expr, $handler:path) => {
        Page {
            method: Method::$method,
            path: $path,
            least: $least,
            handler: |api, visit| Box::pin($handler(api, visit)),
        }
    };
}

/// Every page that there is.
pub fn table() -> Vec<Page> {
    let (viewer, operator, admin) = (Some(Role::Viewer), Some(Role::Operator), Some(Role::Admin));
    vec![
        page!(GET "/sign-in", None, sign::form),
        page!(POST "/sign-in", None, sign::sign_in),
        page!(GET "/assets/{name}", None, assets::asset),
        page!(POST "/sign-out", viewer, sign::sign_out),
        page!(GET "/", viewer, overview::page),
        page!(GET "/live", viewer, overview::live),
        page!(GET "/hosts", viewer, hosts::list),
        page!(GET "/hosts/{name}", viewer, hosts::one),
        page!(GET "/runs", viewer, runs::list),
        page!(GET "/runs/{id}", viewer, run::page),
        page!(GET "/runs/{id}/live", viewer, run::live),
        page!(GET "/runs/{id}/halt", operator, halt::ask_run),
        page!(POST "/runs/{id}/halt", operator, halt::run),
        page!(GET "/halt", operator, halt::ask),
        page!(POST "/halt", operator, halt::all),
        page!(GET "/lift", operator, halt::ask_lift),
        page!(POST "/lift", operator, halt::lift),
        page!(GET "/start", operator, start::form),
        page!(POST "/start", operator, start::check),
        page!(POST "/start/run", operator, start::run),
        page!(GET "/calendar", viewer, calendar::page),
        page!(POST "/schedules/{name}/pause", operator, calendar::pause),
        page!(POST "/schedules/{name}/resume", operator, calendar::resume),
        page!(GET "/game-days", viewer, gamedays::list),
        page!(GET "/game-days/{id}", viewer, gamedays::page),
        page!(GET "/game-days/{id}/live", viewer, gamedays::live),
        page!(GET "/game-days/{id}/report", viewer, gamedays::file),
        page!(POST "/game-days/{id}/go", operator, gamedays::go),
        page!(POST "/game-days/{id}/no-go", operator, gamedays::no_go),
        page!(POST "/game-days/{id}/mark", operator, gamedays::mark),
        page!(POST "/game-days/{id}/take-back", operator, gamedays::take_back),
        page!(POST "/game-days/{id}/note", operator, gamedays::note),
        page!(POST "/game-days/{id}/stop", operator, gamedays::stop),
        page!(GET "/audit", admin, audit::page),
    ]
}

/// The router over the table.
pub fn router(api: &Arc<Api>) -> Router {
    let mut router = Router::new();
    for page in table() {
        let Ok(filter) = MethodFilter::try_from(page.method.clone()) else { continue };
        let path = page.path;
        let (page, state) = (Arc::new(page), Arc::clone(api));
        router = router.route(
            path,
            on(filter, move |path: RawPathParams, request: Request| {
                answer(Arc::clone(&state), Arc::clone(&page), path, request)
            }),
        );
    }
    router
}

async fn answer(api: Arc<Api>, page: Arc<Page>, path: RawPathParams, request: Request) -> Response<Body> {
    let answered = visit::through(&api, &page, path, request).await;
    let mut response = answered.unwrap_or_else(|problem| shell::problem(None, "", &problem));
    api.counts.answered(response.status());
    shell::strict(&mut response);
    response
}
