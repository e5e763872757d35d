//! That the times of a random schedule are uniform over its hours: by the clocks of several zones, on the days on which clocks change,
//! for each of several groups and beside the others, and where a minimum holds runs apart.
//!
//! Each look is Pearson's chi-square, whose bounds chance alone leaves once in a thousand times (once in two thousand at either end).
//! All seeds are fixed: what holds once holds always. Each look is also given what a wrong sampler would draw, and has to find it.

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use super::super::random::Draw;
use super::*;

const FROM: &str = "2027-01-04T00:00:00Z";
/// 2,000 weeks later: 10,000 days from Monday to Friday.
const TO: &str = "2065-05-04T00:00:00Z";
const SEED: u64 = 2027;

fn random(bounds: &str, zone: &str) -> Schedule {
    schedule(&format!("{{ random: {{ {bounds} }} }}"), &format!("zone: {zone}\nopt-in: {{ chaos: \"yes\" }}"))
}

fn asked(schedule: &Schedule, groups: &[String], from: Timestamp, to: Timestamp) -> Vec<Entry> {
    let bars = Bars::default();
    Outlook { schedule, seed: SEED, since: from, bars: &bars, groups }.entries(from, to, 1_000_000)
}

fn numbered(many: usize) -> Vec<String> {
    (0..many).map(|number| format!("group-{number}")).collect()
}

/// The quantile of chi-square at a normal deviate (Wilson and Hilferty, "The distribution of chi-square", 1931).
fn quantile(freedom: usize, deviate: f64) -> f64 {
    let freedom = freedom as f64;
    let part = 2.0 / (9.0 * freedom);
    freedom * (1.0 - part + deviate * part.sqrt()).powi(3)
}

/// Which of so many equal parts of its hours a place lies in.
fn part(place: f64, parts: usize) -> Option<usize> {
    (0.0..1.0).contains(&place).then_some((place * parts as f64) as usize)
}

/// Whether all parts have what chance gives them, and why not.
fn even(found: impl IntoIterator<Item = Option<usize>>, parts: usize) -> Result<(), String> {
    let mut counts = vec![0_u32; parts];
    for one in found {
        counts[one.ok_or("a time outside the hours")?] += 1;
    }
    let expected = f64::from(counts.iter().sum::<u32>()) / parts as f64;
    assert!(expected >= 20.0, "too few draws for {parts} parts: {expected} each");
    let square: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    let (least, most) = (quantile(parts - 1, -3.290_527), quantile(parts - 1, 3.290_527));
    let said = format!("chi-square {square:.1} over {parts} parts, not from {least:.1} to {most:.1}");
    (least..=most).contains(&square).then_some(()).ok_or(said)
}

fn uniform(places: &[f64], parts: usize) -> Result<(), String> {
    even(places.iter().map(|place| part(*place, parts)), parts)
}

/// Whether the first of each pair says nothing of the second.
fn apart(pairs: &[(f64, f64)], parts: usize) -> Result<(), String> {
    let both = |(one, other): &(f64, f64)| Some(part(*one, parts)? * parts + part(*other, parts)?);
    even(pairs.iter().map(both), parts * parts)
}

/// A sampler that favours the first half of the hours: of what fell into the second, every fifth is moved there.
fn favouring(places: &[f64]) -> Vec<f64> {
    let mut late = 0;
    let moved = |place: &f64| {
        late += usize::from(*place >= 0.5);
        if *place >= 0.5 && late % 5 == 0 { place - 0.5 } else { *place }
    };
    places.iter().map(moved).collect()
}

/// Holds for what was drawn, and fails for a sampler that favours the first half.
fn holds(what: &str, places: &[f64], parts: usize) {
    uniform(places, parts).unwrap_or_else(|why| panic!("{what}: {why}"));
    uniform(&favouring(places), parts).expect_err(&format!("{what}: the first half is favoured"));
}

/// Where an entry lies between two instants of its day, in parts of them.
fn place(entry: &Entry, from: Timestamp, to: Timestamp) -> f64 {
    let since = entry.at.as_second() - from.as_second();
    // In the middle of its second: else the first of a part would be a matter of rounding.
    (since as f64 + 0.5) / (to.as_second() - from.as_second()) as f64
}

/// An hour of a day in a zone, as the library of times has it.
fn hour(schedule: &Schedule, day: Date, hour: i8) -> Timestamp {
    let time = day.at(hour, 0, 0, 0);
    schedule.zone.get().to_ambiguous_zoned(time).unambiguous().expect("no change of clocks").timestamp()
}

#[test]
fn times_are_uniform_by_the_clocks_of_every_zone() {
    for zone in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"] {
        let schedule = random("mean: 1, from: \"09:00\", to: \"15:00\"", zone);
        let found = asked(&schedule, &[String::new()], at(FROM), at(TO));
        assert!((9_999..=10_000).contains(&found.len()), "{zone}: {}", found.len());
        let day = |entry: &Entry| schedule.zone.zoned(entry.at).date();
        let places: Vec<f64> = found
            .iter()
            .map(|entry| place(entry, hour(&schedule, day(entry), 9), hour(&schedule, day(entry), 15)))
            .collect();
        holds(zone, &places, 72);
        // A sampler that takes winter's clocks for those of the whole year is an hour late in summer.
        let winter = schedule.zone.zoned(at("2027-01-15T00:00:00Z")).offset();
        let summer = schedule.zone.zoned(at("2027-07-15T00:00:00Z")).offset();
        if winter != summer {
            let off = |entry: &Entry| {
                let offset = schedule.zone.zoned(entry.at).offset();
                f64::from(offset.seconds() - winter.seconds()) / 21_600.0
            };
            let late: Vec<f64> = found.iter().zip(&places).map(|(entry, place)| place + off(entry)).collect();
            uniform(&late, 72).expect_err(zone);
        }
    }
}

/// Where a sampler that draws a time of the clocks, and not a part of the hours, would put a place of midnight to six.
fn by_the_clocks(schedule: &Schedule, day: Date, place: f64, from: Timestamp, to: Timestamp) -> f64 {
    let clock = day.at(0, 0, 0, 0) + SignedDuration::from_secs((place * 21_600.0) as i64);
    let at = schedule.zone.get().to_ambiguous_zoned(clock).compatible().expect("a time").timestamp();
    (at.as_second() as f64 + 0.5 - from.as_second() as f64) / (to.as_second() - from.as_second()) as f64
}

#[test]
fn times_are_uniform_over_hours_in_which_clocks_change() {
    // By half an hour in Lord Howe, by an hour in the others; in the Azores the hours begin with the change.
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Atlantic/Azores"] {
        let bounds = "mean: 1, from: \"00:00\", to: \"06:00\", days: [sun]";
        let schedule = random(bounds, zone);
        let (mut shorter, mut longer) = (Vec::new(), Vec::new());
        let (mut clocked_shorter, mut clocked_longer) = (Vec::new(), Vec::new());
        let groups = numbered(100);
        let sunday: Date = "2027-01-03".parse().expect("a day");
        for week in 0..52 * 40 {
            let day = sunday + jiff::Span::new().weeks(week);
            let end = hour(&schedule, day, 6);
            let start = schedule.zone.get().to_ambiguous_zoned(day.at(0, 0, 0, 0));
            let start = start.compatible().expect("a time").timestamp();
            let seconds = end.as_second() - start.as_second();
            if seconds == 21_600 {
                continue;
            }
            let found = asked(&schedule, &groups, start, end);
            assert_eq!(found.len(), groups.len(), "{zone} {day}");
            let (places, clocked) = match seconds < 21_600 {
                true => (&mut shorter, &mut clocked_shorter),
                false => (&mut longer, &mut clocked_longer),
            };
            places.extend(found.iter().map(|entry| place(entry, start, end)));
            let whole = places[places.len() - found.len()..].to_vec();
            clocked.extend(whole.iter().map(|place| by_the_clocks(&schedule, day, *place, start, end)));
        }
        for (what, places, clocked) in
            [("shorter", shorter, clocked_shorter), ("longer", longer, clocked_longer)]
        {
            let what = format!("{zone}, {what} hours");
            assert!(places.len() >= 3_900, "{what}: {}", places.len());
            holds(&what, &places, 44);
            uniform(&clocked, 44).expect_err(&format!("{what}: drawn by the clocks"));
        }
    }
}

/// The places of the hours of a group's entries in UTC, by day.
fn of_group(found: &[Entry], group: &str) -> Vec<(Date, f64)> {
    let zoned = |entry: &Entry| entry.at.to_zoned(jiff::tz::TimeZone::UTC).date();
    let placed = |entry: &Entry| {
        let nine = zoned(entry).at(9, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).expect("a time").timestamp();
        (zoned(entry), place(entry, nine, nine + SignedDuration::from_hours(6)))
    };
    found.iter().filter(|entry| entry.group == group).map(placed).collect()
}

#[test]
fn each_of_several_groups_has_times_of_its_own() {
    let schedule = random("mean: 1, from: \"09:00\", to: \"15:00\"", "UTC");
    let groups = numbered(4);
    let found = asked(&schedule, &groups, at(FROM), at(TO));
    let of: Vec<Vec<(Date, f64)>> = groups.iter().map(|group| of_group(&found, group)).collect();
    for (number, one) in of.iter().enumerate() {
        let places: Vec<f64> = one.iter().map(|(_, place)| *place).collect();
        holds(&groups[number], &places, 72);
        for other in &of[number + 1..] {
            let pairs: Vec<(f64, f64)> = one
                .iter()
                .zip(other)
                .map(|((day, place), (same, beside))| {
                    assert_eq!(day, same);
                    (*place, *beside)
                })
                .collect();
            apart(&pairs, 8).unwrap_or_else(|why| panic!("{} beside another: {why}", groups[number]));
        }
        // A sampler that forgets the group is uniform for each and has all of them at one time; one whose groups are a fixed
        // time apart is no better.
        for shift in [0.0, 0.25] {
            let same: Vec<(f64, f64)> =
                places.iter().map(|place| (*place, (place + shift).fract())).collect();
            apart(&same, 8).expect_err("all groups at one time");
        }
    }
}

#[test]
fn times_are_uniform_where_a_minimum_holds_runs_apart() {
    for (mean, least) in [(3, 2), (5, 3), (10, 5)] {
        let bounds = format!("mean: {mean}, apart: {least}, from: \"09:00\", to: \"15:00\"");
        let schedule = random(&bounds, "UTC");
        let groups = numbered(10);
        let found = asked(&schedule, &groups, at(FROM), at(TO));
        let what = format!("mean {mean}, apart {least}");
        let (mut places, mut pairs, mut coins) = (Vec::new(), Vec::new(), Vec::new());
        for group in &groups {
            let of = of_group(&found, group);
            // Each time is in one pair only: pairs that share one would depend on each other.
            pairs.extend(of.chunks_exact(2).map(|two| (two[0].1, two[1].1)));
            places.extend(of.iter().map(|(_, place)| *place));
            coins.extend(of.iter().map(|(day, _)| Draw::of(SEED, "night", group, *day).coin));
        }
        assert!(places.len() > 9_000, "{what}: {}", places.len());
        holds(&what, &places, 72);
        apart(&pairs, 8).unwrap_or_else(|why| panic!("{what}, one time and the next: {why}"));
        // A sampler that takes its time from the coin that let the day in has early times only; one that forgets the day has the
        // same time each time.
        uniform(&coins, 72).expect_err(&what);
        let same: Vec<(f64, f64)> = pairs.iter().map(|(one, _)| (*one, *one)).collect();
        apart(&same, 8).expect_err(&what);
    }
}
