//! Runs whose store hangs, and runs of a controller that is gone.

use serde_json::json;
use squall_experiments::muster::{FleetEvent, What};
use tokio::time::timeout;

use super::*;
use crate::store::Where;
use crate::store::tests::Scratch;

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

#[test]
fn a_run_goes_on_from_its_baseline_to_the_end_of_its_recovery() {
    let lasts = |hypothesis: &str, rest: &str| {
        let text = format!(
            "squall: 1\ntitle: x\nhypothesis: {hypothesis}\n{rest}\nmethod:\n  \
             - {{ fault: {{ latency: {{ delay: 20ms, to: [\"10.0.0.1:80\"] }} }}, for: 60s }}\n"
        );
        let (vars, secret) = (BTreeMap::new(), |_: &str| Ok(None));
        let sources = Sources { vars, secret: &secret, longest: LONGEST_FAULT };
        let read = document::read("x.yaml", text.as_bytes(), &sources);
        let read = read.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        goes_on(&read.experiment, Duration::from_secs(90)).as_secs()
    };
    let claim = "[{ name: it answers, http: { url: \"http://127.0.0.1/\" } }]";
    assert_eq!(lasts(claim, "baseline: 5m\nrecovery: 2m"), 300 + 90 + 120);
    assert_eq!(lasts(claim, ""), 90 + 30);
    assert_eq!(lasts("[]", ""), 90, "nothing is looked at before and after");
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

#[tokio::test]
async fn a_run_that_was_taken_over_before_it_began_does_not_begin() {
    let scratch = Scratch::new("taken");
    let store = store(&scratch);
    a_run(&store).await;
    let authority = Arc::new(Authority::open(&scratch.path()).expect("an authority"));
    let (secrets, traces) = (scratch.path().join("secrets"), Traces::default());
    let runs = Runs::new(Hub::new(), store.clone(), authority, secrets, "test", traces);
    let submission = || {
        Submission {
        document: "squall: 1\ntitle: T\non: { pick: all }\nhypothesis: []\nmethod:\n  - { fault: { refuse: { to: [\"10.0.0.1:7\"] } }, for: 1s }\n".to_owned(),
        seed: Some(7),
        ..Submission::default()
    }
    };
    let refused = runs.start("r", submission()).await.expect_err("there is no host");
    assert!(refused.what.contains("no host"), "{refused:?}");
    store.take_run("r").await.expect("it is there");
    let refused = runs.start("r", submission()).await.expect_err("it is somebody else's");
    assert!(refused.what.contains("taken"), "{refused:?}");
}

#[tokio::test]
async fn stages_are_one_run_and_a_ramp_is_none_but_one_step_of_it_is() {
    let scratch = Scratch::new("checked");
    let authority = Arc::new(Authority::open(&scratch.path()).expect("an authority"));
    let (secrets, traces) = (scratch.path().join("secrets"), Traces::default());
    let runs = Runs::new(Hub::new(), store(&scratch), authority, secrets, "test", traces);
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
