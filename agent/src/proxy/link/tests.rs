use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::queue::{Chunk, Ending, Item};
use super::super::toxic::{Stream, Toxic};
use super::super::toxics::values::{Attribute, Values};
use super::super::toxics::{Dice, KINDS, Kind};
use super::{Change, Link, Place};

const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1000 * MS;

pub(super) fn place(number: u64) -> Place<'static> {
    Place { seed: 7, proxy: "db", ..Place::at(number) }
}

pub(super) fn toxic(kind: &str, attributes: Value) -> Arc<Toxic> {
    let kind = Kind::named(kind).expect("a kind");
    let attributes = attributes.as_object().expect("an object").clone();
    let name = format!("{}_downstream", kind.name);
    let values = Values::of(kind).with(&attributes).expect("attributes of the right types");
    Arc::new(Toxic { values, ..Toxic::new(name, kind, Stream::Downstream) })
}

fn link(toxics: &[Arc<Toxic>]) -> Link {
    Link::new(toxics.iter(), place(1))
}

pub(super) fn data(bytes: impl Into<Bytes>, at: u64) -> Item {
    Item::Data(Chunk { bytes: bytes.into(), at })
}

/// Everything that may be written now, and how it ended.
fn drain(link: &mut Link, into: &mut Vec<u8>) -> Option<Ending> {
    let mut ending = None;
    while let Some(item) = link.ready() {
        match item {
            Item::Data(chunk) => {
                let length = chunk.bytes.len();
                into.extend_from_slice(&chunk.bytes);
                link.written(length);
            }
            Item::End(end) => {
                ending = Some(*end);
                link.ended();
            }
        }
    }
    ending
}

/// Runs at a time and takes what comes out.
pub(super) fn at(link: &mut Link, now: u64) -> (Vec<u8>, Option<Ending>, Option<u64>) {
    let (mut out, mut ending) = (Vec::new(), None);
    loop {
        let outcome = link.run(now);
        let before = out.len();
        let end = drain(link, &mut out);
        ending = ending.or(end);
        if out.len() == before && end.is_none() {
            return (out, ending, outcome.next);
        }
    }
}

#[test]
fn latencies_add_up_and_the_time_already_waited_counts() {
    let mut second = Toxic::clone(&toxic("latency", json!({ "latency": 30 })));
    second.name = "second".to_owned();
    let mut link = link(&[toxic("latency", json!({ "latency": 20 })), Arc::new(second)]);
    link.offer(data("a", SECOND));
    assert_eq!(at(&mut link, SECOND + 5 * MS), (vec![], None, Some(SECOND + 20 * MS)));
    assert_eq!(at(&mut link, SECOND + 20 * MS), (vec![], None, Some(SECOND + 50 * MS)));
    assert_eq!(at(&mut link, SECOND + 50 * MS), (b"a".to_vec(), None, None));
    // Read long ago: it goes on at once.
    link.offer(data("b", SECOND));
    assert_eq!(at(&mut link, 2 * SECOND), (b"b".to_vec(), None, None));
}

#[test]
fn jitter_is_drawn_in_whole_milliseconds_around_the_latency() {
    let mut link = link(&[toxic("latency", json!({ "latency": 100, "jitter": 10 }))]);
    let mut seen = std::collections::BTreeSet::new();
    for round in 1..200 {
        let now = round * SECOND;
        link.offer(data("x", now));
        let due = at(&mut link, now).2.expect("it is held") - now;
        assert!(due.is_multiple_of(MS) && (90 * MS..110 * MS).contains(&due), "{due}");
        seen.insert(due);
        assert_eq!(at(&mut link, now + due).0, b"x");
    }
    assert!(seen.len() > 15, "{seen:?}");
}

#[test]
fn an_update_judges_anew_what_is_held_and_a_removal_lets_it_go_in_order() {
    let mut link = link(&[toxic("latency", json!({ "latency": 10_000 }))]);
    link.offer(data("ab", SECOND));
    link.offer(data("cd", SECOND));
    assert_eq!(at(&mut link, SECOND).0, b"");
    link.change(&Change::Update(toxic("latency", json!({ "latency": 50 }))), place(1));
    assert_eq!(at(&mut link, SECOND), (vec![], None, Some(SECOND + 50 * MS)));
    link.change(&Change::Remove("latency_downstream".to_owned()), place(1));
    assert_eq!(at(&mut link, SECOND + 1).0, b"abcd");
}

#[test]
fn bandwidth_is_exact_from_a_kilobyte_to_a_hundred_megabytes_a_second() {
    for rate in [1, 10, 1000, 10_000, 100_000] {
        let mut link = link(&[toxic("bandwidth", json!({ "rate": rate }))]);
        let (begin, end) = (SECOND, 11 * SECOND);
        let (mut now, mut carried) = (begin, 0);
        while now < end {
            while link.takes(now) {
                link.offer(data(vec![0; 4096], now));
            }
            let (out, _, next) = at(&mut link, now);
            carried += out.len() as u64;
            if let Some(next) = next {
                // Woken late, as on a real machine.
                now = next + 70_000;
            }
        }
        let expected = rate * 1000 * (now - begin) / SECOND;
        let error = carried.abs_diff(expected) as f64 / expected as f64;
        assert!(error < 0.02, "{rate} KB/s: {carried} of {expected} bytes");
    }
}

#[test]
fn a_line_that_was_idle_or_whose_reader_stalled_saves_nothing_up() {
    let mut link = link(&[toxic("bandwidth", json!({ "rate": 10 }))]);
    link.offer(data(vec![0; 1000], SECOND));
    // The first byte waits too: 100 ms at 10 KB/s.
    assert_eq!(at(&mut link, SECOND).2, Some(SECOND + 100 * MS));
    assert_eq!(at(&mut link, SECOND + 100 * MS).0.len(), 1000);
    link.offer(data(vec![0; 1000], 60 * SECOND));
    assert_eq!(at(&mut link, 60 * SECOND).2, Some(60 * SECOND + 100 * MS));
}

#[test]
fn a_rate_of_zero_holds_everything_until_it_is_removed() {
    let mut link = link(&[toxic("bandwidth", json!({ "rate": 0 }))]);
    link.offer(data("held", 1));
    assert_eq!(at(&mut link, 100 * SECOND), (vec![], None, None));
    link.change(&Change::Remove("bandwidth_downstream".to_owned()), place(1));
    assert_eq!(at(&mut link, 100 * SECOND).0, b"held");
}

#[test]
fn timeout_drops_data_each_of_which_starts_its_clock_again() {
    let mut link = link(&[toxic("timeout", json!({ "timeout": 300 }))]);
    assert_eq!(at(&mut link, 0).2, Some(300 * MS));
    link.offer(data("x", 200 * MS));
    assert_eq!(at(&mut link, 200 * MS), (vec![], None, Some(500 * MS)));
    assert_eq!(at(&mut link, 500 * MS), (vec![], Some(Ending::Closed), None));
    let mut never = self::link(&[toxic("timeout", json!({}))]);
    never.offer(data("x", 0));
    assert_eq!(at(&mut never, 1000 * SECOND), (vec![], None, None));
    never.change(&Change::Remove("timeout_downstream".to_owned()), place(1));
    assert_eq!(at(&mut never, 1000 * SECOND).1, Some(Ending::Closed), "data was lost: it cannot go on");
}

#[test]
fn a_reset_waits_for_traffic_and_then_its_time() {
    let mut link = link(&[toxic("reset_peer", json!({ "timeout": 100 }))]);
    assert_eq!(link.run(50 * SECOND), super::Outcome::default());
    link.offer(data("x", 50 * SECOND));
    assert_eq!(link.run(50 * SECOND).next, Some(50 * SECOND + 100 * MS));
    assert!(link.run(50 * SECOND + 100 * MS).reset);
}

#[test]
fn a_slicer_cuts_pieces_of_the_size_that_was_asked_for() {
    let text: Vec<u8> = (0..10_000u32).map(|byte| byte as u8).collect();
    for (average, variation, most) in [(100, 20, 120), (100, 1_000_000, 200), (1, 0, 1), (0, 0, 10_000)] {
        let attributes = json!({ "average_size": average, "size_variation": variation });
        let mut link = link(&[toxic("slicer", attributes)]);
        link.offer(data(text.clone(), 0));
        let mut out = Vec::new();
        link.run(0);
        while let Some(Item::Data(chunk)) = link.ready() {
            let length = chunk.bytes.len();
            assert!(length <= most, "{length} with {average}±{variation}");
            out.extend_from_slice(&chunk.bytes);
            link.written(length);
            link.run(0);
        }
        assert_eq!(out, text);
    }
    let mut link = link(&[toxic("slicer", json!({ "average_size": 5, "delay": 1000 }))]);
    link.offer(data("0123456789", SECOND));
    assert_eq!(at(&mut link, SECOND), (b"01234".to_vec(), None, Some(SECOND + MS)));
    assert_eq!(at(&mut link, SECOND + MS).0, b"56789");
}

#[test]
fn limit_data_passes_exactly_so_many_bytes_counted_over_updates() {
    let mut link = link(&[toxic("limit_data", json!({ "bytes": 5 }))]);
    link.offer(data("abc", 0));
    assert_eq!(at(&mut link, 0), (b"abc".to_vec(), None, None));
    link.change(&Change::Update(toxic("limit_data", json!({ "bytes": 8 }))), place(1));
    link.offer(data("defghijk", 0));
    assert_eq!(at(&mut link, 0), (b"defgh".to_vec(), Some(Ending::Closed), None));
    let mut none = self::link(&[toxic("limit_data", json!({ "bytes": -3 }))]);
    none.offer(data("x", 0));
    assert_eq!(at(&mut none, 0), (vec![], Some(Ending::Closed), None));
}

#[test]
fn the_end_is_held_back_by_slow_close_alone() {
    let mut link = link(&[toxic("slow_close", json!({ "delay": 100 }))]);
    link.offer(data("x", 0));
    link.offer(Item::End(Ending::Finished));
    assert_eq!(at(&mut link, 0), (b"x".to_vec(), None, Some(100 * MS)));
    assert_eq!(at(&mut link, 100 * MS).1, Some(Ending::Finished));
    let mut removed = self::link(&[toxic("slow_close", json!({ "delay": 100_000 }))]);
    removed.offer(Item::End(Ending::Finished));
    assert_eq!(at(&mut removed, 0).1, None);
    removed.change(&Change::Remove("slow_close_downstream".to_owned()), place(1));
    assert_eq!(at(&mut removed, 1).1, Some(Ending::Finished));
}

#[test]
fn a_time_limit_closes_whatever_flows() {
    let mut link = link(&[toxic("limit_time", json!({ "time": 100 }))]);
    link.offer(data("x", SECOND));
    assert_eq!(at(&mut link, SECOND), (b"x".to_vec(), None, Some(SECOND + 100 * MS)));
    link.offer(data("y", SECOND));
    assert_eq!(at(&mut link, SECOND + 100 * MS), (vec![], Some(Ending::Closed), None));
}

/// Which of 2,000 chunks arrive.
fn arrivals(seed: u64, correlation: f64) -> Vec<bool> {
    let toxic = toxic("packet_loss", json!({ "loss_rate": 0.3, "correlation": correlation }));
    let mut link = Link::new([toxic].iter(), Place { seed, ..place(1) });
    let mut arrives = |now| {
        link.offer(data("x", now));
        !at(&mut link, now).0.is_empty()
    };
    (0..2000).map(&mut arrives).collect()
}

#[test]
fn losses_have_their_rate_come_in_bursts_and_repeat_with_the_seed() {
    let bursts = |fates: &[bool]| fates.windows(2).filter(|pair| pair[0] && !pair[1]).count();
    let lost = |fates: &[bool]| fates.iter().filter(|arrived| !**arrived).count();
    let (plain, correlated) = (arrivals(1, 0.0), arrivals(1, 0.8));
    // Six standard deviations of a binomial distribution around 600; the correlated one varies three times as much.
    assert!((475..725).contains(&lost(&plain)), "{}", lost(&plain));
    assert!((225..975).contains(&lost(&correlated)), "{}", lost(&correlated));
    assert!(bursts(&correlated) * 2 < bursts(&plain));
    assert_eq!(plain, arrivals(1, 0.0));
    assert_ne!(plain, arrivals(2, 0.0));
}

#[test]
fn one_bit_of_a_corrupted_chunk_is_another() {
    let mut link = link(&[toxic("corrupt", json!({ "probability": 1 }))]);
    link.offer(data(vec![0; 100], 0));
    let ones: u32 = at(&mut link, 0).0.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(ones, 1);
}

#[test]
fn toxicity_is_a_share_of_connections() {
    let hit = |toxicity: f32| {
        let toxic = Arc::new(Toxic { toxicity, ..Toxic::clone(&toxic("limit_data", json!({}))) });
        let hits = (1..=1000).filter(|number| {
            let mut link = Link::new([toxic.clone()].iter(), place(*number));
            link.offer(data("x", 0));
            at(&mut link, 0).1.is_some()
        });
        hits.count()
    };
    assert_eq!([hit(-1.0), hit(0.0), hit(1.0), hit(5.0)], [0, 0, 1000, 1000]);
    let third = hit(0.3);
    assert!((210..390).contains(&third), "{third}");
}

#[test]
fn no_attribute_makes_anything_panic_or_bytes_come_from_nowhere() {
    let extremes = [i64::MIN, -1, 0, 1, 2, 1000, i64::from(i32::MAX), i64::MAX];
    for kind in KINDS {
        let count = kind.attributes.len() as u32;
        for choice in 0..extremes.len().pow(count) {
            let mut attributes = serde_json::Map::new();
            for (at, (name, number)) in kind.attributes.iter().enumerate() {
                let extreme = extremes[choice / extremes.len().pow(at as u32) % extremes.len()];
                let value = match number {
                    Attribute::Whole(_) => Value::from(extreme),
                    Attribute::Real(_) => Value::from(extreme as f64 / 3.0),
                    Attribute::Text(_) | Attribute::Secret(_) => Value::from(extreme.to_string()),
                };
                attributes.insert((*name).to_owned(), value);
            }
            let mut link = link(&[toxic(kind.name, Value::Object(attributes))]);
            let mut out = Vec::new();
            for now in [0, 1, MS, SECOND, 1000 * SECOND, u64::MAX / 2, u64::MAX] {
                if link.takes(now) {
                    link.offer(data(vec![1; 300], now));
                }
                for _ in 0..400 {
                    link.run(now);
                    drain(&mut link, &mut out);
                }
            }
            assert!(out.len() <= 7 * 300, "{}: {}", kind.name, out.len());
        }
    }
}

#[test]
fn toxics_come_change_and_go_without_a_byte_being_lost_or_overtaken() {
    let harmless = ["latency", "bandwidth", "slicer", "noop", "slow_close"];
    for seed in 0..200 {
        let mut dice = Dice::new(seed, &[]);
        let mut link = link(&[]);
        let (mut now, mut sent, mut out) = (SECOND, Vec::new(), Vec::new());
        let mut ending = None;
        for step in 0..300u32 {
            now += dice.below(20 * MS);
            let kind = harmless[dice.below(harmless.len() as u64) as usize];
            let attributes = match kind {
                "latency" => json!({ "latency": dice.below(50), "jitter": dice.below(20) }),
                "bandwidth" => json!({ "rate": dice.below(100) }),
                "slicer" => {
                    json!({ "average_size": dice.below(10), "size_variation": dice.below(20), "delay": dice.below(99) })
                }
                _ => json!({}),
            };
            let toxic = toxic(kind, attributes);
            let present = link.stages.iter().any(|stage| stage.toxic.name == toxic.name);
            match (dice.below(6), present) {
                (0, false) => link.change(&Change::Add(toxic), place(1)),
                (0 | 1, true) => link.change(&Change::Update(toxic), place(1)),
                (2, true) => link.change(&Change::Remove(toxic.name.clone()), place(1)),
                _ if link.takes(now) => {
                    let bytes: Vec<u8> = (0..=dice.below(500)).map(|at| (at as u32 + step) as u8).collect();
                    sent.extend_from_slice(&bytes);
                    link.offer(data(bytes, now));
                }
                _ => {}
            }
            link.run(now);
            // A reader that reads now and then.
            if dice.below(3) == 0 {
                drain(&mut link, &mut out);
            }
        }
        link.offer(Item::End(Ending::Finished));
        for kind in harmless {
            link.change(&Change::Remove(format!("{kind}_downstream")), place(1));
            link.run(now);
            ending = ending.or(drain(&mut link, &mut out));
        }
        assert_eq!(ending, Some(Ending::Finished), "seed {seed}");
        assert!(out == sent, "seed {seed}: {} of {} bytes", out.len(), sent.len());
    }
}

#[test]
fn one_line_is_shared_by_all_connections_and_by_all_of_the_time() {
    // 1 MB/s; three connections want more than that for a second, and a fourth sends a little now and then.
    let toxic = toxic("shared_bandwidth", json!({ "rate": 1000 }));
    let mut links: Vec<Link> = (1..=4).map(|number| Link::new([&toxic].into_iter(), place(number))).collect();
    let mut outs = vec![Vec::new(); 4];
    for tick in 0..1000u64 {
        let now = SECOND + tick * MS;
        for (at, (link, out)) in links.iter_mut().zip(&mut outs).enumerate() {
            while at < 3 && link.takes(now) {
                link.offer(data(vec![0; 16 << 10], now));
            }
            if at == 3 && tick % 100 == 0 {
                link.offer(data(vec![0; 100], now));
            }
            link.run(now);
            drain(link, out);
        }
    }
    let carried: Vec<usize> = outs.iter().map(Vec::len).collect();
    let all: usize = carried.iter().sum();
    assert!((960_000..=1_010_000).contains(&all), "{carried:?}");
    assert!(carried[..3].iter().all(|one| *one > all / 4), "{carried:?}");
    assert!(carried[3] >= 900, "{carried:?}");

    // After a pause it is a line, not a bucket.
    let now = 100 * SECOND;
    let mut link = Link::new([&toxic].into_iter(), place(5));
    link.offer(data(vec![0; 50_000], now));
    let mut out = Vec::new();
    link.run(now);
    drain(&mut link, &mut out);
    assert!(out.is_empty(), "{}", out.len());
}

#[test]
fn a_toxic_concerns_those_whom_its_matcher_means() {
    let concerns = |matcher: Value, place: Place<'_>, toxic: &mut Option<Arc<Toxic>>| {
        let toxic = toxic.get_or_insert_with(|| {
            let concerns = super::super::matcher::Matcher::read(&matcher).expect("a matcher");
            let plain = self::toxic("limit_data", json!({}));
            Arc::new(Toxic { concerns, ..Toxic::clone(&plain) })
        });
        let mut link = Link::new([&*toxic].into_iter(), place);
        link.offer(data("x", 0));
        link.run(0);
        drain(&mut link, &mut Vec::new()) == Some(Ending::Closed)
    };
    let mut counted = None;
    let hit: Vec<u64> = (1..=7)
        .filter(|number| concerns(json!({ "every": 2, "first": 5 }), place(*number), &mut counted))
        .collect();
    assert_eq!(hit, [2, 4]);
    // Who was there before has no number.
    let old = Place { fresh: false, ..place(8) };
    assert!(!concerns(json!({ "first": 5 }), old, &mut None));
    for (client, meant) in [("10.1.2.3", true), ("11.1.2.3", false)] {
        let place = Place { client: client.parse().expect("an address"), ..place(1) };
        assert_eq!(concerns(json!({ "client": "10.0.0.0/8" }), place, &mut None), meant);
    }
}
