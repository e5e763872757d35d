//! Runs whose store hangs, and runs of a controller that is gone.

use serde_json::json;
use squall_experiments::muster::{FleetEvent, What};
use tokio::time::timeout;

use super::*;
use crate::store::tests::Scratch;
use crate::store::{StoreError, Where};

/// What nobody waits for in vain.
const PATIENCE: Duration = Duration::from_secs(20);

async fn a_run(store: &Store) -> RunRow {
    let new = crate::store::tests::a_run("r");
    store.new_run(new).await.expect("a run");
    store.run("r").await.expect("it answers").expect("it is there")
}

fn store(scratch: &Scratch) -> Store {
    Store::open(&Where::Sqlite(scratch.path())).expect("a store")
}

#[tokio::test]
async fn a_store_that_hangs_ends_a_run_before_somebody_else_takes_it_over() {
    let scratch = Scratch::new("hangs");
    let store = store(&scratch);
    let run = a_run(&store).await;
    let hung = store.hang().await;
    let (interrupt, mut interruptions) = mpsc::unbounded_channel();
    let held = takeover::hold(&store, &run, interrupt, Duration::from_millis(300));
    let interrupted = async { timeout(PATIENCE, interruptions.recv()).await.expect("while it hangs") };
    let why = tokio::select! {
        why = interrupted => why,
        never = held => match never {},
    };
    assert_eq!(why.as_deref(), Some("nobody can say that it is still carried on"));
    drop(hung);
}

#[tokio::test]
async fn lines_that_a_store_takes_and_does_not_answer_for_end_a_run_and_are_kept_in_the_end() {
    let scratch = Scratch::new("silent");
    let store = store(&scratch);
    let run = a_run(&store).await;
    let hung = store.hang().await;
    let (interrupt, mut interruptions) = mpsc::unbounded_channel();
    let keeper = Keeper::new(&store, &run, interrupt, Duration::from_millis(300));
    assert!(matches!(keeper.begins().await, Err(StoreError::Away(_))), "nobody can say that it has begun");
    while interruptions.try_recv().is_ok() {}
    let (say, lines) = mpsc::unbounded_channel();
    let end = json!({ "seq": 1, "at_ms": 7, "fleet": "finished", "exit": 0, "sentence": "held" });
    say.send(serde_json::from_value(end).expect("a line")).expect("it is heard");
    drop(say);
    let released = async {
        let why = timeout(PATIENCE, interruptions.recv()).await.expect("while it hangs");
        assert_eq!(why.as_deref(), Some("its events cannot be kept"));
        drop(hung);
    };
    let (kept, ()) = tokio::join!(keeper.lines(lines), released);
    kept.expect("it answers again");
    let events = store.events("r", 0, 10).await.expect("it answers");
    let kept: Line = serde_json::from_str(&events[0].1).expect("a line");
    let head = store.audit_head().await.expect("it answers");
    let What::Fleet { event: FleetEvent::Finished { audit, .. }, .. } = kept.what else {
        panic!("{events:?}")
    };
    assert_eq!((events.len(), audit), (1, Some(head)), "it publishes the end of the audit log");
}

#[tokio::test]
async fn a_run_whose_end_is_in_its_log_keeps_it_when_it_is_taken_over() {
    let scratch = Scratch::new("ended");
    let store = store(&scratch);
    a_run(&store).await;
    let end = json!({ "seq": 1, "at_ms": 7, "fleet": "finished", "exit": 5, "sentence": "deviated: so" });
    let end: Line = serde_json::from_value(end).expect("a line of a log");
    let end = serde_json::to_string(&end).expect("JSON");
    store.append(0, "r", 0, std::slice::from_ref(&end)).await.expect("its end");
    store.set_run_state("r", "running", 0).await.expect("what became of it is not kept");
    let epoch = store.take_run("r").await.expect("it is there");
    let taken = RunRow { epoch, ..store.run("r").await.expect("it answers").expect("it is there") };
    for _ in 0..2 {
        takeover::close(&store, &taken).await.expect("it is closed");
        let closed = store.run("r").await.expect("it answers").expect("it is there");
        assert_eq!((closed.state.as_str(), closed.events), (Exit::Deviated.meaning(), 1));
    }
}

#[tokio::test]
async fn a_run_that_is_closed_twice_has_one_end() {
    let scratch = Scratch::new("twice");
    let store = store(&scratch);
    a_run(&store).await;
    let epoch = store.take_run("r").await.expect("it is there");
    for _ in 0..2 {
        let taken = RunRow { epoch, ..store.run("r").await.expect("it answers").expect("it is there") };
        takeover::close(&store, &taken).await.expect("it is closed");
        let closed = store.run("r").await.expect("it answers").expect("it is there");
        assert_eq!((closed.state.as_str(), closed.events), (Exit::Interrupted.meaning(), 2));
    }
}

/// One that every host is to take part in.
fn submission() -> Submission {
    let document = "squall: 1\ntitle: T\non: { pick: all }\nhypothesis: []\nmethod:\n  \
                    - { fault: { refuse: { to: [\"10.0.0.1:7\"] } }, for: 1s }\n";
    Submission { document: document.to_owned(), seed: Some(7), ..Submission::default() }
}

fn runs_of(scratch: &Scratch, store: &Store) -> Runs {
    let authority = Arc::new(Authority::open(&scratch.path()).expect("an authority"));
    let (secrets, traces) = (scratch.path().join("secrets"), Traces::default());
    Runs::new(Hub::new(), store.clone(), authority, secrets, "test", traces)
}

#[tokio::test]
async fn a_run_that_was_taken_over_before_it_began_does_not_begin() {
    let scratch = Scratch::new("taken");
    let store = store(&scratch);
    a_run(&store).await;
    let runs = runs_of(&scratch, &store);
    let refused = runs.start("r", submission()).await.expect_err("there is no host");
    assert!(refused.detail.contains("no host"), "{refused:?}");
    store.take_run("r").await.expect("it is there");
    let refused = runs.start("r", submission()).await.expect_err("it is somebody else's");
    assert!(refused.detail.contains("taken"), "{refused:?}");
    assert!(runs.live().is_empty());
}

#[tokio::test]
async fn a_halt_finds_a_run_that_is_about_to_begin_or_keeps_it_from_that() {
    let scratch = Scratch::new("begins");
    let store = store(&scratch);
    a_run(&store).await;
    let runs = runs_of(&scratch, &store);
    let mut begins = runs.start("r", submission());
    tokio::select! {
        biased;
        begun = &mut begins => panic!("the store has not answered yet: {begun:?}"),
        () = std::future::ready(()) => {}
    }
    let (tell, mut told) = mpsc::unbounded_channel();
    runs.live().entry("r".to_owned()).and_modify(|run| *run = tell);
    runs.halt_runs();
    assert_eq!(told.try_recv().as_deref(), Ok("halt"));
    // Whoever asked for it has gone.
    drop(begins);
    assert!(runs.live().is_empty());

    store.set_fact(crate::api::HALT, Some("a halt".to_owned())).await.expect("it is kept");
    let refused = runs.start("r", submission()).await.expect_err("a halt blocks it");
    assert!(refused.status == 423 && refused.detail.contains("a halt"), "{refused:?}");
    assert!(runs.live().is_empty());
}

#[tokio::test]
async fn stages_are_one_run_and_a_ramp_is_none_but_one_step_of_it_is() {
    let scratch = Scratch::new("checked");
    let runs = runs_of(&scratch, &store(&scratch));
    let check = |more: &str, vars: &[(&str, &str)]| {
        let method = "method:\n  - { fault: { latency: { delay: 1ms, to: [\"10.0.0.1:7\"] } }, for: 1s }\n";
        let document = format!(
            "squall: 1\ntitle: T\non: {{ pick: all }}\nhypothesis:\n  - name: up\n    tcp: {{ address: \"10.0.0.1:7\" }}\n\
             {method}{more}\n"
        );
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        runs.check(&Submission { document, vars, ..Submission::default() })
    };
    check("", &[]).expect("hosts are not looked at");
    check("stages: { grow: 2x, bake: 1s }", &[]).expect("it is one run");
    let ramp = "ramp: { parameter: latency.delay, from: 1ms, to: 1s, by: 2x }";
    let refused = check(ramp, &[]).expect_err("it is several");
    assert!(refused.what.contains("a ramp of `latency.delay`"), "{refused:?}");
    assert!(refused.help.is_some_and(|help| help.contains("`vars: { latency.delay: … }`")));
    check(ramp, &[("latency.delay", "3ms")]).expect("it is one step");
    let wrong = check("titel: T", &[]).expect_err("it is none");
    assert_eq!(wrong.exit, Exit::Invalid as u8);
}
