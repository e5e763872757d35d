//! Who is notified, as the interface and the pages tell it.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::web::tests::browser::Browser;

/// A configuration with a receiver that nobody reaches.
async fn unreached() -> Config {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("it listens").local_addr().expect("an address");
    let text = format!(
        "controller: 1\nnotify:\n  - {{ name: board, grafana: {{ url: \"http://{gone}\", token: {{ env: PATH }} }}, \
         when: [run-ended, approval-wanted] }}\n"
    );
    Config::read("c.yaml", text.as_bytes(), Path::new("/"))
        .unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))
}

#[tokio::test]
async fn who_is_not_reached_is_seen_in_the_interface_the_figures_and_the_overview() {
    let served = Served::under(unreached().await, Approvals::Optional).await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("viewer")).await;
    assert!(!browser.get("/").await.body.contains("Not everybody is notified"));
    let notifier = served.api.notifier().clone();
    let running = tokio::spawn(async move { notifier.run().await });
    let submitted = served.ask("operator", Method::POST, "/v1/plans", Some(json!({ "document": "x" }))).await;
    assert_eq!(submitted.0, 201, "{submitted:?}");
    let mut listed = Value::Null;
    for _ in 0..6000 {
        listed = served.get("viewer", "/v1/notify").await.1;
        if !listed["receivers"][0]["trouble"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let board = &listed["receivers"][0];
    assert_eq!((&board["name"], &board["waiting"]), (&"board".into(), &1.into()), "{listed}");
    assert_eq!(board["when"], json!(["run-ended", "approval-wanted"]));
    let why = board["trouble"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("there is no answer"), "{listed}");
    let (_, figures) = served.get("viewer", "/metrics").await;
    let figures = figures.as_str().unwrap_or_default().to_owned();
    for line in
        ["squall_notify_waiting{receiver=\"board\"} 1", "squall_notify_sent_total{receiver=\"board\"} 0"]
    {
        assert!(figures.contains(line), "{figures}");
    }
    let page = browser.get("/").await.body;
    assert!(page.contains("Not everybody is notified") && page.contains("<bdi>board</bdi>"), "{page}");
    running.abort();
    served.stop().await;
}

#[tokio::test]
async fn a_trial_is_an_administrators_and_says_what_came_of_it() {
    let served = Served::under(unreached().await, Approvals::Optional).await;
    let (status, _) = served.ask("operator", Method::POST, "/v1/notify/board/test", None).await;
    assert_eq!(status, 403);
    let (status, said) = served.ask("admin", Method::POST, "/v1/notify/board/test", None).await;
    assert_eq!((status, &said["delivered"]), (200, &false.into()), "{said}");
    let (status, said) = served.ask("admin", Method::POST, "/v1/notify/nobody/test", None).await;
    assert!(status == 404 && said["detail"] == "there is no receiver `nobody` of notifications", "{said}");
    served.stop().await;
}
