//! Every route, against every role.

use serde_json::json;

use super::super::openapi;
use super::super::routes::{Route, table};
use super::*;

/// A path with its parameters filled in by names that are not there.
fn path(route: &Route) -> String {
    route.path.replace("{name}", "nobody").replace("{id}", "nothing")
}

fn rank(role: &str) -> Option<Role> {
    [Role::Viewer, Role::Operator, Role::Admin].into_iter().find(|known| known.name() == role)
}

#[tokio::test]
async fn every_route_takes_its_role_and_the_higher_ones_and_nobody_else() {
    let served = Served::new().await;
    let mut asked = 0;
    for route in table() {
        for role in ["", "viewer", "operator", "admin"] {
            let (status, answer) = served.ask(role, route.method.clone(), &path(&route), None).await;
            let may = rank(role) >= route.least;
            let refused = match role {
                "" => 401,
                _ => 403,
            };
            let shown = format!("{} {} as `{role}`: {status} {answer}", route.method, route.path);
            assert_eq!(status == refused, !may, "{shown}");
            // What was let in may still be refused by its handler, for what it asks for.
            assert!(status < 500, "{shown}");
            asked += 1;
            // Refused tokens are counted; this test has its own reason to show them.
            served.forget_failures();
        }
    }
    assert_eq!(asked, table().len() * 4);
    served.stop().await;
}

#[tokio::test]
async fn only_health_and_readiness_are_for_everybody() {
    let open: Vec<&str> =
        table().iter().filter(|route| route.least.is_none()).map(|route| route.path).collect();
    assert_eq!(open, ["/health", "/ready"]);
}

#[test]
fn the_committed_openapi_document_is_what_the_table_says() {
    let committed = include_str!("../../../../docs/openapi.json");
    let now = serde_json::to_string_pretty(&openapi::document()).expect("JSON") + "\n";
    assert!(committed == now, "docs/openapi.json is stale: `squall schema --api >docs/openapi.json`");
}

#[test]
fn the_openapi_document_refers_to_nothing_that_is_not_there() {
    let document = openapi::document();
    let text = document.to_string();
    let mut seen = 0;
    for target in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(target).is_some(), "{target}");
        seen += 1;
    }
    assert!(seen > table().len(), "it refers to far too little: {seen}");
    let paths = document["paths"].as_object().expect("paths");
    let operations: usize = paths.values().map(|path| path.as_object().map_or(0, serde_json::Map::len)).sum();
    assert_eq!(operations, table().len());
}

#[tokio::test]
async fn whatever_alters_something_is_in_the_audit_log() {
    let served = Served::new().await;
    let mut altered = 0;
    for route in table().iter().filter(|route| route.method != Method::GET) {
        let before = served.store.audit_head().await.expect("a head").seq;
        served.ask("admin", route.method.clone(), &path(route), Some(json!({ "reason": "a test" }))).await;
        let entries = served.store.audit_page(before + 1, 10).await.expect("entries");
        let did = format!("{} {}", route.method, path(route));
        assert!(entries.iter().any(|entry| entry.what["did"] == did.as_str()), "{did}: {entries:?}");
        assert!(entries.iter().all(|entry| entry.who == "ada (admin)"), "{did}: {entries:?}");
        altered += 1;
    }
    assert!(altered > 5);
    let (_, verified) = served.get("admin", "/v1/audit/verify").await;
    assert_eq!(verified["whole"], served.get("viewer", "/v1/audit/head").await.1);
    served.stop().await;
}

#[tokio::test]
async fn what_the_committed_document_says_of_a_routes_role_is_what_the_server_does() {
    let served = Served::new().await;
    let committed: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).expect("JSON");
    let mut asked = 0;
    for (path, operations) in committed["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let at = path.replace("{name}", "nobody").replace("{id}", "nothing");
            let least = operation["x-role"].as_str();
            assert_eq!(least.is_some(), operation["security"].is_array(), "{method} {path}");
            for role in ["", "viewer", "operator", "admin"] {
                let (status, _) = served.ask(role, method.clone(), &at, None).await;
                let may = least.is_none_or(|least| rank(role).is_some() && rank(role) >= rank(least));
                assert_eq!(!matches!(status, 401 | 403), may, "{method} {path} as `{role}`: {status}");
                served.forget_failures();
            }
            asked += 1;
        }
    }
    assert_eq!(asked, table().len());
    served.stop().await;
}
