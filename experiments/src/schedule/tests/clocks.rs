//! Cron and one-off times over changes of clocks. In Europe/Berlin they go forward on 2027-03-28 at 02:00 and back on
//! 2027-10-31 at 03:00.

use super::*;

#[test]
fn a_fixed_time_that_clocks_skip_runs_after_the_gap_and_one_that_comes_twice_runs_once() {
    let schedule = schedule("{ cron: \"30 2 * * *\" }", "zone: Europe/Berlin");
    assert_eq!(
        times(&schedule, "2027-03-27T00:00:00Z", "2027-03-30T00:00:00Z"),
        ["03-27 02:30+01:00", "03-28 03:00+02:00", "03-29 02:30+02:00"]
    );
    assert_eq!(
        times(&schedule, "2027-10-30T00:00:00Z", "2027-11-02T00:00:00Z"),
        ["10-30 02:30+02:00", "10-31 02:30+02:00", "11-01 02:30+01:00"]
    );
}

#[test]
fn listed_times_that_clocks_skip_or_show_twice_run_once() {
    let on = |cron: &str, (from, to): (&str, &str)| {
        let schedule = schedule(&format!("{{ cron: \"{cron}\" }}"), "zone: Europe/Berlin");
        times(&schedule, from, to)
    };
    let spring = ("2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z");
    assert_eq!(on("0 2,14 * * *", spring), ["03-28 03:00+02:00", "03-28 14:00+02:00"]);
    assert_eq!(on("0,30 2 * * *", spring), ["03-28 03:00+02:00"], "two that are skipped are one run");
    assert_eq!(on("30 1-3 * * *", spring), ["03-28 01:30+01:00", "03-28 03:00+02:00", "03-28 03:30+02:00"]);
    assert_eq!(on("0 2,3 * * *", spring), ["03-28 03:00+02:00"], "the end of the gap is a time of it");
    assert_eq!(on("*/20 2 * * *", spring), ["03-28 03:00+02:00"]);
    assert_eq!(on("15 2 * * MON", spring), [""; 0], "the gap lies in a day that is not meant");
    let autumn = ("2027-10-30T22:00:00Z", "2027-10-31T23:00:00Z");
    assert_eq!(on("0 2,14 * * *", autumn), ["10-31 02:00+02:00", "10-31 14:00+01:00"]);
    assert_eq!(on("0,30 2 * * *", autumn), ["10-31 02:00+02:00", "10-31 02:30+02:00"]);
    assert_eq!(on("30 1-3 * * *", autumn), ["10-31 01:30+02:00", "10-31 02:30+02:00", "10-31 03:30+01:00"]);
    // From within the hour that comes twice, and from the end of the gap, what was before is not there again.
    assert!(on("0,30 2 * * *", ("2027-10-31T00:30:01Z", "2027-10-31T23:00:00Z")).is_empty());
    assert_eq!(on("0 2 * * *", ("2027-03-28T01:00:00Z", "2027-03-28T22:00:00Z")).len(), 1);
    assert!(on("0 2 * * *", ("2027-03-28T01:00:01Z", "2027-03-28T22:00:00Z")).is_empty());
}

#[test]
fn what_runs_every_hour_goes_on_over_both_changes() {
    let schedule = schedule("{ cron: \"7 * * * *\" }", "zone: Europe/Berlin");
    for day in ["2027-03-28", "2027-10-31"] {
        let found = entries(&schedule, &format!("{day}T00:00:00Z"), &format!("{day}T04:00:00Z"));
        let gaps: Vec<i64> =
            found.windows(2).map(|two| two[1].at.as_second() - two[0].at.as_second()).collect();
        assert_eq!(gaps, [3600; 3], "{day}");
    }
}

#[test]
fn a_day_that_clocks_skip_runs_at_its_end() {
    // Samoa went over the date line: after 29 December 2011 came the 31st.
    let schedule = schedule("{ cron: \"0 9,10 * * *\" }", "zone: Pacific/Apia");
    assert_eq!(
        times(&schedule, "2011-12-29T12:00:00Z", "2011-12-31T00:00:00Z"),
        [
            "12-29 09:00-10:00",
            "12-29 10:00-10:00",
            "12-31 00:00+14:00",
            "12-31 09:00+14:00",
            "12-31 10:00+14:00"
        ]
    );
}

#[test]
fn what_runs_every_half_hour_goes_on_over_both_changes() {
    let schedule = schedule("{ cron: \"*/30 * * * *\" }", "zone: Europe/Berlin");
    for day in ["2027-03-28", "2027-10-31"] {
        let found = entries(&schedule, &format!("{day}T00:00:00Z"), &format!("{day}T03:00:00Z"));
        let gaps: Vec<i64> =
            found.windows(2).map(|two| two[1].at.as_second() - two[0].at.as_second()).collect();
        assert_eq!(gaps, [1800; 5], "{day}");
    }
}

#[test]
fn entries_of_adjoining_stretches_are_those_of_the_whole() {
    let schedule = schedule("{ cron: \"15 1-4 * * *\" }", "zone: America/New_York");
    let (from, middle, to) = ("2027-03-13T00:00:00Z", "2027-03-14T07:15:00Z", "2027-03-16T00:00:00Z");
    let whole = times(&schedule, from, to);
    let mut parts = times(&schedule, from, middle);
    parts.extend(times(&schedule, middle, to));
    assert_eq!(parts, whole);
}

#[test]
fn a_moment_after_a_time_it_is_over() {
    let schedule = schedule("{ cron: \"0 * * * *\" }", "");
    let found = |from: &str| entries(&schedule, from, "2027-03-01T02:00:00Z").len();
    assert_eq!((found("2027-03-01T01:00:00Z"), found("2027-03-01T01:00:00.001Z")), (1, 0));
    assert_eq!((found("2027-03-01T00:59:59.999Z"), found("2027-03-01T00:59:58.001Z")), (1, 1));
}

#[test]
fn the_29th_of_february_comes_in_leap_years() {
    let schedule = schedule("{ cron: \"0 12 29 2 *\" }", "");
    let found = entries(&schedule, "2025-01-01T00:00:00Z", "2033-01-01T00:00:00Z");
    let found: Vec<String> = found.iter().map(|entry| entry.at.to_string()).collect();
    assert_eq!(found, ["2028-02-29T12:00:00Z", "2032-02-29T12:00:00Z"]);
}

#[test]
fn a_single_time_is_there_once_and_the_first_of_two_is_meant() {
    let schedule = schedule("{ at: 2027-10-31 02:30 }", "zone: Europe/Berlin");
    assert_eq!(times(&schedule, "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"), ["10-31 02:30+02:00"]);
    assert!(times(&schedule, "2027-10-31T00:30:01Z", "2028-01-01T00:00:00Z").is_empty());
}

#[test]
fn business_hours_are_those_of_the_zone_on_both_sides_of_a_change() {
    let random = "{ random: { mean: 1, from: \"09:00\", to: \"09:01\", days: [sun, mon] } }";
    let schedule = schedule(random, "zone: Europe/Berlin\nopt-in: { chaos: \"yes\" }");
    let found = times(&schedule, "2027-03-20T00:00:00Z", "2027-03-30T00:00:00Z");
    assert_eq!(found, ["03-21 09:00+01:00", "03-22 09:00+01:00", "03-28 09:00+02:00", "03-29 09:00+02:00"]);
    let skipped = "{ random: { mean: 1, from: \"02:00\", to: \"03:00\", days: [sun] } }";
    let schedule = super::schedule(skipped, "zone: Europe/Berlin\nopt-in: { chaos: \"yes\" }");
    let found = entries(&schedule, "2027-03-20T00:00:00Z", "2027-04-05T00:00:00Z");
    assert_eq!(found.len(), 2, "hours that do not exist have no entry: {found:?}");
}
