use std::collections::BTreeMap;
use std::fs;
use std::future::ready;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::json;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::Refusal;
use squall_experiments::run::{Event, State, fold};
use squall_experiments::targets::Candidate;

use super::*;
use crate::conductor::run_id;
use crate::conductor::tests::agent::{Manners, Seen, serve};

/// Hosts whose agents are those of the conductor's tests; what a probe sees stands in a file of the host's directory.
struct Fleet {
    directory: PathBuf,
    hosts: BTreeMap<&'static str, (Manners, Seen)>,
    unreachable: Mutex<Vec<&'static str>>,
}

impl Fleet {
    fn new(hosts: impl IntoIterator<Item = (&'static str, Manners)>) -> Fleet {
        let directory = std::env::temp_dir().join(format!("squall-muster-{}", run_id()));
        let hosts: BTreeMap<&str, (Manners, Seen)> = hosts
            .into_iter()
            .map(|(name, manners)| (name, (Manners { impaired: 9, ..manners }, Seen::default())))
            .collect();
        let fleet = Fleet { directory, hosts, unreachable: Mutex::default() };
        for name in fleet.hosts.keys() {
            fs::create_dir_all(fleet.directory.join(name)).unwrap();
            ["h", "g"].iter().for_each(|file| fleet.set(name, file, "good"));
        }
        fleet
    }

    fn set(&self, host: &str, file: &str, what: &str) {
        fs::write(self.directory.join(host).join(file), what).unwrap();
    }

    fn asked(&self, host: &str) -> Vec<String> {
        self.hosts[host].1.asked()
    }

    fn is_clean(&self) -> bool {
        self.hosts.values().all(|(_, seen)| seen.is_clean())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Fleet {
    fn hosts(&self) -> Vec<Candidate> {
        let host =
            |name: &&str| Candidate { name: (*name).to_owned(), connected: true, ..Candidate::default() };
        self.hosts.keys().map(host).collect()
    }
}

impl Machines for Fleet {
    fn agent(&self, host: &str) -> Answer<Stream> {
        if self.unreachable.lock().unwrap().contains(&host) {
            return Box::pin(ready(Err(Refusal::bare("it is not connected"))));
        }
        let (manners, seen) = &self.hosts[host];
        Box::pin(ready(Ok(serve(manners.clone(), seen.clone()).into())))
    }

    fn prober(&self, host: &str, _user: Option<&str>) -> Answer<Stream> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/conductor/tests/prober.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg(self.directory.join(host));
        command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(Stdio::from(OwnedFd::from(theirs)));
        let mut child = command.spawn().unwrap();
        std::thread::spawn(move || child.wait());
        Box::pin(ready(Ok(ours.into())))
    }
}

/// What came of a run: the sum and the log.
struct Outcome {
    muster: Muster,
    log: Vec<Line>,
}

impl Outcome {
    /// The events of one host, which must be those of a run.
    fn of(&self, host: &str) -> Vec<Event> {
        let own = self.log.iter().filter_map(|line| match &line.what {
            What::OnHost { host: own, record } if own == host => Some(record.event.clone()),
            _ => None,
        });
        let events: Vec<Event> = own.collect();
        let state = fold(&events).unwrap();
        assert!(matches!(state, State::Finished { .. } | State::Stuck { .. }), "{state:?}");
        events
    }

    fn at(&self, wanted: impl Fn(&What) -> bool) -> usize {
        self.log.iter().position(|line| wanted(&line.what)).expect("such a line is in the log")
    }

    fn exits(&self) -> Vec<(&str, Exit)> {
        self.muster.hosts.iter().map(|on| (on.host.as_str(), on.exit)).collect()
    }
}

/// Runs a document on all hosts; `seen` sees each line, and may send an interruption.
fn run_with(
    fleet: &Arc<Fleet>,
    document: &serde_json::Value,
    mut seen: impl FnMut(&Line, &mpsc::UnboundedSender<String>) + Send,
) -> Outcome {
    let claim =
        |name: &str| json!({ "name": name, "process": { "argv": [name], "timeout": "1s" }, "every": "40ms" });
    let mut whole = json!({
        "squall": 1, "title": "test", "on": { "pick": "all" }, "hypothesis": [claim("h")], "recovery": "2s",
        "stop-when": [claim("g")],
        "method": [step("500ms")],
    });
    for (key, value) in document.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let experiment: Experiment = serde_json::from_value(whole).unwrap();
    let targets = Targets::of(&experiment, &fleet.hosts(), 7).unwrap();
    let order = Order {
        run: run_id(),
        experiment,
        targets,
        seed: 7,
        version: "test".to_owned(),
        origin: None,
        lease: Duration::from_millis(400),
        redactor: Redactor::default(),
        epoch: 0,
        sights: None,
        approved: None,
    };
    let machines: Arc<dyn Machines> = Arc::clone(fleet) as _;
    let (interrupt, interruptions) = mpsc::unbounded_channel();
    let mut log = Vec::new();
    let outlet: Outlet<'_> = Box::new(|line| {
        // What is written can be read back.
        let text = serde_json::to_string(line).unwrap();
        let read: Line = serde_json::from_str(&text).unwrap();
        assert_eq!(read, *line);
        seen(line, &interrupt);
        log.push(read);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let muster = runtime.block_on(run(order, machines, outlet, interruptions));
    assert!(log.iter().map(|line| line.seq).eq(1..=log.len() as u64));
    assert_eq!(Muster::of(&log), Some(muster.clone()), "the sum is made of the log alone");
    Outcome { muster, log }
}

fn run_on(
    hosts: impl IntoIterator<Item = (&'static str, Manners)>,
    document: &serde_json::Value,
) -> (Outcome, Arc<Fleet>) {
    let fleet = Arc::new(Fleet::new(hosts));
    (run_with(&fleet, document, |_, _| {}), fleet)
}

fn well() -> Manners {
    Manners::default()
}

fn is_event(what: &What, host: &str, wanted: fn(&Event) -> bool) -> bool {
    matches!(what, What::OnHost { host: own, record } if own == host && wanted(&record.event))
}

#[test]
fn all_hosts_begin_together_and_hold() {
    let slow = Manners { apply_takes: Duration::from_millis(150), ..well() };
    let (outcome, fleet) =
        run_on([("a", well()), ("b", slow), ("c", well())], &json!({ "baseline": "200ms" }));
    assert_eq!(outcome.muster.exit, Exit::Held, "{:#?}", outcome.muster);
    assert_eq!(outcome.exits(), [("a", Exit::Held), ("b", Exit::Held), ("c", Exit::Held)]);
    assert!(outcome.muster.sentence.starts_with("held on all 3 hosts: `a`: "), "{}", outcome.muster.sentence);
    for host in ["a", "b", "c"] {
        outcome.of(host);
        assert_eq!(fleet.asked(host), ["hello", "begin", "apply", "lift", "end"]);
        let met = outcome.at(|what| is_event(what, host, |event| matches!(event, Event::BaselineMet)));
        let asked = ["a", "b", "c"].map(|other| {
            outcome.at(|what| is_event(what, other, |event| matches!(event, Event::Injecting { .. })))
        });
        assert!(asked.iter().all(|asked| *asked > met), "nobody injects before {host} is ready");
    }
    let gates: Vec<&str> = outcome.log.iter().filter_map(passed).collect();
    assert_eq!(gates, ["the baseline", "to step 1", "the method"]);
    let [start] = outcome.muster.starts.as_slice() else { panic!("{:?}", outcome.muster.starts) };
    assert_eq!((start.part, start.hosts, start.name.as_str()), (1, 3, "f"));
    assert!(start.injected_ms >= 100, "one agent takes 150 ms: {start:?}");
    assert!(fleet.is_clean());
}

#[test]
fn hosts_whose_clocks_differ_begin_at_one_instant_of_each() {
    let tells = |ahead: u64| Manners { ahead: Some(ahead), ..well() };
    let (outcome, fleet) = run_on([("a", tells(0)), ("b", tells(3600)), ("c", tells(7))], &json!({}));
    assert_eq!(outcome.muster.exit, Exit::Held, "{:#?}", outcome.muster);
    let [start] = outcome.muster.starts.as_slice() else { panic!("{:?}", outcome.muster.starts) };
    let (began_us, within_us) = (start.began_us.unwrap(), start.within_us.unwrap());
    // An hour and seven seconds are not to be seen; what is, is how late a busy machine wakes a thread.
    assert!(began_us < 5_000_000 && within_us < 5_000_000, "{start:?}");
    assert!(fleet.is_clean());
}

#[test]
fn what_was_ordered_ahead_is_called_off_where_another_host_refuses() {
    let tells = Manners { ahead: Some(5), dawdles: true, ..well() };
    let refuses = Manners { refuses_apply: true, ..tells.clone() };
    let (outcome, fleet) = run_on([("a", tells), ("b", refuses)], &json!({}));
    assert_eq!(outcome.exits(), [("a", Exit::Held), ("b", Exit::Refused)], "{:#?}", outcome.muster);
    assert_eq!(outcome.muster.hosts[0].verdict, "reverted because of another host");
    let injected = outcome.of("a").iter().any(|event| matches!(event, Event::Injected { .. }));
    assert!(!injected && fleet.is_clean(), "{:#?}", outcome.log);
    assert!(fleet.hosts["a"].1.lasts.lock().unwrap().is_empty(), "nothing was made there");
}

#[test]
fn one_that_refuses_reverts_the_others() {
    let refuses = Manners { refuses_apply: true, ..well() };
    let (outcome, fleet) = run_on([("a", well()), ("b", refuses), ("c", well())], &json!({}));
    assert_eq!(outcome.muster.exit, Exit::Refused, "{:#?}", outcome.muster);
    assert_eq!(outcome.exits(), [("a", Exit::Held), ("b", Exit::Refused), ("c", Exit::Held)]);
    assert_eq!(outcome.muster.hosts[0].verdict, "reverted because of another host");
    let stopped = outcome.muster.stopped.as_deref().unwrap();
    assert_eq!(stopped, "called off: `b`: refused: no process matches `name shop`");
    let expected = "refused on 1 of 3 hosts: `b`: `f` was refused: no process matches `name shop`";
    assert!(outcome.muster.sentence.starts_with(expected), "{}", outcome.muster.sentence);
    assert!(fleet.is_clean());
}

#[test]
fn or_they_go_on_without_it_and_the_run_is_not_held() {
    let refuses = Manners { refuses_apply: true, ..well() };
    let document = json!({ "on-partial": "continue" });
    let (outcome, fleet) = run_on([("a", well()), ("b", refuses), ("c", well())], &document);
    assert_eq!(outcome.muster.exit, Exit::Refused, "{:#?}", outcome.muster);
    assert_eq!(outcome.exits(), [("a", Exit::Held), ("b", Exit::Refused), ("c", Exit::Held)]);
    assert_eq!(outcome.muster.stopped, None);
    assert_eq!(outcome.muster.hosts[0].verdict, "held");
    outcome.at(
        |what| matches!(what, What::Fleet { event: FleetEvent::LeftOut { host, .. }, .. } if host == "b"),
    );
    let ended = |event: &Event| matches!(event, Event::MethodEnded);
    assert!(outcome.of("a").iter().any(ended) && outcome.of("c").iter().any(ended));
    assert!(fleet.is_clean());
}

#[test]
fn nobody_injects_where_one_is_not_well_before() {
    let fleet = Arc::new(Fleet::new([("a", well()), ("b", well())]));
    fleet.set("b", "h", "bad");
    let outcome = run_with(&fleet, &json!({}), |_, _| {});
    assert_eq!(outcome.muster.exit, Exit::Refused, "{:#?}", outcome.muster);
    assert!(["a", "b"].iter().all(|host| !fleet.asked(host).contains(&"begin".to_owned())));
    assert!(outcome.muster.stopped.unwrap().starts_with("called off: `b`: `h` did not hold before"));
}

#[test]
fn an_agent_that_is_lost_reverts_the_others_and_is_asked_again() {
    let dies = Manners { dies: true, ..well() };
    let (outcome, fleet) = run_on([("a", well()), ("b", dies)], &json!({}));
    // Its host says that it holds nothing: whoever lost the connection did not leave anything.
    assert_eq!(outcome.exits(), [("a", Exit::Held), ("b", Exit::Interrupted)], "{:#?}", outcome.muster);
    assert!(outcome.muster.stopped.as_deref().unwrap().contains("the connection to its agent broke"));
    assert!(fleet.is_clean());
}

#[test]
fn a_lost_host_of_which_nothing_is_heard_may_still_be_modified() {
    let dies = Manners { dies: true, ..well() };
    let fleet = Arc::new(Fleet::new([("a", well()), ("b", dies)]));
    let there = Arc::clone(&fleet);
    let outcome = run_with(&fleet, &json!({}), |line, _| {
        if passed(line) == Some("to step 1") {
            there.unreachable.lock().unwrap().push("b");
        }
    });
    assert_eq!(outcome.exits(), [("a", Exit::Held), ("b", Exit::Modified)], "{:#?}", outcome.muster);
    assert_eq!(outcome.muster.exit, Exit::Modified);
    assert!(fleet.hosts["a"].1.is_clean());
}

#[test]
fn a_host_that_cannot_be_reached_at_all_is_a_refusal() {
    let fleet = Arc::new(Fleet::new([("a", well()), ("b", well())]));
    fleet.unreachable.lock().unwrap().push("b");
    let outcome = run_with(&fleet, &json!({}), |_, _| {});
    assert_eq!(outcome.muster.exit, Exit::Refused, "{:#?}", outcome.muster);
    assert!(!fleet.asked("a").contains(&"begin".to_owned()), "{:?}", fleet.asked("a"));
}

#[test]
fn a_guard_stops_all_whatever_is_said_of_partial_failure() {
    let fleet = Arc::new(Fleet::new([("a", well()), ("b", well())]));
    let there = Arc::clone(&fleet);
    let outcome =
        run_with(&fleet, &json!({ "on-partial": "continue", "method": [step("10s")] }), |line, _| {
            if is_event(&line.what, "a", |event| matches!(event, Event::Injected { .. })) {
                there.set("b", "g", "bad");
            }
        });
    assert_eq!(outcome.exits(), [("a", Exit::Held), ("b", Exit::Deviated)], "{:#?}", outcome.muster);
    assert!(outcome.muster.took_ms < 9000, "nobody waited for the end: {} ms", outcome.muster.took_ms);
    assert!(outcome.muster.stopped.as_deref().unwrap().starts_with("called off: `b`: the guard `g`"));
    assert!(fleet.is_clean());
}

#[test]
fn a_person_stops_all() {
    let fleet = Arc::new(Fleet::new([("a", well()), ("b", well())]));
    let outcome = run_with(&fleet, &json!({ "method": [step("10s")] }), |line, interrupt| {
        if is_event(&line.what, "b", |event| matches!(event, Event::Injected { .. })) {
            interrupt.send("SIGTERM".to_owned()).unwrap();
        }
    });
    assert_eq!(
        outcome.exits(),
        [("a", Exit::Interrupted), ("b", Exit::Interrupted)],
        "{:#?}",
        outcome.muster
    );
    assert_eq!(outcome.muster.stopped.as_deref(), Some("SIGTERM"));
    assert!(outcome.muster.took_ms < 9000 && fleet.is_clean());
}

#[test]
fn steps_for_other_hosts_are_waited_for_and_looked_at() {
    let fleet = Arc::new(Fleet::new([("a", well()), ("b", well())]));
    let on = |name: &str, lasts: &str| {
        let mut step = step(lasts);
        step["on"] = json!({ "name": [name] });
        step
    };
    let document = json!({ "method": [on("a", "300ms"), on("b", "400ms")] });
    let outcome = run_with(&fleet, &document, |_, _| {});
    assert_eq!(outcome.muster.exit, Exit::Held, "{:#?}", outcome.muster);
    let of = |host: &str, wanted: fn(&Event) -> bool| outcome.at(|what| is_event(what, host, wanted));
    let lifted = of("a", |event| matches!(event, Event::Lifted { .. }));
    assert!(lifted < of("b", |event| matches!(event, Event::Injecting { .. })), "one after the other");
    let parts: Vec<u32> =
        outcome.muster.hosts.iter().map(|on| on.summary.as_ref().unwrap().parts[0].part).collect();
    assert_eq!(parts, [1, 2]);
    // Each was looked at while the other one had its fault.
    for on in &outcome.muster.hosts {
        let during = on.summary.as_ref().unwrap().hypotheses[0].during.tally.total();
        assert!(during >= 4, "{during} samples on {}", on.host);
    }
}

#[test]
fn a_host_that_only_looks_is_judged_like_one_that_has_the_fault() {
    let fleet = Arc::new(Fleet::new([("a", well()), ("b", well())]));
    let there = Arc::clone(&fleet);
    let document = json!({
        "on": { "name": ["b"] }, "stop-when": [],
        "method": [{ "fault": { "partition": { "to": ["127.0.0.1:7003"] } }, "on": { "name": ["a"] }, "for": "600ms" }],
    });
    let outcome = run_with(&fleet, &document, |line, _| {
        if is_event(&line.what, "a", |event| matches!(event, Event::Injected { .. })) {
            there.set("b", "h", "bad");
        }
        if is_event(&line.what, "a", |event| matches!(event, Event::Lifted { .. })) {
            there.set("b", "h", "good");
        }
    });
    assert_eq!(outcome.exits(), [("a", Exit::Held), ("b", Exit::Deviated)], "{:#?}", outcome.muster);
    let on_a = outcome.muster.hosts[0].summary.as_ref().unwrap();
    assert!(on_a.hypotheses.is_empty() && on_a.parts[0].measured);
    assert!(fleet.asked("b").is_empty(), "a host that only looks needs no agent");
}

fn step(lasts: &str) -> serde_json::Value {
    json!({ "name": "f", "fault": { "partition": { "to": ["127.0.0.1:7003"] } }, "for": lasts })
}

fn passed(line: &Line) -> Option<&str> {
    match &line.what {
        What::Fleet { event: FleetEvent::Passed { gate, .. }, .. } => Some(gate),
        _ => None,
    }
}
