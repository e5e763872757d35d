//! A game day: the real controller and a real agent, people who press at the same time, an alert, a controller that dies in the
//! middle, and what is measured and kept.

use std::io::{Read, Write};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use squall_controller::store::{NewGameDay, Store, StoreError};
use squall_tests::chromium::{Chromium, Tab};
use squall_tests::client::connect;
use squall_tests::needs;
use squall_tests::squall::Squall;
use squall_tests::wait::{PATIENCE, holds, until};

use crate::pages::signs_in;
use crate::serve::{Fleet, URL};

/// An experiment over all hosts with one fault.
fn experiment(fault: &str, lasts: &str) -> String {
    format!(
        "squall: 1\ntitle: A page with {fault_kind}\non: {{ labels: {{ role: web }} }}\n\
         hypothesis:\n  - name: the page is there\n    http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\n\
         method:\n  - fault: {{ {fault} }}\n    for: {lasts}\nrecovery: 20s\n",
        fault_kind = fault.split(':').next().unwrap_or_default()
    )
}

const DAY: &str = "gameday: 1
name: payments
title: The page goes away
roles: { lead: Anna }
steps:
  - { name: slow, experiment: slow.yaml, lead: lead, notes: Nobody should notice. }
  - { name: away, experiment: away.yaml, go: auto, pause: 200ms, expect: { detected-within: 10m } }
  - { name: cut, experiment: long.yaml, go: auto }
  - { name: debrief, notes: What surprised us? }
";

fn days(fleet: &Fleet) -> String {
    for (name, fault, lasts) in [
        ("slow.yaml", "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }", "2s"),
        ("away.yaml", "refuse: { to: [\"127.0.0.1:8080\"] }", "5s"),
        ("long.yaml", "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }", "80s"),
    ] {
        fleet.world.file(name, experiment(fault, lasts));
    }
    fleet.world.file("day.yaml", DAY)
}

fn shown(fleet: &Fleet) -> Value {
    fleet.asks(&["gameday", "show", "payments", "--format", "json"]).run().expect_exit(0).json()
}

/// The day, as soon as a step is in a state.
fn when(fleet: &Fleet, step: usize, state: &str) -> Value {
    until(&format!("step {step} to be {state}"), PATIENCE, || {
        let shown = shown(fleet);
        (shown["course"]["steps"][step]["state"] == state).then_some(shown)
    })
}

/// A token of somebody, in a file.
fn token(fleet: &Fleet, name: &str, role: &str) -> String {
    let file = fleet.world.directory.join(name).display().to_string();
    fleet.asks(&["tokens", "new", name, "--role", role, "--out", &file]).run().expect_exit(0);
    file
}

fn as_who(fleet: &Fleet, token: &str, arguments: &[&str]) -> Squall {
    fleet.controller().squall(arguments).env("SQUALL_TOKEN_FILE", token).env("SQUALL_CONTROLLER", URL)
}

/// What Alertmanager sends to the address that it was given.
fn alert(fleet: &Fleet, token: &str, query: &str, status: &str) -> u16 {
    let at = "127.0.0.1:8416".parse().expect("an address");
    let mut stream = connect(&fleet.controller().netns, at, Duration::from_secs(10)).expect("it listens");
    let body = json!({ "version": "4", "status": status, "alerts": [{ "status": status }] }).to_string();
    let token = std::fs::read_to_string(token).expect("a token");
    let request = format!(
        "POST /v1/game-days/payments/alert{query} HTTP/1.1\r\nHost: 127.0.0.1:8416\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it takes it");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_game_day_is_carried_through_a_controller_that_dies_and_what_people_did_is_measured() {
    needs!(Root, Nftables, Queue, Nginx);
    let mut fleet = Fleet::new(1);
    let file = days(&fleet);
    fleet.asks(&["gameday", "check", &file]).run().expect_exit(0);
    let (anna, ben, vera) = (
        token(&fleet, "anna", "operator"),
        token(&fleet, "ben", "operator"),
        token(&fleet, "vera", "viewer"),
    );
    let followed = as_who(&fleet, &anna, &["gameday", "run", &file]).start();
    let asked = until("the day to begin", PATIENCE, || {
        let days = fleet.asks(&["gameday", "list", "--format", "json"]).run().expect_exit(0).json();
        days["game_days"].as_array().is_some_and(|days| !days.is_empty()).then(|| when(&fleet, 0, "asked"))
    });
    assert_eq!(asked["day"]["steps"][0]["lead"], "lead");

    // Nothing is there to be noticed, whoever only looks presses nothing, and of two who say go one is first.
    let early = as_who(&fleet, &anna, &["gameday", "mark", "payments", "detected"]).run();
    early.expect_exit(4).expect_told("nothing has been injected yet");
    as_who(&fleet, &vera, &["gameday", "go", "payments", "slow"])
        .run()
        .expect_exit(4)
        .expect_told("may not do this");
    let both = [&anna, &ben].map(|who| as_who(&fleet, who, &["gameday", "go", "payments", "slow"]).start());
    let both = both.map(|one| one.finish());
    let late = both.iter().filter(|one| one.stderr.contains("has said go to `slow` already")).count();
    let first = both.iter().filter(|one| one.stdout.contains("payments")).count();
    assert_eq!((first, late), (1, 1), "{} {}", both[0].story(), both[1].story());

    // The first held, so the second goes by itself; an alert, somebody who takes it on, and somebody who ends it.
    let live = until("the second fault", PATIENCE, || {
        let shown = shown(&fleet);
        shown["figures"]["steps"][1]["fault-began"].is_u64().then_some(shown)
    });
    assert_eq!(live["figures"]["steps"][0]["exit"], 0, "{live}");
    assert_eq!(alert(&fleet, &ben, "", "resolved"), 200);
    assert!(shown(&fleet)["course"]["steps"][1]["attempts"][0]["detected"].is_null(), "it was resolved");
    assert_eq!(alert(&fleet, &vera, "", "firing"), 403);
    assert_eq!(alert(&fleet, &ben, "?mark=noticed", "firing"), 400);
    assert_eq!(alert(&fleet, &ben, "", "firing"), 200);
    assert_eq!(alert(&fleet, &ben, "", "firing"), 200, "alerts come again");
    as_who(&fleet, &anna, &["gameday", "mark", "payments", "acknowledged"]).run().expect_exit(0);
    as_who(&fleet, &anna, &["gameday", "mark", "payments", "mitigated", "--step", "away"])
        .run()
        .expect_exit(0);
    as_who(&fleet, &anna, &["gameday", "note", "payments", "the pager was silent"]).run().expect_exit(0);
    let deviated = when(&fleet, 2, "asked");
    let why = deviated["course"]["steps"][2]["why"].as_str().unwrap_or_default();
    assert_eq!(why, "`away`: deviated", "what would go by itself is asked for");
    let figures = &deviated["figures"]["steps"][1];
    let took = |what: &str| figures[what]["after-ms"].as_u64().unwrap_or_else(|| panic!("{what}: {figures}"));
    assert_eq!(figures["exit"], 5);
    assert!(took("detect") <= took("acknowledge") && took("acknowledge") <= took("mitigate"), "{figures}");
    assert_eq!(figures["detect"]["met"], true, "{figures}");
    // It was away for 5 s before it could be there again; a busy machine sees some tenths of a second late that it is.
    assert!(took("recover") >= 4000, "{figures}");
    assert!(figures["fault-ms"].as_u64().is_some_and(|ms| ms >= 3900), "{figures}");
    let pressed = &deviated["course"]["steps"][1]["attempts"][0]["detected"];
    assert!(
        pressed["through"] == "webhook" && pressed["by"].as_str().is_some_and(|by| by.starts_with("ben"))
    );

    // The controller dies while a fault is there.
    as_who(&fleet, &ben, &["gameday", "go", "payments"]).run().expect_exit(0);
    until("the third fault", PATIENCE, || shown(&fleet)["figures"]["steps"][2]["fault-began"].as_u64());
    let mut controller = fleet.controller.take().expect("it was started");
    controller.signal(Signal::KILL);
    holds("the controller to be gone", PATIENCE, || controller.ended());
    fleet.are_clean();
    fleet.serve();
    let again = when(&fleet, 2, "asked");
    let why = again["course"]["steps"][2]["why"].as_str().unwrap_or_default();
    assert!(why.contains("the controller ended in the middle of it"), "{again}");
    assert_eq!(again["figures"]["steps"][1], deviated["figures"]["steps"][1], "what was measured stays");
    let leave = ["gameday", "no-go", "payments", "cut", "--reason", "seen enough"];
    as_who(&fleet, &anna, &leave).run().expect_exit(0);
    as_who(&fleet, &anna, &["gameday", "no-go", "payments", "debrief", "--reason", "tomorrow"])
        .run()
        .expect_exit(0);

    // Whoever followed it has found the controller again, and the worst of its steps is what the command ends with.
    let ended = followed.finish();
    ended.expect_exit(6).expect_told("MTTD").expect_told("the pager was silent");
    let over = shown(&fleet);
    assert_eq!(over["state"], "ended");
    assert_eq!(over["course"]["steps"][3]["state"], "skipped");
    assert_eq!(over["course"]["steps"][2]["state"], "done");
    assert_eq!(over["figures"]["means"]["recover"]["n"], 1, "{over}");
    assert_eq!(over["between"]["deviated"], 1, "{over}");
    let late = as_who(&fleet, &anna, &["gameday", "mark", "payments", "detected"]).run();
    late.expect_exit(4).expect_told("the game day is over");
    as_who(&fleet, &anna, &["gameday", "note", "payments", "written later"]).run().expect_exit(0);

    // A second day of that name is compared with the first; a halt stops it.
    fleet.holds_connected();
    let second = DAY.replace("slow.yaml", "long.yaml");
    let second = fleet.world.file("second.yaml", second);
    let followed = as_who(&fleet, &ben, &["gameday", "run", &second, "--go"]).start();
    until("a fault of the second day", PATIENCE, || {
        let shown = shown(&fleet);
        (shown["state"] == "open").then(|| shown["figures"]["steps"][0]["fault-began"].as_u64()).flatten()
    });
    fleet.asks(&["halt", "--controller", URL, "--reason", "that will do"]).run().expect_exit(0);
    let told = followed.finish();
    told.expect_exit(6).expect_told("that will do");
    fleet.are_clean();
    let over = shown(&fleet);
    assert_eq!((&over["state"], &over["over"]["days"]), (&"stopped".into(), &2.into()), "{over}");
    assert_eq!(over["before"]["comparison"]["steps"][0]["exit"]["before"], 0, "{over}");
    let no = as_who(&fleet, &ben, &["gameday", "run", &second]).run();
    no.expect_exit(4).expect_told("that will do");
    fleet.end();
}

#[test]
fn what_is_wrong_with_a_game_day_is_said_before_it_begins() {
    needs!(Root, Nginx);
    let fleet = Fleet::new(0);
    let file = |text: String| fleet.world.file("wrong.yaml", text);
    let begun = |text: String| fleet.asks(&["gameday", "run", &file(text)]).run();
    let head = "gameday: 1\nname: wrong\ntitle: Wrong\n";
    let none = begun(format!("{head}steps: []\n"));
    none.expect_exit(3).expect_told("`steps` is empty").expect_told("wrong.yaml:4:");
    let gone = begun(format!("{head}steps: [{{ name: a, experiment: not-there.yaml }}]\n"));
    gone.expect_exit(3).expect_told("not-there.yaml").expect_told("of step `a` cannot be read");
    fleet.world.file("not-one.yaml", "squall: 1\ntitel: Nothing\n");
    let text = format!("{head}steps: [{{ name: a, experiment: not-one.yaml }}]\n");
    begun(text.clone())
        .expect_exit(3)
        .expect_told("the experiment of step `a`")
        .expect_told("did you mean `title`?");
    let checked = fleet.asks(&["gameday", "check", &file(text)]).run();
    checked.expect_exit(3).expect_told("the experiment of step `a`");
    fleet
        .asks(&["gameday", "show", "nothing"])
        .run()
        .expect_exit(2)
        .expect_told("there is no game day `nothing`");
    let listed = fleet.asks(&["gameday", "list", "--format", "json"]).run().expect_exit(0).json();
    assert_eq!(listed["game_days"], json!([]), "nothing of it began");

    // A step that no host can take is told, and may be left.
    fleet.world.file("slow.yaml", experiment("latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }", "1s"));
    let day = file(format!("{head}steps: [{{ name: a, experiment: slow.yaml }}]\n"));
    let refused = fleet.asks(&["gameday", "run", &day, "--go"]).run();
    refused.expect_exit(4).expect_told("`a` was not begun: no host").expect_told("tries a step once");
    fleet.end();
}

#[test]
fn what_one_types_and_reaches_on_the_page_stays_while_the_day_goes_on() {
    needs!(Root, Nftables, Nginx, Chromium);
    let fleet = Fleet::new(1);
    let day = "gameday: 1\nname: talks\ntitle: Two talks\nsteps:\n  - { name: first, notes: One. }\n  - { name: second, notes: Two. }\n";
    let file = fleet.world.file("talks.yaml", day);
    let olga = token(&fleet, "olga", "operator");
    let followed = as_who(&fleet, &olga, &["gameday", "run", &file]).start();
    let mut browser = Chromium::start(fleet.controller(), &fleet.world.place("browser"));
    let mut tab = browser.tab(1280, 900);
    signs_in(&mut tab, std::fs::read_to_string(&olga).expect("a token").trim());
    let list = format!("{URL}/game-days");
    tab.goes_to(&list);
    tab.is_led_by("document.querySelector('ul.runs a').click()");
    let shows_step = |number: usize| {
        format!("document.querySelector('#piece-state')?.innerText.includes('Step {number} of 2') === true")
    };
    tab.sees("the first step", &shows_step(1));
    // The stream begins anew, as after other tabs and restarts: it sends every piece.
    let anew = |tab: &mut Tab<'_>| {
        tab.runs(
            "delete document.body.dataset.seen; document.querySelector('#piece-state .verdict').id = 'old'",
        );
        tab.runs("document.dispatchEvent(new Event('visibilitychange'))");
        tab.sees("new pieces", "document.body.dataset.seen !== undefined && !document.getElementById('old')");
    };

    tab.runs("document.getElementById('no-go-reason').focus()");
    tab.types("the release waits");
    tab.runs("document.activeElement.setSelectionRange(4, 11)");
    anew(&mut tab);
    let field = "(({ id, value, selectionStart, selectionEnd }) => [id, value, selectionStart, selectionEnd])(document.activeElement)";
    assert_eq!(tab.runs(field), json!(["no-go-reason", "the release waits", 4, 11]));
    tab.runs("document.querySelector('#piece-state form[action$=\"/go\"] button').focus()");
    anew(&mut tab);
    assert_eq!(tab.runs("document.activeElement.textContent"), "Go");

    // Somebody else says go: the same button in the same place is for another step now, and so is the reason.
    as_who(&fleet, &olga, &["gameday", "go", "talks", "first"]).run().expect_exit(0);
    tab.sees("the second step", &shows_step(2));
    tab.sees("its button", "document.querySelector('#piece-state form[action$=\"/go\"] button') !== null");
    assert_eq!(tab.runs("document.activeElement === document.body"), true, "Enter would press it");
    assert_eq!(tab.runs("document.getElementById('no-go-reason').value"), "");
    let noted = tab.complaints();
    assert!(noted.is_empty(), "{noted:?}");
    drop(browser);
    as_who(&fleet, &olga, &["gameday", "go", "talks", "second"]).run().expect_exit(0);
    followed.finish().expect_exit(0);
    fleet.end();
}

#[test]
fn the_shipped_game_day_runs_as_its_first_lines_say() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(1);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../experiments/shipped/gamedays/a-page-goes-away.yaml");
    fleet.asks(&["gameday", "check", path]).run().expect_exit(0);
    let followed = fleet.asks(&["gameday", "run", path, "--go"]).start();
    let day = "a-page-goes-away";
    until("the page to be away", PATIENCE, || {
        let shown = fleet.asks(&["gameday", "show", day, "--format", "json"]).run();
        shown
            .stdout
            .starts_with('{')
            .then(|| shown.json()["figures"]["steps"][1]["fault-began"].as_u64())
            .flatten()
    });
    // The day waits for what is expected of people, and for nothing else.
    for mark in ["detected", "acknowledged", "mitigated"] {
        fleet.asks(&["gameday", "mark", day, mark]).run().expect_exit(0);
    }
    let ended = followed.finish();
    ended.expect_exit(5).expect_told("the game day ended").expect_told("MTTA");
    fleet.end();
}

/// What both databases do alike.
pub async fn kept(store: &Store) {
    let text = |text: &str| text.to_owned();
    let new = |id: &str| NewGameDay {
        id: text(id),
        name: text("pay"),
        title: text("it's \"odd\" ü"),
        document: text("{}"),
        by: text("ada"),
        first: text("{\"n\":0}"),
    };
    store.new_game_day(new("d1")).await.expect("a day");
    let second = store.new_game_day(new("d1")).await.expect_err("there is one");
    assert!(matches!(second, StoreError::Clash(_)), "{second}");
    assert_eq!(store.take_game_day().await.expect("it answers"), None, "whoever began it holds it");
    store.add_game_day_event("d1", None, 1, "{\"n\":1}", "open").await.expect("it follows");
    let quicker = store.add_game_day_event("d1", None, 1, "{\"n\":9}", "open").await;
    assert!(matches!(quicker, Err(StoreError::Gap { first: 1, next: 2 })), "{quicker:?}");
    store.hold_game_day("d1", 0).await.expect("it is held");

    store.release_game_days().await.expect("nobody holds it");
    let taken = store.take_game_day().await.expect("it answers").expect("a day");
    assert_eq!(
        (taken.id.as_str(), taken.epoch, taken.events, taken.title.as_str()),
        ("d1", 1, 2, "it's \"odd\" ü")
    );
    assert_eq!(store.take_game_day().await.expect("it answers"), None, "it is held again");
    for fenced in
        [store.hold_game_day("d1", 0).await, store.add_game_day_event("d1", Some(0), 2, "{}", "ended").await]
    {
        assert!(matches!(fenced, Err(StoreError::Fenced { asked: 0, now: 1 })), "{fenced:?}");
    }
    store.add_game_day_event("d1", Some(1), 2, "{\"n\":2}", "ended").await.expect("it is his");
    store.release_game_days().await.expect("it answers");
    assert_eq!(store.take_game_day().await.expect("it answers"), None, "it is over");
    let events = store.game_day_events("d1", 1, 10).await.expect("events");
    assert_eq!(events, [(1, text("{\"n\":1}")), (2, text("{\"n\":2}"))]);
    assert_eq!(store.game_day("d1").await.expect("it answers").map(|day| day.state), Some(text("ended")));
    assert_eq!(store.game_days(Some("other"), 9).await.expect("none"), []);
    assert_eq!(store.game_days(Some("pay"), 9).await.expect("one").len(), 1);
    let missing = store.hold_game_day("d2", 0).await.expect_err("there is none");
    assert!(matches!(missing, StoreError::Missing(_)), "{missing}");
    store.new_run(crate::store::a_run("of-a-day")).await.expect("a run");
    assert_eq!(store.runs_begun_by("ada", u64::MAX >> 1).await.expect("it answers"), Vec::<String>::new());
    assert!(store.runs_begun_by("ada", 0).await.expect("runs").contains(&text("of-a-day")));
}
