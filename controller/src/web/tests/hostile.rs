//! What somebody tries who should not: forms of other pages, stolen sessions, frames, names that are markup.

use super::*;

#[tokio::test]
async fn a_form_that_is_not_of_this_session_does_nothing() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("operator")).await;
    let mut other = Browser::new(served.at);
    other.sign_in(served.token("operator")).await;
    assert_ne!(browser.proof, other.proof);
    for proof in ["", "00", &other.proof] {
        let answer = browser.post_without_proof("/halt", &[("reason", "me"), ("proof", proof)]).await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    assert_eq!(browser.post_without_proof("/halt", &[("reason", "me")]).await.status, 403);
    let good = browser.proof.clone();
    for header in [
        "Origin: https://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        browser.more = format!("{header}\r\n");
        let answer = browser.post_without_proof("/halt", &[("reason", "me"), ("proof", &good)]).await;
        assert_eq!(answer.status, 403, "{header}: {answer:?}");
    }
    assert!(served.engine.asked().is_empty(), "{:?}", served.engine.asked());
    browser.more = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", served.at);
    assert_eq!(browser.post_without_proof("/halt", &[("reason", "me"), ("proof", &good)]).await.status, 200);
    assert_eq!(served.engine.asked(), ["halt None", "halt all runs"]);
    served.stop().await;
}

#[tokio::test]
async fn a_form_to_sign_in_is_one_of_this_browser_too() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    let token = served.token("viewer").to_owned();
    assert_eq!(browser.post_without_proof("/sign-in", &[("token", &token)]).await.status, 403);
    browser.get("/sign-in").await;
    let wrong = browser.post("/sign-in", &[("token", "squall_token_00"), ("to", "//evil.example")]).await;
    assert_eq!(wrong.status, 401, "{wrong:?}");
    let right = browser.post("/sign-in", &[("token", &token), ("to", "//evil.example")]).await;
    assert_eq!((right.status, right.header("location")), (303, "/"), "{right:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_session_is_kept_as_a_hash_and_ends_with_its_token() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    browser.get("/sign-in").await;
    let token = served.token("viewer").to_owned();
    let answer = browser.post("/sign-in", &[("token", &token)]).await;
    let cookie =
        answer.headers.iter().find(|(name, value)| name == "set-cookie" && value.contains("session"));
    let (_, cookie) = cookie.expect("a session");
    for word in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "over plain HTTP a browser would not keep it: {cookie}");
    let secret = browser.cookies["squall_session"].clone();
    assert!(!secret.contains(&token[13..]), "{secret}");
    served.store.ready().await.expect("what was written is on disk");
    let kept = served.files();
    let holds = |text: &str| kept.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(
        holds("signed in") && !holds(&secret) && !holds(&secret[15..]),
        "the store holds the session itself"
    );

    assert_eq!(browser.get("/runs").await.status, 200);
    // A session is no token, and a token no session.
    let remote =
        crate::api::client::Remote::new(&format!("http://{}", served.at), &secret, None).expect("an address");
    assert_eq!(remote.call(Method::GET, "/v1/me", None, None).await.expect("an answer").0, 401);
    let mut thief = Browser::new(served.at);
    thief.cookies.insert("squall_session".to_owned(), token);
    assert_eq!(thief.get("/runs").await.status, 303);
    // Two cookies of one name: another program on this name has set one of them.
    thief.cookies.insert("squall_session".to_owned(), format!("{secret}; squall_session=other"));
    assert_eq!(thief.get("/runs").await.status, 303);

    let mut second = Browser::new(served.at);
    second.sign_in(served.token("viewer")).await;
    assert_eq!(second.post("/sign-out", &[]).await.status, 303);
    second.cookies.insert("squall_session".to_owned(), "squall_session_00".to_owned());
    assert_eq!(second.get("/runs").await.status, 303);
    assert_eq!(browser.get("/runs").await.status, 200, "the other session goes on");
    served.store.revoke_token("viewer").await.expect("it is revoked");
    assert_eq!(browser.get("/runs").await.status, 303);
    served.stop().await;
}

#[test]
fn over_tls_a_cookie_is_sent_over_tls_alone() {
    let mut response = axum::http::Response::new(axum::body::Body::empty());
    super::super::shell::set_cookie(&mut response, "a", "b", 5, true);
    assert_eq!(response.headers()["set-cookie"], "a=b; Path=/; Max-Age=5; HttpOnly; SameSite=Strict; Secure");
}

#[tokio::test]
async fn no_page_is_shown_inside_another_or_runs_what_stands_in_it() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("admin")).await;
    for page in table().iter().filter(|page| page.method == Method::GET) {
        let answer = browser.get(&page.path.replace("{name}", "pages.js").replace("{id}", "nothing")).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
            "{}: {policy}",
            page.path
        );
        for word in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self'"] {
            assert!(policy.contains(word), "{}: {policy}", page.path);
        }
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{}", page.path);
        }
        assert!(!answer.header("cache-control").is_empty(), "{}", page.path);
        // The policy would stop it; it is not there either.
        for way in [" style=", " onclick", " onload", "<style", "javascript:"] {
            assert!(page.path.starts_with("/assets") || !answer.body.contains(way), "{}: {way}", page.path);
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn what_others_wrote_is_text_on_every_page() {
    let served = Served::new().await;
    let hostile = "</title></textarea><script>alert(1)</script>\" onload=\"x \u{202e}gnirts";
    served.store.new_run(a_run("r1", hostile)).await.expect("a run");
    let log: Vec<String> = events("h1")
        .iter()
        .map(|line| {
            line.replace("checkout answers", "<script>alert(1)</script>")
                .replace("\"title\":\"T\"", "\"title\":\"<script>alert(1)</script>\"")
        })
        .collect();
    served.store.append(0, "r1", 0, &log).await.expect("events");
    served.enrolled("<script>alert(1)<").await;
    let labels = [("a".to_owned(), hostile.to_owned())].into();
    served.store.set_labels("<script>alert(1)<", labels).await.expect("labels");
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("admin")).await;
    browser.post("/halt", &[("reason", hostile)]).await;
    let pages = [
        "/",
        "/runs",
        "/runs/r1",
        "/runs/r1/halt",
        "/hosts",
        "/hosts/%3Cscript%3Ealert(1)%3C",
        "/lift",
        "/start",
        "/audit",
    ];
    for path in pages {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let said = answer.body.contains("alert(1)");
        assert!(said || ["/audit"].contains(&path), "{path} does not show it");
        assert!(
            !answer.body.contains("<script>") && !answer.body.contains('\u{202e}'),
            "{path}: {}",
            answer.body
        );
    }
    let answer =
        browser.post("/start", &[("document", "wrong"), ("vars", "a=</textarea><script>alert(1)")]).await;
    assert!(answer.status == 422 && answer.body.contains("line 1: it is wrong"), "{answer:?}");
    assert!(!answer.body.contains("<script>"), "{answer:?}");
    let missing = browser.get("/runs/%3Cscript%3Ealert(1)").await;
    assert!(missing.status == 404 && !missing.body.contains("<script>"), "{missing:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_link_from_elsewhere_leads_to_the_page_and_shows_nothing_to_who_set_it() {
    let served = Served::new().await;
    let mut stranger = Browser::new(served.at);
    stranger.more = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n".to_owned();
    let answer = stranger.get("/runs/r1?host=a").await;
    assert_eq!((answer.status, answer.header("refresh")), (200, "0; url=/runs/r1?host=a"), "{answer:?}");
    stranger.more = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n".to_owned();
    assert_eq!(stranger.get("/runs").await.status, 403);
    stranger.more = "Host: evil.example\r\n".to_owned();
    assert_eq!(stranger.get("/sign-in").await.status, 421, "two names are none");
    served.stop().await;
}
