//! A conversation of each version of the protocol between controller and host, as it was recorded, played against what both are made
//! of today: one side says its recorded lines, and the real one must say what the other said then.
//!
//! A change that breaks one of these breaks controllers or agents that are out there: it needs a new version, beside this one and the
//! one before, and a recording of its own.

mod controller;
mod link;

use std::collections::VecDeque;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustix::net::{RecvFlags, recv};
use serde_json::{Value, json};
use squall_tests::wait::PATIENCE;
use tokio::io::DuplexStream;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const RECORDED: [(&str, &str); 2] = [
    ("version 1", include_str!("../../../experiments/src/fleet/recorded/v1.ndjson")),
    ("version 2", include_str!("../../../experiments/src/fleet/recorded/v2.ndjson")),
];

/// What differs from one fleet, machine or wording to the next: of these only the kind counts.
const OWN: [&str; 6] = ["certificate", "authority", "heartbeat_ms", "what", "help", "number of a session"];

/// The lines of a recording: whether the controller said it, and what.
fn lines(recorded: &str) -> Vec<(bool, Value)> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        (line["from"] == "controller", line["frame"].clone())
    };
    recorded.lines().map(line).collect()
}

/// What kind of frame it is, and what it says.
fn parts(frame: &Value) -> (String, Value) {
    match frame {
        Value::String(kind) => (kind.clone(), Value::Null),
        other => {
            let (kind, said) = other.as_object().and_then(|frame| frame.iter().next()).expect("a frame");
            (kind.clone(), said.clone())
        }
    }
}

/// Whether what is said today would be understood by whoever understood what was recorded: nothing is missing in it, and all of it
/// says the same. There may be more.
fn says(recorded: &Value, today: &Value, name: &str) -> bool {
    match (recorded, today) {
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_))
            if OWN.contains(&name) =>
        {
            true
        }
        (Value::Object(then), Value::Object(now)) => then.iter().all(|(key, then)| {
            let name =
                if name == "session" && key == "number" { "number of a session" } else { key.as_str() };
            now.get(key).is_some_and(|now| says(then, now, name))
        }),
        (Value::Array(then), Value::Array(now)) if name == "versions" => {
            then.iter().all(|one| now.contains(one))
        }
        (Value::Array(then), Value::Array(now)) => {
            then.len() == now.len() && then.iter().zip(now).all(|(then, now)| says(then, now, name))
        }
        (then, now) => then == now,
    }
}

/// The recorded side's end of a connection to the real one.
struct Wire {
    socket: WebSocketStream<DuplexStream>,
    /// What the real one said and nobody has asked for yet: it may say more in between, or some of it earlier.
    heard: VecDeque<Value>,
}

impl Wire {
    async fn say(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.expect("it listens");
    }

    /// Waits until the real side says what was recorded; gives what it said.
    async fn hears(&mut self, recorded: &Value) -> Value {
        if let Some(at) = self.heard.iter().position(|said| says(recorded, said, "")) {
            return self.heard.remove(at).expect("it is there");
        }
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await;
            let next = next.unwrap_or_else(|_| panic!("`{recorded}` is not said, but {:#?}", self.heard));
            let said: Value = match next {
                Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("a frame"),
                Some(Ok(_)) => continue,
                over => panic!("{over:?} instead of `{recorded}`, after {:#?}", self.heard),
            };
            if says(recorded, &said, "") {
                return said;
            }
            self.heard.push_back(said);
        }
    }

    /// Nothing was said in between but what may be said at any time.
    fn is_all(&self) {
        let usual = ["ping", "pong", "ack", "inventory"];
        let odd: Vec<&Value> =
            self.heard.iter().filter(|said| !usual.contains(&parts(said).0.as_str())).collect();
        assert!(odd.is_empty(), "it has said more than was recorded: {odd:#?}");
    }
}

/// Waits for a text at the local end of a stream; it stays there. The empty one is the end.
async fn comes(stream: &UnixStream, text: &str) {
    let mut bytes = vec![0; text.len() + 1];
    let waited = timeout(PATIENCE, async {
        loop {
            let (read, _) = match recv(stream, bytes.as_mut_slice(), RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::AGAIN) => (usize::MAX, 0),
                read => read.expect("it can be read"),
            };
            if read == text.len() {
                return String::from_utf8_lossy(&bytes[..read]).into_owned();
            }
            sleep(Duration::from_millis(2)).await;
        }
    });
    assert_eq!(waited.await.unwrap_or_else(|_| panic!("`{text}` does not come")), text);
}

/// Takes what came at the local end of a stream.
fn taken(stream: &mut UnixStream, text: &str) {
    stream.set_nonblocking(false).expect("a socket");
    stream.read_exact(&mut vec![0; text.len()]).expect("it was seen before");
}

fn number(said: &Value) -> u64 {
    said["stream"].as_u64().expect("the number of a stream")
}

fn text(said: &Value) -> &str {
    said["text"].as_str().expect("a text")
}

fn alone<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

/// Both ends of a connection.
fn connection() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 << 10)
}

#[test]
fn what_was_recorded_is_said_only_by_who_leaves_nothing_of_it_out() {
    let then = json!({ "welcome": { "version": 1, "host": "web-1", "heartbeat_ms": 5000 } });
    let now = |now: Value| says(&then, &json!({ "welcome": now }), "");
    assert!(now(json!({ "version": 1, "host": "web-1", "heartbeat_ms": 300, "more": true })));
    assert!(!now(json!({ "version": 2, "host": "web-1", "heartbeat_ms": 5000 })));
    assert!(!now(json!({ "version": 1, "heartbeat_ms": 5000 })));
    assert!(!now(json!({ "version": 1, "host": "web-1", "heartbeat_ms": "5s" })));
    assert!(!says(&then, &json!({ "hello": {} }), ""));
}
