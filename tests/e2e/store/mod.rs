//! The controller's store: the same cases on SQLite and on PostgreSQL, and what only a database of its own can do.

use std::collections::BTreeMap;
use std::future::Future;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use squall_controller::budget::HostUse;
use squall_controller::config::Budget;
use squall_controller::store::{
    Admission, Answered, Asked, Due, EntryRow, Eyes, HostHalt, NewHost, NewJoinToken, NewPlan, NewRun,
    NewSchedule, NewToken, Role, Store, StoreError, Tested, Verified, Where, states,
};
use squall_tests::client::{Postgres, connect};
use squall_tests::needs;
use squall_tests::netns::Process;
use squall_tests::service::{Service, postgres_programs};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;
use tokio::time::timeout;

mod backup;
mod rebuild;
pub mod several;

/// A time that no test reaches: the year 2100.
const LATER: u64 = 4_102_444_800_000;

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn text(text: &str) -> String {
    text.to_owned()
}

pub fn a_run(id: &str) -> NewRun {
    NewRun {
        id: text(id),
        title: text("T"),
        document: text("{}"),
        plan: text("00"),
        by: text("ada"),
        tested: Tested::default(),
    }
}

fn a_host(name: &str, serial: &str) -> NewHost {
    let labels = BTreeMap::from([(text("role"), text("it's \"odd\" ü"))]);
    let zone = Some(text("a"));
    NewHost { name: text(name), labels, zone, cell: None, serial: text(serial), key: text("k") }
}

async fn join(store: &Store, id: &str, expires_at: u64, uses: u64) {
    let hash = format!("hash of {id}");
    let new = NewJoinToken { id: text(id), hash, made_by: text("ada"), expires_at, uses };
    store.new_join_token(new).await.expect("a join token");
}

/// Everything that both databases do alike.
fn alike(place: &Where) {
    let store = Store::open(place).expect("it opens");
    wait(async {
        hosts(&store).await;
        tokens(&store).await;
        runs(&store).await;
        plans(&store).await;
        audit(&store).await;
        answers(&store).await;
        crate::gamedays::kept(&store).await;
    });
    drop(store);
    let store = Store::open(place).expect("it opens again, and nothing is migrated twice");
    wait(async {
        let verified = store.audit_verify().await.expect("it can be read");
        assert!(matches!(verified, Verified::Whole(head) if head.seq == 63));
    });
}

async fn hosts(store: &Store) {
    join(store, "two", LATER, 2).await;
    join(store, "old", 1, 9).await;
    join(store, "gone", LATER, 9).await;
    store.revoke_join_token("gone").await.expect("it is there");
    for hash in ["hash of old", "hash of gone", "hash of nothing", "two"] {
        let refused = store.enrol(hash, a_host("web", "1")).await.expect_err(hash);
        assert!(matches!(refused, StoreError::Token), "{hash}: {refused}");
    }
    store.enrol("hash of two", a_host("web", "1")).await.expect("the first use");
    let clash = store.enrol("hash of two", a_host("web", "2")).await.expect_err("its name is taken");
    assert!(matches!(clash, StoreError::Clash(_)), "{clash}");
    // Who was refused has used nothing up.
    store.enrol("hash of two", a_host("db", "3")).await.expect("the second use");
    let over = store.enrol("hash of two", a_host("x", "4")).await.expect_err("it is used up");
    assert!(matches!(over, StoreError::Token), "{over}");
    assert_eq!(store.join_tokens().await.expect("they can be read").len(), 3);

    store.renew_host("web", "1", "5").await.expect("a new certificate");
    store.renew_host("web", "1", "5").await.expect("told twice");
    store.renew_host("web", "3", "6").await.expect_err("it asks with a certificate of another host");
    let web = store.host("web").await.expect("it can be read").expect("it is there");
    assert!(web.accepts("1") && web.accepts("5") && !web.accepts("3"), "{web:?}");
    assert_eq!(
        (web.labels["role"].as_str(), web.zone.as_deref(), web.cell),
        ("it's \"odd\" ü", Some("a"), None)
    );
    store.settle_host("web", "5").await.expect("it was used");
    store.revoke_host("db").await.expect("it is there");
    store.set_labels("web", BTreeMap::new()).await.expect("it is there");
    let all = store.hosts().await.expect("they can be read");
    assert_eq!(all.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
    assert!(!all[0].accepts("3"), "it is revoked");
    assert!(!all[1].accepts("1") && all[1].accepts("5") && all[1].labels.is_empty(), "{:?}", all[1]);
    store.renew_host("db", "3", "6").await.expect_err("it is revoked");

    join(store, "again", LATER, 1).await;
    store.enrol("hash of again", a_host("db", "7")).await.expect("a revoked name may enrol again");
    let db = store.host("db").await.expect("it can be read").expect("it is there");
    assert!(db.accepts("7") && !db.accepts("3"), "{db:?}");
    for missing in [store.revoke_host("x").await, store.set_labels("x", BTreeMap::new()).await] {
        assert!(matches!(missing, Err(StoreError::Missing(_))), "{missing:?}");
    }
}

async fn tokens(store: &Store) {
    for (id, role, expires_at) in
        [("a", Role::Admin, None), ("o", Role::Operator, Some(LATER)), ("v", Role::Viewer, Some(1))]
    {
        let (hash, name, made_by) = (format!("hash of {id}"), text("ada"), text("root"));
        let new = NewToken { id: text(id), hash, name, role, made_by, expires_at };
        store.new_token(new).await.expect("a token");
    }
    let token = store.token("hash of a").await.expect("it can be read").expect("it is valid");
    assert_eq!((token.role, token.expires_at), (Role::Admin, None));
    assert_eq!(store.token("hash of v").await.expect("it can be read"), None, "it is over");
    assert_eq!(store.token("hash").await.expect("it can be read"), None);
    sessions(store).await;
    store.revoke_token("o").await.expect("it is there");
    assert_eq!(store.session("s of o").await.expect("it can be read"), None, "its token is revoked");
    assert_eq!(store.token("hash of o").await.expect("it can be read"), None, "it is revoked");
    assert_eq!(store.tokens().await.expect("they can be read").len(), 3);
    assert!(matches!(store.revoke_token("x").await, Err(StoreError::Missing(_))));
}

async fn sessions(store: &Store) {
    for (hash, token, expires_at) in [("s of o", "o", LATER), ("s of v", "v", LATER), ("short", "a", 1)] {
        store.new_session(hash, token, expires_at).await.expect("a session");
    }
    let found = store.session("s of o").await.expect("it can be read").expect("both are valid");
    assert_eq!((found.id.as_str(), found.role), ("o", Role::Operator));
    for over in ["s of v", "short", "none"] {
        assert_eq!(store.session(over).await.expect("it can be read"), None, "{over}");
    }
    for number in 0..22 {
        store.new_session(&format!("s{number:02}"), "a", LATER).await.expect("a session");
    }
    let mut valid = Vec::new();
    for number in 0..22 {
        valid.extend(store.session(&format!("s{number:02}")).await.expect("it can be read"));
    }
    assert_eq!(valid.len(), 20, "a token has no more at once");
    store.end_session("s21").await.expect("it ends");
    store.end_session("s21").await.expect("it has ended");
    assert_eq!(store.session("s21").await.expect("it can be read"), None);
    store.set_fact("halt", Some(text("one"))).await.expect("a fact");
    assert!(!store.forget_fact("halt", "other").await.expect("it answers"));
    assert!(store.forget_fact("halt", "one").await.expect("it answers"));
    assert_eq!(store.fact("halt").await.expect("it answers"), None);
}

async fn runs(store: &Store) {
    for number in 0..25 {
        store.new_run(a_run(&format!("r{number:02}"))).await.expect("a run");
    }
    let clash = store.new_run(a_run("r00")).await.expect_err("it is there");
    assert!(matches!(clash, StoreError::Clash(_)), "{clash}");
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = store.runs(after.as_deref(), 10).await.expect("a page");
        seen.extend(page.runs.into_iter().map(|run| run.id));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let all: Vec<String> = (0..25).rev().map(|number| format!("r{number:02}")).collect();
    assert_eq!(seen, all, "each once, the newest first");

    let events: Vec<String> = (0..5).map(|number| format!("{{\"n\":{number}}}")).collect();
    assert_eq!(store.append(0, "r00", 0, &events[..2]).await.expect("the first two"), 2);
    assert_eq!(store.append(0, "r00", 0, &events[..4]).await.expect("two of them again"), 4);
    let gap = store.append(0, "r00", 5, &events[..1]).await.expect_err("4 is missing");
    assert!(matches!(gap, StoreError::Gap { first: 5, next: 4 }), "{gap}");
    let clash = store.append(0, "r00", 3, &events[..2]).await.expect_err("3 says something else");
    assert!(matches!(clash, StoreError::Clash(_)), "{clash}");
    assert!(matches!(store.append(0, "x", 0, &events).await, Err(StoreError::Missing(_))));
    let kept = store.events("r00", 1, 2).await.expect("they can be read");
    assert_eq!(kept, [(1, events[1].clone()), (2, events[2].clone())]);

    assert_eq!(store.take_run("r00").await.expect("it is there"), 1);
    let fenced = store.set_run_state("r00", "running", 0).await.expect_err("it was taken over");
    assert!(matches!(fenced, StoreError::Fenced { asked: 0, now: 1 }), "{fenced}");
    for fenced in [
        store.append(0, "r00", 4, &events[4..]).await.map(drop).expect_err("it was taken over"),
        store.hold_run("r00", 0).await.expect_err("it was taken over"),
    ] {
        assert!(matches!(fenced, StoreError::Fenced { asked: 0, now: 1 }), "{fenced}");
    }
    store.hold_run("r00", 1).await.expect("by the one who took it over");
    assert_eq!(store.append(1, "r00", 4, &[]).await.expect("nothing is added"), 4);
    store.set_run_state("r00", "running", 1).await.expect("by the one who took it over");
    let found = store.runs_in(&["running", "reverting"]).await.expect("they can be read");
    let long = "ü".repeat(20_000);
    store.new_run(NewRun { title: long.clone(), ..a_run("long") }).await.expect("whatever its title");
    store.set_run_state("long", "held", 0).await.expect("it is there");
    let ended = store.ended(&long, 10).await.expect("it can be read");
    assert!(ended.len() == 1 && ended[0].state == "held", "{ended:?}");
    let tested = Tested { build: Some(text("b7")), weight: 3, content: text("c"), tags: Vec::new() };
    store
        .new_run(NewRun { title: long.clone(), tested, ..a_run("longer") })
        .await
        .expect("of the same title");
    store.set_run_state("longer", "deviated", 0).await.expect("it is there");
    let latest = store.latest(0, 10).await.expect("they can be read");
    let last = latest.iter().find(|ended| ended.title == long).expect("it has ended");
    assert_eq!((last.id.as_str(), last.build.as_deref(), last.weight), ("longer", Some("b7"), 3));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].state.as_str(), found[0].events, found[0].epoch), ("running", 4, 1));
}

async fn plans(store: &Store) {
    let new = |by: &str| NewPlan {
        hash: text("ab"),
        title: text("T"),
        document: text("squall: 1"),
        name: None,
        vars: [(text("a"), text("b"))].into(),
        seed: u64::MAX,
        shown: json!({ "hosts": [] }),
        by: text(by),
    };
    let kept = store.submit_plan(new("ada")).await.expect("a plan");
    assert_eq!((kept.submitted_by.as_str(), kept.seed, kept.approved_by.clone()), ("ada", u64::MAX, None));
    assert_eq!(store.submit_plan(new("bob")).await.expect("the same"), kept, "the first one submitted it");
    // What would do the same to the hosts and is another text is not taken for the one that is there.
    for other in [
        NewPlan { document: text("squall: 1 # or not"), ..new("eve") },
        NewPlan { vars: BTreeMap::new(), ..new("eve") },
    ] {
        let clash = store.submit_plan(other).await.expect_err("it is another one");
        assert!(matches!(&clash, StoreError::Clash(why) if why.contains("ada")), "{clash}");
    }
    let uses = async |run: &str, eyes| store.use_approval("ab", run, eyes).await.expect("it can be asked");
    let approves = async |who: &str, eyes| {
        store.approve_plan("ab", who, Some(text(who)), eyes).await.expect("it is there")
    };
    assert!(!uses("r1", Eyes::Any).await, "nobody has approved it");
    assert!(!approves("ada", Eyes::Second).await.1, "her own");
    let (own, done) = approves("ada", Eyes::Any).await;
    assert!(done && own.approved_by.as_deref() == Some("ada"));
    // Whoever took one person's word for two before: it is none where two are needed.
    assert!(!uses("r1", Eyes::Second).await, "one person is not two");
    let (approved, done) = approves("bob", Eyes::Second).await;
    assert!(done && approved.approved_by.as_deref() == Some("bob"), "it goes before her own: {approved:?}");
    for (who, eyes) in [("eve", Eyes::Any), ("bob", Eyes::Second), ("ada", Eyes::Any)] {
        assert_eq!(approves(who, eyes).await, (approved.clone(), false), "it is approved");
    }
    assert!(uses("r0", Eyes::Second).await);
    store.give_approval_back("r0").await.expect("it used one");
    store.give_approval_back("rx").await.expect("it used none");
    assert!(uses("r1", Eyes::Second).await);
    assert!(!uses("r2", Eyes::Second).await, "it was used");
    assert!(!approves("eve", Eyes::Any).await.1, "it was used");
    let of = store.plan_of_run("r1").await.expect("it can be read").expect("a plan");
    assert_eq!((of.hash.as_str(), of.note.as_deref()), ("ab", Some("bob")));
    assert_eq!(store.plan_of_run("r2").await.expect("it can be read"), None);
    assert_eq!(store.submit_plan(new("eve")).await.expect("anew").approved_by, None);
    let listed = store.plans(10).await.expect("they can be read");
    assert!(listed.len() == 1 && listed[0].document.is_empty() && listed[0].vars.is_empty(), "{listed:?}");
    assert!(listed[0].plan.is_null() && listed[0].seed == u64::MAX, "{listed:?}");
    assert!(matches!(store.plan("cd").await, Err(StoreError::Missing(_))));
}

async fn audit(store: &Store) {
    // Each host that has joined stands there.
    assert_eq!(store.audit_head().await.expect("it can be read").seq, 3);
    for number in 0..10 {
        let entry = store.audit("ada", json!({ "z": number, "a": { "y": 1.5, "b": null } })).await;
        assert_eq!(entry.expect("an entry").seq, number + 4);
    }
    let mut at_once = tokio::task::JoinSet::new();
    for number in 0..50 {
        let store = store.clone();
        at_once.spawn(async move { store.audit("bob", json!({ "n": number })).await.expect("an entry").seq });
    }
    let mut seqs = at_once.join_all().await;
    seqs.sort_unstable();
    assert_eq!(seqs, (14..=63).collect::<Vec<_>>());
    let head = store.audit_head().await.expect("it can be read");
    assert_eq!(store.audit_verify().await.expect("it can be read"), Verified::Whole(head.clone()));
    let page = store.audit_page(63, 10).await.expect("a page");
    assert_eq!((page.len(), &page[0].hash, head.seq), (1, &head.hash, 63));
}

async fn answers(store: &Store) {
    let ask = async |who: &str, request: &str| store.ask(who, "k", request).await.expect("it can be asked");
    assert_eq!(ask("ada", "one").await, Asked::Anew);
    assert_eq!(ask("ada", "one").await, Asked::UnderWay);
    assert_eq!(ask("ada", "two").await, Asked::Differently);
    assert_eq!(ask("bob", "two").await, Asked::Anew, "keys are each caller's own");
    let answer = Answered { status: 201, body: text("{}") };
    store.answered("ada", "k", Some(answer.clone())).await.expect("it is kept");
    assert_eq!(ask("ada", "one").await, Asked::Before(answer));
    store.answered("bob", "k", None).await.expect("it is free");
    assert_eq!(ask("bob", "three").await, Asked::Anew);
}

/// PostgreSQL of a world by its Unix socket, which every network namespace reaches.
fn place(world: &World, database: &str) -> Where {
    let directory = world.directory.join("service-0");
    Where::Postgres(format!("host={} port=5432 user=postgres dbname={database}", directory.display()))
}

fn session(world: &World, service: &Service) -> std::io::Result<Postgres> {
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], service.port));
    Postgres::over(connect(&world.hosts[0].netns, at, PATIENCE)?)
}

fn query(world: &World, service: &Service, sql: &str) -> std::io::Result<String> {
    session(world, service)?.query(sql)
}

#[test]
fn sqlite_keeps_what_a_controller_remembers() {
    needs!(Root);
    let world = World::new(1);
    alike(&Where::Sqlite(world.directory.join("data")));
}

#[test]
fn postgres_keeps_it_alike_for_many_controllers_and_comes_back() {
    needs!(Root, Postgres);
    let world = World::new(1);
    let service = world.postgres(0, 5432);
    alike(&place(&world, "postgres"));
    altered_audit(&world, &service);
    several::together(&place(&world, "postgres"));
    several::heard(&world, &service);
    several::once(&place(&world, "postgres"));
    several::locked(&world, &service);
    query(&world, &service, "INSERT INTO schema_version (version) VALUES (1000)").expect("it is altered");
    let newer = Store::open(&place(&world, "postgres")).expect_err("it is newer");
    assert!(matches!(newer, StoreError::Newer { has: 1000, .. }), "{newer}");
    query(&world, &service, "CREATE DATABASE second").expect("a database");
    several::away(&world, &service);
}

/// Who alters an entry behind the controller's back is found, with the entry.
fn altered_audit(world: &World, service: &Service) {
    let store = Store::open(&place(world, "postgres")).expect("it opens");
    let verified = || wait(store.audit_verify()).expect("it can be read");
    let alter = |sql: &str| query(world, service, sql).expect("it is altered");
    let broken = |at: u64| {
        assert!(matches!(verified(), Verified::Broken { seq, .. } if seq == at), "{:?}", verified())
    };
    alter("UPDATE audit SET who = 'eve' WHERE seq = 7");
    broken(7);
    alter("UPDATE audit SET who = 'ada' WHERE seq = 7");
    assert!(matches!(verified(), Verified::Whole(_)));
    alter("CREATE TABLE kept AS SELECT * FROM audit WHERE seq IN (30, 63)");
    alter("DELETE FROM audit WHERE seq = 30");
    broken(30);
    alter("INSERT INTO audit SELECT * FROM kept WHERE seq = 30");
    alter("DELETE FROM audit WHERE seq = 63");
    broken(63);
    alter("INSERT INTO audit SELECT * FROM kept WHERE seq = 63");
    assert!(matches!(verified(), Verified::Whole(_)));
}
