//! What was seen of each connection and request: what a client does when its dependency fails can be read from it
//! (time-outs, retries, breakers).
//!
//! Held in memory, the newest only, within a bound in number and in bytes. Neither bodies nor credentials are kept: of a
//! body, a query and an authorization there is a keyed hash, whose key no one learns, so that equal ones can be told.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Serialize;
use serde_json::Value;

use super::caller::{Asked, Callers};

/// How many records are kept where nothing else is asked for.
pub const KEPT: usize = 10_000;
/// What all records together may take, in bytes.
const MOST: usize = 32 << 20;
/// The longest text of a record, in bytes; what is longer is cut.
const LONGEST: usize = 512;

/// What was seen of a connection, when it is over. Times are microseconds of the monotonic clock; 0 is never.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Connection {
    /// Of which proxy.
    pub proxy: String,
    /// Its number there, from 1.
    pub connection: u64,
    /// Who made it.
    pub client: String,
    /// How many were open when it began, this one included.
    pub open: u64,
    /// When the client's end was accepted.
    pub accepted_us: u64,
    /// When the dependency answered its SYN.
    pub connected_us: u64,
    /// When the first and the last bytes of the client were read.
    pub first_upstream_us: u64,
    #[allow(missing_docs)]
    pub last_upstream_us: u64,
    /// When the first and the last bytes of the dependency were read.
    pub first_downstream_us: u64,
    #[allow(missing_docs)]
    pub last_downstream_us: u64,
    /// When it was over.
    pub closed_us: u64,
    /// When the kernel told that the client would send no more, or is gone.
    pub client_ended_us: u64,
    /// The same of the dependency.
    pub dependency_ended_us: u64,
    /// Bytes that the client sent.
    pub upstream_bytes: u64,
    /// Bytes that the dependency sent.
    pub downstream_bytes: u64,
    /// The toxics that did something to it.
    pub faults: Vec<String>,
    /// Who ended it first: `client`, `dependency` or `proxy`.
    pub closed_by: &'static str,
    /// How: `fin`, `reset`, `fault`, `refused`, `unreached`, `looped` or `stopped`.
    pub how: &'static str,
}

/// What was seen of a request over HTTP, when its answer is over. Times are microseconds of the monotonic clock; 0 is
/// never.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Request {
    /// Of which proxy.
    pub proxy: String,
    /// On which of its connections.
    pub connection: u64,
    /// The number of the request on it, from 1.
    pub request: u64,
    /// Who made the connection.
    pub client: String,
    /// How many requests of the proxy were under way when it began, this one included.
    pub in_flight: u64,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub target: String,
    /// The keyed hash of its query; empty where there is none.
    pub query_hash: String,
    /// The keyed hash of its body; empty where there is none, or where it was not read to its end.
    pub body_hash: String,
    /// The keyed hash of method, target, query, authorization and body: what is sent again has the same.
    pub fingerprint: String,
    /// Headers that tell requests of one cause.
    pub correlation: Vec<(String, String)>,
    /// When its head had arrived.
    pub begun_us: u64,
    /// When it was all there.
    pub request_end_us: u64,
    /// When the head of the answer was there, and when the answer was over.
    pub answer_begun_us: u64,
    #[allow(missing_docs)]
    pub answer_end_us: u64,
    /// Bytes of its body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub answer_bytes: u64,
    /// The status of the answer, before anything is done to its bytes; 0 where there was none.
    pub status: u16,
    /// The status of gRPC, where there is one.
    pub grpc_status: Option<String>,
    /// The toxics that did something to it.
    pub faults: Vec<String>,
    /// How it ended: `answered`, `client` (it went away), `dependency` (it went away) or `fault`.
    pub how: &'static str,
}

/// What was seen of a question to a name server, when it is answered or will not be. Times are microseconds of the monotonic
/// clock; 0 is never.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Lookup {
    /// The server that was asked.
    pub proxy: String,
    /// Who asked.
    pub client: String,
    /// `udp` or `tcp`.
    pub over: &'static str,
    /// The name that was asked for; empty where the question could not be read.
    pub name: String,
    /// The type of the records that were asked for: `A`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it came.
    pub asked_us: u64,
    /// When it was answered.
    pub answered_us: u64,
    /// The code of the answer as the client saw it: `NOERROR`; empty where there was none.
    pub code: String,
    /// How many records the answer had.
    pub answers: usize,
    /// What was done to it.
    pub faults: Vec<String>,
    /// How it ended: `answered`, `unanswered` or `fault`.
    pub how: &'static str,
}

/// One thing that was seen.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// A connection that is over.
    Connection(Connection),
    /// A request that is over.
    Request(Request),
    /// A question to a name server that is over.
    Lookup(Lookup),
}

impl Record {
    fn size(&self) -> usize {
        let (fixed, texts) = match self {
            Record::Connection(seen) => (size_of::<Connection>(), seen.faults.iter().map(String::len).sum()),
            Record::Lookup(seen) => (size_of::<Lookup>(), seen.name.len() + 100),
            Record::Request(seen) => {
                let headers: usize =
                    seen.correlation.iter().map(|(name, value)| name.len() + value.len()).sum();
                let faults: usize = seen.faults.iter().map(String::len).sum();
                (size_of::<Request>(), headers + faults + seen.target.len() + 200)
            }
        };
        fixed + texts + 100
    }
}

/// A record and who its client was.
struct Kept {
    record: Record,
    caller: Asked,
}

#[derive(Default)]
struct Ring {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The number of the next record.
    next: u64,
}

/// The newest of what was seen.
pub struct Observations {
    ring: Mutex<Ring>,
    most: usize,
    key: [u8; 32],
    callers: OnceLock<Callers>,
}

impl std::fmt::Debug for Observations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observations").field("most", &self.most).finish_non_exhaustive()
    }
}

/// What is shown of the observations.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Each as JSON, with its number `seq` first.
    pub records: Vec<Value>,
    /// The number that the next record will have.
    pub next: u64,
    /// How many of those that were asked for are no longer kept.
    pub dropped: u64,
}

impl Observations {
    /// Keeps at most so many; with 0 nothing is observed.
    pub fn new(most: usize) -> Self {
        let observations = Observations::alone(most);
        if most > 0
            && let Ok(callers) = Callers::start()
        {
            observations.ask(callers);
        }
        observations
    }

    /// The same; nobody looks for callers, unless it is said who.
    pub fn alone(most: usize) -> Self {
        Observations { ring: Mutex::default(), most, key: rand::random(), callers: OnceLock::new() }
    }

    /// This one looks for callers, where nobody does yet.
    pub fn ask(&self, callers: Callers) {
        let _ = self.callers.set(callers);
    }

    /// Whether anything is observed.
    pub fn on(&self) -> bool {
        self.most > 0
    }

    /// Who looks for the processes of clients.
    pub fn callers(&self) -> Option<&Callers> {
        self.callers.get()
    }

    /// A hash whose key nobody learns; equal for equal bytes as long as this process lives.
    pub fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.key)
    }

    /// One more, of this caller; the oldest go where there is no room.
    pub fn push(&self, record: Record, caller: Asked) {
        if !self.on() {
            return;
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += record.size();
        ring.next += 1;
        ring.kept.push_back(Kept { record, caller });
        while ring.kept.len() > self.most || ring.bytes > MOST {
            let Some(oldest) = ring.kept.pop_front() else { break };
            ring.bytes -= oldest.record.size();
        }
    }

    /// At most so many of those from this number on, the oldest first.
    pub fn page(&self, from: u64, most: usize) -> Page {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.next - ring.kept.len() as u64;
        let skip = from.saturating_sub(first);
        let chosen = ring.kept.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(most);
        let chosen: Vec<(Record, Asked)> =
            chosen.map(|kept| (kept.record.clone(), kept.caller.clone())).collect();
        let next = ring.next;
        drop(ring);
        let begin = from.max(first);
        let shown = |(at, (record, caller)): (usize, (Record, Asked))| {
            let mut line = serde_json::Map::new();
            line.insert("seq".to_owned(), Value::from(begin + at as u64));
            if let Ok(Value::Object(fields)) = serde_json::to_value(&record) {
                line.extend(fields);
            }
            line.insert("caller".to_owned(), caller.shown());
            Value::Object(line)
        };
        let records = chosen.into_iter().enumerate().map(shown).collect();
        Page { records, next, dropped: first.saturating_sub(from) }
    }
}

/// A text of a record, not longer than texts may be.
pub fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Asked, Connection, LONGEST, Observations, Record, cut};

    fn seen(number: u64) -> Record {
        Record::Connection(Connection { connection: number, closed_by: "client", ..Connection::default() })
    }

    #[test]
    fn the_newest_are_kept_and_what_is_missing_is_told() {
        let observations = Observations::new(4);
        for number in 0..6 {
            observations.push(seen(number), Asked::default());
        }
        let numbers = |from, most| {
            let page = observations.page(from, most);
            let numbers: Vec<_> = page.records.iter().map(|record| record["connection"].as_u64()).collect();
            assert!(page.records.iter().all(|record| record["seq"] == record["connection"]));
            (numbers, page.next, page.dropped)
        };
        let some = |list: &[u64]| list.iter().map(|number| Some(*number)).collect::<Vec<_>>();
        assert_eq!(numbers(0, 100), (some(&[2, 3, 4, 5]), 6, 2));
        assert_eq!(numbers(3, 2), (some(&[3, 4]), 6, 0));
        assert_eq!(numbers(6, 100), (some(&[]), 6, 0));
        assert_eq!(numbers(u64::MAX, 100), (some(&[]), 6, 0));
    }

    #[test]
    fn memory_is_bounded_however_long_the_texts_are() {
        let observations = Observations::new(usize::MAX);
        for number in 0..70_000 {
            let faults = vec!["f".repeat(1000)];
            let connection = Connection { connection: number, faults, ..Connection::default() };
            observations.push(Record::Connection(connection), Asked::default());
        }
        let page = observations.page(0, usize::MAX);
        assert!(page.records.len() < 33_000 && page.dropped > 37_000, "{}", page.records.len());
        assert_eq!(cut(&"ä".repeat(LONGEST)).len(), LONGEST);
        assert_eq!(cut(&format!("a{}", "ä".repeat(LONGEST))).len(), LONGEST - 1);
    }

    #[test]
    fn a_hash_is_the_same_for_the_same_bytes_and_of_no_use_elsewhere() {
        let (here, there) = (Observations::new(1), Observations::new(1));
        let hash = |of: &Observations| of.hasher().update(b"secret").finalize();
        assert_eq!(hash(&here), hash(&here));
        assert_ne!(hash(&here), hash(&there));
    }
}
