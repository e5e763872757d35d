//! What the calendar says, and what becomes of it.

use super::*;

#[tokio::test]
async fn what_the_calendar_shows_is_what_happens() {
    let weekly = "schedule: 1\nname: weekly\nzone: Europe/Berlin\nwhen: { cron: \"30 2 * * SUN\" }\nexperiment: anything\n\
                  except: [{ days: { from: 2027-03-14, why: a holiday } }]\n";
    let random = "schedule: 1\nname: monkey\nopt-in: { chaos: \"yes\" }\nexperiment: anything\n\
                  when: { random: { mean: 3, apart: 2 } }\n";
    let bench = Bench::new(Config::default(), &[weekly.to_owned(), random.to_owned()]).await;
    let (from, to) = (at(BEGIN), at("2027-04-05T00:00:00Z"));
    let shown = bench.scheduler.calendar(None, from, to, from).await.expect("a calendar");
    assert!(shown.entries.len() > 8 && !shown.more && shown.problems.is_empty(), "{shown:?}");
    for line in &shown.entries {
        let second = instant(line.at).checked_add(SignedDuration::from_secs(2)).expect("an instant");
        bench.tick(&second.to_string()).await;
    }
    let past = bench.scheduler.calendar(None, from, to, to).await.expect("a calendar");
    let times = |lines: &[calendar::Line]| -> Vec<(String, String)> {
        lines.iter().map(|line| (line.local.clone(), line.schedule.clone())).collect()
    };
    assert_eq!(times(&past.entries), times(&shown.entries));
    for (shown, past) in shown.entries.iter().zip(&past.entries) {
        let expected = if shown.state == "planned" { "fired" } else { "skipped" };
        assert_eq!((past.state.as_str(), &past.why), (expected, &shown.why), "{shown:?}");
    }
    assert!(past.entries.iter().any(|line| line.local == "2027-03-28 03:00:00 +02:00"), "{past:?}");
}

#[tokio::test]
async fn the_calendar_says_what_will_not_run_because_of_a_halt_or_of_a_run_that_was_too_near() {
    let random = "schedule: 1\nname: monkey\nopt-in: { chaos: \"yes\" }\nexperiment: anything\n\
                  when: { random: { mean: 3, apart: 3 } }\n";
    let bench = Bench::new(Config::default(), &[random.to_owned(), hourly("night", "")]).await;
    let (from, to) = (at(BEGIN), at("2027-03-29T00:00:00Z"));
    let calendar =
        async |name: &str| bench.scheduler.calendar(Some(name), from, to, from).await.expect("a calendar");
    let shown = calendar("monkey").await;
    assert_eq!(shown.blocked, None);
    let first = shown.entries[0].clone();
    assert_eq!(first.state, "planned");
    // It ran the evening before, at a time that was planned then; what was only rehearsed does not count.
    let hour = 3_600_000;
    for (ago, state) in [(2 * hour, states::LEASHED), (3 * hour, states::FIRED)] {
        let kept = Due {
            schedule: "monkey".to_owned(),
            since: ms(from),
            at: first.at - ago,
            group: String::new(),
            barred: None,
            apart: None,
            late: false,
            leashed: state == states::LEASHED,
        };
        let claimed = bench.store.decide_entry(kept).await.expect("the store").expect("it is the first");
        let run = EntryRow { state: state.to_owned(), ..claimed };
        bench.store.settle_entry(&run).await.expect("the store");
    }
    let shown = calendar("monkey").await;
    let coming: Vec<&calendar::Line> = shown.entries.iter().filter(|line| line.at >= first.at).collect();
    assert_eq!((coming[0].at, coming[0].state.as_str()), (first.at, "barred"));
    let ran = instant(first.at - 3 * hour).strftime("%Y-%m-%d %H:%M");
    assert_eq!(coming[0].why.as_deref(), Some(format!("it ran at {ran} UTC, which is too near").as_str()));
    assert_eq!(coming[1].state, "planned");
    assert_eq!(calendar("night").await.entries[0].state, "planned");
    // The same is what will become of it.
    let second = instant(first.at).checked_add(SignedDuration::from_secs(1)).expect("an instant");
    bench.tick(&second.to_string()).await;
    let became = calendar("monkey").await.entries.into_iter().find(|line| line.at == first.at).expect("it");
    assert_eq!((became.state.as_str(), became.why), ("skipped", coming[0].why.clone()));

    let halt = serde_json::json!({ "reason": "we look first", "by": "ada", "at": 1 }).to_string();
    bench.store.set_fact(crate::api::HALT, Some(halt)).await.expect("the store");
    assert_eq!(calendar("night").await.blocked.as_deref(), Some("halted by ada: we look first"));
}

#[test]
fn a_calendar_is_not_asked_for_what_takes_for_ever() {
    let (now, year) = (at(BEGIN), SignedDuration::from_hours(365 * 24));
    let asked = |from: &str| calendar::refused(at(from), at(from).checked_add(year).expect("in time"), now);
    assert_eq!(asked("2027-03-01T00:00:00Z"), None);
    assert_eq!(asked("2036-03-01T00:00:00Z"), None);
    assert_eq!(asked("2036-04-01T00:00:00Z"), Some("a calendar ends at most 10 years from now"));
    assert_eq!(asked("9990-01-01T00:00:00Z"), Some("a calendar ends at most 10 years from now"));
    assert_eq!(asked("1990-01-01T00:00:00Z"), None, "what was is read from the store");
}

#[tokio::test]
async fn without_its_calendar_nothing_of_a_schedule_runs() {
    let text = "schedule: 1\nname: noon\nwhen: { cron: \"0 12 * * *\" }\nexperiment: anything\nexcept: [{ calendar: freezes }]\n";
    let bench = Bench::new(Config::default(), &[text.to_owned()]).await;
    bench.tick("2027-03-01T12:00:00Z").await;
    let became = bench.became().await;
    assert!(
        became[0].starts_with("01 12:00 skipped what bars it cannot be told: there is no calendar `freezes`"),
        "{became:?}"
    );
}

#[test]
fn a_year_of_some_schedules_is_whole() {
    let text = |n: usize| match n % 3 {
        0 => format!(
            "schedule: 1\nname: s{n}\nzone: Europe/Berlin\nwhen: {{ cron: \"{} 3 * * *\" }}\nexperiment: x\n",
            n % 60
        ),
        1 => format!(
            "schedule: 1\nname: s{n}\nwhen: {{ cron: \"{} 3 * * MON-FRI\" }}\nexperiment: x\n",
            n % 60
        ),
        _ => format!(
            "schedule: 1\nname: s{n}\nzone: America/New_York\nopt-in: {{ chaos: \"yes\" }}\nexperiment: x\nwhen: {{ random: {{ mean: 2 }} }}\n"
        ),
    };
    let row = |n: usize| {
        let NewSchedule { name, document, seed, by, at } = added(&text(n));
        ScheduleRow { name, document, seed, by, at, paused: None, approved: None, decided_to: at }
    };
    let rows: Vec<ScheduleRow> = (0..20).map(row).collect();
    let chaos = BTreeMap::from([("chaos".to_owned(), "yes".to_owned())]);
    let around = Around::of(Config::default(), vec![chaos]);
    let (from, to) = (at(BEGIN), at("2028-03-01T00:00:00Z"));
    let pages = calendar::pages(&rows, &around, calendar::Kept::default(), (from, to), from);
    let of = |name: &str| pages.entries.iter().filter(|line| line.schedule == name).count();
    assert_eq!(of("s0"), 366);
    assert_eq!(of("s1"), 262);
    assert!((100..160).contains(&of("s2")), "{}", of("s2"));
}
