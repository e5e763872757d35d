//! Probes that ask a service of a kind, against servers that answer what they should not, or nothing. What they should
//! is asked of the real ones in the end-to-end suite.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use serde_json::{Value, json};
use squall_experiments::probe::Sample;

use crate::prober::{expect_nothing, once, refused};
use crate::server::{always, answer, kept, nobody, serve, silent, tls};

/// Says so much to whoever connects, again and again, and listens to nobody.
fn talks(bytes: &'static [u8], times: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || (0..times).all(|_| stream.write_all(bytes).is_ok()));
        }
    });
    address
}

/// A name server that sends every question back as an answer, changed.
fn name_server(change: impl Fn(&mut Vec<u8>) + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut bytes = buffer[..length].to_vec();
            change(&mut bytes);
            let _ = socket.send_to(&bytes, from);
        }
    });
    address
}

#[track_caller]
fn is(sample: &Sample, good: bool, unclear: bool, seen: &str) {
    assert!(sample.seen.starts_with(seen), "{} (expected {seen})", sample.seen);
    assert_eq!((sample.good, sample.unclear), (good, unclear), "{}", sample.seen);
}

#[test]
fn a_store_that_speaks_another_language_is_bad_and_costs_no_memory() {
    let redis = |address: SocketAddr| {
        let probe = json!({ "redis": { "address": address.to_string(), "timeout": "1s" } });
        once(probe, expect_nothing())
    };
    is(&redis(nobody()), false, false, "connection refused");
    is(&redis(silent()), false, false, "timed out after 1s waiting for the answer");
    is(&redis(talks(b"\x00\xfe\xff\n", 1)), false, false, "the answer is not Redis");
    is(&redis(talks(b"$1073741824\r\n", 1)), false, false, "the answer is longer than 4 MiB");
    is(&redis(talks(&[b'x'; 1 << 20], 1024)), false, false, "the answer is longer than 4 MiB");
    is(&redis(talks(b"-LOADING Redis is loading\r\n", 1)), false, false, "LOADING");
    is(&redis(talks(b"-NOAUTH Authentication required.\r\n", 1)), false, true, "NOAUTH");
    is(&redis(talks(b"+PONG\r\n", 1)), true, false, "`PONG` in ");

    let sql = |address: SocketAddr| {
        let probe = json!({ "sql": { "address": address.to_string(), "user": "shop", "timeout": "1s" } });
        once(probe, expect_nothing())
    };
    is(&sql(nobody()), false, false, "connection refused");
    is(&sql(silent()), false, false, "timed out after 1s logging in");
    is(&sql(talks(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1)), false, false, "");
    is(&sql(talks(&[0; 1 << 20], 1024)), false, false, "");
}

#[test]
fn a_name_is_asked_for_past_every_cache() {
    let look = |server: SocketAddr, expect: Value| {
        let dns = json!({ "dns": { "name": "shop.example", "server": server.to_string(), "timeout": "1s" } });
        once(dns, expect)
    };
    let code = |code: u8| name_server(move |bytes| (bytes[2], bytes[3]) = (bytes[2] | 0x80, code));
    is(&look(code(3), expect_nothing()), false, false, "NXDOMAIN (expected NOERROR)");
    is(&look(code(3), json!({ "rcode": "NXDOMAIN" })), true, false, "[] in ");
    is(&look(code(2), expect_nothing()), false, false, "SERVFAIL (expected NOERROR)");
    is(&look(code(0), expect_nothing()), false, false, "no A record");
    is(&look(code(0), json!({ "value": { "count": 0 } })), true, false, "[] in ");
    // Whoever does not know the question's number did not get the question.
    let forged = name_server(|bytes| (bytes[0], bytes[2]) = (!bytes[0], bytes[2] | 0x80));
    is(&look(forged, expect_nothing()), false, false, "timed out after 1s waiting for the answer");
    is(&look(name_server(Vec::clear), expect_nothing()), false, false, "timed out after 1s");
}

#[test]
fn a_certificate_says_how_long_it_is_good() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!("squall-certificate-{}", std::process::id()));
    std::fs::write(&folder, certificate.cert.pem()).unwrap();
    let ca = folder.display().to_string();
    let look = |address: SocketAddr, ca: &str, expect: Value| {
        let address = format!("localhost:{}", address.port());
        once(json!({ "tls": { "address": address, "tls": { "ca": ca } } }), expect)
    };
    let sample = look(tls(&certificate), &ca, json!({ "days-left": ">= 30" }));
    assert!(sample.good && sample.seen.contains(" days left in "), "{}", sample.seen);
    is(&look(tls(&certificate), &ca, json!({ "days-left": "<= 30" })), false, false, "days left: ");

    let key = rcgen::KeyPair::generate().unwrap();
    let mut old = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let old = rcgen::CertifiedKey { cert: old.self_signed(&key).unwrap(), signing_key: key };
    std::fs::write(&folder, old.cert.pem()).unwrap();
    let expired = look(tls(&old), &ca, expect_nothing());
    assert!(!expired.good && expired.seen.contains("xpired"), "{}", expired.seen);
    let insecure = json!({ "tls": { "address": tls(&old).to_string(), "tls": { "insecure": true } } });
    is(&once(insecure, json!({ "days-left": ">= 0" })), false, false, "days left: -");

    let stranger = look(tls(&certificate), &ca, expect_nothing());
    assert!(!stranger.good && stranger.seen.starts_with("TLS: "), "{}", stranger.seen);
    is(&look(silent(), &ca, expect_nothing()), false, false, "timed out after 2s in the TLS handshake");
    is(&look(talks(b"no TLS\r\n", 1), &ca, expect_nothing()), false, false, "TLS: ");
    std::fs::remove_file(folder).unwrap();
}

#[test]
fn metrics_are_found_by_name_and_labels() {
    const TEXT: &str =
        "# TYPE orders_total counter\norders_total{shop=\"a\"} 7\norders_total{shop=\"b\"} 9\nratio NaN\n";
    let text = || always(answer("200 OK", "", TEXT));
    let look = |address: SocketAddr, more: Value, value: Value| {
        let mut metrics = json!({ "url": format!("http://{address}/metrics"), "metric": "orders_total" });
        metrics.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        once(json!({ "metrics": metrics }), json!({ "value": value }))
    };
    is(&look(text(), json!({ "labels": { "shop": "a" } }), json!("< 8")), true, false, "`7` in ");
    is(&look(text(), json!({}), json!("< 10")), true, false, "2 values in ");
    is(&look(text(), json!({}), json!("< 8")), false, false, "orders_total{shop=\"b\"}: `9` (expected < 8)");
    is(&look(text(), json!({ "take": "any" }), json!("< 8")), true, false, "2 values in ");
    is(&look(text(), json!({ "take": "sum" }), json!(16)), true, false, "`16` in ");
    is(&look(text(), json!({ "take": "one" }), json!(7)), false, true, "2 values, and one is compared");
    is(&look(text(), json!({}), json!({ "count": 2 })), true, false, "");
    is(&look(text(), json!({ "metric": "ratio" }), json!("> 0")), false, true, "`NaN` is not a number");
    is(&look(text(), json!({ "metric": "nothing" }), json!("> 0")), false, true, "no data (expected > 0)");
    is(
        &look(text(), json!({ "metric": "nothing" }), json!({ "present": false })),
        true,
        false,
        "no data in ",
    );
    let missing = always(answer("404 Not Found", "", ""));
    is(&look(missing, json!({}), json!("> 0")), false, false, "404 (expected 200)");
    is(&look(nobody(), json!({}), json!("> 0")), false, false, "connection refused");
    is(
        &look(always(b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe".to_vec()), json!({}), json!(1)),
        false,
        true,
        "the answer is no text",
    );

    let growing = kept(|count| answer("200 OK", "", &format!("orders_total {}\n", count * 1000)));
    let rate = look(growing.address, json!({ "rate": "200ms" }), json!({ "between": [500, 5000] }));
    is(&rate, true, false, "");
    let falling =
        kept(|count| answer("200 OK", "", &format!("orders_total {}\n", 10_usize.saturating_sub(count))));
    let rate = look(falling.address, json!({ "rate": "1ms" }), json!("> 0"));
    assert!(rate.unclear && rate.seen.contains("became less"), "{}", rate.seen);
}

#[test]
fn a_prometheus_that_does_not_know_says_nothing_about_the_system() {
    let look = |address: SocketAddr, value: Value| {
        let probe = json!({ "url": format!("http://{address}/"), "query": "up", "timeout": "1s" });
        once(json!({ "prometheus": probe }), json!({ "value": value }))
    };
    let says = |body: &str| always(answer("200 OK", "content-type: application/json\r\n", body));
    let vector = |result: &str| {
        says(&format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#))
    };
    is(&look(vector(r#"{"metric":{},"value":[1,"3"]}"#), json!("<= 3")), true, false, "`3` in ");
    is(&look(vector(r#"{"metric":{},"value":[1,"4"]}"#), json!("<= 3")), false, false, "`4` (expected <= 3)");
    is(
        &look(vector(r#"{"metric":{},"value":[1,"NaN"]}"#), json!("<= 3")),
        false,
        true,
        "`NaN` is not a number",
    );
    is(&look(vector(""), json!("<= 3")), false, true, "no data (expected <= 3)");
    is(&look(vector(""), json!({ "present": false })), true, false, "no data in ");
    is(&look(says("<html>"), json!(1)), false, true, "200, and the answer is not that of Prometheus");
    is(&look(nobody(), json!(1)), false, true, "connection refused");
    is(&look(silent(), json!(1)), false, true, "timed out after 1s waiting for the answer");
    let endless = serve(|stream, _, _| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        (0..1024).all(|_| stream.write_all(&[b'['; 1 << 20]).is_ok());
    });
    is(&look(endless, json!(1)), false, true, "body is longer than 4 MiB");
}

#[test]
fn an_answer_is_compared_as_a_value() {
    let http = |body: &str, expect: Value| {
        let url = format!("http://{}/", always(answer("200 OK", "", body)));
        once(json!({ "http": { "url": url } }), expect)
    };
    is(&http(" 12\n", json!({ "value": "<= 12" })), true, false, "200 in ");
    is(&http("many", json!({ "value": "<= 12" })), false, true, "body is `many` is not a number");
    is(
        &http("{\"n\": 7}", json!({ "json": { "$.n": { "between": [1, 5] } } })),
        false,
        false,
        "`$.n` is 7 (expected",
    );
    is(&http("{\"n\": \"x\"}", json!({ "json": { "$.n": "> 1" } })), false, true, "`$.n` is ");
    is(&http("{\"n\": []}", json!({ "json": { "$.n[*]": { "count": 0 } } })), true, false, "200 in ");
    is(&http("{}", json!({ "status": { "one-of": [200, 204] } })), true, false, "200 in ");
    is(&http("{}", json!({ "status": "!= 200" })), false, false, "200 (expected not 200)");
    let program =
        |script: &str, expect: Value| once(json!({ "process": { "argv": ["sh", "-c", script] } }), expect);
    is(&program("echo 1.5", json!({ "value": { "between": [1, 2] } })), true, false, "exit 0 in ");
    is(&program("echo n/a", json!({ "value": "> 1" })), false, true, "standard output is ");
    is(&program("exit 3", json!({ "exit": { "one-of": [0, 3] } })), true, false, "exit 3 in ");
}

#[test]
fn what_can_never_be_looked_at_is_refused() {
    let why = refused(json!({ "log": { "file": "/nonexistent/x.log", "pattern": "x" } }), expect_nothing());
    assert_eq!(why, "`/nonexistent/x.log`: no such file or directory");
    let why = refused(json!({ "log": { "file": "/dev/zero", "pattern": "x" } }), expect_nothing());
    assert!(why.contains("no regular file"), "{why}");
}
