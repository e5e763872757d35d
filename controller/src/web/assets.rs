//! The style, the script and the sign: files of the tree, in the binary.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};

use super::visit::Visit;
use crate::api::Api;
use crate::api::gate;
use crate::api::problem::Problem;
use crate::report::html::STYLE;

/// The media type and the text of an asset.
fn of(name: &str) -> Option<(&'static str, String)> {
    match name {
        "pages.css" => Some(("text/css; charset=utf-8", [STYLE, include_str!("assets/pages.css")].concat())),
        "pages.js" => Some(("text/javascript; charset=utf-8", include_str!("assets/pages.js").to_owned())),
        "sign.svg" => Some(("image/svg+xml", include_str!("assets/sign.svg").to_owned())),
        _ => None,
    }
}

/// Answers with an asset, or that it is still the same.
pub(super) async fn asset(_: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let name = visit.part("name");
    let missing = || Problem::bare(StatusCode::NOT_FOUND, format!("there is no `{name}`"));
    let (kind, text) = of(&name).ok_or_else(missing)?;
    let tag = format!("\"{}\"", &blake3::hash(text.as_bytes()).to_hex()[..32]);
    let known = gate::header(&visit.parts.headers, "if-none-match")
        .is_some_and(|known| known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag));
    let mut response = Response::new(if known { Body::empty() } else { Body::from(text) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}
