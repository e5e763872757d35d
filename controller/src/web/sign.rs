//! Signing in by a token, and out again.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::shell::{self, Head};
use super::visit::{self, DOOR, SESSION, Visit};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::report::html::markup::Markup;
use crate::store::now_ms;

/// How long a session lasts: a working day, with the evening.
const LASTS_S: u64 = 12 * 3600;

/// The form.
pub(super) async fn form(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    Ok(shown(&api, &visit, StatusCode::OK, None))
}

fn shown(api: &Api, visit: &Visit, status: StatusCode, wrong: Option<&str>) -> Response<Body> {
    let door = visit.secret.clone().unwrap_or_else(|| api.secrets.mint("door").token);
    let proof = visit::proof(api, &door);
    let to = visit.form.get("to").or(visit.query.get("to")).map_or("/", |to| inside(to));
    let head = Head { title: "Sign in", who: None, here: "", live: None, proof: &proof };
    let mut response = shell::page(status, &head, |page| {
        page.text("h1", &[], "Sign in");
        if let Some(wrong) = wrong {
            page.text("p", &[("class", "notice deviated"), ("role", "alert")], wrong);
        }
        page.element(
            "form",
            &[("method", "post"), ("action", "/sign-in"), ("class", "card narrow")],
            |page| {
                shell::proof(page, &proof);
                page.void("input", &[("type", "hidden"), ("name", "to"), ("value", to)]);
                token(page);
                page.text("button", &[("class", "button first")], "Sign in");
            },
        );
    });
    shell::set_cookie(&mut response, DOOR, &door, 3600, visit.encrypted());
    response
}

fn token(page: &mut Markup) {
    page.text("label", &[("for", "token")], "Token");
    let attributes = [
        ("id", "token"),
        ("name", "token"),
        ("type", "password"),
        ("autocomplete", "current-password"),
        ("required", "required"),
        ("autofocus", "autofocus"),
        ("spellcheck", "false"),
        ("aria-describedby", "token-help"),
    ];
    page.void("input", &attributes);
    page.element("p", &[("class", "soft"), ("id", "token-help")], |page| {
        page.prose("It begins with `squall_token_`. An administrator makes one: `squall tokens new NAME --role viewer`.");
    });
}

/// A place on this server to go to; anything else is the overview.
fn inside(to: &str) -> &str {
    let plain = to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\n', '\r', '\t']);
    if plain { to } else { "/" }
}

/// Begins a session for a token that is valid.
pub(super) async fn sign_in(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    let from = api.may_try(&visit.parts)?;
    let Some(token) = api.store.token(&api.secrets.hash(visit.field("token").trim())).await? else {
        api.wrong_token(from);
        let wrong = "This token is not valid. It may be mistyped, revoked, or over.";
        return Ok(shown(&api, &visit, StatusCode::UNAUTHORIZED, Some(wrong)));
    };
    let secret = api.secrets.mint("session").token;
    let expires_at = now_ms() + LASTS_S * 1000;
    api.store.audit(&format!("{} ({})", token.name, token.id), json!({ "did": "signed in" })).await?;
    api.store.new_session(&visit::hash(&api, &secret), &token.id, expires_at).await?;
    let to = visit.field("to");
    let mut response = shell::redirect(inside(&to));
    shell::set_cookie(&mut response, SESSION, &secret, LASTS_S, visit.encrypted());
    shell::set_cookie(&mut response, DOOR, "", 0, visit.encrypted());
    Ok(response)
}

/// Ends the session.
pub(super) async fn sign_out(api: Arc<Api>, visit: Visit) -> Result<Response<Body>, Problem> {
    if let Some(secret) = &visit.secret {
        let hash = visit::hash(&api, secret);
        api.store.end_session(&hash).await?;
        api.known.over(&hash);
    }
    let mut response = shell::redirect("/sign-in");
    shell::set_cookie(&mut response, SESSION, "", 0, visit.encrypted());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn nobody_is_sent_to_another_server() {
        for (to, there) in [
            ("/runs/1?host=a", "/runs/1?host=a"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("", "/"),
        ] {
            assert_eq!(inside(to), there, "{to}");
        }
    }
}
