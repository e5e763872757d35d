//! What somebody tries who should not: raw requests over the socket.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::gate::{FAILURES, LARGEST_BODY};
use super::super::server::{Listening, ServeError};
use super::*;
use crate::web::tests::browser::Browser;

/// Sends bytes; gives the answer's status, and its text to the end of the connection.
async fn raw(served: &Served, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(served.at).await.expect("it listens");
    // Who is refused early may not read the rest.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    (text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), text)
}

fn get(served: &Served, host: &str, more: &str) -> String {
    let token = served.token("admin");
    format!(
        "GET /v1/me HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_web_page_of_another_origin_gets_nothing() {
    let served = Served::new().await;
    let at = served.at.to_string();
    for host in [at.as_str(), "localhost:1", "[::1]:1", "squall.example", "127.0.0.2"] {
        assert_eq!(raw(&served, &get(&served, host, "")).await.0, 200, "{host}");
    }
    // A page whose name was pointed at loopback (DNS rebinding) calls the server by that name.
    for host in ["evil.example", "localhost.evil.example", "squall.example.evil", ""] {
        assert_eq!(raw(&served, &get(&served, host, "")).await.0, 421, "{host}");
    }
    for header in ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        let (status, answer) = raw(&served, &get(&served, &at, &format!("{header}\r\n"))).await;
        assert_eq!(status, 403, "{header}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
    }
    let own = format!("Origin: http://{at}\r\nSec-Fetch-Site: same-origin\r\n");
    assert_eq!(raw(&served, &get(&served, &at, &own)).await.0, 200);
    // A form can be posted without asking, and is no JSON.
    let token = served.token("operator");
    let form = format!(
        "POST /v1/halt HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: 16\r\n\r\n{{\"reason\": \"me\"}}"
    );
    assert_eq!(raw(&served, &form).await.0, 415);
    assert!(served.engine.asked().is_empty());
    served.stop().await;
}

#[tokio::test]
async fn who_guesses_tokens_is_made_to_wait() {
    let served = Served::new().await;
    for _ in 0..FAILURES {
        assert_eq!(served.get("", "/v1/me").await.0, 401);
    }
    let (status, problem) = served.get("", "/v1/me").await;
    assert_eq!((status, &problem["help"]), (429, &json!("wait a minute")));
    // Also with a good one: nobody learns by trying which of them is.
    assert_eq!(served.get("admin", "/v1/me").await.0, 429);
    assert_eq!(served.get("", "/health").await.0, 200);
    // But whoever must stop everything does not wait for those who guess behind the same address.
    let halt = async |role| served.post(role, "/v1/halt", json!({ "reason": "enough" })).await.0;
    assert_eq!((halt("").await, halt("viewer").await, halt("operator").await), (429, 403, 200));
    assert_eq!(served.engine.asked(), ["halt None", "halt all runs"]);
    served.stop().await;
}

#[tokio::test]
async fn who_asks_too_often_is_made_to_wait_and_can_halt() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("admin")).await;
    let own = served.get("admin", "/v1/tokens").await.1;
    let own = own["tokens"].as_array().expect("tokens").iter().find(|token| token["role"] == "admin");
    let own = own.and_then(|token| token["id"].as_str()).expect("its own token");
    // As if all that may be asked at once had been asked, 20 s after now: nothing of it is over when this one comes.
    let later = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while served.api.tokens.one_more(own.to_owned(), later).is_ok() {}
    let request = get(&served, &served.at.to_string(), "");
    let (status, answer) = raw(&served, &request).await;
    assert_eq!(status, 429, "{answer}");
    let waits = answer.to_ascii_lowercase();
    let waits = waits.split("retry-after: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let waits: u64 = waits.and_then(|waits| waits.parse().ok()).expect("how long to wait");
    assert!((1..=21).contains(&waits), "{answer}");
    assert_eq!(served.get("viewer", "/v1/me").await.0, 200, "another token has a pace of its own");
    assert_eq!(browser.get("/runs").await.status, 429, "pages are asked for with a token too");
    let from = std::net::IpAddr::from([127, 0, 0, 1]);
    while served.api.addresses.one_more(from, later).is_ok() {}
    assert_eq!(browser.get("/sign-in").await.status, 429);
    assert_eq!(served.get("", "/ready").await.0, 429, "it asks the store too");
    // Whoever must stop everything does not wait.
    assert_eq!(browser.post("/halt", &[("reason", "enough")]).await.status, 200);
    let (status, answer) =
        served.ask("admin", Method::POST, "/v1/halt", Some(json!({ "reason": "enough" }))).await;
    assert_eq!(status, 200, "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn a_stolen_viewer_token_alters_nothing() {
    let served = Served::new().await;
    served.enrolled("web").await;
    let before = served.store.audit_head().await.expect("a head");
    for route in super::super::routes::table().iter().filter(|route| route.method != Method::GET) {
        let path = route.path.replace("{name}", "web").replace("{id}", "viewer");
        let (status, answer) =
            served.ask("viewer", route.method.clone(), &path, Some(json!({ "reason": "r" }))).await;
        assert_eq!(status, 403, "{path}: {answer}");
    }
    assert!(served.engine.asked().is_empty());
    assert_eq!(served.store.audit_head().await.expect("a head"), before, "nothing was done");
    served.stop().await;
}

#[tokio::test]
async fn what_is_too_large_or_breaks_off_is_refused_and_the_server_goes_on() {
    let served = Served::new().await;
    let (at, token) = (served.at, served.token("operator"));
    let head = format!(
        "POST /v1/runs HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Type: application/json\r\n"
    );
    let large = "x".repeat(LARGEST_BODY + 1);
    let told = format!("{head}Content-Length: {}\r\n\r\n{large}", large.len());
    assert_eq!(raw(&served, &told).await.0, 413);
    // A gigabyte is announced, and the first part of it is the last that is read.
    let untold = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n", large.len());
    assert_eq!(raw(&served, &untold).await.0, 413);
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = format!("{head}Content-Length: {}\r\n\r\n{nested}", nested.len());
    assert_eq!(raw(&served, &deep).await.0, 400);
    for nonsense in ["GET\r\n\r\n", "\0\0\0\0\r\n\r\n", &format!("GET / HTTP/1.1\r\nX: {large}\r\n\r\n")] {
        let (status, _) = raw(&served, nonsense).await;
        assert!(matches!(status, 0 | 400 | 431), "{status}");
    }
    let broken = Remote::new(&format!("http://{at}"), token, None).expect("an address");
    let (status, _) = broken.call(Method::GET, "/v1/hosts/%FF", None, None).await.expect("an answer");
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(served.get("viewer", "/v1/me").await.0, 200);
    assert_eq!(served.store.runs(None, 1).await.expect("runs").runs.len(), 0);
    served.stop().await;
}

#[tokio::test]
async fn plain_http_does_not_leave_the_machine() {
    for at in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"] {
        let refused = Listening::on(at.parse().expect("an address"), None).await.err().expect(at);
        assert!(matches!(refused, ServeError::Plain(_)), "{at}: {refused}");
    }
    for url in ["http://192.0.2.1", "http://example.com:80"] {
        let refused = Remote::new(url, "t", None).expect_err(url);
        assert!(refused.to_string().contains("not encrypted"), "{refused}");
    }
}

#[tokio::test]
async fn with_a_certificate_the_same_is_served_over_tls() {
    let scratch = Scratch::new("tls");
    let directory = scratch.made();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (chain, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    let config = super::super::server::tls(&chain, &key).expect("both are good");
    super::super::server::tls(&key, &chain).expect_err("the wrong way round");

    let store = Store::open(&Where::Sqlite(directory.join("data"))).expect("a store");
    let secrets = Secrets::open(&directory.join("data")).expect("secrets");
    let first = first_token(&store, &secrets).await.expect("it can be made").expect("there was none");
    let api = Api::new(store, secrets, Arc::new(Recorder::default()), BTreeSet::new(), Approvals::Optional);
    let listening = Listening::on(([127, 0, 0, 1], 0).into(), Some(config)).await.expect("it listens");
    let port = listening.address().expect("an address").port();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move { listening.serve(&api, async { drop(stopped.await) }).await });
    let url = format!("https://localhost:{port}");
    let known = Remote::new(&url, &first.token, Some(&chain)).expect("an address");
    assert_eq!(known.call(Method::GET, "/v1/me", None, None).await.expect("an answer").0, 200);
    let stranger = Remote::new(&url, &first.token, None).expect("an address");
    stranger.call(Method::GET, "/v1/me", None, None).await.expect_err("nobody vouches for it");
    let _ = stop.send(());
    serving.await.expect("it ends");
}

#[tokio::test]
async fn a_store_that_does_not_answer_does_not_keep_anybody_from_halting() {
    let served = Served::new().await;
    assert_eq!(served.get("operator", "/v1/me").await.0, 200);
    served.store.lose_tables().await;
    assert_eq!(served.get("operator", "/v1/me").await.0, 500);
    let (status, done) = served.post("operator", "/v1/halt", json!({ "reason": "it hurts" })).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["blocked"], false, "it says that it could not keep runs from beginning");
    assert_eq!(served.engine.asked(), ["halt None"]);
    // A token that was not seen before stays outside.
    assert_eq!(served.post("admin", "/v1/halt", json!({ "reason": "x" })).await.0, 500);
    served.stop().await;
}

#[tokio::test]
async fn a_store_that_hangs_does_not_keep_anybody_from_halting() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("operator")).await;
    assert_eq!(served.get("operator", "/v1/me").await.0, 200);
    let hung = served.store.hang().await;
    // It is asked without an answer; whoever halts gets one long before the database is given up.
    let patience = std::time::Duration::from_secs(9);
    let halted = served.post("operator", "/v1/halt", json!({ "reason": "it hurts" }));
    let (status, done) = tokio::time::timeout(patience, halted).await.expect("it is answered");
    assert_eq!((status, &done["blocked"]), (200, &json!(false)), "it says that nothing is kept yet: {done}");
    assert_eq!(done["hosts"]["web"]["undone"], json!(["the rule is gone"]));
    let page = tokio::time::timeout(patience, browser.post("/halt", &[("reason", "still")])).await;
    let page = page.expect("it is answered");
    assert!(page.status == 200 && page.body.contains("the rule is gone"), "{page:?}");
    let one =
        tokio::time::timeout(patience, served.post("operator", "/v1/runs/r/halt", json!({ "reason": "r" })));
    assert_eq!(one.await.expect("it is answered").0, 503, "what became of the run nobody can say");
    assert_eq!(served.engine.asked(), ["halt None", "halt None", "halt r"]);
    // What it was asked to keep is kept as soon as it answers again: new runs are blocked, and the log knows by whom.
    drop(hung);
    let kept = async {
        loop {
            let entries = served.store.audit_page(1, 100).await.expect("it answers");
            let halts = entries.iter().filter(|entry| entry.what["did"].to_string().contains("halt")).count();
            if halts == 3 && served.store.fact("halt").await.expect("it answers").is_some() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, kept).await.expect("it is kept");
    served.stop().await;
}

#[tokio::test]
async fn a_token_that_was_revoked_does_not_halt_while_the_store_is_away() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("operator")).await;
    assert_eq!(served.get("operator", "/v1/me").await.0, 200);
    assert_eq!(browser.get("/runs").await.status, 200);
    assert_eq!(served.post("admin", "/v1/tokens/operator/revoke", json!({})).await.0, 204);
    served.store.lose_tables().await;
    assert_eq!(served.post("operator", "/v1/halt", json!({ "reason": "x" })).await.0, 500);
    assert_eq!(browser.post("/halt", &[("reason", "x")]).await.status, 500);
    assert!(served.engine.asked().is_empty());
    assert_eq!(served.post("admin", "/v1/halt", json!({ "reason": "x" })).await.0, 200);
    served.stop().await;
}

#[tokio::test]
async fn what_was_asked_for_is_done_to_its_end_though_whoever_asked_hangs_up() {
    let served = Served::new().await;
    let (at, token, body) = (served.at, served.token("operator"), r#"{ "reason": "r", "hosts": ["slow"] }"#);
    let request = format!(
        "POST /v1/halt HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(at).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let begun = async {
        while served.engine.asked().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        drop(stream);
        loop {
            let entries = served.store.audit_page(1, 100).await.expect("it answers");
            if entries.iter().any(|entry| entry.what["did"] == "POST /v1/halt") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(SLOWLY * 20, begun).await;
    done.expect("it is in the log, though nobody waits for it");
    assert_eq!(served.engine.asked(), ["halt Some([\"slow\"])", "the slow host has answered"]);
    served.stop().await;
}

#[tokio::test]
async fn what_was_valid_lately_is_not_made_valid_for_longer_by_being_asked_for() {
    let served = Served::new().await;
    let (hash, now) = (served.secrets.hash(served.token("operator")), std::time::Instant::now());
    let token = served.store.token(&hash).await.expect("it answers").expect("it is valid");
    let away = || Err(StoreError::Away("a test".to_owned()));
    let after = |seconds| now + std::time::Duration::from_secs(seconds);
    let asked = |found, halts, at| served.api.remembered(hash.clone(), found, halts, at);
    assert_eq!(asked(Ok(Some(token.clone())), true, now).expect("the store says so"), Some(token.clone()));
    asked(away(), false, after(1)).expect_err("for nothing but a halt");
    for seconds in [300, 590] {
        assert_eq!(
            asked(away(), true, after(seconds)).expect("for a halt"),
            Some(token.clone()),
            "{seconds}"
        );
    }
    asked(away(), true, after(601)).expect_err("the store said so too long ago");
    let over = crate::store::Token { expires_at: Some(1), ..token };
    asked(Ok(Some(over)), true, now).expect("the store says so");
    asked(away(), true, after(1)).expect_err("it has ended since");
    served.stop().await;
}
