//! Plans that are submitted, approved by a second person, and run once.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_plan_is_approved_by_a_second_person_and_run_once() {
    let mut served = Served::with(Approvals::Required).await;
    served.somebody("bob").await;
    let body = json!({ "document": "squall: 1", "vars": { "x": "1" } });
    let (status, problem) = served.post("operator", "/v1/runs", body.clone()).await;
    assert!(status == 409 && problem["detail"].to_string().contains("need an approved plan"), "{problem}");
    let (status, plan) = served.post("operator", "/v1/plans", body.clone()).await;
    assert_eq!((status, &plan["hash"], &plan["seed"]), (201, &json!("abc"), &json!(7)), "{plan}");
    assert_eq!((&plan["submitted_by"], &plan["approved_by"]), (&json!("ada"), &Value::Null));
    let run = async |served: &Served| served.ask("operator", Method::POST, "/v1/plans/abc/run", None).await;
    let approve = async |served: &Served, who: &str| {
        served.post(who, "/v1/plans/abc/approve", json!({ "note": "looks right" })).await
    };
    assert_eq!(run(&served).await.0, 409, "nobody has approved it");
    // Another token of the same person is no second person.
    for own in ["operator", "admin"] {
        let (status, problem) = approve(&served, own).await;
        assert!(status == 409 && problem["detail"].to_string().contains("`ada` has submitted"), "{problem}");
    }
    assert_eq!(approve(&served, "viewer").await.0, 403);
    let (status, approved) = approve(&served, "bob").await;
    assert_eq!(
        (status, &approved["approved_by"], &approved["note"]),
        (200, &json!("bob"), &json!("looks right"))
    );
    // Whoever submits it again changes nothing of that.
    assert_eq!(served.post("operator", "/v1/plans", body.clone()).await.1["approved_by"], json!("bob"));
    let (status, begun) = run(&served).await;
    assert_eq!((status, &begun["plan"]), (201, &json!("abc")), "{begun}");
    let of = served.store.plan_of_run(begun["id"].as_str().expect("an id")).await.expect("the store answers");
    assert_eq!(of.expect("it runs by an approval").approved_by.as_deref(), Some("bob"));
    assert_eq!(run(&served).await.0, 409, "an approval is for one run");
    // Submitted again it is to be approved again.
    assert_eq!(served.post("operator", "/v1/plans", body).await.1["approved_by"], Value::Null);
    let (_, entries) = served.get("admin", "/v1/audit").await;
    let entries = entries["entries"].as_array().expect("entries");
    let approval =
        entries.iter().find(|entry| entry["what"]["approved"] == "abc").expect("it is written down");
    assert_eq!((&approval["who"], &approval["what"]["submitted-by"]), (&json!("bob (bob)"), &json!("ada")));
    assert_eq!(served.get("viewer", "/v1/plans").await.1["plans"][0]["hash"], json!("abc"));
    assert_eq!(served.get("viewer", "/v1/plans/none").await.0, 404);
    served.stop().await;
}

#[tokio::test]
async fn where_it_is_not_required_one_person_may_do_both() {
    let served = Served::new().await;
    served.post("operator", "/v1/plans", json!({ "document": "squall: 1" })).await;
    assert_eq!(served.ask("operator", Method::POST, "/v1/plans/abc/approve", None).await.0, 200);
    assert_eq!(served.ask("operator", Method::POST, "/v1/plans/abc/run", None).await.0, 201);
    served.stop().await;
}
