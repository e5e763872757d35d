//! Schedules that are added.

use serde_json::json;

use super::*;

#[tokio::test]
async fn what_can_never_be_one_run_is_refused_when_it_is_added() {
    let served = Served::new().await;
    let document = "schedule: 1\nname: night\nwhen: { cron: \"30 2 * * *\" }\n";
    let add = async |experiment: &str| {
        served
            .post("operator", "/v1/schedules", json!({ "document": document, "experiment": experiment }))
            .await
    };
    let (status, problem) = add("wrong").await;
    assert_eq!((status, &problem["exit"]), (422, &json!(3)), "{problem}");
    let (status, problem) = add("several").await;
    assert_eq!(
        (status, &problem["exit"], &problem["help"]),
        (409, &json!(4), &json!("name one of them")),
        "{problem}"
    );
    assert_eq!(served.get("viewer", "/v1/schedules").await.1["schedules"], json!([]));
    // That there is nowhere to run it now says nothing of the night.
    let (status, added) = add("forbidden").await;
    assert_eq!((status, &added["name"]), (201, &json!("night")), "{added}");
    served.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_told_with_what_to_do() {
    let served = Served::new().await;
    let add = async |rest: &str| {
        let document = format!("schedule: 1\n{rest}\nexperiment: forbidden\n");
        served.post("operator", "/v1/schedules", json!({ "document": document })).await
    };
    // A day that comes every fourth year at most is found, however far it is.
    let (status, leap) = add("name: leap\nwhen: { cron: \"0 2 29 2 *\" }").await;
    let local = leap["next"][0]["local"].as_str().unwrap_or_default();
    assert!(status == 201 && local[4..].starts_with("-02-29 02:00:00"), "{leap}");
    let (status, problem) = add("name: leap\nwhen: { cron: \"0 2 * * *\" }").await;
    assert_eq!(
        (status, &problem["detail"]),
        (409, &json!("there is a schedule `leap` already")),
        "{problem}"
    );
    let help = problem["help"].as_str().unwrap_or_default();
    assert!(help.contains("`squall schedule remove leap`"), "{problem}");
    let (status, problem) = add("name: past\nwhen: { at: 2020-01-01 00:00 }").await;
    let (over, help) = ("`at: 2020-01-01 00:00` is over", "write a time that is still to come");
    assert_eq!((status, &problem["detail"], &problem["help"]), (422, &json!(over), &json!(help)));
    // A name that is misspelled does not look like one of which nothing is coming.
    let of = async |name: &str| served.get("viewer", &format!("/v1/calendar?schedule={name}")).await;
    let (status, problem) = of("laep").await;
    let none = "there is no schedule `laep`, and nothing was of one in this time";
    assert_eq!((status, &problem["detail"]), (404, &json!(none)), "{problem}");
    let (status, pages) = of("leap").await;
    assert!(status == 200 && pages["entries"] == json!([]), "{pages}");
    // Who added it, paused it and removed it stands in the log with its name, and with the reason that was given.
    let pause = json!({ "reason": "we move" });
    assert_eq!(served.post("operator", "/v1/schedules/leap/pause", pause).await.0, 200);
    assert_eq!(served.post("operator", "/v1/schedules/leap/remove", json!({})).await.0, 204);
    let log = served.get("admin", "/v1/audit?limit=1000").await.1;
    let wrote = |what: &serde_json::Value| {
        let entries = log["entries"].as_array().into_iter().flatten();
        entries
            .filter(|entry| {
                what.as_object()
                    .is_some_and(|all| all.iter().all(|(name, value)| entry["what"][name] == *value))
            })
            .count()
    };
    assert_eq!(wrote(&json!({ "added-schedule": "leap", "hash": leap["hash"] })), 1, "{log}");
    assert_eq!(wrote(&json!({ "paused": "leap", "because": "we move" })), 1, "{log}");
    assert_eq!(wrote(&json!({ "removed-schedule": "leap" })), 1, "{log}");
    served.stop().await;
}
