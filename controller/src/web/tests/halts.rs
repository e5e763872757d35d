//! Halting and lifting, by two people at once.

use super::*;

async fn two(served: &Served) -> (Browser, Browser) {
    let (mut one, mut other) = (Browser::new(served.at), Browser::new(served.at));
    one.sign_in(served.token("operator")).await;
    other.sign_in(served.token("admin")).await;
    (one, other)
}

fn field<'a>(page: &'a str, name: &str) -> &'a str {
    let from = format!("name=\"{name}\" value=\"");
    page.split(&from).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

#[tokio::test]
async fn a_halt_says_what_each_host_answered_and_blocks_until_it_is_lifted() {
    let served = Served::new().await;
    let (mut one, _) = two(&served).await;
    let halted = one.post("/halt", &[("reason", "")]).await;
    assert_eq!(halted.status, 200, "{halted:?}");
    for word in ["1 of 2 hosts did not say", "the rule is gone", "is not connected", "New runs are blocked"] {
        assert!(halted.body.contains(word), "{word}: {}", halted.body);
    }
    let overview = one.get("/").await;
    assert!(
        overview.body.contains("halted from the pages") && overview.body.contains("Lift the halt"),
        "{overview:?}"
    );
    let mut viewer = Browser::new(served.at);
    viewer.sign_in(served.token("viewer")).await;
    let shown = viewer.get("/").await.body;
    assert!(shown.contains("halted from the pages"), "{shown}");
    for button in ["href=\"/halt\"", "href=\"/lift\"", "href=\"/start\"", "href=\"/audit\""] {
        assert!(!shown.contains(button), "a viewer sees {button}");
    }
    let refused = one.post("/start/run", &[("document", "x"), ("plan", "abc")]).await;
    assert!(refused.status == 409 && refused.body.contains("halted from the pages"), "{refused:?}");
    let step = one.get("/lift").await;
    let at = field(&step.body, "at").to_owned();
    assert_eq!(one.post("/lift", &[("at", &at), ("reason", "it is over")]).await.status, 303);
    assert!(!one.get("/").await.body.contains("Lift the halt"));
    let begun = one.post("/start/run", &[("document", "x"), ("plan", "abc")]).await;
    assert!(begun.status == 303 && begun.header("location").starts_with("/runs/"), "{begun:?}");
    served.stop().await;
}

#[tokio::test]
async fn who_lifts_a_halt_does_not_lift_one_that_came_since() {
    let served = Served::new().await;
    let (mut one, mut other) = two(&served).await;
    one.post("/halt", &[("reason", "the first")]).await;
    let step = one.get("/lift").await;
    assert!(step.body.contains("the first"));
    let at = field(&step.body, "at").to_owned();
    // The clock counts milliseconds, and tells halts apart.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    other.post("/halt", &[("reason", "the second")]).await;
    assert_eq!(one.post("/lift", &[]).await.status, 400, "which halt?");
    let stale =
        serde_json::json!({ "reason": "the first is over", "at": at.parse::<u64>().expect("a time") });
    let (status, problem) = served.post("operator", "/v1/halt/lift", stale).await;
    assert!(status == 409 && problem["detail"].to_string().contains("the second"), "{problem}");
    let refused = one.post("/lift", &[("at", &at)]).await;
    assert!(refused.status == 409 && refused.body.contains("the second"), "{refused:?}");
    assert!(one.get("/").await.body.contains("the second"), "it still blocks");
    served.stop().await;
}

#[tokio::test]
async fn of_a_halt_and_a_lift_at_once_both_answers_are_true() {
    let served = Served::new().await;
    let (mut one, mut other) = two(&served).await;
    for round in 0..20 {
        one.post("/halt", &[("reason", &format!("before {round}"))]).await;
        let at = field(&one.get("/lift").await.body, "at").to_owned();
        let (reason, lift) = (format!("new {round}"), [("at", at.as_str())]);
        let fields = [("reason", reason.as_str())];
        let (halted, lifted) = tokio::join!(one.post("/halt", &fields), other.post("/lift", &lift));
        let blocks = served.store.fact("halt").await.expect("it answers");
        // A lift of the halt before never takes the new one away.
        assert!(blocks.is_some_and(|fact| fact.contains(&reason)), "{round}: {halted:?} {lifted:?}");
        assert!(halted.status == 200 && halted.body.contains("New runs are blocked"), "{round}: {halted:?}");
        assert!([303, 409].contains(&lifted.status), "{round}: {lifted:?}");
        if lifted.status == 409 {
            assert!(lifted.body.contains(&reason), "{round}: {lifted:?}");
        }
    }
    served.stop().await;
}
