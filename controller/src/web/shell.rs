//! What all pages have: the frame, the navigation, cookies, and the headers that keep other pages out.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};

use crate::api::gate::header as one_header;
use crate::api::problem::Problem;
use crate::report::html::markup::Markup;
use crate::store::{Role, Token};

/// What a page says of itself.
pub(super) struct Head<'a> {
    /// Its title.
    pub title: &'a str,
    /// Who looks.
    pub who: Option<&'a Token>,
    /// Which place of the navigation it belongs to: its path.
    pub here: &'a str,
    /// From where its pieces are renewed.
    pub live: Option<&'a str>,
    /// What its forms bring back.
    pub proof: &'a str,
}

/// A page.
pub(super) fn page(status: StatusCode, head: &Head<'_>, content: impl FnOnce(&mut Markup)) -> Response<Body> {
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n");
    page.element("html", &[("lang", "en")], |page| {
        page.element("head", &[], |page| {
            page.void("meta", &[("charset", "utf-8")]);
            page.void("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
            page.void("meta", &[("name", "color-scheme"), ("content", "light dark")]);
            page.text("title", &[], &format!("{} · Squall", head.title));
            page.void("link", &[("rel", "stylesheet"), ("href", "/assets/pages.css")]);
            page.void("link", &[("rel", "icon"), ("type", "image/svg+xml"), ("href", "/assets/sign.svg")]);
            page.text("script", &[("src", "/assets/pages.js"), ("defer", "defer")], "");
        });
        let live: &[(&str, &str)] =
            &head.live.map(|live| ("data-live", live)).into_iter().collect::<Vec<_>>();
        page.element("body", live, |page| {
            page.text("a", &[("class", "skip"), ("href", "#content")], "To the content");
            page.element("div", &[("class", "top")], |page| top(page, head));
            page.element("main", &[("id", "content"), ("tabindex", "-1")], |page| {
                if head.live.is_some() {
                    page.text(
                        "p",
                        &[("id", "line"), ("class", "line"), ("role", "status"), ("hidden", "hidden")],
                        "",
                    );
                }
                content(page);
            });
        });
    });
    let mut response = Response::new(Body::from(page.finish()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn top(page: &mut Markup, head: &Head<'_>) {
    page.element("header", &[("class", "bar")], |page| {
        page.element("a", &[("class", "name"), ("href", "/")], |page| {
            page.void("img", &[("src", "/assets/sign.svg"), ("alt", ""), ("width", "24"), ("height", "24")]);
            page.words("Squall");
        });
        let Some(who) = head.who else { return };
        page.element("nav", &[("aria-label", "Pages")], |page| {
            let all = [
                ("/", "Overview", Role::Viewer),
                ("/runs", "Runs", Role::Viewer),
                ("/hosts", "Hosts", Role::Viewer),
                ("/calendar", "Calendar", Role::Viewer),
                ("/game-days", "Game days", Role::Viewer),
                ("/start", "Start a run", Role::Operator),
                ("/audit", "Audit", Role::Admin),
            ];
            for (path, word, _) in all.into_iter().filter(|(.., role)| who.role >= *role) {
                let here: &[(&str, &str)] = if path == head.here {
                    &[("href", path), ("aria-current", "page")]
                } else {
                    &[("href", path)]
                };
                page.text("a", here, word);
            }
        });
        if who.role >= Role::Operator && head.here != "/halt" {
            page.text("a", &[("class", "button stop"), ("href", "/halt")], "Halt everything");
        }
        page.element("form", &[("method", "post"), ("action", "/sign-out"), ("class", "who")], |page| {
            proof(page, head.proof);
            page.element("span", &[], |page| {
                page.text("bdi", &[], &who.name);
                page.text("span", &[("class", "soft")], &format!(" {}", who.role.name()));
            });
            page.text("button", &[("class", "quiet")], "Sign out");
        });
    });
}

/// The field that shows that a form is one of ours.
pub(super) fn proof(page: &mut Markup, proof: &str) {
    page.void("input", &[("type", "hidden"), ("name", "proof"), ("value", proof)]);
}

/// What went wrong, as a page.
pub(super) fn problem(who: Option<&Token>, proof: &str, problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let head = Head { title: &problem.title, who, here: "", live: None, proof };
    page(status, &head, |page| {
        page.text("h1", &[], &problem.title);
        page.element("div", &[("class", "notice deviated"), ("role", "alert")], |page| {
            page.prosaic("p", &[], &problem.detail);
            if let Some(help) = &problem.help {
                page.prosaic("p", &[("class", "soft")], help);
            }
        });
        match status {
            StatusCode::UNAUTHORIZED => {
                page.text("a", &[("class", "button"), ("href", "/sign-in")], "Sign in")
            }
            _ => page.text("a", &[("class", "button"), ("href", "/")], "To the overview"),
        }
    })
}

/// To another page.
pub(super) fn redirect(to: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, to);
    response
}

/// A page that leads on by itself, so that the next request comes from this server.
pub(super) fn onward(to: &str) -> Response<Body> {
    let head = Head { title: "One moment", who: None, here: "", live: None, proof: "" };
    let mut response = page(StatusCode::OK, &head, |page| {
        page.text("h1", &[], "One moment");
        page.element("p", &[], |page| {
            page.text("a", &[("class", "button"), ("href", to)], "Go on");
        });
    });
    if let Ok(refresh) = HeaderValue::from_str(&format!("0; url={to}")) {
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    response
}

/// The value of a cookie, when there is just one of that name.
pub(super) fn cookie(parts: &Parts, name: &str) -> Option<String> {
    let all = one_header(&parts.headers, "cookie")?;
    let mut found =
        all.split(';').filter_map(|pair| pair.trim().split_once('=')).filter(|(key, _)| *key == name);
    let (_, value) = found.next()?;
    // Of two nobody knows which is ours: another program on this name may have set one.
    (found.next().is_none() && !value.is_empty() && value.len() < 200).then(|| value.to_owned())
}

/// Sets a cookie that no script reads and no other site sends; for 0 seconds, it is taken away.
pub(super) fn set_cookie(
    response: &mut Response<Body>,
    name: &str,
    value: &str,
    lasts_s: u64,
    encrypted: bool,
) {
    let secure = if encrypted { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// What every answer says to a browser: load nothing from elsewhere, run nothing that stands in the page, show it in no other.
pub(super) fn strict(response: &mut Response<Body>) {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                  form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With `no-referrer` a browser sends its own forms with an unknown origin, which is refused.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers
        .insert("permissions-policy", HeaderValue::from_static("camera=(), geolocation=(), microphone=()"));
    if !headers.contains_key(header::ETAG) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// A title with its mark: the outcome or state of a run.
pub(super) fn badge(page: &mut Markup, state: &str) {
    let tone = match state {
        "held" => "held",
        "deviated" | "a host is still modified" | "modified" | "bug in squall" => "deviated",
        "submitted" | "running" | "reverting" => "going",
        _ => "unclear",
    };
    let sign = match tone {
        "held" => "✓ ",
        "deviated" => "✗ ",
        _ => "",
    };
    page.text("span", &[("class", &format!("badge {tone}"))], &format!("{sign}{state}"));
}

/// A time as date and time of day, for people and for programs.
pub(super) fn time(page: &mut Markup, ms: u64) {
    let date = crate::conductor::date_of(ms);
    page.text("time", &[("datetime", &date)], &date.replace('T', " ").replace('Z', ""));
}
