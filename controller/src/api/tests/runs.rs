//! Runs, their events, and halts.

use serde_json::json;

use super::*;
use crate::store::{NewRun, Tested};

async fn begun(served: &Served) -> String {
    let (status, run) = served.post("operator", "/v1/runs", json!({ "document": "squall: 1" })).await;
    assert_eq!(status, 201, "{run}");
    assert_eq!(
        (&run["title"], &run["state"], &run["by"]),
        (&json!("A title"), &json!("submitted"), &json!("ada (operator)"))
    );
    run["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_run_is_begun_once_for_a_key_and_refused_as_the_engine_says() {
    let served = Served::new().await;
    let remote = served.remote("operator");
    let body = json!({ "document": "squall: 1" });
    let ask =
        async || remote.call(Method::POST, "/v1/runs", Some(&body), Some("k")).await.expect("an answer");
    let (first, again) = (ask().await, ask().await);
    assert_eq!(first, again);
    assert_eq!(served.engine.asked().len(), 1, "it was begun once");
    for (document, status, exit) in [("wrong", 422, 3), ("forbidden", 409, 4)] {
        let (is, problem) = served.post("operator", "/v1/runs", json!({ "document": document })).await;
        assert_eq!((is, &problem["exit"]), (status, &json!(exit)), "{problem}");
    }
    let (status, problem) = served.post("operator", "/v1/runs", json!({ "documnt": "x" })).await;
    assert!(
        status == 400 && problem["detail"].as_str().is_some_and(|detail| detail.contains("documnt")),
        "{problem}"
    );
    assert_eq!(served.store.runs(None, 10).await.expect("runs").runs.len(), 1);
    served.stop().await;
}

#[tokio::test]
async fn experiments_have_a_history_with_builds_and_a_score() {
    let served = Served::new().await;
    let begin = async |build: &str| {
        let body = json!({ "document": "squall: 1", "build": build });
        let (status, run) = served.post("operator", "/v1/runs", body).await;
        assert_eq!((status, &run["build"]), (201, &json!(build)), "{run}");
        run["id"].as_str().expect("an id").to_owned()
    };
    let (_, nothing) = served.get("viewer", "/v1/experiments").await;
    assert_eq!((&nothing["score"], &nothing["experiments"]), (&Value::Null, &json!([])));
    let mut last = String::new();
    for (build, state) in [("b1", "held"), ("b1", "held"), ("b2", "deviated"), ("b3", "deviated")] {
        last = begin(build).await;
        // Runs of one moment are in no order.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        served.store.set_run_state(&last, state, 0).await.expect("it is there");
    }
    let (_, shown) = served.get("viewer", &format!("/v1/runs/{last}")).await;
    let story = shown["history"].as_str().expect("a story");
    assert!(story.starts_with("held twice, deviated since 20") && story.ends_with("(build b2)"), "{story}");
    let (_, all) = served.get("viewer", "/v1/experiments").await;
    assert_eq!(all["words"], "resilience score 0 of 100 over 1 experiment (0 held, 1 deviated)");
    let one = &all["experiments"][0];
    assert_eq!((&one["title"], &one["run"], &one["build"]), (&json!("A title"), &json!(last), &json!("b3")));
    let (status, problem) =
        served.post("operator", "/v1/runs", json!({ "document": "x", "build": "b".repeat(201) })).await;
    assert!(status == 400 && problem["detail"] == "`build` has at most 200 characters", "{problem}");
    served.stop().await;
}

#[tokio::test]
async fn ten_thousand_runs_come_in_pages_each_once() {
    const RUNS: usize = 10_000;
    let served = Served::new().await;
    let text = |text: &str| text.to_owned();
    let kept = (0..RUNS).map(|number| {
        let id = format!("r{number:05}");
        // As long as experiments are: lists do not carry them along.
        let document = "x".repeat(2_000);
        served.store.new_run(NewRun {
            id,
            title: text("T"),
            document,
            plan: text("00"),
            by: text("ada"),
            tested: Tested::default(),
        })
    });
    futures_util::future::try_join_all(kept).await.expect("runs");
    let mut seen = std::collections::BTreeSet::new();
    let (mut path, mut newest) = ("/v1/runs?limit=1000".to_owned(), u64::MAX);
    for page in 1.. {
        let (status, answer) = served.get("viewer", &path).await;
        assert_eq!(status, 200, "{answer}");
        for run in answer["runs"].as_array().expect("runs") {
            let at = run["at"].as_u64().expect("a time");
            assert!(at <= newest, "the newest come first");
            newest = at;
            assert!(seen.insert(run["id"].as_str().expect("an id").to_owned()), "{run} came twice");
            assert!(run.get("document").is_none(), "{run}");
        }
        let Some(next) = answer["next"].as_str() else { break };
        assert!(page < 20, "there is no end");
        path = format!("/v1/runs?limit=1000&after={next}");
    }
    assert_eq!(seen.len(), RUNS);
    let (status, _) = served.get("viewer", "/v1/runs?limit=1000000").await;
    assert_ne!(status, 500);
    served.stop().await;
}

#[tokio::test]
async fn runs_and_events_come_in_pages() {
    let served = Served::new().await;
    for number in 0..5 {
        let text = |text: &str| text.to_owned();
        let id = format!("r{number}");
        let new = NewRun {
            id,
            title: text("T"),
            document: text("{}"),
            plan: text("00"),
            by: text("ada"),
            tested: Tested::default(),
        };
        served.store.new_run(new).await.expect("a run");
    }
    let (_, first) = served.get("viewer", "/v1/runs?limit=3").await;
    let next = first["next"].as_str().expect("there is more");
    let (_, second) = served.get("viewer", &format!("/v1/runs?limit=3&after={next}")).await;
    assert_eq!(second["next"], Value::Null);
    let pages = [&first, &second].into_iter().flat_map(|page| page["runs"].as_array().expect("runs"));
    let seen: Vec<&str> = pages.filter_map(|run| run["id"].as_str()).collect();
    assert_eq!(seen, ["r4", "r3", "r2", "r1", "r0"]);
    let events = ["{\"event\":\"a\"}".to_owned(), "{\"event\":\"b\"}".to_owned()];
    served.store.append(0, "r0", 0, &events).await.expect("events");
    let (_, page) = served.get("viewer", "/v1/runs/r0/events?from=1").await;
    assert_eq!(page, json!({ "events": [{ "seq": 1, "event": { "event": "b" } }], "next": 2 }));
    for wrong in ["/v1/runs?limit=x", "/v1/runs/r0/events?from=-1"] {
        assert_eq!(served.get("viewer", wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(served.get("viewer", "/v1/runs?after=x").await.0, 404);
    served.stop().await;
}

#[tokio::test]
async fn a_stream_gives_events_as_they_come_and_continues_where_it_broke_off() {
    let served = Served::new().await;
    let id = begun(&served).await;
    served.store.append(0, &id, 0, &["0".to_owned(), "1".to_owned()]).await.expect("events");
    let path = format!("/v1/runs/{id}/stream");
    let remote = served.remote("viewer");
    let mut events = remote.follow(&path, None).await.expect("an answer").expect("a stream");
    let mut next = async || events.next().await.expect("it goes on").expect("an event");
    assert_eq!((next().await.data, next().await.id), ("0".to_owned(), Some(1)));
    served.store.append(0, &id, 2, &["2".to_owned()]).await.expect("an event");
    assert_eq!(next().await.data, "2");
    drop(events);
    served.store.append(0, &id, 3, &["3".to_owned()]).await.expect("an event");
    let mut events = remote.follow(&path, Some(2)).await.expect("an answer").expect("a stream");
    assert_eq!(events.next().await.expect("it goes on").expect("an event").data, "3");
    served.store.set_run_state(&id, "held", 0).await.expect("it ends");
    let end = events.next().await.expect("it goes on").expect("an event");
    assert_eq!((end.kind.as_deref(), end.data.as_str()), (Some("end"), "{\"state\":\"held\"}"));
    assert_eq!(events.next().await.expect("it ends"), None);
    served.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_waits_for_nobody() {
    let served = Served::new().await;
    let id = begun(&served).await;
    let remote = served.remote("viewer");
    let mut events =
        remote.follow(&format!("/v1/runs/{id}/stream"), None).await.expect("an answer").expect("a stream");
    let ended = tokio::spawn(async move { events.next().await });
    served.stop().await;
    assert_eq!(ended.await.expect("no panic").expect("it ends whole"), None);
}

#[tokio::test]
async fn a_halt_asks_every_host_and_blocks_runs_until_it_is_lifted() {
    let served = Served::new().await;
    let id = begun(&served).await;
    let (status, done) = served.post("operator", "/v1/halt", json!({ "reason": "it hurts" })).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(
        (&done["blocked"], &done["hosts"]["web"]["undone"]),
        (&json!(true), &json!(["the rule is gone"]))
    );
    assert_eq!(done["hosts"]["db"]["refused"], "`db` is not connected");
    let (status, problem) = served.post("operator", "/v1/runs", json!({ "document": "squall: 1" })).await;
    assert!(
        status == 423 && problem["detail"].as_str().is_some_and(|detail| detail.contains("it hurts")),
        "{problem}"
    );
    assert_eq!(served.get("viewer", "/v1/halt").await.1["blocked"]["reason"], "it hurts");
    assert_eq!(served.post("operator", "/v1/halt/lift", json!({})).await.0, 400, "not without a reason");
    assert_eq!(served.post("operator", "/v1/halt/lift", json!({ "reason": "repaired" })).await.0, 200);
    begun(&served).await;
    let some = json!({ "reason": "only these", "hosts": ["web"] });
    assert_eq!(served.post("operator", "/v1/halt", some).await.1["blocked"], false);
    let path = format!("/v1/runs/{id}/halt");
    assert_eq!(served.post("operator", &path, json!({ "reason": "this one" })).await.0, 202);
    let asked = served.engine.asked();
    // The runs once more when it is kept that new ones are blocked.
    assert_eq!(asked[1..3], ["halt None", "halt all runs"]);
    assert_eq!(asked[4..], ["halt Some([\"web\"])".to_owned(), format!("halt {id}")]);
    served.stop().await;
}

#[tokio::test]
async fn figures_are_shown_in_prometheus_form() {
    let served = Served::new().await;
    served.get("", "/v1/me").await;
    let (status, text) = served.get("viewer", "/metrics").await;
    let text = text.as_str().expect("text").to_owned();
    assert_eq!(status, 200);
    for line in [
        concat!("squall_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "squall_hosts_connected 1",
        "squall_runs_blocked 0",
        "squall_api_answers_total{class=\"4xx\"} 1",
    ] {
        assert!(text.lines().any(|is| is == line), "{line}: {text}");
    }
    served.stop().await;
}
