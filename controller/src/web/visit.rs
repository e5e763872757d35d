//! Who looks, and what a form asks: sessions in a cookie, and the proof that a form is one of ours.
//!
//! A cookie holds 256 bits of chance; the store keeps its hash. What a form must bring back is a hash of the cookie under the
//! controller's key, so that nothing is kept for it: whoever cannot read the page cannot make it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode};
use serde_json::json;

use super::{Page, shell};
use crate::api::Api;
use crate::api::gate::{self, Peer};
use crate::api::problem::Problem;
use crate::api::routes::{self, Call};
use crate::store::{Role, Token};

/// The cookie of a session, and that of a form to sign in, which comes before any.
pub(super) const SESSION: &str = "squall_session";
pub(super) const DOOR: &str = "squall_door";

/// A request that got through the gate.
pub(super) struct Visit {
    /// Whose it is; nobody's for a page that anybody may see.
    pub who: Option<Token>,
    /// The parameters of the path.
    pub path: BTreeMap<String, String>,
    /// The path itself.
    pub at: String,
    /// The query.
    pub query: BTreeMap<String, String>,
    /// The fields of a form.
    pub form: BTreeMap<String, String>,
    /// The secret of its cookie.
    pub secret: Option<String>,
    /// What a form on the page must bring back.
    pub proof: String,
    /// What came with the request.
    pub parts: Parts,
}

impl Visit {
    /// A parameter of the path.
    pub(super) fn part(&self, name: &str) -> String {
        self.path.get(name).cloned().unwrap_or_default()
    }

    /// A field of the form, without the line ends of a browser.
    pub(super) fn field(&self, name: &str) -> String {
        self.form.get(name).map(|text| text.replace("\r\n", "\n")).unwrap_or_default()
    }

    /// Whether who looks may do what needs a role.
    pub(super) fn may(&self, role: Role) -> bool {
        self.who.as_ref().is_some_and(|who| who.role >= role)
    }

    /// Whether the request came by TLS.
    pub(super) fn encrypted(&self) -> bool {
        self.parts.extensions.get::<Peer>().is_some_and(|peer| peer.encrypted)
    }

    /// The same as a call of the interface, with a body.
    pub(super) fn call(&self, body: &serde_json::Value) -> Call {
        Call {
            who: self.who.clone(),
            path: self.path.clone(),
            query: BTreeMap::new(),
            body: body.to_string().into(),
            last_event: None,
            trace: None,
        }
    }
}

/// The gate, in its order, then the handler.
pub(super) async fn through(
    api: &Arc<Api>,
    page: &Page,
    path: RawPathParams,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    api.own_name(&parts)?;
    let looks = page.method == Method::GET;
    // A link from elsewhere may lead to a page; nothing else of another origin gets through, and a link shows nothing to it.
    if !(looks && gate::header(&parts.headers, "sec-fetch-mode") == Some("navigate")) {
        api.own_origin(&parts)?;
    }
    if !page.halts() {
        api.address_in_pace(&parts)?;
    }
    let cookie = if page.least.is_some() { SESSION } else { DOOR };
    let secret = shell::cookie(&parts, cookie);
    let who = match page.least {
        None => None,
        Some(_) => who(api, secret.as_deref(), page.halts()).await?,
    };
    let at = parts.uri.path().to_owned();
    if page.least.is_some() && who.is_none() {
        return signed_out(&parts, looks);
    }
    let mut visit = Visit {
        proof: secret.as_deref().map(|secret| proof(api, secret)).unwrap_or_default(),
        who,
        path: path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        query: form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect(),
        form: BTreeMap::new(),
        at,
        secret,
        parts,
    };
    let (who, proof) = (visit.who.clone(), visit.proof.clone());
    let done = async {
        if let (Some(least), Some(who)) = (page.least, &visit.who) {
            if !page.halts() {
                api.in_pace(who)?;
            }
            gate::suffices(who, least)?;
        }
        if looks {
            return (page.handler)(Arc::clone(api), visit).await;
        }
        let form = form(&visit.parts, body).await?;
        if form.get("proof").is_none_or(|shown| visit.secret.is_none() || !same(shown, &visit.proof)) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "this form is not one of this session, or is out of date; nothing was done",
                "go back, load the page again, and send it once more",
            ));
        }
        visit.form = form;
        act(api, page, visit).await
    };
    // Who is signed in keeps the navigation, whatever went wrong.
    done.await.or_else(|problem| match &who {
        Some(who) => Ok(shell::problem(Some(who), &proof, &problem)),
        None => Err(problem),
    })
}

/// Writes down who asks for what, then does it.
async fn act(api: &Arc<Api>, page: &Page, visit: Visit) -> Result<Response<Body>, Problem> {
    // Whoever signs in is known only afterwards, and is written down there.
    let Some(who) = &visit.who else { return (page.handler)(Arc::clone(api), visit).await };
    let fields = visit.form.iter().filter(|(name, _)| *name != "proof");
    let parts: Vec<&[u8]> = fields.flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]).collect();
    let mut what = json!({ "did": format!("{} {}", page.method, visit.at), "body": routes::digest(&parts) });
    let reason = visit.field("reason");
    if !reason.trim().is_empty() && reason.len() <= 2000 {
        what["reason"] = reason.into();
    }
    let (who, halts) = (format!("{} ({})", who.name, who.id), page.halts());
    let doing = (page.handler)(Arc::clone(api), visit);
    let api = Arc::clone(api);
    routes::to_its_end(async move { routes::written_down(&api, &who, what, halts, doing).await }).await
}

/// Whose session this is.
pub(super) async fn who(api: &Api, secret: Option<&str>, halts: bool) -> Result<Option<Token>, Problem> {
    let Some(secret) = secret else { return Ok(None) };
    let hash = hash(api, secret);
    Ok(api.found(&hash, halts, api.store.session(&hash)).await?)
}

/// Under which hash the store keeps a session.
pub(super) fn hash(api: &Api, secret: &str) -> String {
    api.secrets.hash(&format!("session {secret}"))
}

/// What a form must bring back, for a cookie.
pub(super) fn proof(api: &Api, secret: &str) -> String {
    api.secrets.hash(&format!("form {secret}"))
}

/// Whether two texts are the same, in a time that does not say how far they are.
fn same(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

async fn form(parts: &Parts, body: Body) -> Result<BTreeMap<String, String>, Problem> {
    let body = gate::bytes(body).await?;
    if !gate::is_of_kind(&parts.headers, "application/x-www-form-urlencoded") {
        let detail = "the body is no form";
        return Err(Problem::bare(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    Ok(form_urlencoded::parse(&body).into_owned().collect())
}

/// The answer to somebody without a session.
fn signed_out(parts: &Parts, looks: bool) -> Result<Response<Body>, Problem> {
    let asks_for = |kind| gate::header(&parts.headers, "accept").is_some_and(|accept| accept.contains(kind));
    if looks && asks_for("text/event-stream") {
        // A tab that was left open: its stream ends for good, without an error, and its page asks who it is.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    if !looks || !asks_for("text/html") {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "nobody is signed in, or the session is over; nothing was done",
            "sign in again",
        ));
    }
    let back = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // A browser that follows a link from elsewhere keeps a strict cookie back; what it asks for next comes from here.
    if gate::header(&parts.headers, "sec-fetch-site") == Some("cross-site") {
        return Ok(shell::onward(back));
    }
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("to", back).finish();
    Ok(shell::redirect(&format!("/sign-in?{query}")))
}
