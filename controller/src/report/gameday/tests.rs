use squall_experiments::exit::Exit;
use squall_experiments::gameday::{
    Between, Comparison, Course, DayFigures, Event, GameDay, Mark, Means, Record, Through, read,
};
use squall_experiments::name::Name;

use super::*;

const DAY: &str = r#"
gameday: 1
name: payments-drill
title: What if <payments> is slow?
roles: { lead: Anna, on-call: Ben }
steps:
  - name: slow
    experiment: slow.yaml
    lead: lead
    expect: { detected-within: 1m, acknowledged-within: 2m }
  - name: gone
    experiment: gone.yaml
    expect: { detected-within: 30s }
  - name: talk
    notes: What would we do on a Sunday?
"#;

fn day() -> GameDay {
    read("day.yaml", DAY.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// `slow` deviated and was noticed, `gone` held and was not, `talk` was skipped.
fn record() -> Vec<Record> {
    let slow = |event: fn(Name, String) -> Event| event(name("slow"), "r1".to_owned());
    let gone = |event: fn(Name, String) -> Event| event(name("gone"), "r2".to_owned());
    let events = [
        (0, "anna", Event::Begun),
        (1, "squall", Event::Asked { step: name("slow"), why: None }),
        (5, "anna", Event::Go { step: name("slow") }),
        (6, "squall", slow(|step, run| Event::RunBegan { step, run })),
        (10, "squall", slow(|step, run| Event::FaultBegan { step, run, moment: 10_000 })),
        (
            52,
            "ben",
            Event::Marked {
                step: name("slow"),
                mark: Mark::Detected,
                moment: 52_000,
                through: Through::Page,
            },
        ),
        (
            190,
            "ben",
            Event::Marked {
                step: name("slow"),
                mark: Mark::Acknowledged,
                moment: 190_000,
                through: Through::Webhook,
            },
        ),
        (200, "squall", slow(|step, run| Event::FaultEnded { step, run, moment: 200_000 })),
        (204, "squall", slow(|step, run| Event::WellAgain { step, run, moment: 204_000 })),
        (
            210,
            "squall",
            slow(|step, run| Event::RunEnded {
                step,
                run,
                exit: Exit::Deviated,
                sentence: "deviated: 8 % of requests failed | <b>".to_owned(),
            }),
        ),
        (211, "squall", Event::Done { step: name("slow") }),
        (
            212,
            "ben",
            Event::Noted { step: Some(name("slow")), text: "the `breaker` did not open".to_owned() },
        ),
        (213, "squall", Event::Asked { step: name("gone"), why: Some("slow deviated".to_owned()) }),
        (220, "anna", Event::Go { step: name("gone") }),
        (221, "squall", gone(|step, run| Event::RunBegan { step, run })),
        (230, "squall", gone(|step, run| Event::FaultBegan { step, run, moment: 230_000 })),
        (240, "squall", gone(|step, run| Event::FaultEnded { step, run, moment: 240_000 })),
        (
            250,
            "squall",
            gone(|step, run| Event::RunEnded { step, run, exit: Exit::Held, sentence: "held".to_owned() }),
        ),
        (261, "squall", Event::Done { step: name("gone") }),
        (262, "squall", Event::Asked { step: name("talk"), why: None }),
        (270, "anna", Event::NoGo { step: name("talk"), why: "no time".to_owned() }),
        (300, "squall", Event::Ended),
    ];
    events.into_iter().map(|(s, by, event)| Record { at: s * 1000, by: by.to_owned(), event }).collect()
}

fn report() -> GameDayReport {
    let (day, record) = (day(), record());
    let course = Course::after(&day, &record).unwrap_or_else(|(at, why)| panic!("{:?}: {why}", record[at]));
    let figures = DayFigures::of(&day, &course, 400_000);
    let comparison = Comparison::of(&figures, &figures);
    let means = Means::over(&figures.steps);
    let between = Between::of([(6_000, Exit::Deviated), (221_000, Exit::Held)], 7_206_000);
    GameDayReport {
        id: "d2".to_owned(),
        by: "anna".to_owned(),
        day,
        record,
        course,
        figures,
        before: Some(Before { id: "d1".to_owned(), at: 0, comparison }),
        so_far: Some(SoFar { days: 2, means, between }),
    }
}

#[test]
fn each_reader_finds_what_is_known_and_what_is_asked() {
    let report = report();
    let sentence = gameday_sentence(&report);
    assert_eq!(
        sentence,
        "2 of 3 steps were carried out: 1 deviated, 1 held, 1 skipped. \
         Faults were noticed after 42.0 s on average (1 of 2; 1 by nobody)."
    );
    let page = gameday_markdown(&report);
    for part in [
        // Who decides.
        "| `slow` | deviated | 42.0 s (in time, 60.0 s expected) | 3 min 0 s (late, 2 min 0 s expected) | ",
        "| `gone` | held | not within 70.0 s (late, 30.0 s expected) | ",
        "| `talk` | skipped | - | ",
        "| all 2 days | 42.0 s (1 step; never in 1 step) | ",
        "every 2.0 h on average (MTBF; 1 of 2 runs deviated)",
        // Who mends.
        "| 00:00:52 | +52.0 s | `slow` detected, on the page | ben |",
        "| 00:03:10 | +3 min 10 s | `slow` acknowledged, by an alert | ben |",
        "00:03:32, ben: the `breaker` did not open",
        "no-go by anna: no time",
        // Who writes the post-mortem.
        "1. Why did `slow` deviate? Because …",
        "- `gone` held",
        "- `slow` was not acknowledged in time",
        "| Find out why nobody could notice `gone` in time | … | … |",
        "| Let the service hold under `slow`, and run it again | … | … |",
    ] {
        assert!(page.contains(part), "{part}\n\n{page}");
    }
    // What people and services say is no markup.
    assert!(page.contains("8 % of requests failed \\| &lt;b&gt;"), "{page}");
    let html = gameday_html(&report);
    assert!(html.contains("What if &lt;payments&gt; is slow?") && !html.contains("<b>"), "{html}");
    assert!(html.contains("<ol>") && html.contains("Post-mortem"), "{html}");
    let mut reader = quick_xml::Reader::from_str(html.strip_prefix("<!DOCTYPE html>").expect("HTML"));
    while reader.read_event().expect("it is well-formed") != quick_xml::events::Event::Eof {}
}

#[test]
fn a_day_that_goes_on_has_no_post_mortem_yet() {
    let (day, mut record) = (day(), record());
    record.truncate(6);
    let course = Course::after(&day, &record).expect("a course");
    let figures = DayFigures::of(&day, &course, 60_000);
    let report = GameDayReport { day, record, course, figures, before: None, so_far: None, ..report() };
    let page = gameday_markdown(&report);
    assert!(!page.contains("Post-mortem"), "{page}");
    assert!(page.contains("It goes on: 0 of 3 steps are over"), "{page}");
    assert!(page.contains("its fault is there since 00:00:10"), "{page}");
    let keys: Vec<&str> = html::gameday_pieces(&report).iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, ["summary", "timeline", "evidence"]);
}
