//! The schedule file: what is read, and what is said about what is wrong.

use super::*;

fn problems(text: &str) -> String {
    match read("s.yaml", text.as_bytes()) {
        Ok(schedule) => panic!("{schedule:?}"),
        Err(problems) => problems.render(false),
    }
}

fn with(when: &str) -> String {
    format!("schedule: 1\nname: night\nzone: Europe/Berlin\nwhen: {when}\nexperiment: x\n")
}

#[test]
fn a_schedule_is_read_and_written_the_same() {
    let text = "schedule: 1
name: nightly-checkout
description: Slow stock, at night
zone: Europe/Berlin
when:
  random: { mean: 5, apart: 2, from: \"09:00\", to: \"16:30\", days: [mon, tue, wed, sun], per: role }
except:
  - days: { from: 2027-12-24, to: 2027-12-31, why: the year ends }
  - calendar: freezes
opt-in: { chaos: \"yes\" }
leashed: true
seed: 42
experiment: |
  squall: 1
";
    let schedule =
        read("s.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let again = serde_json::to_string(&schedule).expect("JSON");
    assert_eq!(read("s.json", again.as_bytes()).expect("the same"), schedule);
    assert_eq!(schedule.experiment, "squall: 1\n");
    let none = schedule.bars(&Default::default(), at("2027-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
    let unknown = none.expect_err("the controller has no such calendar").to_string();
    assert!(unknown.contains("there is no calendar `freezes`"), "{unknown}");
}

#[test]
fn a_malformed_cron_expression_is_told_by_its_field_and_with_an_example() {
    for (cron, because) in [
        ("99 2 * * *", "`99` is no minute"),
        ("60 2 * * *", "a minute is 0 to 59, `*`, or"),
        ("0 24 * * *", "an hour is 0 to 23, `*`, or"),
        ("10-5 * * * *", "`10-5` is no minute"),
        ("0 0 * * */0", "`*/0` is no day of the week"),
        ("0 25 * * *", "`25` is no hour"),
        ("0 0 32 * *", "`32` is no day of the month"),
        ("0 0 * 13 *", "`13` is no month"),
        ("0 0 * * FUN", "`FUN` is no day of the week"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 * *", "has 4 fields, and a cron expression has 5"),
        ("0 0 0 * * *", "has 6 fields"),
        ("@daily", "has 1 field, and"),
        ("0 0 13 * FRI", "cron would take either"),
        ("", "has 0 fields"),
    ] {
        let said = problems(&with(&format!("{{ cron: \"{cron}\" }}")));
        assert!(said.contains(because), "{cron}: {said}");
        assert!(said.contains("s.yaml:4:"), "{cron}: {said}");
        if !because.contains("never") && !because.contains("either") {
            assert!(said.contains("`30 2 * * MON-FRI`"), "{cron}: {said}");
        }
    }
}

#[test]
fn a_time_that_clocks_skip_is_refused_with_those_beside_it() {
    let said = problems(&with("{ at: 2027-03-28 02:30 }"));
    assert!(said.contains("clocks in `Europe/Berlin` skip `2027-03-28 02:30`"), "{said}");
    assert!(said.contains("write `01:30` or `03:30`"), "{said}");
    let said = problems(&with("{ at: 2027-02-29 10:00 }"));
    assert!(said.contains("there is no day `2027-02-29`"), "{said}");
    for (moment, because) in [
        ("10:00:60", "`60` is no second"),
        ("10:00:5", "`5` is no second"),
        ("24:00:01", "behind the end of its day"),
    ] {
        let said = problems(&with(&format!("{{ at: \"2027-03-01 {moment}\" }}")));
        assert!(said.contains(because), "{moment}: {said}");
    }
}

#[test]
fn a_moment_may_be_told_to_the_second() {
    for (written, second, instant) in [
        ("2027-03-01 10:00", "2027-03-01 10:00", "2027-03-01T09:00:00Z"),
        ("2027-03-01T10:00:07", "2027-03-01 10:00:07", "2027-03-01T09:00:07Z"),
    ] {
        let moment: Moment = written.parse().expect("a moment");
        assert_eq!(moment.to_string(), second);
        assert_eq!(
            moment.at(&"Europe/Berlin".parse().expect("a zone")).expect("it is there"),
            super::at(instant)
        );
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let text = "schedule: 1\nname: Night\nzone: Europe/Berlim\nwen: {}\nwhen: { crom: x }\nexcept: [{ days: { from: tomorrow } }]\n";
    let said = problems(text);
    for because in [
        "`Night` cannot be a name here",
        "did you mean `Europe/Berlin`?",
        "unknown key `wen` in the schedule",
        "did you mean `cron`?",
        "`tomorrow` is not a day",
        "has no `why`",
    ] {
        assert!(said.contains(because), "{because}: {said}");
    }
}

#[test]
fn bounds_that_cannot_be_kept_are_refused() {
    for (random, because) in [
        ("{ mean: 2, apart: 3 }", "`mean: 2` is less than `apart: 3`"),
        ("{ mean: 0 }", "`mean` cannot be `0`"),
        ("{ mean: 2, from: \"15:00\", to: \"09:00\" }", "are none"),
        ("{ mean: 2, days: [] }", "`days` is empty"),
        ("{ mean: 2, to: \"25:00\" }", "`25:00` is not a time of a day"),
        ("{ mean: 2 }", "only hosts that opted in"),
    ] {
        let said = problems(&with(&format!("{{ random: {random} }}")));
        assert!(said.contains(because), "{random}: {said}");
    }
    let said = problems(&format!("{}except: [{{ ics: nothing }}]\n", with("{ cron: \"0 0 * * *\" }")));
    assert!(said.contains("there is no `:`"), "{said}");
}

#[test]
fn what_is_wrong_with_a_calendar_that_is_pasted_is_told_with_its_own_help() {
    let event =
        |lines: &str| format!("BEGIN:VCALENDAR\\nBEGIN:VEVENT\\n{lines}\\nEND:VEVENT\\nEND:VCALENDAR\\n");
    let many = "BEGIN:VEVENT\\nDTSTART:20270301T100000Z\\nEND:VEVENT\\n".repeat(10_001);
    for (ics, because, help) in [
        (String::new(), "it is empty", "it begins with `BEGIN:VCALENDAR`"),
        (
            event("DTSTART;TZID=My Zone:20270301T100000"),
            "line 3: the zone `My Zone` is not known",
            "name it as IANA does",
        ),
        (
            format!("BEGIN:VCALENDAR\\n{many}END:VCALENDAR\\n"),
            "more than 10000 events",
            "take out what is past",
        ),
        (
            event("DTSTART:20270301T100000Z\\nRRULE:FREQ=SECONDLY"),
            "`FREQ=SECONDLY` is not understood",
            "paste a calendar file",
        ),
    ] {
        let said = problems(&format!("{}except: [{{ ics: \"{ics}\" }}]\n", with("{ cron: \"0 2 * * *\" }")));
        let (what, helped) = said.split_once("= help: ").expect("there is help");
        assert!(
            what.contains(because) && !what.contains("help:") && helped.starts_with(help),
            "{because}: {helped}"
        );
    }
}
