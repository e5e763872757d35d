//! The page of a game day in a real browser: who only looks, and who presses.

use squall_tests::chromium::{Chromium, Tab};
use squall_tests::needs;
use squall_tests::wait::PATIENCE;

use crate::pages::{is_readable, picture, shows, signs_in};
use crate::serve::{Fleet, URL};

const DAY: &str = "gameday: 1
name: page
title: The page goes away
roles: { lead: Anna }
steps:
  - { name: away, experiment: away.yaml, lead: lead, notes: Nobody is told., expect: { detected-within: 10m, mitigated-within: 10m } }
  - { name: debrief, notes: What surprised us? }
";

const AWAY: &str = "squall: 1\ntitle: The page is away\non: { labels: { role: web } }\nhypothesis:\n  \
    - name: the page is there\n    http: { url: \"http://127.0.0.1:8080/\", timeout: 2s }\n    every: 100ms\nmethod:\n  \
    - fault: { refuse: { to: [\"127.0.0.1:8080\"] } }\n    for: 15s\nrecovery: 20s\n";

fn token(fleet: &Fleet, name: &str, role: &str) -> String {
    let made = ["tokens", "new", name, "--role", role, "--format", "json"];
    let made = fleet.asks(&made).run().expect_exit(0).json();
    made["token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

fn signs_out(tab: &mut Tab<'_>) {
    tab.is_led_by("document.querySelector('.who button').click()");
    tab.sees("the form", "location.pathname === '/sign-in'");
}

/// The newest day, from the list.
fn opens(tab: &mut Tab<'_>) {
    tab.is_led_by("document.querySelector('a[href=\"/game-days\"]').click()");
    shows(tab, "The page goes away");
    is_readable(tab, "the list of game days");
    tab.is_led_by("document.querySelector('ul.runs a').click()");
}

/// Presses what a form of the page has.
fn presses(tab: &mut Tab<'_>, form: &str, mark: Option<&str>) {
    let with = mark.map_or_else(String::new, |mark| format!(":has(input[value=\"{mark}\"])"));
    let button = format!("document.querySelector('main form[action$=\"/{form}\"]{with} button')");
    tab.sees(form, &format!("{button} !== null"));
    tab.is_led_by(&format!("{button}.click()"));
}

#[test]
fn a_game_day_is_watched_by_one_and_led_by_another_in_a_browser() {
    needs!(Root, Nftables, Queue, Nginx, Chromium);
    let fleet = Fleet::new(1);
    let (vera, olga) = (token(&fleet, "vera", "viewer"), token(&fleet, "olga", "operator"));
    fleet.world.file("away.yaml", AWAY);
    let file = fleet.world.file("day.yaml", DAY);
    let followed = fleet.asks(&["gameday", "run", &file]).start();
    let mut browser = Chromium::start(fleet.controller(), &fleet.world.place("browser"));
    let mut tab = browser.tab(1280, 900);

    // Who only looks sees the question, and nothing to press.
    signs_in(&mut tab, &vera);
    opens(&mut tab);
    shows(&mut tab, "Go or no-go?");
    shows(&mut tab, "Led by Anna");
    assert_eq!(tab.runs("document.querySelectorAll('main form').length"), 0);
    is_readable(&mut tab, "a game day for who looks");
    picture(&mut tab, "gameday-viewer");
    signs_out(&mut tab);

    signs_in(&mut tab, &olga);
    opens(&mut tab);
    is_readable(&mut tab, "a game day that asks");
    picture(&mut tab, "gameday-asks");
    presses(&mut tab, "go", None);
    // It goes on by itself, on the same page.
    tab.runs("window.squallSame = true");
    tab.sees("the marks", "document.querySelectorAll('#piece-state .marks li').length === 3");
    assert_eq!(tab.runs("window.squallSame"), true, "it was not loaded again");
    is_readable(&mut tab, "a game day with a fault");
    picture(&mut tab, "gameday-live");
    // The step is over when its run is, and *detected* and *mitigated* were pressed: so that one comes last.
    for mark in ["detected", "acknowledged"] {
        presses(&mut tab, "mark", Some(mark));
        let card = format!(
            "[...document.querySelectorAll('#piece-state .marks li')].some((one) => one.innerText.includes('away: {mark}') && one.innerText.includes('by olga'))"
        );
        tab.sees(mark, &card);
    }
    // By mistake.
    presses(&mut tab, "take-back", Some("acknowledged"));
    tab.sees("it gone", "document.querySelectorAll('main form[action$=\"/take-back\"]').length === 1");
    presses(&mut tab, "mark", Some("acknowledged"));
    tab.runs("document.getElementById('note').value = 'the pager was <b>silent</b>'");
    presses(&mut tab, "note", None);
    shows(&mut tab, "the pager was <b>silent</b>");
    presses(&mut tab, "mark", Some("mitigated"));

    // Its run ends, what was waited for is there, and the last step is for people alone.
    tab.sees_within(
        "the last question",
        "document.querySelector('#piece-state').innerText.includes('Step 2 of 2: debrief')",
        PATIENCE * 4,
    );
    presses(&mut tab, "go", None);
    shows(&mut tab, "The game day is over.");
    is_readable(&mut tab, "a game day that is over");
    picture(&mut tab, "gameday-over");
    // What was typed in stands where nothing is renewed: of that, what is of no use any more is not shown.
    tab.sees(
        "nothing to press",
        "[...document.querySelectorAll('main form[action$=\"/go\"], main form[action$=\"/mark\"], main form[action$=\"/stop\"]')]\
         .every((one) => one.closest('.while-live') && one.closest('.while-live').offsetParent === null)",
    );
    let noted = tab.complaints();
    assert!(noted.is_empty(), "{noted:?}");
    drop(browser);

    let ended = followed.finish();
    ended.expect_exit(5).expect_told("the pager was");
    let shown = fleet.asks(&["gameday", "show", "page", "--format", "json"]).run().expect_exit(0).json();
    let attempt = &shown["course"]["steps"][0]["attempts"][0];
    for mark in ["detected", "acknowledged", "mitigated"] {
        assert_eq!(attempt[mark]["through"], "page", "{URL}: {shown}");
    }
    fleet.end();
}
