//! What was seen of connections, as it is told afterwards.

use std::io::{Read, Write};
use std::process::Command;

use serde_json::{Value, json};
use squall_tests::squall::binary;
use squall_tests::wait::{PATIENCE, holds};

use super::{Server, connect, echo, ping, serve};

/// The lines of the log from a number on, without the first one, which is about the log.
pub(super) fn seen(server: &Server, from: u64) -> Vec<Value> {
    let (status, _, body) = server.raw("GET", &format!("/squall/observations?from={from}"), "", b"");
    assert_eq!(status, 200, "{body}");
    let lines = body.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let lines: Vec<Value> = lines.collect();
    assert_eq!(lines[0]["kind"], "log");
    lines[1..].to_vec()
}

#[test]
fn each_connection_is_told_with_its_times_its_end_and_who_made_it() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    let mut stream = connect(listen);
    let client = stream.local_addr().expect("an address");
    for _ in 0..3 {
        ping(&mut stream);
    }
    drop(stream);
    holds("the first connection to be over", PATIENCE, || seen(&server, 0).len() == 1);
    let first = seen(&server, 0).remove(0);
    assert_eq!((&first["seq"], &first["kind"]), (&json!(0), &json!("connection")));
    assert_eq!((&first["proxy"], &first["connection"]), (&json!("db"), &json!(1)));
    assert_eq!(first["client"], json!(client.to_string()));
    assert_eq!((&first["upstream_bytes"], first["downstream_bytes"].as_u64() >= Some(3)), (&json!(3), true));
    assert_eq!((&first["closed_by"], &first["faults"]), (&json!("client"), &json!([])));
    let time =
        |name: &str| first[name].as_u64().filter(|time| *time > 0).unwrap_or_else(|| panic!("{first}"));
    let order =
        ["accepted_us", "connected_us", "first_upstream_us", "first_downstream_us", "client_ended_us"];
    assert!(order.map(time).is_sorted() && time("client_ended_us") <= time("closed_us"), "{first}");
    // As far as it could be known: the control groups of this machine may not tell.
    assert!(first["caller"] == "unknown" || first["caller"]["uid"].is_u64(), "{first}");

    // The dependency hangs up; a toxic ends it; it cannot be reached; it is refused.
    let end = |server: &Server, number: usize| {
        holds("a connection to be over", PATIENCE, || seen(server, 0).len() > number);
        let last = seen(server, number as u64).remove(0);
        let text = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
        (text("closed_by"), text("how"), last["faults"].clone())
    };
    let expected = |by: &str, how: &str, faults: Value| (by.to_owned(), how.to_owned(), faults);
    let closing = server.proxy("closing", serve(|mut stream| drop(stream.write_all(b"bye"))));
    let _ = connect(closing).read_to_end(&mut Vec::new());
    assert_eq!(end(&server, 1), expected("dependency", "fin", json!([])));
    server.toxic("db", "limit_data", "upstream", json!({ "bytes": 1 }));
    let mut stream = connect(listen);
    stream.write_all(b"xy").expect("it can be sent");
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eq!(end(&server, 2), expected("proxy", "fault", json!(["limit_data_upstream"])));
    let nowhere = server.proxy("nowhere", "127.0.0.1:1".parse().expect("an address"));
    let _ = connect(nowhere).read_to_end(&mut Vec::new());
    assert_eq!(end(&server, 3), expected("proxy", "unreached", json!([])));
    server.toxic("nowhere", "connect_refuse", "upstream", json!({}));
    let _ = connect(nowhere).read_to_end(&mut Vec::new());
    assert_eq!(end(&server, 4), expected("proxy", "refused", json!(["connect_refuse_upstream"])));

    let mut command = Command::new(binary("squall"));
    command.args(["proxy", "observe", "--from", "3"]).env("TOXIPROXY_URL", format!("http://{}", server.api));
    let output = command.output().expect("squall can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["seq"].clone()).collect();
    assert_eq!((output.status.code(), numbers), (Some(0), vec![json!(3), json!(4)]), "{text}");
}

#[test]
fn the_log_is_bounded_and_can_be_turned_off() {
    let server = Server::start(&["--observations", "3"]);
    let listen = server.proxy("db", echo());
    for number in 1..=5u64 {
        drop(connect(listen));
        holds("a connection to be over", PATIENCE, || {
            seen(&server, 0).last().is_some_and(|last| last["connection"] == number)
        });
    }
    let (_, _, body) = server.raw("GET", "/squall/observations", "", b"");
    let head: Value = serde_json::from_str(body.lines().next().unwrap_or_default()).expect("JSON");
    assert_eq!(head, json!({ "kind": "log", "next": 5, "more": false, "dropped": 2 }));
    assert_eq!(body.lines().count(), 4);
    for bad in ["?from=-1", "?from=x", "?to=1"] {
        assert_eq!(server.raw("GET", &format!("/squall/observations{bad}"), "", b"").0, 404, "{bad}");
    }
    let server = Server::start(&["--observations", "0"]);
    let listen = server.proxy("db", echo());
    drop(connect(listen));
    server.works();
    assert!(seen(&server, 0).is_empty());
}
