//! What the reference does not have: toxics before the dependency is connected to, matchers, shared lines.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squall_tests::wait::{PATIENCE, holds, median};

use super::{Server, connect, echo, ping, serve};

const NONE: Value = Value::Null;

/// Whether a connection carries a byte there and back.
fn carries(listen: std::net::SocketAddr) -> bool {
    let mut stream = connect(listen);
    stream.write_all(b"x").is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}

#[test]
fn a_connection_is_refused_or_late_before_the_dependency_hears_of_it() {
    let server = Server::start(&["--proxy-metrics"]);
    let heard = Arc::new(AtomicU64::new(0));
    let count = heard.clone();
    let upstream = serve(move |mut stream| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
    });
    let listen = server.proxy("db", upstream);
    server.toxic("db", "connect_refuse", "downstream", json!({}));
    let mut stream = connect(listen);
    let error = stream.read_to_end(&mut Vec::new()).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(heard.load(Ordering::Relaxed), 0);
    server.done("DELETE", "/proxies/db/toxics/connect_refuse_downstream", &NONE);

    server.toxic("db", "connect_delay", "upstream", json!({ "delay": 60 }));
    let late = median((0..7).map(|_| timed(listen)).collect());
    assert!(late >= Duration::from_millis(60), "{late:?}");

    // Who waits goes on at once when it is removed.
    let delay = "/proxies/db/toxics/connect_delay_upstream";
    server.done("POST", delay, &json!({ "attributes": { "delay": 3_600_000 } }));
    let before = heard.load(Ordering::Relaxed);
    let mut waiting = connect(listen);
    waiting.write_all(b"x").expect("it can be sent");
    assert_eq!(heard.load(Ordering::Relaxed), before);
    server.done("DELETE", delay, &NONE);
    waiting.read_exact(&mut [0]).expect("an answer");
    let (_, _, metrics) = server.raw("GET", "/metrics", "", b"");
    assert!(
        metrics.lines().any(|line| line.starts_with("squall_proxy_refused_total") && line.ends_with(" 1"))
    );
}

/// From the beginning of a connection to its first answer.
fn timed(listen: std::net::SocketAddr) -> Duration {
    let begun = Instant::now();
    ping(&mut connect(listen));
    begun.elapsed()
}

#[test]
fn a_matcher_chooses_clients_and_connections() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    let list = "/proxies/db/toxics";
    let retry = json!({ "type": "connect_refuse", "match": { "first": 2, "client": "127.0.0.0/8" } });
    let made = server.done("POST", list, &retry);
    assert_eq!(made["match"], retry["match"]);
    let fates: Vec<bool> = (0..4).map(|_| carries(listen)).collect();
    assert_eq!(fates, [false, false, true, true]);
    server.done("DELETE", "/proxies/db/toxics/connect_refuse_downstream", &NONE);

    let third = json!({ "type": "limit_data", "match": { "every": 3 } });
    server.done("POST", list, &third);
    let fates: Vec<bool> = (0..7).map(|_| carries(listen)).collect();
    assert_eq!(fates, [true, true, false, true, true, false, true]);
    server.done("DELETE", "/proxies/db/toxics/limit_data_downstream", &NONE);

    server.done("POST", list, &json!({ "type": "limit_data", "match": { "client": ["10.0.0.0/8", "::1"] } }));
    assert!(carries(listen));
    // What is not understood is refused, and what only a request can answer where there are none.
    for (matcher, said) in [
        (json!({ "clients": "10.0.0.0/8" }), "unknown matcher `clients`"),
        (json!({ "client": "10.0.0.1/8" }), "matcher `client`"),
        (json!({ "nth": 0 }), "matcher `nth`"),
        (json!([]), "matcher `match`"),
        (json!({ "path": "/x" }), "needs a proxy with `protocol` `http`"),
    ] {
        let body = json!({ "type": "noop", "name": "n", "match": matcher });
        let (status, answer) = server.ask("POST", list, &body);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(said), "{body}: {status} {error}");
    }
}

#[test]
fn one_line_carries_all_connections() {
    let server = Server::start(&[]);
    let listen = server.proxy(
        "db",
        serve(|mut stream| {
            let piece = [0; 4096];
            while stream.write_all(&piece).is_ok() {}
        }),
    );
    server.toxic("db", "shared_bandwidth", "downstream", json!({ "rate": 400 }));
    let begun = Instant::now();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = connect(listen);
                let mut got = 0;
                let mut buffer = [0; 8192];
                while begun.elapsed() < Duration::from_millis(1500) {
                    // A call with a time-out is not begun again by itself, such as after the machine was frozen.
                    got += match stream.read(&mut buffer) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                        came => came.expect("bytes come"),
                    };
                }
                got
            })
        })
        .collect();
    let got: Vec<usize> = readers.into_iter().map(|reader| reader.join().expect("it ends well")).collect();
    // Never faster than the line, whatever the machine does.
    let most = (begun.elapsed().as_millis() * 400) as usize;
    let all: usize = got.iter().sum();
    assert!(all <= most + (64 << 10), "{got:?} of {most}");
    assert!(all >= most / 3, "{got:?} of {most}");
    assert!(got.iter().all(|one| *one > all / 12), "{got:?}");
}

#[test]
fn toxics_that_are_made_with_their_proxy_end_by_themselves_too() {
    let server = Server::start(&[]);
    let list = json!([{ "name": "db", "listen": "127.0.0.1:0", "upstream": echo().to_string(), "toxics": [
        { "type": "timeout", "name": "short", "expires_in": 100, "match": { "every": 2 } },
        { "type": "noop", "name": "stays" },
    ] }]);
    let made = server.done("POST", "/populate", &list);
    let short = &made["proxies"][0]["toxics"][0];
    assert_eq!((&short["expires_in"], &short["match"]), (&json!(100), &json!({ "every": 2 })));
    holds("the toxic to end", PATIENCE, || server.ask("GET", "/proxies/db/toxics/short", &NONE).0 == 404);
    assert_eq!(server.ask("GET", "/proxies/db/toxics/stays", &NONE).0, 200);
}
