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
