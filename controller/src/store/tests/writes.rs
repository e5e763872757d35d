//! A process that does everything that a controller writes is killed at any moment: whatever it acknowledged is there, and what
//! belongs together is there together.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use rand::RngExt;
use serde_json::json;

use super::super::*;
use super::kill::{DIRECTORY, killed};
use super::{Scratch, a_run, wait};
use crate::budget::HostUse;
use crate::config::Budget;
use crate::gates::Outcome;

/// How often it is killed.
const KILLS: u64 = 12;
/// The first number of its round, so that names of different rounds differ.
const FIRST: &str = "SQUALL_TEST_FIRST";
/// A time that no test reaches: the year 2100.
const LATER: u64 = 4_102_444_800_000;

/// Everything that is written, in an order in which it can be.
const KINDS: [&str; 14] = [
    "enrolled",
    "renewed",
    "revoked",
    "token",
    "token revoked",
    "audited",
    "admitted",
    "appended",
    "ended",
    "planned",
    "approved",
    "fact",
    "answered",
    "game day",
];

fn named(kind: char, n: u64) -> String {
    format!("{kind}{n}")
}

async fn does(store: &Store, kind: &str, n: u64) -> Result<(), StoreError> {
    let (host, token, run, plan) = (named('h', n), named('t', n), named('r', n), named('p', n));
    let by = || "ada".to_owned();
    match kind {
        "enrolled" => {
            let (id, hash) = (named('j', n), named('j', n));
            store
                .new_join_token(NewJoinToken { id, hash, made_by: by(), expires_at: LATER, uses: 1 })
                .await?;
            let (labels, serial) = (BTreeMap::new(), named('s', n));
            let new = NewHost { name: host, labels, zone: None, cell: None, serial, key: "k".to_owned() };
            store.enrol(&named('j', n), new).await
        }
        "renewed" => store.renew_host(&host, &named('s', n), &named('x', n)).await,
        "revoked" => store.revoke_host(&host).await,
        "token" => {
            let (role, hash) = (Role::Viewer, named('t', n));
            store
                .new_token(NewToken { id: token, hash, name: by(), role, made_by: by(), expires_at: None })
                .await
        }
        "token revoked" => store.revoke_token(&token).await,
        "audited" => store.audit("ada", json!({ "n": n })).await.map(drop),
        "admitted" => {
            let used = HostUse { host, labels: BTreeMap::new(), zone: None, faults: 1 };
            let admission = Admission {
                run: a_run(&run),
                uses: vec![used],
                outcomes: vec![Outcome::passes("one", "it says yes"), Outcome::passes("two", "so does this")],
                entry: None,
                coming: Vec::new(),
                overruled: None,
                approval: None,
            };
            store.admit(admission, Budget::default()).await.map(drop)
        }
        "appended" => {
            let events: Vec<String> = (0..3).map(|seq| format!("event {seq} of {run}")).collect();
            store.append(0, &run, 0, &events).await.map(drop)
        }
        "ended" => store.set_run_state(&run, "held", 0).await,
        "planned" => {
            let new = NewPlan {
                hash: plan,
                title: "T".to_owned(),
                document: "{}".to_owned(),
                name: None,
                vars: BTreeMap::new(),
                seed: n,
                shown: json!({}),
                by: by(),
            };
            store.submit_plan(new).await.map(drop)
        }
        "approved" => store.approve_plan(&plan, "bob", None, Eyes::Second).await.map(drop),
        "fact" => store.set_fact("drill", Some(n.to_string())).await,
        "answered" => {
            store.ask("ada", &named('k', n), "digest").await?;
            let answered = Answered { status: 201, body: named('b', n) };
            store.answered("ada", &named('k', n), Some(answered)).await
        }
        "game day" => {
            let (id, title, document, first) =
                (named('d', n), "T".to_owned(), "{}".to_owned(), "begun".to_owned());
            store
                .new_game_day(NewGameDay { id, name: "day".to_owned(), title, document, by: by(), first })
                .await
        }
        other => panic!("nobody writes `{other}`"),
    }
}

/// Whether what was acknowledged is there.
async fn is_there(store: &Store, kind: &str, n: u64) -> bool {
    let host = async || store.host(&named('h', n)).await.expect("it can be read");
    let run = async || store.run(&named('r', n)).await.expect("it can be read");
    let plan = async || store.plan(&named('p', n)).await.ok();
    match kind {
        "enrolled" => host().await.is_some(),
        "renewed" => host().await.is_some_and(|host| {
            host.serial == named('x', n) || host.earlier_serials.contains(&named('x', n))
        }),
        "revoked" => host().await.is_some_and(|host| host.revoked_at.is_some()),
        "token" | "token revoked" => {
            let all = store.tokens().await.expect("they can be read");
            let token = all.iter().find(|token| token.id == named('t', n));
            token.is_some_and(|token| kind == "token" || token.revoked_at.is_some())
        }
        "audited" => {
            let log = store.audit_page(1, 100_000).await.expect("it can be read");
            log.iter().any(|entry| entry.what["n"] == n)
        }
        "admitted" => run().await.is_some(),
        "appended" => run().await.is_some_and(|run| run.events == 3),
        "ended" => run().await.is_some_and(|run| run.state == "held"),
        "planned" => plan().await.is_some_and(|plan| plan.seed == n),
        "approved" => plan().await.is_some_and(|plan| plan.approved_by.as_deref() == Some("bob")),
        "fact" => {
            let fact = store.fact("drill").await.expect("it can be read").expect("it was set");
            fact.parse::<u64>().expect("a number") >= n
        }
        "answered" => {
            let asked = store.ask("ada", &named('k', n), "digest").await.expect("it can be asked");
            matches!(asked, Asked::Before(answered) if answered.body == named('b', n))
        }
        "game day" => {
            store.game_day(&named('d', n)).await.expect("it can be read").is_some_and(|day| day.events == 1)
        }
        other => panic!("nobody writes `{other}`"),
    }
}

/// Not a test of its own: the process that [`nothing_that_a_controller_was_told_is_kept_is_lost_to_a_kill`] kills.
#[test]
fn writes_until_killed() {
    let (Some(directory), Ok(first)) = (std::env::var_os(DIRECTORY), std::env::var(FIRST)) else { return };
    let store = Store::open(&Where::Sqlite(directory.into())).expect("it opens");
    wait(async {
        for n in first.parse::<u64>().expect("a number").. {
            for kind in KINDS {
                does(&store, kind, n).await.unwrap_or_else(|error| panic!("{kind} {n}: {error}"));
                let _ = writeln!(std::io::stdout(), "acknowledged {n} {kind}");
            }
        }
    });
}

#[test]
fn nothing_that_a_controller_was_told_is_kept_is_lost_to_a_kill() {
    let scratch = Scratch::new("writes");
    let mut last = BTreeSet::new();
    for round in 1..=KILLS {
        let first = (round * 1_000_000).to_string();
        // After any of two times all of them, and any moment after it.
        let many = rand::rng().random_range(1..=2 * KINDS.len());
        let pause = Duration::from_micros(rand::rng().random_range(0..2_000));
        let test = "store::tests::writes::writes_until_killed";
        let said = killed(test, &scratch, &[(FIRST, &first)], many, pause);
        let acknowledged: Vec<(u64, String)> = said
            .iter()
            .filter_map(|line| line.split_once(' '))
            .map(|(n, kind)| (n.parse().expect("a number"), kind.to_owned()))
            .collect();
        last.extend(acknowledged.last().map(|(_, kind)| kind.clone()));
        let store = scratch.store();
        wait(async {
            for (n, kind) in &acknowledged {
                assert!(is_there(&store, kind, *n).await, "round {round}: {kind} {n} was acknowledged");
            }
            let verified = store.audit_verify().await.expect("it can be read");
            assert!(matches!(verified, Verified::Whole(_)), "round {round}: {verified:?}");
            // What is kept together is there together, acknowledged or not.
            for run in store.runs(None, 1000).await.expect("they can be read").runs {
                let outcomes = store.outcomes(&run.id).await.expect("they can be read");
                assert_eq!(outcomes.len(), 2, "round {round}: {run:?}");
                assert!(run.events == 0 || run.events == 3, "round {round}: {run:?}");
                let events = store.events(&run.id, 0, 10).await.expect("they can be read");
                assert_eq!(events.len() as u64, run.events, "round {round}: {run:?}");
            }
            let log = store.audit_page(1, 100_000).await.expect("it can be read");
            for host in store.hosts().await.expect("they can be read") {
                let joined = log.iter().any(|entry| entry.who == format!("host {}", host.name));
                assert!(joined, "round {round}: {} is in the fleet without an entry", host.name);
            }
        });
    }
    assert!(last.len() > 1, "it was always killed at the same write: {last:?}");
}
