//! Pages over a real socket and a real store, as a browser asks for them.

pub(crate) mod browser;
mod halts;
mod hostile;
mod live;
mod pages;

use axum::http::Method;

use self::browser::Browser;
use super::table;
use crate::api::tests::Served;
use crate::store::{NewRun, Role, Tested};

fn a_run(id: &str, title: &str) -> NewRun {
    let text = |text: &str| text.to_owned();
    NewRun {
        id: text(id),
        title: text(title),
        document: text("squall: 1"),
        plan: text("00"),
        by: text("ada (x)"),
        tested: Tested { weight: 1, build: Some(text("b<7>")), ..Tested::default() },
    }
}

/// The events of a real run on one host, as a controller keeps them.
fn events(host: &str) -> Vec<String> {
    let log = include_str!("../../report/tests/run.ndjson");
    let began = format!(
        "{{\"seq\":1,\"at_ms\":0,\"fleet\":\"began\",\"run\":\"r1\",\"title\":\"T\",\"date\":\"2026-11-22T06:00:00Z\",\
         \"seed\":7,\"plan\":\"00\",\"version\":\"0.1.0\",\"on_partial\":\"revert\",\"hosts\":[\"{host}\"]}}"
    );
    let own = (2..)
        .zip(log.lines())
        .map(|(seq, line)| format!("{{\"seq\":{seq},\"host\":\"{host}\",{}", &line[1..]));
    std::iter::once(began).chain(own).collect()
}

#[tokio::test]
async fn every_page_is_for_its_role_and_the_higher_ones_and_nobody_else() {
    let served = Served::new().await;
    for page in table() {
        let path = page.path.replace("{name}", "nobody").replace("{id}", "nothing");
        for role in ["", "viewer", "operator", "admin"] {
            let mut browser = Browser::new(served.at);
            if !role.is_empty() {
                browser.sign_in(served.token(role)).await;
            }
            let answer = match page.method {
                Method::GET => browser.get(&path).await,
                _ => browser.post(&path, &[]).await,
            };
            let shown = format!("{} {path} as `{role}`: {answer:?}", page.method);
            let rank =
                [Role::Viewer, Role::Operator, Role::Admin].into_iter().find(|known| known.name() == role);
            let away = answer.status == 303 && answer.header("location").starts_with("/sign-in?to=");
            match (rank >= page.least, role, page.method == Method::GET) {
                (false, "", true) => assert!(away, "{shown}"),
                (false, "", false) => assert_eq!(answer.status, 401, "{shown}"),
                (false, ..) => assert_eq!(answer.status, 403, "{shown}"),
                // What was let in may still be refused by its handler, for what it asks for.
                (true, ..) => {
                    let forbidden = answer.status == 403 && page.least.is_some();
                    assert!(answer.status < 500 && !forbidden && !away, "{shown}");
                }
            }
            served.forget_failures();
        }
    }
    let open = |page: &&super::Page| page.least.is_none();
    let open: Vec<&str> = table().iter().filter(open).map(|page| page.path).collect();
    assert_eq!(open, ["/sign-in", "/sign-in", "/assets/{name}"]);
    served.stop().await;
}

#[tokio::test]
async fn whatever_a_form_alters_is_in_the_audit_log() {
    let served = Served::new().await;
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("admin")).await;
    let forms = [
        "/halt",
        "/lift",
        "/start",
        "/start/run",
        "/runs/nothing/halt",
        "/schedules/nobody/pause",
        "/schedules/nobody/resume",
        "/game-days/nothing/go",
        "/game-days/nothing/no-go",
        "/game-days/nothing/mark",
        "/game-days/nothing/take-back",
        "/game-days/nothing/note",
        "/game-days/nothing/stop",
        "/sign-out",
    ];
    let known: Vec<String> = table()
        .iter()
        .filter(|page| page.method != Method::GET && page.least.is_some())
        .map(|page| page.path.replace("{id}", "nothing").replace("{name}", "nobody"))
        .collect();
    assert!(
        known.iter().all(|path| forms.contains(&path.as_str())) && known.len() == forms.len(),
        "{known:?}"
    );
    for path in forms {
        let before = served.store.audit_head().await.expect("a head").seq;
        browser.post(path, &[("reason", "a test")]).await;
        let entries = served.store.audit_page(before + 1, 10).await.expect("entries");
        let did = format!("POST {path}");
        assert!(entries.iter().any(|entry| entry.what["did"] == did.as_str()), "{did}: {entries:?}");
        assert!(entries.iter().all(|entry| entry.who == "ada (admin)"), "{entries:?}");
        assert!(entries.iter().any(|entry| entry.what["reason"] == "a test"), "{entries:?}");
    }
    served.stop().await;
}
