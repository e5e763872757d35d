//! Whatever is asked of it: the proxy answers, and goes on working.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::{RcvBuf, TcpMaxSeg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket};
use serde_json::{Value, json};

use super::http::{get, hello};
use super::{Server, answer, connect, echo, ping};

const NONE: Value = Value::Null;

/// What an attribute may be, and what none may.
const VALUES: [&str; 14] = [
    "-1",
    "0",
    "1",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "1e400",
    "1.5",
    "NaN",
    "null",
    "\"1\"",
    "[]",
    "{}",
    "true",
];

#[test]
fn no_attribute_brings_it_down() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    let kinds = [
        ("latency", &["latency", "jitter"][..]),
        ("bandwidth", &["rate"]),
        ("slow_close", &["delay"]),
        ("timeout", &["timeout"]),
        ("reset_peer", &["timeout"]),
        ("slicer", &["average_size", "size_variation", "delay"]),
        ("packet_loss", &["loss_rate", "correlation"]),
        ("corrupt", &["probability"]),
        ("limit_time", &["time"]),
        ("limit_data", &["bytes"]),
        ("hang_data", &["bytes"]),
        ("reset_data", &["bytes"]),
        ("tls_issued", &["cert", "key", "name", "expired"]),
        ("http_status", &["status", "grpc"]),
        ("noop", &["x"]),
        ("connect_delay", &["delay"]),
        ("connect_refuse", &["x"]),
        ("shared_bandwidth", &["rate"]),
    ];
    for (kind, attributes) in kinds {
        for value in VALUES {
            let attributes: Vec<String> =
                attributes.iter().map(|name| format!("\"{name}\":{value}")).collect();
            let body = format!("{{\"type\":\"{kind}\",\"attributes\":{{{}}}}}", attributes.join(","));
            let (status, ..) = server.raw("POST", "/proxies/db/toxics", "", body.as_bytes());
            assert!([200, 400].contains(&status), "{body}: {status}");
            if status == 200 {
                let mut stream = connect(listen);
                // One that refuses connections may have been faster.
                let _ = stream.write_all(&[7; 3000]);
                let name = format!("/proxies/db/toxics/{kind}_downstream");
                server.done("DELETE", &name, &NONE);
            }
        }
    }
    for toxicity in ["-1", "5", "1e38", "1e400", "\"x\"", "null"] {
        let body = format!("{{\"type\":\"noop\",\"toxicity\":{toxicity}}}");
        let (status, ..) = server.raw("POST", "/proxies/db/toxics", "", body.as_bytes());
        assert!([200, 400, 409].contains(&status), "{body}: {status}");
    }
    server.works();
}

#[test]
fn no_attribute_of_the_toxics_for_requests_brings_it_down() {
    let server = Server::start(&[]);
    let wanted = json!({ "name": "shop", "listen": "127.0.0.1:0", "upstream": hello().to_string(), "protocol": "http" });
    let made = server.done("POST", "/proxies", &wanted);
    let listen = made["listen"].as_str().and_then(|listen| listen.parse().ok()).expect("an address");
    let kinds = [
        ("http_status", &["status", "grpc", "body"][..]),
        ("http_delay", &["delay", "jitter"]),
        ("http_header", &["name", "value"]),
        ("http_body", &["truncate", "replace"]),
        ("grpc_status", &["status", "message"]),
    ];
    let texts = ["\"\"", "\"\\r\\nx: y\"", "\"\\u0000\"", "\"content-length\""];
    let mut taken = 0;
    for (kind, attributes) in kinds {
        for attribute in attributes {
            for (value, stream) in
                VALUES.iter().chain(&texts).flat_map(|value| [(value, "upstream"), (value, "downstream")])
            {
                let body = format!(
                    "{{\"type\":\"{kind}\",\"stream\":\"{stream}\",\"attributes\":{{\"{attribute}\":{value}}}}}"
                );
                let (status, ..) = server.raw("POST", "/proxies/shop/toxics", "", body.as_bytes());
                assert!([200, 400].contains(&status), "{body}: {status}");
                if status == 200 {
                    taken += 1;
                    // Nobody waits for an answer that comes in some million years.
                    let mut client = connect(listen);
                    let request = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1";
                    client.write_all(request).expect("it is taken");
                    server.done("DELETE", &format!("/proxies/shop/toxics/{kind}_{stream}"), &NONE);
                }
            }
        }
    }
    assert!(taken > 50, "{taken}");
    assert_eq!(get(listen, "/").0, 200);
    server.works();
}

#[test]
fn an_upstream_that_leads_back_is_refused() {
    let server = Server::start(&["--proxy-metrics"]);
    let listen = server.proxy("db", echo());
    let port = listen.port();
    for upstream in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("0.0.0.0:{port}")] {
        server.done("POST", "/proxies/db", &json!({ "upstream": upstream }));
        let mut stream = connect(listen);
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "{upstream}");
    }
    // Round by another proxy, and by a listener on every address.
    let all = json!({ "name": "all", "listen": ":0", "upstream": listen.to_string() });
    let all = server.done("POST", "/proxies", &all)["listen"].as_str().expect("an address").to_owned();
    let back = format!("127.0.0.1:{}", all.rsplit(':').next().expect("a port"));
    server.done("POST", "/proxies/db", &json!({ "upstream": back }));
    assert!(matches!(connect(listen).read(&mut [0]), Ok(0) | Err(_)));
    let (_, _, text) = server.raw("GET", "/metrics", "", b"");
    let looped = text.lines().find(|line| line.starts_with("squall_proxy_looped_total{proxy=\"db\""));
    assert_eq!(looped.and_then(|line| line.rsplit(' ').next()), Some("4"), "{text}");
    server.works();
}

#[test]
fn a_dependency_that_is_gone_is_an_end_not_a_refusal() {
    let server = Server::start(&[]);
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a port");
    for upstream in [nobody.to_string(), "no-such-host.invalid:1".to_owned(), "http://x".to_owned()] {
        let wanted = json!({ "name": "gone", "listen": "127.0.0.1:0", "upstream": upstream });
        let made = server.done("POST", "/proxies", &wanted);
        let listen = made["listen"].as_str().and_then(|listen| listen.parse().ok()).expect("an address");
        assert_eq!(connect(listen).read_to_end(&mut Vec::new()).expect("an orderly end"), 0, "{upstream}");
        server.done("DELETE", "/proxies/gone", &NONE);
    }
}

#[test]
fn names_may_hold_anything() {
    let server = Server::start(&[]);
    for (name, path) in [("a/b", "a%2Fb"), ("ü \"\\", "%C3%BC%20%22%5C"), ("..", "..")] {
        server.proxy(name, echo());
        server.done("POST", &format!("/proxies/{path}/toxics"), &json!({ "type": "noop", "name": name }));
        assert_eq!(server.done("GET", &format!("/proxies/{path}/toxics/{path}"), &NONE)["name"], name);
        server.done("DELETE", &format!("/proxies/{path}"), &NONE);
    }
}

#[test]
fn slow_and_endless_requests_keep_nobody_waiting() {
    let server = Server::start(&[]);
    let mut slow: Vec<TcpStream> = (0..200).map(|_| connect(server.api)).collect();
    for stream in &mut slow {
        stream
            .write_all(b"POST /proxies HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n")
            .expect("it can be sent");
    }
    // A body that is announced as a gigabyte: it is refused long before it is there.
    let mut endless = connect(server.api);
    let head = format!("POST /populate HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1 << 30);
    endless.write_all(head.as_bytes()).expect("it can be sent");
    let mut sent = 0usize;
    while sent < 1 << 30 {
        match endless.write(&[b' '; 64 << 10]) {
            Ok(length) => sent += length,
            Err(_) => break,
        }
    }
    assert!(sent < 256 << 20, "{sent} bytes were taken");
    // The answer may be lost with what was still under way; if it arrives it is this one.
    let mut begin = [0; 12];
    if endless.read_exact(&mut begin).is_ok() {
        assert_eq!(&begin, b"HTTP/1.1 400");
    }
    server.works();
    let deep = vec![b'['; 1 << 20];
    assert_eq!(server.raw("POST", "/populate", "", &deep).0, 400);
    let mut garbage = connect(server.api);
    garbage.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").expect("it can be sent");
    assert_eq!(answer(&mut garbage).0, 400);
    server.works();
}

/// A connection for which the system keeps little of what is not read.
fn narrow(to: SocketAddr) -> TcpStream {
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&made, TcpMaxSeg, &536).expect("small segments");
    setsockopt(&made, RcvBuf, &4096).expect("a small buffer");
    rustix::net::connect(&made, &to).expect("it listens");
    made.into()
}

#[test]
fn callers_who_never_read_their_answers_keep_nobody_waiting() {
    let server = Server::start(&[]);
    let upstream = format!("{}:1", "x".repeat(40_000));
    server.done(
        "POST",
        "/proxies",
        &json!({ "name": "long", "listen": "127.0.0.1:0", "upstream": upstream }),
    );
    let request = b"GET /proxies HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
    let mut deaf: Vec<TcpStream> = Vec::new();
    for _ in 0..600 {
        let mut stream = narrow(server.api);
        stream.write_all(&request).expect("it can be sent");
        deaf.push(stream);
    }
    assert_eq!(server.raw("GET", "/version", "", b"").0, 200);
    server.works();
    drop(deaf);
}

#[test]
fn ten_thousand_proxies_and_hundreds_of_connections() {
    let server = Server::start(&[]);
    let echo = echo();
    let list: Vec<Value> = (0..10_000)
        .map(|at| json!({ "name": format!("p{at}"), "listen": "127.0.0.1:0", "upstream": echo.to_string() }))
        .collect();
    let (status, answer) = server.ask("POST", "/populate", &json!(list));
    if status == 500 && answer["error"].as_str().is_some_and(|error| error.contains("too many open files")) {
        squall_tests::skip!("this machine does not allow 10,000 sockets");
    }
    assert_eq!((status, answer["proxies"].as_array().map(Vec::len)), (201, Some(10_000)));
    let listen = answer["proxies"][9_999]["listen"].as_str().and_then(|listen| listen.parse().ok());
    let listen = listen.expect("an address");
    let mut open: Vec<TcpStream> = (0..400).map(|_| connect(listen)).collect();
    for stream in &mut open {
        ping(stream);
    }
    let begun = Instant::now();
    server.toxic("p9999", "latency", "downstream", json!({ "latency": 1 }));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for stream in &mut open {
        assert!(ping(stream) >= Duration::from_millis(1));
    }
    assert_eq!(server.done("GET", "/proxies", &NONE).as_object().map(serde_json::Map::len), Some(10_000));
}
