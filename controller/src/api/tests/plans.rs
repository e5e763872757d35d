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
    // What does nothing is not called an approval.
    let (status, problem) = approve(&served, "bob").await;
    assert!(
        status == 409 && problem["detail"].to_string().contains("approved this plan already"),
        "{problem}"
    );
    // Whoever submits it again changes nothing of that.
    assert_eq!(served.post("operator", "/v1/plans", body.clone()).await.1["approved_by"], json!("bob"));
    let (status, begun) = run(&served).await;
    assert_eq!((status, &begun["plan"]), (201, &json!("abc")), "{begun}");
    let of = served.store.plan_of_run(begun["id"].as_str().expect("an id")).await.expect("the store answers");
    assert_eq!(of.expect("it runs by an approval").approved_by.as_deref(), Some("bob"));
    assert_eq!(run(&served).await.0, 409, "an approval is for one run");
    assert_eq!(approve(&served, "bob").await.0, 409, "it was run");
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
async fn who_submits_a_plan_anew_while_approving_it_has_not_approved_it() {
    let mut served = Served::with(Approvals::Required).await;
    served.somebody("bob").await;
    let body = json!({ "document": "squall: 1" });
    for round in 0..20 {
        // A plan of somebody else's that was run: it may be submitted anew, by anybody.
        served.post("operator", "/v1/plans", body.clone()).await;
        assert_eq!(served.post("bob", "/v1/plans/abc/approve", json!({})).await.0, 200, "{round}");
        assert_eq!(served.ask("operator", Method::POST, "/v1/plans/abc/run", None).await.0, 201, "{round}");
        tokio::join!(
            served.post("bob", "/v1/plans", body.clone()),
            served.post("bob", "/v1/plans/abc/approve", json!({}))
        );
        let plan = served.get("viewer", "/v1/plans/abc").await.1;
        assert_eq!((&plan["submitted_by"], &plan["approved_by"]), (&json!("bob"), &Value::Null), "{round}");
        // So that it is over for the next round.
        assert_eq!(served.post("operator", "/v1/plans/abc/approve", json!({})).await.0, 200, "{round}");
        assert_eq!(served.ask("bob", Method::POST, "/v1/plans/abc/run", None).await.0, 201, "{round}");
    }
    served.stop().await;
}

#[tokio::test]
async fn another_document_is_not_taken_for_the_plan_that_is_there() {
    let served = Served::new().await;
    served.post("operator", "/v1/plans", json!({ "document": "squall: 1" })).await;
    let (status, problem) = served.post("admin", "/v1/plans", json!({ "document": "squall: 1 " })).await;
    assert!(
        status == 409 && problem["detail"].to_string().contains("of ada, for another document"),
        "{problem}"
    );
    let (status, problem) = served.post("admin", "/v1/plans", json!({ "document": "everywhere" })).await;
    assert!(status == 409 && problem["detail"].to_string().contains("more hosts"), "{problem}");
    served.stop().await;
}

#[tokio::test]
async fn an_approval_that_began_no_run_is_not_used_up() {
    let served = Served::new().await;
    let body = json!({ "document": "starts never" });
    served.post("operator", "/v1/plans", body).await;
    assert_eq!(served.ask("admin", Method::POST, "/v1/plans/abc/approve", None).await.0, 200);
    for _ in 0..2 {
        let (status, problem) = served.ask("operator", Method::POST, "/v1/plans/abc/run", None).await;
        assert!(
            status == 409 && problem["detail"].to_string().contains("no host is there"),
            "{status} {problem}"
        );
    }
    let runs = served.get("viewer", "/v1/runs").await.1;
    let states: Vec<&Value> =
        runs["runs"].as_array().into_iter().flatten().map(|run| &run["state"]).collect();
    assert_eq!(states, ["refused", "refused"]);
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
