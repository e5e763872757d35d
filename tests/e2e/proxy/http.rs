//! A proxy that understands requests, asked over its interface and by the command line.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use squall_tests::squall::binary;
use squall_tests::wait::{PATIENCE, holds};

use super::observations::seen;
use super::{Server, answer, connect, echo, serve};

/// Answers every request of a connection with `hello`, after it has read its head.
pub(super) fn hello() -> SocketAddr {
    serve(|mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-MiXed: 1\r\nContent-Length: 5\r\n\r\nhello");
            }
        }
    })
}

pub(super) fn get(listen: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = connect(listen);
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it can be sent");
    answer(&mut stream)
}

#[test]
fn requests_fail_by_path_and_number_and_are_told_afterwards() {
    let server = Server::start(&["--proxy-metrics"]);
    let wanted = json!({ "name": "shop", "listen": "127.0.0.1:0", "upstream": hello().to_string(), "protocol": "http" });
    let made = server.done("POST", "/proxies", &wanted);
    assert_eq!(made["protocol"], "http");
    let listen: SocketAddr =
        made["listen"].as_str().and_then(|listen| listen.parse().ok()).expect("an address");
    let (status, head, body) = get(listen, "/");
    assert_eq!((status, body.as_str()), (200, "hello"));
    assert!(head.contains("x-mixed: 1"), "{head}");

    let mut command = Command::new(binary("squall"));
    command.args([
        "proxy",
        "toxic",
        "add",
        "-t",
        "http_status",
        "-a",
        "status=500",
        "-a",
        "body=out of order",
    ]);
    command.args(["-m", "path=/pay*", "-m", "first=2", "-m", "method=GET", "--expires-in", "1h", "shop"]);
    let output = command.env("TOXIPROXY_URL", format!("http://{}", server.api)).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let toxic = server.done("GET", "/proxies/shop/toxics/http_status_downstream", &Value::Null);
    assert_eq!(toxic["match"], json!({ "path": "/pay*", "first": 2, "method": "GET" }));
    assert_eq!(
        (&toxic["expires_in"], &toxic["attributes"]["body"]),
        (&json!(3_600_000), &json!("out of order"))
    );
    let statuses: Vec<u16> = ["/pay", "/", "/pay/2", "/pay"].iter().map(|path| get(listen, path).0).collect();
    assert_eq!(statuses, [500, 200, 500, 200]);
    // A delay of the bytes of the connection and one of its requests add up.
    server.toxic("shop", "latency", "downstream", json!({ "latency": 30 }));
    server.toxic("shop", "http_delay", "upstream", json!({ "delay": 30 }));
    let begun = std::time::Instant::now();
    assert_eq!(get(listen, "/").0, 200);
    assert!(begun.elapsed().as_millis() >= 60, "{:?}", begun.elapsed());

    let requests = || -> Vec<Value> {
        seen(&server, 0).into_iter().filter(|record| record["kind"] == "request").collect()
    };
    holds("all requests to be told", PATIENCE, || requests().len() == 6);
    let requests = requests();
    let one = |at: usize| (requests[at]["status"].clone(), requests[at]["faults"].clone());
    assert_eq!(one(0), (json!(200), json!([])));
    assert_eq!(one(1), (json!(500), json!(["http_status_downstream"])));
    assert_eq!(one(5), (json!(200), json!(["http_delay_upstream"])));
    let (_, _, metrics) = server.raw("GET", "/metrics", "", b"");
    assert!(
        metrics.lines().any(|line| line.starts_with("squall_proxy_requests_total") && line.ends_with(" 6"))
    );
}

#[test]
fn what_needs_requests_is_refused_where_there_are_none() {
    let server = Server::start(&[]);
    server.proxy("db", echo());
    let http = json!({ "name": "shop", "upstream": echo().to_string(), "protocol": "http" });
    server.done("POST", "/proxies", &http);
    for (proxy, body, said) in [
        ("db", json!({ "type": "http_status" }), "http_status needs a proxy with `protocol` `http`"),
        ("db", json!({ "type": "noop", "match": { "path": "/" } }), "needs a proxy with `protocol` `http`"),
        ("db", json!({ "type": "tls_refuse" }), "tls_refuse needs a proxy with `tls`"),
        ("shop", json!({ "type": "latency", "match": { "path": "/" } }), "matchers of toxics for HTTP"),
        ("shop", json!({ "type": "http_status", "attributes": { "body": 7 } }), "of type string"),
    ] {
        let (status, answer) = server.ask("POST", &format!("/proxies/{proxy}/toxics"), &body);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(said), "{body}: {status} {error}");
    }
    for (field, value) in [
        ("protocol", json!("gopher")),
        ("tls", json!({ "cert": "x", "key": "y" })),
        ("tls", json!("x")),
        ("upstream_tls", json!({ "ca": "x" })),
    ] {
        let bad = json!({ "name": "x", "upstream": "x:1", field: value });
        assert_eq!(server.ask("POST", "/proxies", &bad).0, 400, "{bad}");
    }
    // What is no HTTP is no reason to end.
    let listen = server.done("GET", "/proxies/shop", &Value::Null)["listen"].as_str().map(str::to_owned);
    let port = listen.and_then(|listen| listen.rsplit(':').next()?.parse::<u16>().ok()).expect("a port");
    for garbage in
        [&[0; 4096][..], b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"]
    {
        let mut stream = connect(([127, 0, 0, 1], port).into());
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.works();
}
