//! Readers of what comes from outside, fed with what was said once and then spoilt: a bounded run on stable of what the target
//! `frame` of `agent/fuzz` does without end.

use proptest::prelude::*;

use crate::fleet::frame::Frame;
use crate::gameday::{self, Record};

/// Conversations between a host and a controller, one in each version.
const RECORDED: [&str; 2] =
    [include_str!("fleet/recorded/v1.ndjson"), include_str!("fleet/recorded/v2.ndjson")];

/// A game day, as a controller has written it down.
const DAY: &str = r#"{"at":1,"by":"Anna","event":"begun"}
{"at":2,"by":"squall","event":"asked","step":"slow","why":"payments deviated"}
{"at":3,"by":"Anna","event":"go","step":"slow"}
{"at":4,"by":"squall","event":"run-began","step":"slow","run":"r1"}
{"at":5,"by":"squall","event":"fault-began","step":"slow","run":"r1","moment":5}
{"at":6,"by":"Ben","event":"marked","step":"slow","mark":"detected","moment":6,"through":"webhook"}"#;

/// Its file.
const FILE: &str = "gameday: 1
name: payments
title: Payments go away
roles: { lead: Anna, on-call: Ben }
steps:
  - { name: slow, experiment: slow.yaml, lead: lead, vars: { delay: 400ms } }
  - name: silent
    experiment: silent.yaml
    go: auto
    pause: 5m
    expect: { detected-within: 1m, acknowledged-within: 2m }
";

fn frames() -> Vec<String> {
    let lines = RECORDED.iter().flat_map(|recorded| recorded.lines());
    let frame = |line: &str| -> String {
        let said: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        said["frame"].to_string()
    };
    lines.map(frame).collect()
}

/// One way to spoil bytes, at a place that is a share of their length.
#[derive(Clone, Debug)]
enum Spoil {
    Flip(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Double(usize, usize),
    /// A number or a text gives way to a value of another kind.
    Replace(usize, &'static str),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let at = 0..10_000usize;
    let values = ["-1", "18446744073709551616", "1e400", "null", "[]", "{}", "\"\"", "\"\\u0000\"", "true"];
    prop_oneof![
        (at.clone(), 1..=u8::MAX).prop_map(|(at, bits)| Spoil::Flip(at, bits)),
        (at.clone(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, new)| Spoil::Insert(at, new)),
        (at.clone(), 1..200usize).prop_map(|(at, count)| Spoil::Remove(at, count)),
        (at.clone(), 1..200usize).prop_map(|(at, count)| Spoil::Double(at, count)),
        (at, prop::sample::select(values.to_vec())).prop_map(|(at, value)| Spoil::Replace(at, value)),
    ]
}

fn spoilt(text: &str, spoils: &[Spoil]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
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
            Spoil::Replace(at, value) => {
                let colon = bytes.iter().skip(place(at)).position(|byte| *byte == b':');
                if let Some(begin) = colon.map(|colon| place(at) + colon + 1) {
                    let ends = |byte: &u8| b",}]\n".contains(byte);
                    let end = bytes[begin..].iter().position(ends).map_or(bytes.len(), |end| begin + end);
                    drop(bytes.splice(begin..end, value.bytes()));
                }
            }
        }
    }
    bytes
}

/// Reads bytes as a frame. What is understood is understood again, and the same, as it is said.
fn framed(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(frame) = Frame::read(text)
    {
        let said = frame.text();
        let again = Frame::read(&said).map(|frame| frame.text());
        prop_assert_eq!(again.ok(), Some(said));
    }
    Ok(())
}

#[test]
fn what_was_recorded_is_understood() {
    assert!(frames().len() >= 35);
    frames().iter().for_each(|frame| drop(Frame::read(frame).expect("it was said")));
    DAY.lines().for_each(|line| drop(serde_json::from_str::<Record>(line).expect("it was written")));
    gameday::read("day.yaml", FILE.as_bytes())
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_no_frame(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        framed(&bytes)?;
        prop_assert!(serde_json::from_slice::<Record>(&bytes).is_err());
    }

    #[test]
    fn a_spoilt_frame_is_understood_or_refused(
        which in any::<prop::sample::Index>(),
        spoils in prop::collection::vec(spoil(), 1..4),
    ) {
        thread_local!(static FRAMES: Vec<String> = frames());
        FRAMES.with(|frames| framed(&spoilt(&frames[which.index(frames.len())], &spoils)))?;
    }

    #[test]
    fn a_spoilt_event_of_a_game_day_is_understood_or_refused(
        which in any::<prop::sample::Index>(),
        spoils in prop::collection::vec(spoil(), 1..4),
    ) {
        let line = DAY.lines().nth(which.index(DAY.lines().count())).expect("there is one");
        if let Ok(record) = serde_json::from_slice::<Record>(&spoilt(line, &spoils)) {
            let written = serde_json::to_string(&record).expect("what was read can be written");
            prop_assert_eq!(serde_json::from_str::<Record>(&written).ok(), Some(record));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_spoilt_file_of_a_game_day_is_understood_or_every_problem_has_words(
        spoils in prop::collection::vec(spoil(), 1..4),
    ) {
        if let Err(problems) = gameday::read("day.yaml", &spoilt(FILE, &spoils)) {
            prop_assert!(!problems.render(false).trim().is_empty());
        }
    }
}
