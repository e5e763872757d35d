//! Whatever toxics come, change and go: nothing that only holds bytes loses one, and no attribute is too much.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::tests::{SECOND, at, data, place, toxic};
use super::{Change, Link};
use crate::proxy::control::{Understood, WantedToxic};
use crate::proxy::queue::{Ending, Item};
use crate::proxy::toxics::KINDS;

/// Something that happens to a link.
#[derive(Clone, Debug)]
enum Event {
    Add(usize),
    Update(usize, u64, u64),
    Remove(usize),
    Bytes(usize),
    Time(u64),
}

/// The toxics that only hold bytes, and how long they may.
const HOLD: [(&str, &str, &str); 4] = [
    ("latency", "latency", "jitter"),
    ("bandwidth", "rate", "rate"),
    ("slicer", "average_size", "size_variation"),
    ("slow_close", "delay", "delay"),
];

fn event() -> impl Strategy<Value = Event> {
    let number = || prop_oneof![Just(0), 1u64..2000, Just(i64::MAX as u64)];
    prop_oneof![
        (0..HOLD.len()).prop_map(Event::Add),
        (0..HOLD.len(), number(), number()).prop_map(|(at, one, other)| Event::Update(at, one, other)),
        (0..HOLD.len()).prop_map(Event::Remove),
        (1usize..20_000).prop_map(Event::Bytes),
        (0u64..3 * SECOND).prop_map(Event::Time),
    ]
}

/// A value that an attribute may be given, sensible or not.
fn value() -> impl Strategy<Value = Value> {
    let extreme = [0, 1, -1, i64::MAX, i64::MIN, 600, 70_000];
    prop_oneof![
        prop::sample::select(extreme.to_vec()).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({ "a": [1] })),
        Just(Value::Null),
    ]
}

proptest! {
    #[test]
    fn what_only_holds_bytes_loses_none(events in prop::collection::vec(event(), 1..40)) {
        let (mut link, mut now) = (Link::default(), SECOND);
        let (mut offered, mut came) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                // A second one of a name is refused before it comes to a link.
                Event::Add(which) if !link.stages.iter().any(|stage| stage.toxic.kind.name == HOLD[which].0) => {
                    link.change(&Change::Add(toxic(HOLD[which].0, json!({}))), place(1));
                }
                Event::Add(_) => {}
                Event::Update(which, one, other) => {
                    let (kind, first, second) = HOLD[which];
                    let toxic = toxic(kind, json!({ second: other, first: one }));
                    link.change(&Change::Update(toxic), place(1));
                }
                Event::Remove(which) => {
                    link.change(&Change::Remove(format!("{}_downstream", HOLD[which].0)), place(1));
                }
                Event::Bytes(length) => {
                    let bytes: Vec<u8> = (0..length).map(|at| ((offered.len() + at) % 251) as u8).collect();
                    offered.extend_from_slice(&bytes);
                    link.offer(data(bytes, now));
                }
                Event::Time(time) => now += time,
            }
            came.extend(at(&mut link, now).0);
        }
        link.offer(Item::End(Ending::Finished));
        for (kind, ..) in HOLD {
            link.change(&Change::Remove(format!("{kind}_downstream")), place(1));
        }
        let (rest, ending, next) = at(&mut link, now);
        came.extend(rest);
        prop_assert_eq!((came == offered, ending, next), (true, Some(Ending::Finished), None));
    }

    #[test]
    fn no_attribute_is_too_much(
        kind in prop::sample::select(KINDS.to_vec()),
        values in prop::collection::vec(value(), 4),
        toxicity in any::<f32>(),
        lengths in prop::collection::vec(1usize..5000, 1..5),
    ) {
        let names = kind.attributes.iter().map(|(name, _)| (*name).to_owned());
        let attributes: Map<String, Value> = names.zip(values).collect();
        let wanted = WantedToxic {
            kind: kind.name.to_owned(),
            attributes,
            toxicity: Some(toxicity),
            ..WantedToxic::default()
        };
        let Ok(toxic) = wanted.read(Understood { requests: true, handshakes: true }) else { return Ok(()) };
        let toxic = std::sync::Arc::new(toxic);
        let mut link = Link::new([&toxic].into_iter(), place(1));
        let mut now = SECOND;
        let (mut sent, mut came) = (0, 0);
        for length in lengths {
            sent += length;
            link.offer(data(vec![7; length], now));
            came += at(&mut link, now).0.len();
            now += SECOND;
            came += at(&mut link, now).0.len();
            link.change(&Change::Update(toxic.clone()), place(1));
        }
        link.change(&Change::Remove(toxic.name.clone()), place(1));
        came += at(&mut link, now).0.len();
        prop_assert!(came <= sent, "{came} of {sent}");
    }
}
