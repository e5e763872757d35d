//! What stands on pages.

use std::time::Instant;

use super::*;
use serde_json::json;

use crate::store::{NewGameDay, NewSchedule, now_ms};

#[tokio::test]
async fn a_run_is_its_report_when_it_has_ended() {
    let served = Served::new().await;
    served.store.new_run(a_run("r1", "Checkout survives")).await.expect("a run");
    served.store.append(0, "r1", 0, &events("shop-1")).await.expect("events");
    served.store.set_run_state("r1", "running", 0).await.expect("it goes on");
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("operator")).await;
    let going = browser.get("/runs/r1").await.body;
    for word in
        ["data-live=\"/runs/r1/live?host=\"", "Halt this run", "aria-live=\"polite\"", "<svg class=\"curve\""]
    {
        assert!(going.contains(word), "{word}: {going}");
    }
    assert!(!going.contains("still modified"), "a run that goes on has not left anything behind: {going}");
    let (count, head) = (events("shop-1").len() as u64, format!("7:{}", "0a".repeat(32)));
    let end = format!(
        "{{\"seq\":{},\"at_ms\":9,\"fleet\":\"finished\",\"exit\":5,\"sentence\":\"deviated: so\",\
         \"audit\":{{\"seq\":7,\"hash\":\"{}\"}}}}",
        count + 1,
        "0a".repeat(32)
    );
    served.store.append(0, "r1", count, &[end]).await.expect("its end");
    served.store.set_run_state("r1", "deviated", 0).await.expect("it ended");
    let ended = browser.get("/runs/r1").await.body;
    assert!(ended.contains(&head), "the end of the audit log is published: {ended}");
    for word in ["✗ deviated", "checkout answers", "Undone", "The experiment as it was given"] {
        assert!(ended.contains(word), "{word}: {ended}");
    }
    assert!(!ended.contains("data-live") && !ended.contains("Halt this run"), "{ended}");
    let list = browser.get("/runs").await.body;
    let score = "resilience score 0 of 100 over 1 experiment (0 held, 1 deviated)";
    assert!(list.contains(score) && list.contains("(build b&lt;7&gt;)"), "{list}");
    assert!(ended.contains("deviated once since ") && ended.contains("b&lt;7&gt;"), "{ended}");
    let names: Vec<&str> = ended.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let once: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert_eq!(once.len(), names.len(), "each name is given once: {names:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_document_is_checked_and_planned_before_it_is_run() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("operator")).await;
    let refused = browser.post("/start", &[("document", "wrong")]).await;
    assert!(refused.status == 422 && refused.body.contains("line 1: it is wrong"), "{refused:?}");
    assert!(refused.body.contains("\nwrong</textarea>"), "what was typed is still there");
    let vars = browser.post("/start", &[("document", "x"), ("vars", "a = b\nnonsense")]).await;
    assert!(vars.status == 422 && vars.body.contains("nonsense"), "{vars:?}");
    let planned = browser.post("/start", &[("document", "x")]).await;
    assert!(planned.status == 200 && planned.body.contains("name=\"plan\" value=\"abc\""), "{planned:?}");
    assert!(served.engine.asked().is_empty(), "nothing is begun by looking");
    let changed = browser.post("/start/run", &[("document", "x"), ("plan", "other")]).await;
    assert!(
        changed.status == 409 && changed.body.contains("changed since the plan was shown"),
        "{changed:?}"
    );
    assert!(served.engine.asked().is_empty());
    let begun = browser.post("/start/run", &[("document", "x"), ("plan", "abc"), ("seed", "7")]).await;
    let run = begun.header("location").strip_prefix("/runs/").expect("a run").to_owned();
    assert_eq!(served.engine.asked(), [format!("start {run}")]);
    assert_eq!(served.store.run(&run).await.expect("it answers").expect("it is kept").by, "ada (operator)");
    assert_eq!(browser.get(&format!("/runs/{run}")).await.status, 200, "a run without events has a page");
    assert_eq!(browser.post(&format!("/runs/{run}/halt"), &[]).await.status, 303);
    assert_eq!(served.engine.asked().last(), Some(&format!("halt {run}")));
    served.stop().await;
}

#[tokio::test]
async fn hosts_say_what_works_and_an_asset_is_sent_once() {
    let served = Served::new().await;
    served.enrolled("web").await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("viewer")).await;
    let hosts = browser.get("/hosts").await.body;
    assert!(hosts.contains("connected") && hosts.contains("href=\"/hosts/web\""), "{hosts}");
    let host = browser.get("/hosts/web").await.body;
    assert!(host.contains("6.1.0") && host.contains("What works here"), "{host}");
    for name in ["pages.css", "pages.js", "sign.svg"] {
        let first = browser.get(&format!("/assets/{name}")).await;
        let tag = first.header("etag").to_owned();
        assert!(first.status == 200 && !tag.is_empty() && !first.body.is_empty(), "{first:?}");
        browser.more = format!("If-None-Match: {tag}\r\n");
        let again = browser.get(&format!("/assets/{name}")).await;
        assert!(again.status == 304 && again.body.is_empty(), "{again:?}");
        browser.more.clear();
    }
    assert_eq!(browser.get("/assets/..%2f..%2ftoken-key").await.status, 404);
    served.stop().await;
}

#[tokio::test]
async fn the_list_of_ten_thousand_runs_is_as_quick_as_that_of_one_thousand() {
    let (mut servers, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    for count in [1_000, 10_000] {
        let served = Served::new().await;
        // Of few titles, so that every history is as long as one is told.
        served.store.keep_runs(count, 5).await;
        let mut browser = Browser::new(served.at);
        browser.sign_in(served.token("viewer")).await;
        servers.push((served, browser));
    }
    // In turns: what slows this machine down slows both.
    for _ in 0..9 {
        for ((_, browser), times) in servers.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            let page = browser.get("/runs").await;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            assert!(page.status == 200 && page.body.contains("Older ones"), "{page:?}");
            assert!(page.body.contains("held ") && page.body.contains("since 202"), "{page:?}");
        }
    }
    let [few, many] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!("a page of runs: {few:.1} ms of 1,000, {many:.1} ms of 10,000");
    assert!(many < 3.0 * few, "{many:.1} ms instead of {few:.1} ms");
    for (served, _) in servers {
        served.stop().await;
    }
}

#[tokio::test]
async fn the_calendar_shows_what_is_coming_and_a_schedule_is_paused_there() {
    let served = Served::new().await;
    let mut looks = Browser::new(served.at);
    looks.sign_in(served.token("viewer")).await;
    assert!(looks.get("/calendar").await.body.contains("There are none."));
    let document = serde_json::json!({
        "schedule": 1, "name": "night", "description": "<b>Slow stock</b>", "zone": "Europe/Berlin",
        "when": { "cron": "30 2 * * *" }, "experiment": "x",
    });
    let (name, by) = ("night".to_owned(), "ada (operator)".to_owned());
    let new = NewSchedule { name, document: document.to_string(), seed: 7, by, at: now_ms() };
    served.store.new_schedule(new).await.expect("a schedule");
    let page = looks.get("/calendar").await.body;
    for word in ["planned", " 02:30:00 +0", "30 2 * * *", "&lt;b&gt;Slow stock", "not approved, seed 7"] {
        assert!(page.contains(word), "{word}: {page}");
    }
    assert!(!page.contains("/schedules/night/"), "a viewer pauses nothing: {page}");
    let far = looks.get("/calendar?from=2027-03-01").await.body;
    assert!(far.contains("<h2>2027-03-14") && !far.contains("<h2>2027-03-15"), "{far}");
    assert!(looks.get("/calendar?from=9999-12-31").await.status < 500);
    let mut acts = Browser::new(served.at);
    acts.sign_in(served.token("operator")).await;
    assert_eq!(acts.post("/schedules/night/pause", &[("reason", " ")]).await.status, 400);
    assert_eq!(acts.post("/schedules/night/pause", &[("reason", "we <move>")]).await.status, 303);
    let page = acts.get("/calendar").await.body;
    assert!(page.contains("we &lt;move&gt;") && page.contains("/schedules/night/resume"), "{page}");
    assert!(!page.contains(">planned<"), "{page}");
    assert_eq!(acts.post("/schedules/night/resume", &[("reason", "done")]).await.status, 303);
    assert!(acts.get("/calendar").await.body.contains(">planned<"));
    served.stop().await;
}

#[tokio::test]
async fn a_game_day_is_led_on_its_page_by_operators_and_seen_by_everybody() {
    let served = Served::new().await;
    let day = json!({ "gameday": 1, "name": "drill", "title": "Payments <slow>", "roles": { "lead": "Anna" },
                      "steps": [{ "name": "slow", "experiment": "x\n", "lead": "lead" }, { "name": "talk", "notes": "What then?" }] });
    let events = [
        json!({ "at": 1000, "by": "ada", "event": "begun" }),
        json!({ "at": 1000, "by": "squall", "event": "asked", "step": "slow" }),
        json!({ "at": 2000, "by": "ada", "event": "go", "step": "slow" }),
        json!({ "at": 3000, "by": "squall", "event": "run-began", "step": "slow", "run": "r1" }),
        json!({ "at": 4000, "by": "squall", "event": "fault-began", "step": "slow", "run": "r1", "moment": 4000 }),
    ];
    let new = NewGameDay {
        id: "drill-1".to_owned(),
        name: "drill".to_owned(),
        title: "Payments <slow>".to_owned(),
        document: day.to_string(),
        by: "ada".to_owned(),
        first: events[0].to_string(),
    };
    served.store.new_game_day(new).await.expect("a day");
    let add = async |at: usize| {
        let event = events[at].to_string();
        served.store.add_game_day_event("drill-1", None, at as u64, &event, "open").await.expect("an event");
    };
    add(1).await;
    let (mut viewer, mut operator) = (Browser::new(served.at), Browser::new(served.at));
    viewer.sign_in(served.token("viewer")).await;
    operator.sign_in(served.token("operator")).await;
    let page = "/game-days/drill-1";
    let (seen, led) = (viewer.get(page).await.body, operator.get(page).await.body);
    for word in [
        "Payments &lt;slow&gt;",
        "Go or no-go?",
        "Led by Anna (lead).",
        "data-live=\"/game-days/drill-1/live\"",
    ] {
        assert!(seen.contains(word) && led.contains(word), "{word}: {seen}");
    }
    assert!(
        led.contains("action=\"/game-days/drill-1/go\"") && !seen.contains("action=\"/game-days"),
        "{seen}"
    );
    let mark = [("step", "slow"), ("mark", "detected")];
    let early = operator.post(&format!("{page}/mark"), &mark).await;
    assert!(
        early.status == 409 && early.body.contains("role=\"alert\""),
        "nothing was injected yet: {early:?}"
    );
    for at in 2..events.len() {
        add(at).await;
    }
    assert_eq!(viewer.post(&format!("{page}/mark"), &mark).await.status, 403);
    assert_eq!(operator.post(&format!("{page}/mark"), &mark).await.status, 303);
    let note = operator.post(&format!("{page}/note"), &[("text", "the `breaker` stayed shut")]).await;
    assert_eq!(note.status, 303, "{note:?}");
    let led = operator.get(page).await.body;
    for word in
        ["by ada", "take it back", "the <code dir=\"auto\">breaker</code> stayed shut", "href=\"/runs/r1\""]
    {
        assert!(led.contains(word), "{word}: {led}");
    }
    let list = viewer.get("/game-days").await.body;
    assert!(list.contains("href=\"/game-days/drill-1\"") && list.contains("open"), "{list}");
    for (kind, word) in
        [("md", "# Game day: Payments"), ("html", "<!DOCTYPE html>"), ("json", "\"figures\": {")]
    {
        let file = viewer.get(&format!("{page}/report?as={kind}")).await;
        assert!(file.status == 200 && file.body.contains(word), "{kind}: {file:?}");
        assert!(file.header("content-disposition").contains("drill-1"), "{file:?}");
    }
    assert_eq!(viewer.get("/game-days/nothing").await.status, 404);
    served.stop().await;
}
