//! Tokens, join tokens and hosts.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_token_is_shown_once_and_may_what_its_role_may_until_it_is_revoked() {
    let served = Served::new().await;
    let wanted = json!({ "name": "nightly", "role": "viewer", "hours": 1 });
    let (status, made) = served.post("admin", "/v1/tokens", wanted).await;
    assert_eq!(status, 201, "{made}");
    let token = made["token"].as_str().expect("a token").to_owned();
    let remote = Remote::new(&format!("http://{}", served.at), &token, None).expect("an address");
    let ask = async |path: &str| remote.call(Method::GET, path, None, None).await.expect("an answer");
    let (status, me) = ask("/v1/me").await;
    assert_eq!((status, &me["name"], &me["role"]), (200, &json!("nightly"), &json!("viewer")));
    assert_eq!(ask("/v1/tokens").await.0, 403);

    let (_, list) = served.get("admin", "/v1/tokens").await;
    let text = list.to_string();
    assert!(text.contains("nightly") && !text.contains(&token) && !text.contains("hash"), "{text}");
    let log = json!(served.store.audit_page(1, 100).await.expect("entries")).to_string();
    assert!(!log.contains(&token), "{log}");

    let id = made["id"].as_str().expect("an id");
    let (status, _) = served.post("admin", &format!("/v1/tokens/{id}/revoke"), json!({})).await;
    assert_eq!(status, 204);
    assert_eq!(ask("/v1/me").await.0, 401);
    served.stop().await;
}

#[tokio::test]
async fn a_secret_is_not_kept_for_who_asks_again() {
    let served = Served::new().await;
    let remote = served.remote("admin");
    let wanted = json!({ "name": "nightly", "role": "viewer" });
    let ask = async |wanted: &Value| {
        remote.call(Method::POST, "/v1/tokens", Some(wanted), Some("k")).await.expect("an answer")
    };
    assert_eq!(ask(&wanted).await.0, 201);
    let (status, again) = ask(&wanted).await;
    assert!(status == 409 && !again.to_string().contains("squall_token"), "{again}");
    assert_eq!(served.store.tokens().await.expect("tokens").len(), 4, "it was made once");
    assert_eq!(ask(&json!({ "name": "other", "role": "viewer" })).await.0, 422);
    served.stop().await;
}

#[tokio::test]
async fn join_tokens_are_bounded() {
    let served = Served::new().await;
    let (status, made) = served.post("admin", "/v1/join-tokens", json!({})).await;
    assert_eq!(status, 201, "{made}");
    let kept = &served.store.join_tokens().await.expect("join tokens")[0];
    assert_eq!(kept.uses_left, 1);
    assert!(kept.expires_at <= crate::store::now_ms() + 3_600_000, "an hour unless said");
    for wrong in [json!({ "uses": 0 }), json!({ "hours": 0 }), json!({ "hours": 1000 }), json!({ "uss": 2 })]
    {
        let (status, problem) = served.post("admin", "/v1/join-tokens", wrong.clone()).await;
        assert_eq!(status, 400, "{wrong}: {problem}");
    }
    let id = made["id"].as_str().expect("an id");
    let (status, _) = served.post("admin", &format!("/v1/join-tokens/{id}/revoke"), json!({})).await;
    assert_eq!(status, 204);
    assert_eq!(made["token"], "a token that hosts understand");
    let refused = served.store.enrol("its hash", Default::default()).await;
    assert!(matches!(refused, Err(StoreError::Token)), "{refused:?}");
    served.stop().await;
}

#[tokio::test]
async fn a_host_is_shown_with_what_it_says_and_cut_off_when_it_is_revoked() {
    let served = Served::new().await;
    served.enrolled("web").await;
    served.enrolled("db").await;
    let (_, list) = served.get("viewer", "/v1/hosts").await;
    let [db, web] = &list["hosts"].as_array().expect("hosts")[..] else { panic!("{list}") };
    assert_eq!((&db["name"], &db["connected"]), (&json!("db"), &json!(false)));
    assert_eq!((&web["connected"], &web["kernel"]), (&json!(true), &json!("6.1.0")));
    let labels = json!({ "role": "checkout" });
    let (status, host) = served.ask("admin", Method::PUT, "/v1/hosts/web/labels", Some(labels.clone())).await;
    assert_eq!((status, &host["labels"]), (200, &labels));
    assert_eq!(served.get("viewer", "/v1/hosts/nobody").await.0, 404);
    assert_eq!(served.post("admin", "/v1/hosts/web/revoke", json!({})).await.0, 204);
    assert_eq!(served.engine.asked(), ["cut off web"]);
    let (_, host) = served.get("viewer", "/v1/hosts/web").await;
    assert_eq!(host["connected"], false, "its connection may still be ending");
    served.stop().await;
}

#[tokio::test]
async fn the_first_token_is_made_once() {
    let scratch = Scratch::new("first");
    let store = Store::open(&Where::Sqlite(scratch.path())).expect("a store");
    let secrets = Secrets::open(&scratch.path()).expect("secrets");
    let first = first_token(&store, &secrets).await.expect("it can be made").expect("there was none");
    let token = store.token(&first.hash).await.expect("it can be read").expect("it is valid");
    assert_eq!(token.role, Role::Admin);
    assert!(first_token(&store, &secrets).await.expect("it can be asked").is_none());
}

#[tokio::test]
async fn hosts_and_tokens_come_in_pages_and_none_is_lost_between_two() {
    let served = Served::new().await;
    for name in ["web", "db", "cache", "a b&c"] {
        served.enrolled(name).await;
    }
    for path in ["/v1/hosts", "/v1/tokens", "/v1/join-tokens"] {
        let member = path.trim_start_matches("/v1/").replace('-', "_");
        let (_, whole) = served.get("admin", path).await;
        let (mut seen, mut from) = (Vec::new(), String::new());
        loop {
            let (status, page) = served.get("admin", &format!("{path}?limit=2{from}")).await;
            let items = page[&member].as_array().expect("a page").clone();
            assert!(status == 200 && items.len() <= 2, "{path}: {status} {page}");
            seen.extend(items);
            let Some(next) = page["next"].as_str() else { break };
            let escaped: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
            from = format!("&after={escaped}");
        }
        assert!(seen.len() > 2, "{path}: one page holds all of it: {seen:?}");
        assert_eq!(Value::Array(seen), whole[&member], "{path}");
        assert_eq!(whole["next"], Value::Null, "{path}");
        assert_eq!(served.get("admin", &format!("{path}?limit=x")).await.0, 400, "{path}");
    }
    assert_eq!(served.get("admin", "/v1/tokens?after=nowhere").await.0, 404);
    served.stop().await;
}
