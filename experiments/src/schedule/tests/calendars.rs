//! Calendar files: recurrences, zones, and what is refused.

use super::*;

fn calendar(events: &str) -> String {
    let lines = events.trim().replace('\n', "\r\n");
    format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{lines}\r\nEND:VCALENDAR\r\n")
}

fn event(lines: &str) -> String {
    calendar(&format!("BEGIN:VEVENT\n{}\nEND:VEVENT", lines.trim()))
}

/// What a calendar bars within 2027 and 2028, by the clocks of Berlin.
fn barred(text: &str) -> Vec<String> {
    let zone: Zone = "Europe/Berlin".parse().expect("a zone");
    let calendar = Calendar::read(text).unwrap_or_else(|error| panic!("{error}"));
    let bars = calendar.bars(&zone, at("2027-01-01T00:00:00Z"), at("2028-12-31T00:00:00Z")).expect("bars");
    let show = |bar: &Bar| {
        let time = |at| zone.zoned(at).strftime("%y-%m-%dT%H:%M").to_string();
        format!("{} {} {}", time(bar.from), time(bar.to), bar.why)
    };
    Bars::new(bars).list().iter().map(show).collect()
}

#[test]
fn days_and_times_are_barred_in_their_zones() {
    assert_eq!(
        barred(&event(
            "UID:1\nDTSTART;VALUE=DATE:20271224\nDTEND;VALUE=DATE:20271227\nSUMMARY:Christmas\\, all\n  of it"
        )),
        ["27-12-24T00:00 27-12-27T00:00 Christmas, all of it"]
    );
    assert_eq!(
        barred(&event("DTSTART;TZID=America/New_York:20270601T090000\nDURATION:PT1H30M\nSUMMARY:freeze")),
        ["27-06-01T15:00 27-06-01T16:30 freeze"]
    );
    assert_eq!(
        barred(&event("DTSTART:20270601T090000Z\nDTEND:20270601T100000Z\nSUMMARY:utc")),
        ["27-06-01T11:00 27-06-01T12:00 utc"]
    );
    assert_eq!(
        barred(&event("DTSTART:20270601T090000\nDTEND:20270601T100000")),
        ["27-06-01T09:00 27-06-01T10:00 an event without a name"]
    );
    assert!(barred(&event("DTSTART;VALUE=DATE:20271224\nSTATUS:CANCELLED")).is_empty());
    assert!(barred(&calendar("PRODID:x")).is_empty());
}

#[test]
fn days_of_a_duration_are_those_of_the_clocks_and_hours_are_hours() {
    let lasts = |duration: &str, start: &str| {
        barred(&event(&format!("DTSTART;TZID=Europe/Berlin:{start}\nDURATION:{duration}\nSUMMARY:x")))
    };
    // In Berlin 2027-10-31 has 25 hours and 2028-03-26 has 23.
    assert_eq!(lasts("P1D", "20271030T180000"), ["27-10-30T18:00 27-10-31T18:00 x"]);
    assert_eq!(lasts("P1W", "20271030T180000"), ["27-10-30T18:00 27-11-06T18:00 x"]);
    assert_eq!(lasts("PT24H", "20271030T180000"), ["27-10-30T18:00 27-10-31T17:00 x"]);
    assert_eq!(lasts("P1DT2H", "20271030T180000"), ["27-10-30T18:00 27-10-31T20:00 x"]);
    assert_eq!(lasts("P1D", "20280325T180000"), ["28-03-25T18:00 28-03-26T18:00 x"]);
    // Each instance has days of its own, and one that began before what is asked reaches into it.
    let weekly =
        "DTSTART;TZID=Europe/Berlin:20271023T180000\nDURATION:P1D\nRRULE:FREQ=WEEKLY;COUNT=2\nSUMMARY:x";
    assert_eq!(
        barred(&event(weekly)),
        ["27-10-23T18:00 27-10-24T18:00 x", "27-10-30T18:00 27-10-31T18:00 x"]
    );
}

#[test]
fn what_recurs_for_ever_is_asked_within_its_window() {
    let days = |rule: &str, start: &str| -> Vec<String> {
        let found = barred(&event(&format!("DTSTART;VALUE=DATE:{start}\nRRULE:{rule}\nSUMMARY:x")));
        found.iter().map(|line| line[..8].to_owned()).collect()
    };
    // Each expected list was read off a calendar.
    assert_eq!(days("FREQ=YEARLY", "19491003"), ["27-10-03", "28-10-03"]);
    assert_eq!(days("FREQ=YEARLY", "20240229"), ["28-02-29"]);
    assert_eq!(days("FREQ=YEARLY;BYMONTH=11;BYDAY=4TH", "20001123"), ["27-11-25", "28-11-23"]);
    assert_eq!(days("FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO", "20000529"), ["27-05-31", "28-05-29"]);
    assert_eq!(days("FREQ=YEARLY;BYDAY=1MO", "20000103"), ["27-01-04", "28-01-03"]);
    assert_eq!(
        days("FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8", "19961105"),
        ["28-11-07"]
    );
    assert_eq!(
        days("FREQ=MONTHLY;BYMONTHDAY=-1;UNTIL=20270401", "20200131"),
        ["27-01-31", "27-02-28", "27-03-31"]
    );
    assert_eq!(days("FREQ=MONTHLY;COUNT=3", "20270131"), ["27-01-31", "27-03-31", "27-05-31"]);
    assert_eq!(
        days("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;UNTIL=20270401", "20270129"),
        ["27-01-29", "27-02-26", "27-03-31"]
    );
    assert_eq!(
        days("FREQ=WEEKLY;INTERVAL=2;BYDAY=FR,SA;UNTIL=20270123", "20261225"),
        ["27-01-08", "27-01-09", "27-01-22", "27-01-23"]
    );
    assert_eq!(days("FREQ=DAILY;INTERVAL=10;UNTIL=20270118", "20200101").len(), 2);
    assert_eq!(days("FREQ=DAILY", "19000101").len(), 731);
    // Section 3.8.5.3 of RFC 5545: the week's first day matters.
    assert_eq!(
        days("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=MO", "20270105"),
        ["27-01-05", "27-01-10", "27-01-19", "27-01-24"]
    );
    assert_eq!(
        days("FREQ=WEEKLY;INTERVAL=2;COUNT=4;BYDAY=TU,SU;WKST=SU", "20270105"),
        ["27-01-05", "27-01-17", "27-01-19", "27-01-31"]
    );
}

#[test]
fn a_weekly_time_keeps_its_clock_over_a_change_and_exceptions_are_taken_out() {
    let lines = "UID:w\nDTSTART;TZID=Europe/Berlin:20270319T180000\nDTEND;TZID=Europe/Berlin:20270319T200000\n\
                 RRULE:FREQ=WEEKLY;COUNT=4\nEXDATE;TZID=Europe/Berlin:20270326T180000\nSUMMARY:deploys";
    let altered = "BEGIN:VEVENT\nUID:w\nRECURRENCE-ID;TZID=Europe/Berlin:20270402T180000\n\
                   DTSTART;TZID=Europe/Berlin:20270402T120000\nDTEND;TZID=Europe/Berlin:20270402T130000\nSUMMARY:early\nEND:VEVENT";
    let text = calendar(&format!("BEGIN:VEVENT\n{lines}\nEND:VEVENT\n{altered}"));
    assert_eq!(
        barred(&text),
        [
            "27-03-19T18:00 27-03-19T20:00 deploys",
            "27-04-02T12:00 27-04-02T13:00 early",
            "27-04-09T18:00 27-04-09T20:00 deploys",
        ]
    );
}

#[test]
fn what_is_not_understood_is_refused_and_never_left_out() {
    let refused = |text: &str, because: &str| {
        let error = Calendar::read(text).map(|_| String::new()).unwrap_or_else(|error| error.to_string());
        assert!(error.contains(because), "{because}: {error}");
    };
    refused("", "it is empty");
    refused("<html>", "there is no `:`");
    refused("DTSTART:1", "begins with something else");
    refused("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20270101T000000Z\n", "breaks off");
    refused("BEGIN:VCALENDAR\nEND:VEVENT\n", "`END:VEVENT` ends nothing");
    refused(&event("SUMMARY:x"), "an event without `DTSTART`");
    refused(&event("DTSTART:20270229T000000Z"), "line 4: `20270229T000000Z`");
    refused(&event("DTSTART;TZID=W. Europe Standard Time:20270101T000000"), "W. Europe Standard Time");
    refused(&event("DTSTART;VALUE=DATE:20270102\nDTEND;VALUE=DATE:20270101"), "ends before it begins");
    refused(&event("DTSTART;VALUE=DATE:20270102\nDURATION:P1DT12H"), "lasts a part of one");
    refused(&event("DTSTART;VALUE=DATE:20270102\nRRULE:FREQ=SECONDLY"), "`FREQ=SECONDLY` is not understood");
    refused(
        &event("DTSTART;VALUE=DATE:20270102\nRRULE:FREQ=YEARLY;BYEASTER=1"),
        "`BYEASTER=1` is not understood",
    );
    refused(&"x".repeat(icalendar::LONGEST + 1), "take out what is past");
    let many = "BEGIN:VEVENT\nDTSTART;VALUE=DATE:20270102\nEND:VEVENT\n".repeat(icalendar::MOST_EVENTS + 1);
    refused(&calendar(&many), "more than 10000 events");
}

#[test]
fn a_hostile_calendar_takes_bounded_work() {
    let daily = "BEGIN:VEVENT\nDTSTART;VALUE=DATE:19000101\nRRULE:FREQ=DAILY;COUNT=4000000000\nEND:VEVENT\n"
        .repeat(5000);
    let calendar = Calendar::read(&calendar(&daily)).expect("it is valid");
    let bars = calendar.bars(&Zone::default(), at("2027-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
    assert_eq!(bars, Err(CalendarError::Often));
    // A rule that finds few days and is long to look at: its list is that of the file's whole length.
    let list = |one: &str, many: usize| vec![one; many].join(",");
    let rule = |by: &str| {
        let rule = format!("RRULE:FREQ=YEARLY;COUNT=4000000000;BYDAY={by}");
        event(&format!("DTSTART;VALUE=DATE:00010101\n{rule}"))
    };
    let ask = |text: &str| {
        let calendar = Calendar::read(text).expect("it is valid");
        calendar.bars(&Zone::default(), at("2027-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"))
    };
    assert_eq!(ask(&rule(&list("53MO", 200_000))), ask(&rule("53MO")), "what is said again is the same");
    let all: Vec<String> = (1..=53)
        .flat_map(|week| ["MO", "TU", "WE", "TH", "FR", "SA"].map(|day| format!("{week}{day}")))
        .collect();
    assert_eq!(ask(&rule(&all.join(","))), Err(CalendarError::Often));
}

#[test]
fn a_day_on_which_something_starts_is_one_of_it_whatever_its_rule_says() {
    // The 5th is a Tuesday.
    let text = event("DTSTART;VALUE=DATE:20270105\nRRULE:FREQ=WEEKLY;BYDAY=MO;COUNT=2\nSUMMARY:x");
    let begins: Vec<String> = barred(&text).iter().map(|line| line[..8].to_owned()).collect();
    assert_eq!(begins, ["27-01-05", "27-01-11", "27-01-18"]);
}
