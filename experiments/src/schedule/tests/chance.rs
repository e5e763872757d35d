//! The random schedule over 10,000 work days: mean, minimum, and uniform over its hours.

use std::collections::BTreeMap;

use jiff::ToSpan;

use super::*;

const FROM: &str = "2027-01-04T00:00:00Z";
/// 10,000 days from Monday to Friday are 2,000 weeks.
const WORK_DAYS: usize = 10_000;

fn random(mean: u32, apart: u32) -> Schedule {
    let when = format!("{{ random: {{ mean: {mean}, apart: {apart}, from: \"09:00\", to: \"15:00\" }} }}");
    schedule(&when, "opt-in: { chaos: \"yes\" }")
}

fn simulated(schedule: &Schedule) -> Vec<Entry> {
    let end = at(FROM).checked_add((2000 * 7 * 24).hours()).expect("an instant");
    entries(schedule, FROM, &end.to_string())
}

/// The number of the work day on which an entry lies: Monday 2027-01-04 is the first.
fn number(entry: &Entry) -> usize {
    let days = usize::try_from((entry.at.as_second() - at(FROM).as_second()) / 86_400).expect("later");
    let weekday = days % 7;
    assert!(weekday < 5, "nothing runs on a Saturday or Sunday: {}", entry.at);
    days / 7 * 5 + weekday
}

#[test]
fn mean_and_minimum_hold_over_ten_thousand_work_days() {
    for (mean, apart) in [(1, 1), (2, 1), (5, 1), (5, 3), (10, 10), (20, 5)] {
        let found = simulated(&random(mean, apart));
        let numbers: Vec<usize> = found.iter().map(number).collect();
        let least = numbers.windows(2).map(|two| two[1] - two[0]).min().expect("several");
        assert!(least >= apart as usize, "mean {mean}, apart {apart}: {least}");
        let expected = WORK_DAYS as f64 / f64::from(mean);
        // The number of renewals in n days has about the variance n * s^2 / mean^3, with s^2 that of the days between.
        let rest = f64::from(mean - apart + 1);
        let variance = WORK_DAYS as f64 * rest * (rest - 1.0) / f64::from(mean).powi(3);
        let off = (found.len() as f64 - expected).abs();
        assert!(
            off <= 4.0 * variance.sqrt() + 1.0,
            "mean {mean}, apart {apart}: {} of {expected}",
            found.len()
        );
    }
}

#[test]
fn times_are_uniform_over_the_hours() {
    let found = simulated(&random(1, 1));
    assert_eq!(found.len(), WORK_DAYS);
    let mut cells = [0u32; 72];
    for entry in &found {
        let second = entry.at.as_second() % 86_400 - 9 * 3600;
        assert!((0..6 * 3600).contains(&second), "{}", entry.at);
        cells[usize::try_from(second / 300).expect("in the hours")] += 1;
    }
    let expected = WORK_DAYS as f64 / 72.0;
    let square: f64 = cells.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    // The quantiles 0.0005 and 0.9995 of chi-square with 71 degrees of freedom. The seed is fixed: it holds or it does not.
    assert!((38.5..116.1).contains(&square), "chi-square {square} over 72 cells of five minutes");
}

#[test]
fn a_day_is_the_same_whenever_it_is_asked_for_and_groups_do_not_disturb_each_other() {
    let schedule = random(3, 2);
    let (since, bars) = (at(FROM), Bars::default());
    let ask = |groups: &[&str], from: &str, to: &str| {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        Outlook { schedule: &schedule, seed: 11, since, bars: &bars, groups: &groups }.entries(
            at(from),
            at(to),
            1000,
        )
    };
    let year = ask(&["shop", "stock"], FROM, "2028-01-04T00:00:00Z");
    let june: Vec<Entry> = year
        .iter()
        .filter(|entry| (at("2027-06-01T00:00:00Z")..at("2027-07-01T00:00:00Z")).contains(&entry.at))
        .cloned()
        .collect();
    assert!(june.len() > 4);
    assert_eq!(ask(&["shop", "stock"], "2027-06-01T00:00:00Z", "2027-07-01T00:00:00Z"), june);
    let alone: Vec<Entry> = june.iter().filter(|entry| entry.group == "shop").cloned().collect();
    assert_eq!(ask(&["shop"], "2027-06-01T00:00:00Z", "2027-07-01T00:00:00Z"), alone);
    assert_ne!(alone.len(), june.len());
}

#[test]
fn a_holiday_is_no_work_day_and_is_shown_with_its_reason() {
    let holiday = "schedule: 1\nname: night\nopt-in: { chaos: \"yes\" }\nexperiment: x\n\
                   when: { random: { mean: 3, apart: 3 } }\n\
                   except: [{ days: { from: 2027-01-07, to: 2027-01-08, why: a holiday } }]\n";
    let schedule =
        read("s.yaml", holiday.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let found = entries(&schedule, FROM, "2027-01-20T00:00:00Z");
    let shown: Vec<String> = found
        .iter()
        .map(|entry| format!("{} {}", entry.at.strftime("%d"), entry.barred.as_deref().unwrap_or("-")))
        .collect();
    // Every third work day (mean and minimum are 3): the 4th; the 7th would be next, and the first day after the holiday is.
    assert_eq!(shown, ["04 -", "07 a holiday", "08 a holiday", "11 -", "14 -", "19 -"]);
    let since = at(FROM);
    let bounds: Vec<Option<bool>> =
        found.iter().map(|entry| entry.apart.map(|apart| apart <= entry.at && apart >= since)).collect();
    assert!(bounds.iter().all(|bound| *bound == Some(true)), "{found:?}");
}

fn random_of(schedule: &Schedule) -> Random {
    match &schedule.when {
        Timing::Random(random) => random.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn groups_are_the_values_of_a_label_among_hosts() {
    let host = |role: &str| BTreeMap::from([("role".to_owned(), role.to_owned())]);
    let hosts = [host("shop"), host("stock"), host("shop"), BTreeMap::new()];
    let one = random_of(&random(2, 1));
    assert_eq!(one.groups(&hosts), [""]);
    let per = Random { per: Some("role".to_owned()), ..one };
    assert_eq!(per.groups(&hosts), ["shop", "stock"]);
    assert!(per.groups(&[]).is_empty());
}
