//! Notices over real sockets on loopback, to receivers that take them, refuse them, or never answer.

mod config;
mod grafana;
mod mail;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::store::tests::{Scratch, a_run};

/// What nobody waits for in vain.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first wait after a failure, in these tests.
const SOON: Duration = Duration::from_millis(20);

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: String,
    pub(super) at: Instant,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_default()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// Reads one request, whole; `None` where somebody hung up.
pub(super) async fn request(stream: &mut TcpStream) -> Option<Request> {
    let (mut read, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let some = stream.read(&mut bytes).await.ok().filter(|some| *some > 0)?;
        read.extend_from_slice(&bytes[..some]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.replace("\r\n", "\n").to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            let line = text.lines().next().unwrap_or_default().to_owned();
            return Some(Request { line, head, body: body.to_owned(), at: Instant::now() });
        }
    }
}

/// Somebody who is told over HTTP, and answers the given answers one after the other, the last again and again; without any it
/// never answers.
#[derive(Clone)]
pub(super) struct Hearer {
    pub(super) at: SocketAddr,
    heard: Arc<Mutex<Vec<Request>>>,
}

impl Hearer {
    pub(super) async fn who(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let at = listener.local_addr().expect("an address");
        let hearer = Hearer { at, heard: Arc::default() };
        let mut answers: VecDeque<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let heard = Arc::clone(&hearer.heard);
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = request(&mut stream).await else { continue };
                heard.lock().expect("nobody panics with it").push(request);
                let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
                match answer {
                    None => unanswered.push(stream),
                    Some(answer) => {
                        let answer =
                            format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            }
        });
        hearer
    }

    pub(super) fn heard(&self) -> Vec<Request> {
        self.heard.lock().expect("nobody panics with it").clone()
    }

    async fn hears(&self, count: usize) -> Vec<Request> {
        until(&format!("{count} requests"), async || (self.heard().len() >= count).then(|| self.heard()))
            .await
    }
}

pub(super) async fn until<T>(what: &str, mut is: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = is().await {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A store, and files for secrets.
pub(super) struct Place {
    pub(super) scratch: Scratch,
    pub(super) store: Store,
}

impl Place {
    pub(super) fn new() -> Self {
        let scratch = Scratch::new("notify");
        Place { store: scratch.store(), scratch }
    }

    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.made().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Receivers as a configuration says them, a line each.
    pub(super) fn receivers(&self, lines: &[String]) -> Vec<Receiver> {
        self.file("key", KEY);
        let lines: String = lines.iter().map(|line| format!("  - {line}\n")).collect();
        let text = format!("controller: 1\nnotify:\n{lines}");
        let read = crate::config::Config::read("c.yaml", text.as_bytes(), &self.scratch.path());
        read.unwrap_or_else(|problems| panic!("{}", problems.render(false))).notify
    }

    pub(super) fn notifier(&self, lines: &[String]) -> Notifier {
        let address = Some("https://squall.example:8416".to_owned());
        Notifier::paced(self.receivers(lines), address, self.store.clone(), SOON)
    }

    /// A run that has come to its end.
    async fn ended(&self, id: &str, state: &str) {
        self.store.new_run(a_run(id)).await.expect("a run");
        self.store.set_run_state(id, "running", 0).await.expect("it begins");
        self.store.set_run_state(id, state, 0).await.expect("it ends");
    }
}

fn hook(name: &str, at: SocketAddr, more: &str) -> String {
    format!("{{ name: {name}, webhook: {{ url: \"http://{at}/hook\", secret: {{ file: key }} }}{more} }}")
}

pub(super) fn runs(notifier: &Notifier) -> tokio::task::JoinHandle<()> {
    let notifier = notifier.clone();
    tokio::spawn(async move { notifier.run().await })
}

async fn of(notifier: &Notifier, name: &str) -> Standing {
    let all = notifier.standing().await.expect("the store answers");
    all.into_iter().find(|receiver| receiver.name == name).expect("it is there")
}

/// Waits until a receiver has taken one, and none waits.
async fn settled(notifier: &Notifier, name: &str) {
    until("one to be taken, and kept as that", async || {
        let receiver = of(notifier, name).await;
        (receiver.sent == 1 && receiver.waiting == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_webhook_is_told_what_it_asked_for_signed_and_again_under_one_name_until_it_takes_it() {
    let place = Place::new();
    let hearer = Hearer::who(&["503 Service Unavailable", "200 OK"]).await;
    let notifier = place.notifier(&[hook("ops", hearer.at, ", when: [run-deviated]")]);
    place.ended("r1", "held").await;
    place.ended("r2", "deviated").await;
    let running = runs(&notifier);
    let heard = hearer.hears(2).await;
    settled(&notifier, "ops").await;
    assert_eq!(hearer.heard().len(), 2, "what held was not asked for");
    let (first, again) = (&heard[0], &heard[1]);
    assert_eq!(first.line, "POST /hook HTTP/1.1");
    assert_eq!(first.header("webhook-id"), again.header("webhook-id"));
    let told = again.json();
    assert_eq!(told["id"], again.header("webhook-id"));
    assert_eq!(told["type"], "run-ended");
    let data = &told["data"];
    assert_eq!(
        (&data["title"], &data["run"], &data["verdict"]),
        (&"T: deviated".into(), &"r2".into(), &"deviated".into())
    );
    assert_eq!(data["url"], "https://squall.example:8416/runs/r2");
    let standing = of(&notifier, "ops").await;
    assert_eq!((standing.failed, standing.waiting, standing.trouble), (0, 0, None));
    running.abort();
}

#[tokio::test]
async fn what_a_receiver_refuses_is_given_up_and_the_next_is_told() {
    let place = Place::new();
    let hearer =
        Hearer::who(&["404 Not Found", "302 Found\r\nLocation: http://127.0.0.1:1/", "204 No Content"]).await;
    let notifier = place.notifier(&[hook("ops", hearer.at, ", when: [run-ended]")]);
    for run in ["r1", "r2", "r3"] {
        place.ended(run, "held").await;
    }
    let running = runs(&notifier);
    settled(&notifier, "ops").await;
    let standing = of(&notifier, "ops").await;
    assert_eq!((standing.failed, standing.waiting), (2, 0), "neither is tried again, nor followed");
    let ids: BTreeSet<String> =
        hearer.heard().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!((ids.len(), hearer.heard().len()), (3, 3));
    running.abort();
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it() {
    let place = Place::new();
    let hearer = Hearer::who(&["429 Too Many Requests\r\nRetry-After: 2", "200 OK"]).await;
    let notifier = place.notifier(&[hook("ops", hearer.at, ", when: [run-ended]")]);
    place.ended("r1", "held").await;
    place.ended("r2", "held").await;
    let running = runs(&notifier);
    let heard = hearer.hears(3).await;
    for later in &heard[1..] {
        let waited = later.at - heard[0].at;
        assert!(waited >= Duration::from_millis(1900), "no notice goes there before: {waited:?}");
    }
    running.abort();
}

#[tokio::test]
async fn who_never_answers_and_who_is_not_there_keep_nobody_waiting() {
    let place = Place::new();
    let (silent, good) = (Hearer::who(&[]).await, Hearer::who(&["200 OK"]).await);
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("it listens").local_addr().expect("an address");
    let notifier = place.notifier(&[
        hook("silent", silent.at, ", when: [run-ended], timeout: 10m"),
        hook("gone", gone, ", when: [run-ended]"),
        hook("good", good.at, ", when: [run-ended]"),
    ]);
    let running = runs(&notifier);
    place.ended("r1", "held").await;
    silent.hears(1).await;
    for run in ["r2", "r3", "r4"] {
        place.ended(run, "held").await;
    }
    good.hears(4).await;
    until("the refusals to be known", async || of(&notifier, "gone").await.trouble).await;
    let waits = of(&notifier, "silent").await;
    assert_eq!((waits.waiting, waits.sent, silent.heard().len()), (4, 0, 1), "it has one attempt at a time");
    running.abort();
}

#[tokio::test]
async fn what_was_not_told_before_an_end_is_told_by_the_next() {
    let place = Place::new();
    let hearer = Hearer::who(&["200 OK"]).await;
    let lines = [hook("ops", hearer.at, ", when: [run-ended, halted]")];
    // This one never runs: it ended at once.
    drop(place.notifier(&lines));
    place.ended("r1", "interrupted").await;
    let Place { scratch, store } = place;
    drop(store);
    let place = Place { store: scratch.store(), scratch };
    let notifier = place.notifier(&lines);
    let running = runs(&notifier);
    assert_eq!(hearer.hears(1).await[0].json()["data"]["run"], "r1");
    running.abort();
}

#[tokio::test]
async fn of_two_controllers_on_one_store_one_tells_each() {
    let place = Place::new();
    let hearer = Hearer::who(&["200 OK"]).await;
    let lines = [hook("ops", hearer.at, ", when: [run-ended]")];
    let two = [place.notifier(&lines), place.notifier(&lines)];
    let running = two.each_ref().map(runs);
    for run in 0..20 {
        place.ended(&format!("r{run}"), "held").await;
    }
    until("all to be told", async || {
        let sent = of(&two[0], "ops").await.sent + of(&two[1], "ops").await.sent;
        (sent == 20).then_some(())
    })
    .await;
    let ids: BTreeSet<String> =
        hearer.heard().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!((hearer.heard().len(), ids.len()), (20, 20));
    running.into_iter().for_each(|running| running.abort());
}

#[tokio::test]
async fn of_too_many_that_wait_the_oldest_are_dropped_and_nothing_is_handed_out_twice() {
    let place = Place::new();
    place.store.tells();
    for run in ["r1", "r2", "r3"] {
        place.ended(run, "held").await;
        // Their times are different then.
        sleep(Duration::from_millis(3)).await;
    }
    let all = place.store.happenings(100).await.expect("they are kept");
    assert_eq!(all.len(), 6, "begun and ended");
    let mut dropped = 0;
    for happened in &all {
        let now = place.store.hand_out(happened, "{}", vec!["ops".to_owned()], 4).await.expect("handed out");
        dropped += now.get("ops").copied().unwrap_or(0);
        let again =
            place.store.hand_out(happened, "{}", vec!["ops".to_owned()], 4).await.expect("it answers");
        assert!(again.is_empty());
    }
    assert_eq!(dropped, 2);
    let first = place.store.take_notice("ops", 60_000).await.expect("it answers").expect("there is one");
    assert_eq!(first.id, all[2].id, "the oldest two are gone");
    let mut others = Vec::new();
    while let Some(other) = place.store.take_notice("ops", 60_000).await.expect("it answers") {
        others.push(other);
    }
    assert_eq!(others.len(), 3, "what somebody holds nobody else takes");
    place.store.put_notice_off(&first, 0).await.expect("it answers");
    let again = place.store.take_notice("ops", 60_000).await.expect("it answers").expect("it is due again");
    assert_eq!((&again.id, again.attempts), (&first.id, 2));
    // Who has lost a notice does not settle it.
    let stale = crate::store::Notice { held_until: again.held_until - 1, ..again.clone() };
    place.store.forget_notice(&stale).await.expect("it answers");
    assert_eq!(place.store.waiting_notices().await.expect("it answers")["ops"], 4);
    place.store.forget_notice(&again).await.expect("it answers");
    assert_eq!(place.store.waiting_notices().await.expect("it answers")["ops"], 3);
    place.store.put_notice_off(&others[0], u64::MAX >> 1).await.expect("it answers");
    assert!(place.store.due_receivers().await.expect("it answers").is_empty());
    let forget = async |before| place.store.forget_notices(before).await.expect("it answers");
    assert_eq!(forget(others[0].at).await, 0, "it is not older");
    assert_eq!(forget(now_ms() + 1000).await, 1, "what somebody sends is not forgotten");
}

#[tokio::test]
async fn where_nobody_is_told_of_anything_nothing_is_written_down() {
    let place = Place::new();
    drop(Notifier::new(Vec::new(), None, place.store.clone()));
    place.ended("r1", "deviated").await;
    place.store.tell(Happening::HaltLifted { reason: "x".to_owned(), by: "ada".to_owned() });
    place.store.keep_told().await.expect("it answers");
    assert!(place.store.happenings(10).await.expect("it answers").is_empty());
}

#[tokio::test]
async fn a_store_that_hangs_does_not_keep_anybody_waiting_who_tells_of_something() {
    let place = Place::new();
    let hearer = Hearer::who(&["200 OK"]).await;
    let notifier = place.notifier(&[hook("ops", hearer.at, "")]);
    let running = runs(&notifier);
    let hung = place.store.hang().await;
    // Not a future: there is nothing to wait for.
    let (reason, by) = ("a bad deploy".to_owned(), "ada".to_owned());
    let open = vec!["db".to_owned()];
    place.store.tell(Happening::Halted { reason, by, hosts: Vec::new(), open });
    drop(hung);
    let told = hearer.hears(1).await[0].json();
    assert_eq!((&told["type"], &told["data"]["title"]), (&"halted".into(), &"Everything is halted".into()));
    let text = "by ada: a bad deploy; not known to have undone everything: db";
    assert_eq!(told["data"]["text"], text);
    running.abort();
}

#[tokio::test]
async fn a_chat_gets_text_that_calls_nobody_and_its_address_is_shown_nowhere() {
    let place = Place::new();
    let hearer = Hearer::who(&["500 Internal Server Error", "200 OK"]).await;
    place.file("chat", &format!("http://{}/services/T0/B0/hush-hush\n", hearer.at));
    let notifier = place.notifier(&[
        "{ name: chat, slack: { url: { file: chat } }, when: [run-ended], template: \"<!here> {title} ({by})\" }".to_owned(),
    ]);
    let title = "<!channel> & co".to_owned();
    place.store.new_run(crate::store::NewRun { title, ..a_run("r1") }).await.expect("a run");
    place.store.set_run_state("r1", "a host is still modified", 0).await.expect("it ends");
    let running = runs(&notifier);
    let heard = hearer.hears(1).await;
    assert_eq!(heard[0].line, "POST /services/T0/B0/hush-hush HTTP/1.1");
    let text = "<!here> &lt;!channel&gt; &amp; co: a host is still modified (ada)";
    assert_eq!(heard[0].json(), serde_json::json!({ "text": text }));
    hearer.hears(2).await;
    let shown = format!("{:?} {:?}", notifier.standing().await, notifier.0.receivers);
    assert!(!shown.contains("hush-hush"), "{shown}");
    running.abort();
}

#[tokio::test]
async fn only_runs_with_a_tag_are_told_where_tags_are_asked_for_and_halts_always() {
    let place = Place::new();
    let hearer = Hearer::who(&["200 OK"]).await;
    let notifier = place.notifier(&[hook("ops", hearer.at, ", when: [run-ended, halted], tags: [checkout]")]);
    for (run, tags) in [("r1", vec!["search"]), ("r2", vec!["latency", "checkout"]), ("r3", Vec::new())] {
        let tags = tags.into_iter().map(str::to_owned).collect();
        let tested = crate::store::Tested { tags, ..Default::default() };
        place.store.new_run(crate::store::NewRun { tested, ..a_run(run) }).await.expect("a run");
        place.store.set_run_state(run, "held", 0).await.expect("it ends");
    }
    let (reason, by) = ("enough".to_owned(), "ada".to_owned());
    place.store.tell(Happening::Halted { reason, by, hosts: vec!["web".to_owned()], open: Vec::new() });
    let running = runs(&notifier);
    let heard = hearer.hears(2).await;
    let subjects: Vec<Value> = heard.iter().map(|request| request.json()["data"]["title"].clone()).collect();
    assert!(
        subjects.contains(&"`web` is halted".into()) && subjects.contains(&"T: held".into()),
        "{subjects:?}"
    );
    until("nothing to wait", async || (of(&notifier, "ops").await.sent == 2).then_some(())).await;
    assert!(heard.iter().all(|request| request.json()["data"]["run"] != "r1"));
    running.abort();
}

#[tokio::test]
async fn a_trial_gives_what_the_receiver_says() {
    let place = Place::new();
    let hearer = Hearer::who(&["200 OK", "401 Unauthorized"]).await;
    let notifier = place.notifier(&[hook("ops", hearer.at, "")]);
    assert_eq!(notifier.trial("nobody", "ada").await, None);
    assert_eq!(notifier.trial("ops", "ada").await, Some(Attempt::Taken("it answered 200".to_owned())));
    assert_eq!(notifier.trial("ops", "ada").await, Some(Attempt::Never("it answered 401".to_owned())));
    let told = hearer.heard()[0].json();
    assert_eq!((&told["type"], &told["data"]["by"]), (&"trial".into(), &"ada".into()));
}

#[tokio::test]
async fn a_game_day_is_told_with_the_way_to_its_page() {
    let scratch = Scratch::new("game-day");
    let store = scratch.store();
    let (day, title) = ("drill-1".to_owned(), "Payments".to_owned());
    let asks = Happening::GameDayAsks {
        day: day.clone(),
        title: title.clone(),
        step: "slow".to_owned(),
        why: Some("`gone` deviated".to_owned()),
    };
    let address = Some("https://chaos.example/");
    let told = story::tell(&store, address, &asks, &asks.id(7), 7).await.expect("the store answers");
    assert_eq!(
        (told.title.as_str(), told.text.as_str()),
        ("Game day: Payments: go for `slow`?", "`gone` deviated")
    );
    assert_eq!(told.place("url"), "https://chaos.example/game-days/drill-1");
    assert_eq!(asks.names(), [When::GameDayAsks]);
    let ended = Happening::GameDayEnded { day, title, stopped: None };
    assert_eq!(ended.id(7), ended.id(8), "a day ends once");
    assert_ne!(asks.id(7), asks.id(8), "a step may be asked again");
}
