use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::prober::{expect_nothing, once, refused};
use crate::server::{always, answer, nobody, serve, silent, tls};

fn get(address: SocketAddr) -> Value {
    json!({ "http": { "url": format!("http://{address}/"), "timeout": "5s" } })
}

/// What a bad sample of this answer says.
fn bad(bytes: &str, expect: Value) -> String {
    let sample = once(get(always(bytes)), expect);
    assert!(!sample.good, "{}", sample.seen);
    sample.seen
}

fn good(bytes: &str, expect: Value) -> String {
    let sample = once(get(always(bytes)), expect);
    assert!(sample.good, "{}", sample.seen);
    sample.seen
}

#[test]
fn a_good_answer_is_told_by_its_status_and_time() {
    let seen = good(&answer("201 Created", "", ""), expect_nothing());
    assert!(seen.starts_with("201 in ") && seen.ends_with(" ms"), "{seen}");
}

#[test]
fn the_status_is_2xx_unless_another_is_expected() {
    let unavailable = answer("503 Service Unavailable", "", "no");
    assert_eq!(bad(&unavailable, expect_nothing()), "503 (expected 2xx)");
    assert_eq!(bad(&unavailable, json!({ "status": 200 })), "503 (expected 200)");
    good(&unavailable, json!({ "status": 503 }));
    // Redirects are answers, not followed.
    assert_eq!(bad(&answer("302 Found", "location: /x\r\n", ""), expect_nothing()), "302 (expected 2xx)");
}

#[test]
fn headers_must_be_there_with_their_value() {
    let cached = answer("200 OK", "X-Cache: HIT\r\nvary: a\r\nvary: b\r\n", "");
    good(&cached, json!({ "headers": { "x-cache": "HIT", "vary": "b" } }));
    good(&cached, json!({ "headers": { "x-cache": { "matches": "^H" }, "etag": { "present": false } } }));
    assert_eq!(
        bad(&cached, json!({ "headers": { "vary": { "present": false } } })),
        "header `vary` is `a` (expected nothing)"
    );
    assert_eq!(
        bad(&cached, json!({ "headers": { "x-cache": "MISS" } })),
        "header `x-cache` is `HIT` (expected \"MISS\")"
    );
    assert_eq!(
        bad(&cached, json!({ "headers": { "etag": "1" } })),
        "header `etag` is missing (expected \"1\")"
    );
}

#[test]
fn the_body_is_matched_by_regex_and_by_json_path() {
    let body = answer("200 OK", "", r#"{"status": "up", "queue": [{"depth": 3.0}]}"#);
    good(&body, json!({ "body": "\"up\"", "json": { "$.status": "up", "$.queue[0].depth": 3 } }));
    assert_eq!(bad(&body, json!({ "body": "^down$" })), "body does not match `^down$`");
    assert_eq!(
        bad(&body, json!({ "json": { "$.status": "down" } })),
        r#"`$.status` is "up" (expected "down")"#
    );
    assert_eq!(bad(&body, json!({ "json": { "$.load": 1 } })), "`$.load` finds nothing (expected 1)");
    assert_eq!(bad(&answer("200 OK", "", "<html>"), json!({ "json": { "$.a": 1 } })), "body is not JSON");
}

#[test]
fn a_slow_answer_is_bad_only_beyond_within() {
    let slow = serve(|stream, _, _| {
        std::thread::sleep(Duration::from_millis(120));
        stream.write_all(answer("200 OK", "", "").as_bytes()).unwrap();
    });
    let sample = once(get(slow), json!({ "within": "50ms" }));
    assert!(!sample.good);
    assert!(
        sample.seen.starts_with("200 in ") && sample.seen.ends_with(" ms (expected within 50ms)"),
        "{}",
        sample.seen
    );
    assert!(sample.took_ns >= 120_000_000, "{}", sample.took_ns);
    assert!(once(get(slow), json!({ "within": "4s" })).good);
}

#[test]
fn the_time_out_covers_every_stage_and_names_it() {
    let timed = |address: SocketAddr, scheme: &str| {
        let url = format!("{scheme}://{address}/");
        let sample = once(
            json!({ "http": { "url": url, "timeout": "500ms", "tls": { "insecure": true } } }),
            json!({}),
        );
        assert!(!sample.good);
        assert!((500_000_000..5_000_000_000).contains(&sample.took_ns), "{}", sample.took_ns);
        sample.seen
    };
    assert_eq!(timed(silent(), "http"), "timed out after 500ms waiting for the answer");
    assert_eq!(timed(silent(), "https"), "timed out after 500ms in the TLS handshake");
    let half = serve(|stream, _, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_eq!(timed(half, "http"), "timed out after 500ms reading the body");
    // A listener whose queue is full leaves further SYNs without an answer, as a partition does.
    let socket = full_listener();
    assert_eq!(timed(socket.address, "http"), "timed out after 500ms connecting");
}

struct Full {
    address: SocketAddr,
    _listener: std::net::TcpListener,
    _waiting: Vec<std::net::TcpStream>,
}

/// Fills the accept queue of a listener that never accepts.
fn full_listener() -> Full {
    use nix::sys::socket::{Backlog, listen};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Listening again changes the length of the queue.
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let patience = Duration::from_millis(200);
    let waiting =
        (0..4).map_while(|_| std::net::TcpStream::connect_timeout(&address, patience).ok()).collect();
    Full { address, _listener: listener, _waiting: waiting }
}

#[test]
fn failures_of_the_connection_are_told_apart() {
    assert_eq!(once(get(nobody()), expect_nothing()).seen, "connection refused");
    assert_eq!(bad("", expect_nothing()), "connection closed without an answer");
    assert_eq!(bad("SSH-2.0-OpenSSH_9.2\r\n", expect_nothing()), "the answer is not HTTP");
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    assert_eq!(bad(cut, expect_nothing()), "connection closed by the server");
}

#[test]
fn a_body_beyond_4_mib_is_bad_and_is_not_kept() {
    let endless = serve(|stream, _, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
    });
    assert_eq!(once(get(endless), expect_nothing()).seen, "body is longer than 4 MiB");
    good(&answer("200 OK", "", &"x".repeat(4 << 20)), expect_nothing());
}

#[test]
fn the_request_is_sent_as_it_was_written() {
    let echo = serve(|stream, head, _| {
        let mut body = [0; 4];
        stream.read_exact(&mut body).unwrap();
        let body = format!("{head}{}", String::from_utf8_lossy(&body));
        stream.write_all(answer("200 OK", "", &body).as_bytes()).unwrap();
    });
    let url = format!("http://{echo}/a/b?c=d");
    let what = json!({ "http": { "url": url, "method": "PUT", "headers": { "X-A": "1", "Host": "shop" }, "body": "four" } });
    for part in [
        "^PUT /a/b\\?c=d HTTP/1.1\r\n",
        "(?i)\r\nx-a: 1\r\n",
        "(?i)\r\nhost: shop\r\n",
        "(?i)\r\nconnection: close\r\n",
        "\r\n\r\nfour$",
    ] {
        let sample = once(what.clone(), json!({ "body": part }));
        assert!(sample.good, "{part:?}: {}", sample.seen);
    }
}

#[test]
fn tls_trusts_the_named_file_or_nobody_or_everybody() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!("squall-prober-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, certificate.cert.pem()).unwrap();
    let port = tls(&certificate).port();
    let ask = |host: &str, tls: Value| {
        once(
            json!({ "http": { "url": format!("https://{host}:{port}/"), "tls": tls } }),
            json!({ "body": "over TLS" }),
        )
    };
    let trusted = ask("localhost", json!({ "ca": ca }));
    assert!(trusted.good, "{}", trusted.seen);
    assert!(ask("localhost", json!({ "insecure": true })).good);
    let wrong_name = ask("127.0.0.1", json!({ "ca": ca }));
    assert!(!wrong_name.good);
    assert!(wrong_name.seen.starts_with("TLS: invalid peer certificate: "), "{}", wrong_name.seen);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let others = folder.join("other.pem");
    std::fs::write(&others, other.cert.pem()).unwrap();
    let unknown = ask("localhost", json!({ "ca": others }));
    assert!(!unknown.good);
    assert!(unknown.seen.starts_with("TLS: invalid peer certificate: "), "{}", unknown.seen);
    let unreadable = |path: &str| {
        refused(json!({ "http": { "url": "https://localhost/", "tls": { "ca": path } } }), expect_nothing())
    };
    assert_eq!(
        unreadable("/nowhere/ca.pem"),
        "certificate file `/nowhere/ca.pem`: no such file or directory"
    );
    assert_eq!(
        unreadable("/dev/null"),
        "certificate file `/dev/null`: it holds no certificate (PEM is expected)"
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn nonsense_is_refused_when_it_is_loaded() {
    let url = |url: &str| refused(json!({ "http": { "url": url } }), expect_nothing());
    assert_eq!(url("ftp://a/"), "`ftp://a/` is not an absolute `http://` or `https://` address");
    assert_eq!(url("/checkout"), "`/checkout` is not an absolute `http://` or `https://` address");
    assert_eq!(
        url("http://me:secret@a/"),
        "`http://me:secret@a/` carries a user: write an `authorization` header instead"
    );
    let expect = |expect: Value| refused(json!({ "http": { "url": "http://a/" } }), expect);
    assert_eq!(expect(json!({ "body": "(" })), "`(` is not a regular expression: unclosed group");
    assert!(expect(json!({ "json": { "status": 1 } })).starts_with("`status` is not a JSONPath: "));
    let method = refused(json!({ "http": { "url": "http://a/", "method": "GET IT" } }), expect_nothing());
    assert_eq!(method, "`GET IT` is not a request method");
}
