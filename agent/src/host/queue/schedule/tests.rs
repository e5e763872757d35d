use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::*;

/// What left: its number, whether it was the oldest, and when.
type Left = Vec<(u32, bool, u64)>;

fn let_go(schedule: &mut Schedule<u32>, now: u64) -> Left {
    let mut left = Vec::new();
    schedule.release(now, |due| {
        assert!(due.deadline <= now);
        let (Held::Queued(id, _) | Held::Taken(id)) = due.held;
        left.push((*id, due.oldest, due.deadline));
        true
    });
    left
}

/// Random traffic on random connections, with a clock that jumps: what came, with delay and connection, and what left,
/// with the time of that.
struct Story {
    came: BTreeMap<u32, (u64, u64, Option<u64>)>,
    left: Vec<(u32, bool, u64)>,
}

fn story(seed: u64, taken: bool, connection: impl Fn(&mut ChaCha12Rng) -> Option<u64>) -> Story {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut schedule = Schedule::new(10_000);
    let mut story = Story { came: BTreeMap::new(), left: Vec::new() };
    let (mut now, mut id) = (1_000, 0);
    for _ in 0..2_000 {
        for _ in 0..random.random_range(0..4) {
            id += random.random_range(1..3);
            let delay = random.random_range(0..500);
            let connection = connection(&mut random);
            let held = if taken && random.random() { Held::Taken(id) } else { Held::Queued(id, None) };
            schedule.hold(held, 100, now, delay, connection);
            story.came.insert(id, (now, delay, connection));
        }
        now += random.random_range(0..100);
        story.left.extend(let_go(&mut schedule, now).into_iter().map(|(id, oldest, _)| (id, oldest, now)));
        assert!(schedule.next().is_none_or(|next| next > now), "something due has stayed");
    }
    story
        .left
        .extend(let_go(&mut schedule, u64::MAX).into_iter().map(|(id, oldest, _)| (id, oldest, u64::MAX)));
    assert!(schedule.is_empty() && schedule.bytes == 0 && schedule.queued.is_empty());
    story
}

#[test]
fn nothing_is_lost_doubled_or_early() {
    for seed in 0..20 {
        let story = story(seed, true, |random| random.random::<bool>().then(|| random.random_range(0..5)));
        let mut left: Vec<u32> = story.left.iter().map(|(id, ..)| *id).collect();
        left.sort_unstable();
        assert_eq!(left, story.came.keys().copied().collect::<Vec<_>>());
        for (id, _, at) in &story.left {
            let (came, delay, _) = story.came[id];
            assert!(came + delay <= *at, "packet {id} is early");
        }
    }
}

#[test]
fn a_connection_keeps_its_order_and_others_may_not() {
    let mut overtaken = 0;
    for seed in 0..20 {
        let story = story(seed, true, |random| Some(random.random_range(0..5)));
        let mut lasts = BTreeMap::new();
        for (id, ..) in &story.left {
            let last = lasts.insert(story.came[id].2, *id);
            assert!(last < Some(*id), "packet {id} came behind {last:?}");
        }
        overtaken += story.left.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
    }
    assert!(overtaken > 1000, "only {overtaken}");
}

#[test]
fn without_connections_only_the_deadlines_count_then_the_arrivals() {
    for seed in 0..20 {
        let story = story(seed, true, |_| None);
        let order: Vec<(u64, u32)> =
            story.left.iter().map(|(id, ..)| (story.came[id].0 + story.came[id].1, *id)).collect();
        assert!(order.is_sorted());
    }
}

/// What one message "accept up to" would let go must have been let go, or be that very packet.
#[test]
fn the_oldest_is_the_one_before_which_nothing_is_held() {
    let mut oldest_seen = 0;
    for seed in 0..20 {
        let story = story(seed, false, |random| random.random::<bool>().then(|| random.random_range(0..5)));
        let mut waiting: BTreeSet<u32> = story.came.keys().copied().collect();
        for (id, oldest, _) in &story.left {
            assert_eq!(*oldest, waiting.first() == Some(id), "packet {id}");
            waiting.remove(id);
            oldest_seen += usize::from(*oldest);
        }
    }
    assert!(oldest_seen > 1000, "only {oldest_seen}");
}

#[test]
fn with_one_delay_for_all_every_packet_is_the_oldest() {
    let mut schedule = Schedule::new(100);
    for id in 1..=50 {
        schedule.hold(Held::Queued(id * 3, None), 10, u64::from(id), 100, None);
    }
    let left = let_go(&mut schedule, 130);
    assert_eq!(left.len(), 30);
    assert!(left.iter().all(|(_, oldest, _)| *oldest));
    assert_eq!(schedule.next(), Some(131));
}

#[test]
fn a_packet_that_is_exempt_lets_its_connection_overtake_it() {
    let mut schedule = Schedule::new(100);
    schedule.hold(Held::Queued(1, None), 10, 0, 50, None);
    schedule.hold(Held::Queued(2, None), 10, 1, 5, Some(7));
    schedule.hold(Held::Queued(3, None), 10, 2, 1, Some(7));
    let order: Vec<u32> = let_go(&mut schedule, 100).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(order, [2, 3, 1]);
}

#[test]
fn what_is_refused_stays_and_comes_again() {
    let mut schedule = Schedule::new(10);
    for id in 1..=3 {
        schedule.hold(Held::Taken(id), 10, 0, 5, None);
    }
    let mut first = true;
    assert!(!schedule.release(5, |_| std::mem::take(&mut first)));
    assert_eq!(schedule.len(), 2);
    assert_eq!(let_go(&mut schedule, 5).into_iter().map(|(id, ..)| id).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn there_is_room_for_so_many_packets_and_bytes() {
    let mut schedule = Schedule::new(2);
    assert!(schedule.has_room(MOST_BYTES) && !schedule.has_room(MOST_BYTES + 1));
    schedule.hold(Held::Taken(1), MOST_BYTES - 10, 0, 5, None);
    assert!(schedule.has_room(10) && !schedule.has_room(11));
    schedule.hold(Held::Taken(2), 10, 0, 5, None);
    assert!(!schedule.has_room(0));
    let_go(&mut schedule, 5);
    assert!(schedule.has_room(MOST_BYTES));
}

#[test]
fn connections_that_have_ended_are_forgotten() {
    let mut schedule = Schedule::new(10);
    for number in 0..100_000u32 {
        schedule.hold(Held::Queued(number, None), 10, u64::from(number) * 10, 20, Some(u64::from(number)));
        let_go(&mut schedule, u64::from(number) * 10);
    }
    assert!(schedule.lasts.len() <= FEW, "{} remembered", schedule.lasts.len());
}
