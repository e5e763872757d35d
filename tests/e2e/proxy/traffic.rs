//! What happens to bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squall_tests::wait::{PATIENCE, holds, median};

use super::{Server, connect, echo, ping, serve};

const NONE: Value = Value::Null;

/// Bytes that show by their values where they belong.
fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

#[test]
fn latency_is_what_was_asked_for_and_gone_when_it_is_removed() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    let mut stream = connect(listen);
    let round = |stream: &mut TcpStream| median((0..15).map(|_| ping(stream)).collect());
    let bare = round(&mut stream);
    server.toxic("db", "latency", "downstream", json!({ "latency": 40 }));
    let late = round(&mut stream);
    assert!(late >= Duration::from_millis(40), "{late:?}");
    assert!(
        late - Duration::from_millis(40) <= 3 * bare + Duration::from_millis(10),
        "{late:?}, bare {bare:?}"
    );
    server.done("POST", "/proxies/db/toxics/latency_downstream", &json!({ "attributes": { "latency": 0 } }));
    let limit = 3 * bare + Duration::from_millis(10);
    let zero = round(&mut stream);
    assert!(zero <= limit, "{zero:?}, bare {bare:?}");
    server.done("DELETE", "/proxies/db/toxics/latency_downstream", &NONE);
    let removed = round(&mut stream);
    assert!(removed <= limit, "{removed:?}, bare {bare:?}");
}

#[test]
fn a_sender_that_closes_its_half_still_gets_its_answer() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    for toxics in [false, true] {
        if toxics {
            server.toxic("db", "latency", "upstream", json!({ "latency": 5 }));
            server.toxic("db", "slow_close", "upstream", json!({ "delay": 20 }));
        }
        let mut stream = connect(listen);
        stream.write_all(b"request").expect("it can be sent");
        stream.shutdown(Shutdown::Write).expect("it can be closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an orderly end");
        assert_eq!(answer, "requestbye");
    }
}

#[test]
fn an_end_is_held_back_although_both_peers_have_said_all() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    server.toxic("db", "slow_close", "downstream", json!({ "delay": 300 }));
    let mut stream = connect(listen);
    stream.shutdown(Shutdown::Write).expect("it can be closed");
    let begun = Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an orderly end");
    assert_eq!(answer, "bye");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn toxics_come_change_and_go_on_a_busy_connection_without_losing_a_byte() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    let sent = numbered(8 << 20);
    let mut stream = connect(listen);
    let mut writer = stream.try_clone().expect("a socket can be shared");
    let (expected, given) = (sent.clone(), sent);
    let (done, finished) = channel();
    let writing = thread::spawn(move || {
        for piece in given.chunks(40_000) {
            writer.write_all(piece).expect("it can be sent");
            thread::sleep(Duration::from_millis(2));
        }
        writer.shutdown(Shutdown::Write).expect("it can be closed");
    });
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("an orderly end");
        done.send(()).expect("the test waits");
        got
    });
    let mut rounds = 0;
    while finished.try_recv().is_err() {
        for stream in ["upstream", "downstream"] {
            let name = |kind: &str| format!("/proxies/db/toxics/{kind}_{stream}");
            server.toxic("db", "latency", stream, json!({ "latency": 15, "jitter": 5 }));
            server.toxic("db", "slicer", stream, json!({ "average_size": 1000, "size_variation": 500 }));
            server.toxic("db", "bandwidth", stream, json!({ "rate": 0 }));
            server.done("POST", &name("bandwidth"), &json!({ "attributes": { "rate": 40_000 } }));
            server.done("PATCH", &name("latency"), &json!({ "attributes": { "latency": 2 } }));
            for kind in ["latency", "bandwidth", "slicer"] {
                server.done("DELETE", &name(kind), &NONE);
            }
        }
        rounds += 1;
    }
    writing.join().expect("the writer ends well");
    let got = reading.join().expect("the reader ends well");
    assert!(rounds > 3, "the toxics hardly changed while bytes flowed: {rounds} rounds");
    let expected = [&expected[..], b"bye"].concat();
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
}

#[test]
fn a_torrent_is_whole_and_counted_while_toxics_come_and_go_and_its_reader_rests() {
    const BLOCKS: usize = 48;
    let server = Server::start(&["--proxy-metrics"]);
    let listen = server.proxy("db", echo());
    // Odd, so that blocks and reads never meet.
    let block = numbered((1 << 20) + 7);
    let mut stream = connect(listen);
    let mut writer = stream.try_clone().expect("a socket can be shared");
    let given = block.clone();
    let writing = thread::spawn(move || {
        for _ in 0..BLOCKS {
            writer.write_all(&given).expect("it can be sent");
        }
        writer.shutdown(Shutdown::Write).expect("it can be closed");
    });
    let (done, finished) = channel();
    let reading = thread::spawn(move || {
        let mut got = vec![0; block.len()];
        for at in 0..BLOCKS {
            if at % 8 == 7 {
                // Everything on the way fills up.
                thread::sleep(Duration::from_millis(50));
            }
            stream.read_exact(&mut got).expect("the next block");
            assert!(got == block, "block {at} is another one");
        }
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("an orderly end");
        let _ = done.send(rest);
    });
    let rest = loop {
        if let Ok(rest) = finished.recv_timeout(Duration::from_millis(20)) {
            break rest;
        }
        assert!(!reading.is_finished(), "the reader did not get what was sent");
        for stream in ["upstream", "downstream"] {
            server.toxic("db", "latency", stream, json!({ "latency": 1 }));
            server.done("DELETE", &format!("/proxies/db/toxics/latency_{stream}"), &NONE);
        }
    };
    assert_eq!(rest, "bye");
    writing.join().expect("the writer ends well");
    let (_, _, text) = server.raw("GET", "/metrics", "", b"");
    let sent = BLOCKS * ((1 << 20) + 7);
    for (direction, bytes) in [("upstream", sent), ("downstream", sent + 3)] {
        for what in ["received", "sent"] {
            let of = format!("toxiproxy_proxy_{what}_bytes_total{{direction=\"{direction}\"");
            let line = text.lines().find(|line| line.starts_with(&of)).unwrap_or_default();
            assert!(line.ends_with(&format!(" {bytes}")), "{line}");
        }
    }
}

#[test]
fn a_reset_on_a_living_connection_is_a_reset_and_an_idle_one_is_spared() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    let (mut busy, mut idle) = (connect(listen), connect(listen));
    ping(&mut busy);
    ping(&mut idle);
    server.toxic("db", "reset_peer", "upstream", json!({ "timeout": 0 }));
    let _ = busy.write_all(b"x");
    let error = busy.read_to_end(&mut Vec::new()).expect_err("a reset is an error to the reader");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    server.done("DELETE", "/proxies/db/toxics/reset_peer_upstream", &NONE);
    ping(&mut idle);

    // With a toxicity of 0 nobody is concerned: an end is an end.
    let none = json!({ "type": "reset_peer", "toxicity": 0 });
    server.done("POST", "/proxies/db/toxics", &none);
    let mut orderly = connect(listen);
    ping(&mut orderly);
    orderly.shutdown(Shutdown::Write).expect("it can be closed");
    let mut rest = String::new();
    orderly.read_to_string(&mut rest).expect("an orderly end");
    assert_eq!(rest, "bye");
}

#[test]
fn a_reader_that_stalls_blocks_nobody() {
    let server = Server::start(&["--proxy-metrics"]);
    let flood = serve(|mut stream| while stream.write_all(&[0; 64 << 10]).is_ok() {});
    let (listen, other) = (server.proxy("flood", flood), server.proxy("other", echo()));
    server.toxic("flood", "latency", "downstream", json!({ "latency": 50 }));
    let stalled = connect(listen);
    let received = || {
        let (_, _, text) = server.raw("GET", "/metrics", "", b"");
        let of = "toxiproxy_proxy_received_bytes_total{direction=\"downstream\",proxy=\"flood\"";
        text.lines().find(|line| line.starts_with(of)).map(str::to_owned)
    };
    let empty = received();
    holds("the way to the stalled reader to be full", PATIENCE, || {
        let before = received();
        thread::sleep(Duration::from_millis(200));
        before != empty && before == received()
    });
    let mut stream = connect(other);
    for _ in 0..5 {
        ping(&mut stream);
    }
    let begun = Instant::now();
    server.done(
        "POST",
        "/proxies/flood/toxics/latency_downstream",
        &json!({ "attributes": { "latency": 1 } }),
    );
    server.done("DELETE", "/proxies/flood/toxics/latency_downstream", &NONE);
    server.done("DELETE", "/proxies/flood", &NONE);
    // The reference hangs for 25 s here.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    ping(&mut stream);
    drop(stalled);
}

#[test]
fn limits_and_time_outs_close_and_what_was_passed_arrives() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    let rest = |mut stream: TcpStream| {
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        got
    };
    server.toxic("db", "limit_data", "downstream", json!({ "bytes": 1000 }));
    let mut stream = connect(listen);
    stream.write_all(&numbered(5000)).expect("it can be sent");
    assert_eq!(rest(stream), numbered(1000));
    server.done("POST", "/reset", &NONE);
    server.toxic("db", "timeout", "upstream", json!({ "timeout": 50 }));
    let mut stream = connect(listen);
    stream.write_all(b"lost").expect("it can be sent");
    assert_eq!(rest(stream), b"");
    server.done("POST", "/reset", &NONE);
    server.toxic("db", "limit_time", "downstream", json!({ "time": 100 }));
    let mut stream = connect(listen);
    ping(&mut stream);
    assert_eq!(rest(stream), b"");
}

#[test]
fn turning_a_proxy_off_ends_its_connections_and_keeps_its_toxics() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    server.toxic("db", "noop", "downstream", json!({}));
    let mut stream = connect(listen);
    ping(&mut stream);
    server.done("POST", "/proxies/db", &json!({ "enabled": false }));
    assert_eq!(stream.read_to_end(&mut Vec::new()).expect("an orderly end"), 0);
    assert!(TcpStream::connect(listen).is_err());
    let on = server.done("POST", "/proxies/db", &json!({ "enabled": true }));
    assert_eq!(on["toxics"][0]["name"], "noop_downstream");
    ping(&mut connect(listen));
}

#[test]
fn metrics_move_while_a_connection_lives() {
    let server = Server::start(&["--proxy-metrics", "--runtime-metrics"]);
    let listen = server.proxy("db", echo());
    server.toxic("db", "latency", "downstream", json!({ "latency": 1 }));
    let mut stream = connect(listen);
    for _ in 0..10 {
        ping(&mut stream);
    }
    let scrape = || {
        let (status, _, text) = server.raw("GET", "/metrics", "", b"");
        assert_eq!(status, 200);
        text
    };
    let of = |text: &str, begin: &str, labels: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(begin) && line.contains(labels));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {begin} in {text}"))
    };
    // A byte is counted once it is written, and the client may have it a moment before.
    let sent = ("toxiproxy_proxy_sent_bytes_total{", "direction=\"downstream\",proxy=\"db\"");
    holds("all ten bytes to be counted", PATIENCE, || of(&scrape(), sent.0, sent.1) == 10);
    let text = scrape();
    let value = |begin: &str, labels: &str| of(&text, begin, labels);
    assert_eq!(value("toxiproxy_proxy_received_bytes_total{", "direction=\"upstream\",proxy=\"db\""), 10);
    assert_eq!(value("squall_proxy_open_connections{", "db"), 1);
    assert!(value("squall_proxy_toxic_hits_total{", "latency_downstream") >= 10);
    assert!(value("process_resident_memory_bytes", "") > 1 << 20);
}

#[test]
fn a_seed_repeats_which_connections_are_hit() {
    let hit = |seed: &str| {
        let server = Server::start(&["--seed", seed]);
        let listen = server.proxy("db", echo());
        server.done("POST", "/proxies/db/toxics", &json!({ "type": "limit_data", "toxicity": 0.5 }));
        let fates = (0..24).map(|_| {
            let mut stream = connect(listen);
            stream.write_all(b"x").expect("it can be sent");
            matches!(stream.read(&mut [0]), Ok(1))
        });
        fates.collect::<Vec<bool>>()
    };
    let first = hit("4711");
    assert!(first.contains(&true) && first.contains(&false), "{first:?}");
    assert_eq!(first, hit("4711"));
    assert_ne!(first, hit("4712"));
}
