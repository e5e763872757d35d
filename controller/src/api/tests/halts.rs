//! Halts of some hosts, and those that nobody asks for by a request.

use serde_json::json;

use super::*;

async fn labelled(served: &Served, name: &str, labels: Value) {
    served.enrolled(name).await;
    let (status, host) =
        served.ask("admin", Method::PUT, &format!("/v1/hosts/{name}/labels"), Some(labels)).await;
    assert_eq!(status, 200, "{host}");
}

#[tokio::test]
async fn a_halt_by_labels_is_of_the_hosts_that_carry_them_all_and_of_no_other() {
    let served = Served::new().await;
    labelled(&served, "web", json!({ "role": "web", "tier": "front" })).await;
    labelled(&served, "cache", json!({ "role": "cache", "tier": "front" })).await;
    labelled(&served, "old", json!({ "role": "web", "tier": "front" })).await;
    assert_eq!(served.post("admin", "/v1/hosts/old/revoke", json!({})).await.0, 204);
    let halt =
        async |on: Value| served.post("operator", "/v1/halt", json!({ "reason": "r", "on": on })).await;
    let (status, done) = halt(json!({ "labels": { "role": "web", "tier": "front" } })).await;
    assert_eq!((status, &done["blocked"]), (200, &json!(false)), "new runs may begin: {done}");
    assert_eq!(halt(json!({ "labels": { "tier": "front" } })).await.0, 200);
    // What matches nothing is a mistake, never everything; nor is what says nothing.
    let (status, none) = halt(json!({ "labels": { "role": "wbe" } })).await;
    assert!(status == 409 && none["detail"].to_string().contains("no host matches"), "{none}");
    assert_eq!(halt(json!({ "labels": { "role": "web" }, "zone": "a" })).await.0, 409);
    for empty in [json!({}), json!({ "labels": {} }), json!({ "lables": { "role": "web" } })] {
        assert_eq!(halt(empty.clone()).await.0, 400, "{empty}");
    }
    let both = json!({ "reason": "r", "hosts": ["web"], "on": { "labels": { "role": "web" } } });
    assert_eq!(served.post("operator", "/v1/halt", both).await.0, 400);
    let asked = ["cut off old", "halt Some([\"web\"])", "halt Some([\"cache\", \"web\"])"];
    assert_eq!(served.engine.asked(), asked);
    // Where the store does not say what hosts are, they are what they say of themselves: it is done, and said not to be of all.
    let hung = served.store.hang().await;
    let (status, done) = halt(json!({ "labels": { "says": "itself" } })).await;
    assert!(status == 503 && done["detail"].to_string().contains("say it of themselves (web)"), "{done}");
    assert_eq!(served.engine.asked().last().map(String::as_str), Some("halt Some([\"web\"])"));
    assert_eq!(halt(json!({ "labels": { "role": "web" } })).await.0, 503, "nobody knows");
    drop(hung);
    served.stop().await;
}

#[tokio::test]
async fn a_halt_by_a_signal_blocks_new_runs_and_stands_in_the_log() {
    let served = Served::new().await;
    served.api.halt_everything("SIGUSR1", "halted by a signal").await;
    assert_eq!(served.engine.asked(), ["halt None", "halt all runs"]);
    let run = json!({ "document": "x" });
    let (status, refused) = served.post("operator", "/v1/runs", run).await;
    assert!(status == 423 && refused["detail"].to_string().contains("SIGUSR1"), "{refused}");
    let entries = served.store.audit_page(1, 10).await.expect("it answers");
    let first = entries.first().expect("an entry");
    assert_eq!((first.who.as_str(), &first.what["did"]), ("SIGUSR1", &json!("halted everything")));
    served.stop().await;
}
