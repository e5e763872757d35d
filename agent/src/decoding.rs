//! Readers of what comes from outside the process, fed with what nobody would write: a bounded run of what `agent/fuzz`
//! does without end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use squall_experiments::document::{self, Sources};
use squall_experiments::plan::Plan;
use squall_experiments::protocol::{Call, Guard, Message, Refusal, Reply, Request, RunId};
use squall_experiments::verdict::Tally;

use crate::host::process::Target;
use crate::host::undo::Undo;
use crate::journal::{self, Entry, VERSION, lines};
use crate::records::{Answer, Ask};

/// Faults of each kind of change.
const EXPERIMENT: &str = "squall: 1
title: Everything
hypothesis: [{ name: programs run, process: { argv: [\"true\"] } }]
method:
  - fault: { latency: { delay: 40ms, jitter: 5ms, to: [\"10.0.0.1:443\", \"fd00::/64\"] } }
    in: { user: nobody }
    for: 5s
  - fault: { loss: { percent: 12.5%, to: [\"db.internal:5432\"] } }
    for: 5s
  - fault: { partition: { to: [\"10.0.0.0/8\"] } }
    for: 5s
  - fault: { kill: { signal: TERM } }
    in: { process: { name: sleep } }
    for: 5s
  - fault: { pause: {} }
    in: { cgroup: a/b }
    for: 5s
  - fault: { disconnect: { to: [\"10.0.0.1:443\"] } }
    for: 5s
recovery: 5s
";

fn run() -> RunId {
    RunId("r1".into())
}

/// What conductors and agents say, each on its line.
fn said() -> Vec<Vec<u8>> {
    let document = document::read("everything.yaml", EXPERIMENT.as_bytes(), &Sources::default());
    let document = document.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let plan = Plan::of(&document.experiment, 7, &[], "none");
    let changes: Vec<_> = plan.changes().cloned().collect();
    assert!(changes.len() >= 6, "{changes:#?}");
    let requests = [
        Request::Hello { version: 1 },
        Request::Begin {
            run: run(),
            title: "Ünïcode \"and\" quotes".into(),
            plan: plan.hash(),
            seed: u64::MAX,
            lease_ms: 5000,
            deadline_ms: u64::MAX,
            guards: document
                .experiment
                .hypothesis
                .iter()
                .map(|claim| Guard {
                    number: 3,
                    claim: claim.clone(),
                    so_far: Tally { good: 1, bad: 0 },
                    bounds: 2,
                })
                .collect(),
            mandate: Box::default(),
        },
        Request::Apply { run: run(), part: 0, changes, lasts_ms: 1, at_ns: None },
        Request::Status,
    ];
    let calls = requests.map(|request| serde_json::to_vec(&Call { number: 3, request }));
    let refused = Message::Answer { number: 1, reply: Reply::Refused(Refusal::new("no", "help")) };
    let undo = Undo::Resume(Target { pid: 7, start: 8, name: "x y".into() });
    let asks = [
        serde_json::to_vec(&Ask::Begin { run: run(), title: "t".into(), deadline: 9 }),
        serde_json::to_vec(&Ask::Record { run: run(), undo }),
        serde_json::to_vec(&Ask::Undone { numbers: vec![1, 2] }),
        serde_json::to_vec(&Answer::Not { why: "full".into() }),
        serde_json::to_vec(&refused),
    ];
    calls.into_iter().chain(asks).map(|text| text.expect("it is text")).collect()
}

/// A journal, and what it says.
fn written() -> (Vec<u8>, Vec<Entry>) {
    let namespace = crate::host::netns::Id { inode: 4_026_531_840, cookie: 1 };
    let mut entries = vec![
        Entry::Header { version: VERSION, boot: "b".into(), namespace },
        Entry::Begin { run: run(), title: "t\u{e4}\n".into() },
    ];
    for number in 1..5 {
        entries.push(Entry::Undo { number, run: run(), undo: Undo::Rules(format!("tag {number};")) });
    }
    entries.extend([Entry::Undone { number: 4 }, Entry::End { run: run() }]);
    let (text, _) = lines::Chain::default().lines(&entries).expect("it is text");
    (text.into_bytes(), entries)
}

/// One way to spoil bytes, at a place that is a share of their length.
#[derive(Clone, Debug)]
enum Spoil {
    Flip(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Double(usize, usize),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let at = 0..10_000usize;
    prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, bits)| Spoil::Flip(at, bits)),
        (at.clone(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, new)| Spoil::Insert(at, new)),
        (at.clone(), 1..200usize).prop_map(|(at, count)| Spoil::Remove(at, count)),
        (at, 1..200usize).prop_map(|(at, count)| Spoil::Double(at, count)),
    ]
}

fn spoiled(mut bytes: Vec<u8>, spoils: &[Spoil]) -> Vec<u8> {
    for spoil in spoils {
        let place = |at: &usize| at * bytes.len() / 10_000;
        match spoil {
            Spoil::Flip(at, bits) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Spoil::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
            Spoil::Remove(at, count) => {
                let at = place(at);
                drop(bytes.drain(at..(at + count).min(bytes.len())));
            }
            Spoil::Double(at, count) => {
                let at = place(at);
                let part = bytes[at..(at + count).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, part));
            }
        }
    }
    bytes
}

/// Reads bytes as everything that an agent hears. What is understood can be said and is understood again.
fn heard(bytes: &[u8]) {
    if let Ok(call) = serde_json::from_slice::<Call>(bytes) {
        let again = serde_json::to_vec(&call).expect("what was read can be written");
        serde_json::from_slice::<Call>(&again).unwrap_or_else(|error| panic!("{error}: {call:?}"));
    }
    if let Ok(message) = serde_json::from_slice::<Message>(bytes) {
        serde_json::to_vec(&message).expect("what was read can be written");
    }
    let _ = serde_json::from_slice::<Ask>(bytes);
    let _ = serde_json::from_slice::<Answer>(bytes);
}

#[test]
fn what_is_said_is_understood() {
    let understood = |bytes: &[u8]| {
        serde_json::from_slice::<Call>(bytes).is_ok()
            || serde_json::from_slice::<Ask>(bytes).is_ok()
            || serde_json::from_slice::<Answer>(bytes).is_ok()
            || serde_json::from_slice::<Message>(bytes).is_ok()
    };
    for bytes in said() {
        assert!(understood(&bytes), "{}", String::from_utf8_lossy(&bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        heard(&bytes);
        prop_assert!(lines::parse(&bytes).is_err());
        prop_assert_eq!(lines::salvage(&bytes), Vec::<Entry>::new());
    }

    #[test]
    fn a_spoiled_message_is_understood_or_refused(
        which in any::<prop::sample::Index>(),
        spoils in prop::collection::vec(spoil(), 1..4),
    ) {
        thread_local!(static SAID: Vec<Vec<u8>> = said());
        SAID.with(|said| heard(&spoiled(said[which.index(said.len())].clone(), &spoils)));
    }

    #[test]
    fn a_spoiled_journal_says_what_was_written_or_is_damaged(spoils in prop::collection::vec(spoil(), 1..4)) {
        let (bytes, entries) = written();
        let bytes = spoiled(bytes, &spoils);
        for entry in lines::salvage(&bytes) {
            prop_assert!(entries.contains(&entry));
        }
        if let Ok(read) = lines::parse(&bytes) {
            // Whatever is taken for whole is a beginning of what was written: see the torn last line.
            prop_assert_eq!(&read[..], &entries[..read.len()]);
            prop_assert!(journal::pending(&read).len() <= 4);
        }
    }

    #[test]
    fn a_message_with_other_values_is_understood_or_refused(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        value in prop_oneof![
            Just("-1"), Just("18446744073709551616"), Just("1e400"), Just("null"), Just("[]"), Just("{}"),
            Just("\"\""), Just("\"\\u0000\""), Just("\"-5ms\""), Just("\"999999999999999999h\""), Just("true"),
        ],
    ) {
        thread_local!(static SAID: Vec<Vec<u8>> = said());
        SAID.with(|said| {
            let text = said[which.index(said.len())].clone();
            let mut tree: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
            let mut places = BTreeMap::new();
            leaves(&tree, &mut String::new(), &mut places);
            let pointer = places.keys().nth(at.index(places.len())).expect("it has a leaf").clone();
            if let Ok(value) = serde_json::from_str(value) {
                *tree.pointer_mut(&pointer).expect("the leaf is there") = value;
            }
            heard(&serde_json::to_vec(&tree).expect("it is text"));
        });
    }
}

/// The places of all values that hold no others.
fn leaves(value: &serde_json::Value, path: &mut String, places: &mut BTreeMap<String, ()>) {
    let mut visit = |key: &str, inner: &serde_json::Value| {
        let length = path.len();
        path.push('/');
        path.push_str(key);
        leaves(inner, path, places);
        path.truncate(length);
    };
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, inner)| visit(key, inner)),
        serde_json::Value::Array(all) => {
            all.iter().enumerate().for_each(|(at, inner)| visit(&at.to_string(), inner));
        }
        _ => drop(places.insert(path.clone(), ())),
    }
}
