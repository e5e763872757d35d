//! The pages of a controller in a real browser: a fleet of one host, a real run on it, and somebody who watches.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use squall_tests::chromium::{Chromium, Tab};
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};

use crate::serve::{Fleet, URL};

/// The page of the host's nginx comes late, for long enough to be watched.
const DOCUMENT: &str = "squall: 1\ntitle: The page of web-1 comes late\non: { labels: { role: web } }\nhypothesis:\n  \
    - name: the page is served\n    load: { url: \"http://127.0.0.1:8080/\", rate: 40/s, timeout: 1s }\n    \
    expect: { errors: \"<= 2%\", p99: \"<= 900ms\" }\n    mode: fast\n  - name: the page is there\n    \
    http: { url: \"http://127.0.0.1:8080/\", timeout: 2s }\n    every: 200ms\nstop-when:\n  - name: nginx answers\n    \
    http: { url: \"http://127.0.0.1:8080/\", timeout: 5s }\n    every: 1s\nbaseline: 1s\nmethod:\n  - name: a slow page\n    \
    fault: { latency: { delay: 60ms, to: [\"127.0.0.1:8080\"] } }\n    for: 80s\nrecovery: 10s\n";

/// Where pictures are kept, when somebody wants to look at them.
pub fn picture(tab: &mut Tab<'_>, name: &str) {
    let Some(directory) = std::env::var_os("SQUALL_PICTURES").map(PathBuf::from) else { return };
    for (wide, high) in [(1280, 900), (390, 844)] {
        tab.is_sized(wide, high);
        for scheme in ["light", "dark"] {
            tab.likes(scheme);
            tab.is_pictured(&directory.join(format!("{name}-{wide}-{scheme}.png")));
        }
    }
    tab.is_sized(1280, 900);
    tab.likes("light");
}

/// No page needs more width than a telephone has, and everything that can be pressed has a name.
pub fn is_readable(tab: &mut Tab<'_>, page: &str) {
    tab.is_sized(390, 844);
    let wide = "document.documentElement.scrollWidth";
    assert!(tab.runs(wide).as_u64().is_some_and(|wide| wide <= 390), "{page}: {} wide", tab.runs(wide));
    tab.is_sized(1280, 900);
    let nameless = "[...document.querySelectorAll('a, button, input:not([type=hidden]), textarea, select, summary')]\
        .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length || one.closest('[hidden]')))\
        .map((one) => one.outerHTML).join()";
    assert_eq!(tab.runs(nameless), "", "{page}");
    assert_eq!(tab.runs("document.querySelectorAll('h1').length"), 1, "{page}");
}

/// By the keyboard alone.
pub fn signs_in(tab: &mut Tab<'_>, token: &str) {
    tab.goes_to(&format!("{URL}/"));
    tab.sees("the form", "location.pathname === '/sign-in' && document.activeElement.id === 'token'");
    tab.types(token);
    tab.runs("window.squallLeft = true");
    tab.presses("Enter");
    tab.sees("the overview", "location.pathname === '/' && document.readyState === 'complete'");
}

/// Presses Tab until something has the focus.
fn reaches(tab: &mut Tab<'_>, what: &str) {
    let focused = format!("document.activeElement === document.querySelector({})", serde_json::json!(what));
    for _ in 0..100 {
        if tab.runs(&focused) == true {
            return;
        }
        tab.presses("Tab");
    }
    panic!("`{what}` cannot be reached by the keyboard");
}

pub fn shows(tab: &mut Tab<'_>, words: &str) {
    tab.sees(words, &format!("document.body.innerText.includes({})", serde_json::json!(words)));
}

#[test]
fn a_run_is_begun_watched_and_halted_in_a_browser() {
    needs!(Root, Nftables, Queue, Nginx, Chromium);
    let mut fleet = Fleet::new(1);
    let token = fs::read_to_string(fleet.data.join("admin-token")).expect("it was written");
    let mut browser = Chromium::start(fleet.controller(), &fleet.world.place("browser"));
    let mut tab = browser.tab(1280, 900);
    signs_in(&mut tab, token.trim());
    picture(&mut tab, "calm");

    // What is wrong is said with its place; then the plan, and only then the run.
    tab.is_led_by("document.querySelector('a[href=\"/start\"]').click()");
    let fill = |text: &str| {
        format!(
            "document.getElementById('document').value = {}; document.querySelector('main form .first').click()",
            serde_json::json!(text)
        )
    };
    tab.is_led_by(&fill("squall: 1\ntitel: Nothing\n"));
    shows(&mut tab, "did you mean `title`?");
    is_readable(&mut tab, "a refused document");
    picture(&mut tab, "refused");
    // A 422 is what the server means to say, and the browser notes it.
    let noted = tab.complaints();
    assert!(noted.iter().all(|said| said.contains("status of 422")), "{noted:?}");
    let known = noted.len();
    tab.is_led_by("document.querySelector('a[href=\"/start\"]').click()");
    tab.is_led_by(&fill(DOCUMENT));
    shows(&mut tab, "a slow page");
    is_readable(&mut tab, "a plan");
    picture(&mut tab, "plan");
    tab.is_led_by("document.querySelector('form[action=\"/start/run\"] button').click()");
    let run = fleet.live();
    assert_eq!(tab.runs("location.pathname"), format!("/runs/{run}"));

    // Live: the fault is said and shaded, and the curves grow without the page being loaded again.
    tab.runs("window.squallSame = true");
    tab.sees("the fault", "document.querySelector('#piece-state').innerText.includes('a fault is live')");
    tab.sees("its window", "document.querySelectorAll('#piece-claims rect.fault').length > 0");
    tab.sees("a band", "document.querySelectorAll('#piece-claims path.band').length > 0");
    tab.runs("document.querySelector('#piece-claims details').open = true; document.querySelector('#piece-claims summary').focus()");
    let points = "document.querySelector('#piece-claims path.bad').getAttribute('d').length";
    let before = tab.runs(points).as_u64().expect("a length");
    tab.sees("more of the curve", &format!("{points} > {}", before + 20));
    assert_eq!(tab.runs("window.squallSame"), true, "it is still the same page");
    tab.sees("what was opened", "document.querySelector('#piece-claims details').open");
    tab.sees("what was reached", "document.activeElement.tagName === 'SUMMARY'");
    tab.runs("document.querySelector('#piece-claims details').open = false");
    is_readable(&mut tab, "a run that goes on");
    picture(&mut tab, "live");

    // Somebody restarts the controller: the tab finds it again, and is still signed in. The run is over.
    let mut controller = fleet.controller.take().expect("it was started");
    controller.signal(Signal::KILL);
    holds("the controller to be gone", PATIENCE, || controller.ended());
    shows(&mut tab, "The controller does not answer");
    fleet.are_clean();
    fleet.serve();
    tab.sees("the end", "document.body.dataset.ended === 'yes' || document.querySelector('.verdict strong').textContent.includes('interrupted')");
    shows(&mut tab, "each host reverted by its lease");
    assert_eq!(tab.runs("window.squallSame"), true, "it came back by itself");
    // Only the connection that was refused meanwhile.
    let noted = tab.complaints().split_off(known);
    assert!(noted.iter().all(|said| said.contains("ERR_")), "{noted:?}");
    let known = known + noted.len();

    halted(&mut tab, &fleet);
    let noted = tab.complaints().split_off(known);
    assert!(noted.is_empty(), "{noted:?}");
    drop(browser);
    fleet.end();
}

/// Another run, halted from the overview; its report, and all other pages.
fn halted(tab: &mut Tab<'_>, fleet: &Fleet) {
    holds("the host to be back", PATIENCE * 2, || {
        let hosts = fleet.asks(&["hosts", "--format", "json"]).run().expect_exit(0).json();
        hosts["hosts"][0]["connected"] == true
    });
    let file = fleet.world.file("slow.yaml", DOCUMENT);
    let followed = fleet.asks(&["run", &file, "--controller", URL]).start();
    let run = fleet.live();
    tab.goes_to(&format!("{URL}/"));
    shows(tab, "The page of web-1 comes late");
    tab.sees("what the host holds", "document.querySelector('#piece-active .cards') !== null");
    is_readable(tab, "the overview");
    picture(tab, "active");
    // By the keyboard alone.
    reaches(tab, ".bar a[href='/halt']");
    tab.presses("Enter");
    tab.sees("what is asked", "location.pathname === '/halt' && document.readyState === 'complete'");
    picture(tab, "halt");
    reaches(tab, "#reason");
    tab.types("seen enough");
    reaches(tab, "main button");
    tab.presses("Enter");
    shows(tab, "has undone everything.");
    is_readable(tab, "what a halt did");
    picture(tab, "halted");
    fleet.are_clean();
    followed.finish().expect_exit(6);

    let night = "schedule: 1\nname: night\ndescription: The change of night\nwhen: { cron: \"* * 1 1 *\" }\n";
    let night = fleet.world.file("night.yaml", night);
    fleet.asks(&["schedule", "add", &night, "--experiment", &file]).run().expect_exit(0);

    tab.goes_to(&format!("{URL}/runs/{run}"));
    shows(tab, "The host before and after");
    assert_eq!(tab.runs("document.querySelector('.verdict strong').textContent"), "? interrupted");
    assert_eq!(
        tab.runs("document.querySelectorAll('a[href$=\"/halt\"]').length"),
        1,
        "only that of everything"
    );
    is_readable(tab, "a report");
    picture(tab, "report");
    for (page, words) in [
        ("", "New runs are blocked"),
        ("runs", "without a verdict twice"),
        ("hosts", "role=web"),
        ("hosts/web-1", "What works here"),
        ("calendar", "change of night"),
        ("audit", "POST /halt"),
    ] {
        tab.goes_to(&format!("{URL}/{page}"));
        shows(tab, words);
        is_readable(tab, page);
        picture(tab, if page.is_empty() { "blocked" } else { page.split('/').next_back().unwrap_or(page) });
    }
    tab.goes_to(&format!("{URL}/"));
    // The host is asked every few seconds; the page says so until then, and does not call it live.
    assert_eq!(tab.runs("document.body.innerText.includes('Faults are live')"), false);
    shows(tab, "Calm");
    tab.is_led_by("document.querySelector('a[href=\"/lift\"]').click()");
    tab.is_led_by("document.querySelector('main button').click()");
    tab.sees(
        "no halt",
        "location.pathname === '/' && !document.body.innerText.includes('New runs are blocked')",
    );
    tab.is_led_by("document.querySelector('.who button').click()");
    tab.goes_to(&format!("{URL}/runs"));
    tab.sees("the form", "location.pathname === '/sign-in'");
    picture(tab, "sign-in");
}

#[test]
fn a_tab_that_is_left_open_over_a_restart_goes_on_or_asks_to_sign_in() {
    needs!(Root, Nftables, Nginx, Chromium);
    let mut fleet = Fleet::new(1);
    let olga = ["tokens", "new", "olga", "--role", "operator", "--format", "json"];
    let olga = fleet.asks(&olga).run().expect_exit(0).json();
    let told = |name: &str| olga[name].as_str().unwrap_or_else(|| panic!("{name}: {olga}")).to_owned();
    let mut browser = Chromium::start(fleet.controller(), &fleet.world.place("browser"));
    let mut tab = browser.tab(1280, 900);
    signs_in(&mut tab, &told("token"));
    tab.runs("window.squallSame = true");
    tab.sees("the overview as it changes", "document.body.dataset.seen !== undefined");

    let ends = |fleet: &mut Fleet| {
        let mut controller = fleet.controller.take().expect("it was started");
        controller.signal(Signal::TERM);
        controller.finish().expect_exit(0);
    };
    // Its session is still good: it goes on by itself, also when the controller ended in good order.
    tab.runs("document.body.dataset.seen = ''");
    ends(&mut fleet);
    shows(&mut tab, "The controller does not answer");
    fleet.serve();
    tab.sees(
        "the overview again",
        "document.body.dataset.seen !== '' && document.getElementById('line').hidden",
    );
    assert_eq!(tab.runs("window.squallSame"), true, "it is still the same page");

    // Its token is revoked meanwhile: it says so, and where to go.
    fleet.asks(&["tokens", "revoke", &told("id")]).run().expect_exit(0);
    ends(&mut fleet);
    fleet.serve();
    shows(&mut tab, "You are signed out.");
    tab.is_led_by("document.querySelector('#line a').click()");
    tab.sees("the form", "location.pathname === '/sign-in' && location.search === '?to=%2F'");
    // Only the connections that were refused or cut off meanwhile.
    let noted = tab.complaints();
    assert!(noted.iter().all(|said| said.contains("ERR_")), "{noted:?}");
    drop(browser);
    fleet.end();
}
