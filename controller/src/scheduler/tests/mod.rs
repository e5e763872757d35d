//! The scheduler, over a real store and simulated time. The engine is a double at the seam that [`Engine`] is: it plans for
//! hosts that it is given, and writes down what was begun.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{BoxFuture, join_all};
use squall_experiments::protocol::{Lifted, Refusal};
use squall_experiments::schedule;

use super::*;
use crate::api::Approvals;
use crate::api::engine::{Engine, Planned};
use crate::api::problem::Problem;
use crate::budget::HostUse;
use crate::config::{Budget, Config};
use crate::fleet::HostInfo;
use crate::launch::Wanted;
use crate::sights::Page;
use crate::store::tests::Scratch;
use crate::store::{Approved, Minted, NewSchedule, Paused, Where};

mod calendars;

/// The test double of the engine's seam.
#[derive(Default)]
struct Desk {
    begun: Mutex<Vec<Submission>>,
    /// Whether what is begun never answers, as where its controller ends in the middle.
    hangs: AtomicBool,
}

impl Desk {
    fn begun(&self) -> Vec<Submission> {
        self.begun.lock().expect("nobody panics while noting").clone()
    }
}

impl Engine for Desk {
    fn hosts(&self) -> BoxFuture<'_, Vec<HostInfo>> {
        let host = HostInfo { name: "web".to_owned(), connected: true, ..HostInfo::default() };
        Box::pin(async move { vec![host] })
    }

    fn check(&self, _: &Submission) -> Result<(), Refusal> {
        Ok(())
    }

    fn plan<'a>(&'a self, submission: &'a Submission) -> BoxFuture<'a, Result<Planned, Refusal>> {
        Box::pin(async move {
            if submission.document == "nobody" {
                return Err(Refusal::new("no host matches", "name others"));
            }
            let used = HostUse { host: "web".to_owned(), faults: 1, ..HostUse::default() };
            let (title, hash) = ("A title".to_owned(), "abc".to_owned());
            let seed = submission.seed.unwrap_or(0);
            Ok(Planned { title, hash, seed, uses: vec![used], seconds: 60, ..Planned::default() })
        })
    }

    fn start<'a>(&'a self, _: &'a str, submission: Submission) -> BoxFuture<'a, Result<(), Problem>> {
        self.begun.lock().expect("nobody panics while noting").push(submission);
        Box::pin(async {
            match self.hangs.load(Ordering::Relaxed) {
                true => std::future::pending().await,
                false => Ok(()),
            }
        })
    }

    fn observations(&self, _: &str, _: u64, _: u64) -> Option<Page> {
        None
    }

    fn halt_run<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }

    fn halt_runs(&self) {}

    fn halt<'a>(
        &'a self,
        _: Option<&'a [String]>,
    ) -> BoxFuture<'a, BTreeMap<String, Result<Lifted, Refusal>>> {
        Box::pin(async { BTreeMap::new() })
    }

    fn join_token(&self) -> Minted {
        Minted { token: String::new(), hash: String::new() }
    }

    fn cut_off(&self, _: &str) {}
}

const BEGIN: &str = "2027-03-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// A store with schedules that were added at [`BEGIN`], and a scheduler over it.
struct Bench {
    scratch: Scratch,
    store: Store,
    desk: Arc<Desk>,
    scheduler: Scheduler,
}

impl Bench {
    async fn new(config: Config, schedules: &[String]) -> Self {
        let scratch = Scratch::new("scheduler");
        let store = Store::open(&Where::Sqlite(scratch.path())).expect("a store");
        let desk = Arc::new(Desk::default());
        let scheduler = scheduler(&store, &desk, config);
        for text in schedules {
            store.new_schedule(added(text)).await.expect("a schedule");
        }
        Bench { scratch, store, desk, scheduler }
    }

    /// One look at an instant, and the ends of what it began.
    async fn tick(&self, now: &str) -> Vec<EntryRow> {
        let begun = self.scheduler.tick(at(now)).await.expect("the store answers");
        join_all(begun).await.into_iter().map(|row| row.expect("it does not panic")).collect()
    }

    /// What became of every entry so far: time, state and why.
    async fn became(&self) -> Vec<String> {
        let rows = self.store.entries(None, 0, u64::MAX >> 1, 1000).await.expect("entries");
        let shown = |row: &EntryRow| {
            let time = instant(row.at).strftime("%d %H:%M");
            format!("{time} {} {}", row.state, row.why.as_deref().unwrap_or("-"))
        };
        rows.iter().map(shown).collect()
    }
}

fn scheduler(store: &Store, desk: &Arc<Desk>, config: Config) -> Scheduler {
    let engine = Arc::clone(desk) as Arc<dyn Engine>;
    let launch = Launch::new(config, Approvals::Optional, store.clone(), engine);
    Scheduler::new(launch, store.clone())
}

fn added(text: &str) -> NewSchedule {
    let schedule = schedule::read("s.yaml", text.as_bytes())
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    let document = serde_json::to_string(&schedule).expect("JSON");
    NewSchedule {
        name: schedule.name.to_string(),
        document,
        seed: 7,
        by: "ada".to_owned(),
        at: ms(at(BEGIN)),
    }
}

fn hourly(name: &str, rest: &str) -> String {
    format!("schedule: 1\nname: {name}\nwhen: {{ cron: \"0 * * * *\" }}\nexperiment: anything\n{rest}\n")
}

#[tokio::test]
async fn what_is_due_is_begun_once_in_the_name_of_its_schedule() {
    let bench = Bench::new(Config::default(), &[hourly("night", "opt-in: { chaos: \"yes\" }")]).await;
    assert!(bench.tick("2027-03-01T00:00:00Z").await.len() == 1, "an entry of this very moment is due");
    for now in ["2027-03-01T00:00:01Z", "2027-03-01T00:59:59Z"] {
        assert!(bench.tick(now).await.is_empty());
    }
    let begun = bench.tick("2027-03-01T01:00:30Z").await;
    assert_eq!(begun.len(), 1);
    let run =
        bench.store.run(begun[0].run.as_ref().expect("a run")).await.expect("the store").expect("a run");
    assert_eq!((run.by.as_str(), run.state.as_str()), ("schedule:night", "submitted"));
    let submissions = bench.desk.begun();
    assert_eq!(submissions.len(), 2);
    assert_eq!(submissions[0].only, BTreeMap::from([("chaos".to_owned(), "yes".to_owned())]));
    assert_ne!(submissions[0].seed, submissions[1].seed, "each run has a seed of its own");
    let audit = bench.store.audit_page(1, 10).await.expect("the log");
    assert!(audit.iter().all(|entry| entry.who == "schedule:night") && audit.len() == 2, "{audit:?}");
}

#[tokio::test]
async fn what_was_missed_is_kept_as_missed_and_never_run_late() {
    let bench = Bench::new(Config::default(), &[hourly("night", "")]).await;
    bench.tick("2027-03-01T00:00:10Z").await;
    // The controller was away; a second one starts with nothing but the store.
    let later = scheduler(&bench.store, &bench.desk, Config::default());
    let begun = later.tick(at("2027-03-01T03:01:01Z")).await.expect("the store answers");
    assert!(begun.is_empty());
    let missed = "missed no controller began it at its time";
    assert_eq!(
        bench.became().await,
        [
            "01 00:00 fired -",
            &format!("01 01:00 {missed}"),
            &format!("01 02:00 {missed}"),
            &format!("01 03:00 {missed}")
        ]
    );
    let begun = later.tick(at("2027-03-01T04:01:00Z")).await.expect("the store answers");
    assert_eq!(begun.len(), 1, "within a minute it is not late");
}

#[tokio::test]
async fn an_entry_whose_run_was_kept_is_fired_although_its_controller_ended_before_it_could_say_so() {
    let bench = Bench::new(Config::default(), &[hourly("night", "")]).await;
    bench.desk.hangs.store(true, Ordering::Relaxed);
    let begun = bench.scheduler.tick(at("2027-03-01T00:00:00Z")).await.expect("the store answers");
    while bench.desk.begun().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It is about to be begun, and its controller is killed.
    begun.iter().for_each(JoinHandle::abort);
    let later = scheduler(&bench.store, &bench.desk, Config::default());
    later.tick(at("2027-03-01T00:20:00Z")).await.expect("the store answers");
    assert_eq!(bench.became().await, ["01 00:00 fired -"]);
    let run = bench.store.entries(None, 0, u64::MAX >> 1, 10).await.expect("entries")[0].run.clone();
    let run = bench.store.run(&run.expect("its run")).await.expect("the store").expect("it is kept");
    assert_eq!(run.by, "schedule:night");
}

#[tokio::test]
async fn an_entry_that_was_claimed_and_never_begun_is_given_up_after_a_quarter_of_an_hour() {
    let bench = Bench::new(Config::default(), &[hourly("night", "")]).await;
    let due = Due {
        schedule: "night".to_owned(),
        since: ms(at(BEGIN)),
        at: ms(at(BEGIN)),
        group: String::new(),
        barred: None,
        apart: None,
        late: false,
        leashed: false,
    };
    // Whoever claimed it has ended at once.
    let claimed = bench.store.decide_entry(due).await.expect("the store").expect("it is the first");
    bench.tick("2027-03-01T00:14:00Z").await;
    assert_eq!(bench.became().await, ["01 00:00 claimed -"]);
    bench.tick("2027-03-01T00:15:01Z").await;
    let given_up = ["01 00:00 missed the controller that was about to begin it has ended"];
    assert_eq!(bench.became().await, given_up);
    // Who was only slow comes too late: what is missed is never run, and stays missed.
    let submission = Submission { document: "anything".to_owned(), ..Submission::default() };
    let entry = Some(claimed.key());
    let overruled = Some("it must".to_owned());
    let wanted = Wanted { entry, overruled, ..Wanted::new(submission, "schedule:night") };
    let begun = bench.scheduler.0.launch.begin(wanted).await.expect("it is planned");
    let why = begun.refused.expect("it does not begin").detail;
    assert!(why.contains("schedule: its entry was given up"), "{why}");
    assert!(bench.desk.begun().is_empty());
    assert_eq!(bench.became().await, given_up);
}

#[tokio::test]
async fn who_wants_a_run_gives_way_to_what_schedules_are_about_to_begin_and_to_what_is_just_beginning() {
    let budget = Budget { runs: Some(1), ..Budget::default() };
    let config = Config { budget, ..Config::default() };
    // Its entry comes in the middle of the run that is wanted, which takes a minute.
    let now = Timestamp::now();
    let soon = now.checked_add(SignedDuration::from_secs(30)).expect("an instant");
    let soon = soon.strftime("%Y-%m-%d %H:%M:%S");
    let once = |name: &str, rest: &str| {
        format!("schedule: 1\nname: {name}\nwhen: {{ at: \"{soon}\" }}\nexperiment: anything\n{rest}\n")
    };
    let bench = Bench::new(config, &[]).await;
    let since = ms(now) - 1000;
    let adds = async |text: String| {
        bench.store.new_schedule(NewSchedule { at: since, ..added(&text) }).await.expect("a schedule");
    };
    let wants = async || {
        let submission = Submission { document: "anything".to_owned(), ..Submission::default() };
        let beside = Some(&bench.scheduler);
        let wanted = Wanted { beside, ..Wanted::new(submission, "ada") };
        let begun = bench.scheduler.0.launch.begin(wanted).await.expect("it is planned");
        if begun.refused.is_none() {
            let run = begun.run.expect("it is kept").id;
            bench.store.set_run_state(&run, "held", 0).await.expect("it is over");
        }
        begun.refused.map(|problem| problem.detail)
    };
    assert_eq!(wants().await, None, "nothing is scheduled");
    adds(once("rehearsed", "leashed: true")).await;
    assert_eq!(wants().await, None, "what injects nothing needs no room");
    adds(once("night", "")).await;
    let no = wants().await.expect("it gives way");
    assert!(no.contains("budget: 0 runs go on and 1 are about to"), "{no}");

    // Due, and claimed: its gates are asked right now. What has become of it is no more about to come.
    let entry = bench.scheduler.coming(now, 60).await.expect("the store")[0].0.clone();
    let due = instant(entry.at).checked_add(SignedDuration::from_secs(5)).expect("an instant");
    let coming = async || bench.scheduler.coming(due, 60).await.expect("the store").len();
    assert_eq!(coming().await, 1, "it is due and not decided yet");
    let kept = Due {
        schedule: "night".to_owned(),
        since,
        at: entry.at,
        group: String::new(),
        barred: None,
        apart: None,
        late: false,
        leashed: false,
    };
    let claimed = bench.store.decide_entry(kept).await.expect("the store").expect("it is the first");
    assert_eq!(coming().await, 1);
    let no = wants().await.expect("it gives way");
    assert!(no.contains("budget: 0 runs go on and 1 are about to"), "{no}");
    let refused = EntryRow { state: states::REFUSED.to_owned(), why: Some("a gate".to_owned()), ..claimed };
    bench.store.settle_entry(&refused).await.expect("the store");
    assert_eq!(coming().await, 0);
    assert_eq!(wants().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_schedulers_one_begins_each_entry() {
    let bench = Bench::new(Config::default(), &[hourly("one", ""), hourly("other", "")]).await;
    let all: Vec<Scheduler> =
        (0..4).map(|_| scheduler(&bench.store, &bench.desk, Config::default())).collect();
    for hour in 0..12 {
        let now = at(BEGIN).checked_add(SignedDuration::from_secs(hour * 3600 + 1)).expect("an instant");
        let ticks = join_all(all.iter().map(|scheduler| scheduler.tick(now))).await;
        for tick in ticks {
            join_all(tick.expect("the store answers")).await;
        }
    }
    assert_eq!(bench.desk.begun().len(), 24);
    let became = bench.became().await;
    assert!(became.len() == 24 && became.iter().all(|line| line.ends_with("fired -")), "{became:?}");
}

#[tokio::test]
async fn exceptions_pauses_and_refusals_are_kept_with_their_reasons() {
    let days = "except: [{ days: { from: 2027-03-02, why: a holiday } }]";
    let text =
        format!("schedule: 1\nname: noon\nwhen: {{ cron: \"0 12 * * *\" }}\nexperiment: nobody\n{days}\n");
    let bench = Bench::new(Config::default(), &[text]).await;
    assert!(bench.tick("2027-03-01T12:00:09Z").await.is_empty(), "its hosts may still come");
    assert!(bench.became().await.is_empty());
    bench.tick("2027-03-01T12:00:10Z").await;
    bench.tick("2027-03-02T12:00:00Z").await;
    let paused =
        Paused { at: ms(at("2027-03-03T00:00:00Z")), by: "ada".to_owned(), why: "we move".to_owned() };
    bench.store.pause_schedule("noon", Some(paused)).await.expect("it is there");
    bench.tick("2027-03-03T12:00:00Z").await;
    bench.store.pause_schedule("noon", None).await.expect("it is there");
    assert_eq!(
        bench.became().await,
        [
            "01 12:00 refused no host matches; help: name others",
            "02 12:00 skipped a holiday",
            "03 12:00 skipped paused by ada: we move"
        ]
    );
    assert!(bench.desk.begun().is_empty());
    bench.store.remove_schedule("noon").await.expect("it is there");
    assert!(bench.tick("2027-03-04T12:00:00Z").await.is_empty());
    assert_eq!(bench.became().await.len(), 3, "what became of its entries is kept");
}

#[tokio::test]
async fn a_leashed_schedule_goes_through_everything_and_begins_nothing() {
    let bench = Bench::new(Config::default(), &[hourly("night", "leashed: true")]).await;
    bench.tick("2027-03-01T00:00:00Z").await;
    assert_eq!(bench.became().await, ["01 00:00 leashed it would have been on `web`"]);
    assert!(bench.desk.begun().is_empty());
    assert!(bench.store.runs(None, 10).await.expect("runs").runs.is_empty());
}

#[tokio::test]
async fn a_run_that_is_too_near_is_not_begun_whatever_the_plan_says() {
    let random = "schedule: 1\nname: monkey\nopt-in: { chaos: \"yes\" }\nexperiment: anything\n\
                  when: { random: { mean: 2, apart: 2, from: \"09:00\", to: \"10:00\" } }\n";
    let bench = Bench::new(Config::default(), &[random.to_owned()]).await;
    let kept = Due {
        schedule: "monkey".to_owned(),
        since: ms(at(BEGIN)),
        at: ms(at("2027-03-02T09:30:00Z")),
        group: String::new(),
        barred: None,
        apart: Some(ms(at("2027-03-01T10:00:00Z"))),
        late: false,
        leashed: false,
    };
    let first = bench.store.decide_entry(kept.clone()).await.expect("the store").expect("it is the first");
    assert_eq!(first.state, states::CLAIMED);
    assert!(bench.store.decide_entry(kept.clone()).await.expect("the store").is_none(), "it is decided");
    // The day after is too near, in whatever way it came to be planned; another group and a schedule of later are not it.
    let next = Due {
        at: ms(at("2027-03-03T09:30:00Z")),
        apart: Some(ms(at("2027-03-02T00:00:00Z"))),
        ..kept.clone()
    };
    let other = Due { group: "stock".to_owned(), ..next.clone() };
    let near = bench.store.decide_entry(next.clone()).await.expect("the store").expect("it is the first");
    assert_eq!(near.state, states::SKIPPED);
    assert_eq!(near.why.as_deref(), Some("it ran at 2027-03-02 09:30 UTC, which is too near"));
    assert_eq!(
        bench.store.decide_entry(other).await.expect("the store").expect("first").state,
        states::CLAIMED
    );
    let later = Due { since: 1, at: ms(at("2027-03-04T09:30:00Z")), ..next };
    assert!(bench.store.decide_entry(later).await.expect("the store").is_none());
}

#[tokio::test]
async fn a_budget_holds_between_schedules_and_for_whoever_wants_a_run_now() {
    let budget = Budget { runs: Some(1), ..Budget::default() };
    let config = Config { budget, ..Config::default() };
    let bench = Bench::new(config.clone(), &[hourly("one", ""), hourly("other", "")]).await;
    let begun = bench.tick("2027-03-01T01:00:00Z").await;
    let states: BTreeSet<&str> = begun.iter().map(|row| row.state.as_str()).collect();
    assert_eq!(states, BTreeSet::from([states::FIRED, states::REFUSED]), "{begun:?}");
    let refused = begun.iter().find(|row| row.state == states::REFUSED).expect("one was refused");
    assert!(refused.why.as_ref().is_some_and(|why| why.contains("budget: 1 runs go on")), "{refused:?}");
    let run = refused.run.as_ref().expect("a refused run is kept");
    let outcomes = bench.store.outcomes(run).await.expect("outcomes");
    let names: Vec<(&str, bool)> = outcomes.iter().map(|one| (one.gate.as_str(), one.passed)).collect();
    assert_eq!(names, [("hosts healthy", true), ("hosts clean", true), ("budget", false)]);
    // An administrator may overrule it, with a reason that is kept.
    let engine = Arc::clone(&bench.desk) as Arc<dyn Engine>;
    let launch = Launch::new(config, Approvals::Optional, bench.store.clone(), engine);
    let submission = Submission { document: "anything".to_owned(), ..Submission::default() };
    let overruled = Some("the release waits".to_owned());
    let wanted = Wanted { overruled, ..Wanted::new(submission, "ada") };
    let begun = launch.begin(wanted).await.expect("it is planned");
    let run = begun.run.expect("it is kept");
    assert!(begun.refused.is_none() && run.state == "submitted", "{run:?}");
    let outcomes = bench.store.outcomes(&run.id).await.expect("outcomes");
    let last = outcomes.last().expect("several");
    assert_eq!((last.gate.as_str(), last.why.as_str()), ("overruled", "the release waits"));
    let log = bench.store.audit_page(1, 100).await.expect("the log");
    assert!(log.iter().any(|entry| entry.who == "ada" && entry.what["because"] == "the release waits"));
    assert!(log.iter().any(|entry| entry.what["did"] == "was refused a run"));
    drop(bench.scratch);
}

#[tokio::test]
async fn where_runs_need_an_approval_nothing_of_a_schedule_begins_before_and_what_was_approved_is_what_runs()
{
    let bench = Bench::new(Config::default(), &[hourly("night", "")]).await;
    let engine = Arc::clone(&bench.desk) as Arc<dyn Engine>;
    let launch = Launch::new(Config::default(), Approvals::Required, bench.store.clone(), engine);
    let strict = Scheduler::new(launch, bench.store.clone());
    let (from, to) = (at(BEGIN), at("2027-03-01T01:00:00Z"));
    let shown = strict.calendar(None, from, to, from).await.expect("a calendar").entries;
    assert_eq!(shown[0].state, "barred");
    let tick = async |now: &str| join_all(strict.tick(at(now)).await.expect("the store answers")).await.len();
    assert_eq!(tick("2027-03-01T00:00:00Z").await, 0);
    let row = bench.store.schedule("night").await.expect("the store").expect("it is there");
    let hash = Known::of(&row).expect("it is read").hash();
    let approved = |hash: &str| Approved { at: 1, by: "grace".to_owned(), hash: hash.to_owned() };
    let other = bench.store.approve_schedule("night", row.at + 1, approved(&hash)).await;
    assert!(matches!(other, Err(StoreError::Missing(_))), "one that was added since is another: {other:?}");
    bench.store.approve_schedule("night", row.at, approved(&hash)).await.expect("it is there");
    assert_eq!(tick("2027-03-01T01:00:00Z").await, 1);
    // Whoever approves after somebody has, does not stand for what he has not seen.
    bench.store.approve_schedule("night", row.at, approved("of another one")).await.expect("it is there");
    assert_eq!(tick("2027-03-01T02:00:00Z").await, 1);
    let became = bench.became().await;
    assert!(became[0].starts_with("01 00:00 skipped nobody has approved it"), "{became:?}");
    assert_eq!(became[1..], ["01 01:00 fired -", "01 02:00 fired -"]);
    let run = bench.store.entries(None, 0, u64::MAX >> 1, 10).await.expect("entries")[1].run.clone();
    let gates = bench.store.outcomes(&run.expect("a run")).await.expect("outcomes");
    assert_eq!(gates[0].why, "the schedule is the one that grace has approved");
    // Somebody altered what the store holds.
    let mut known = Known::of(&row).expect("it is read");
    known.row.approved = Some(approved("of another one"));
    let around = Around::now(&strict.0.launch, &bench.store).await.expect("the store answers");
    let barred = known.entries(&around, from, to, 10)[0].barred.clone();
    assert_eq!(barred.as_deref(), Some("the schedule is not what grace has approved"));
}

#[tokio::test]
async fn a_pause_counts_for_what_has_not_begun_and_not_for_what_was_missed_before() {
    let bench = Bench::new(Config::default(), &[hourly("night", "")]).await;
    bench.tick("2027-03-01T00:00:00Z").await;
    let paused =
        Paused { at: ms(at("2027-03-01T02:00:01Z")), by: "ada".to_owned(), why: "we move".to_owned() };
    bench.store.pause_schedule("night", Some(paused)).await.expect("it is there");
    bench.tick("2027-03-01T02:00:02Z").await;
    assert_eq!(
        bench.became().await,
        [
            "01 00:00 fired -",
            "01 01:00 missed no controller began it at its time",
            "01 02:00 skipped paused by ada: we move"
        ]
    );
}
