//! What people wait for at a controller: a year of a thousand schedules, the list of ten thousand runs, and what a run that goes on
//! says to fifty who watch it. The controller's own server over loopback, in this process, with a store of SQLite.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use squall_controller::api::engine::{Engine, Planned, Submission};
use squall_controller::api::problem::Problem;
use squall_controller::api::server::Listening;
use squall_controller::api::{Api, Approvals};
use squall_controller::fleet::HostInfo;
use squall_controller::sights::Page;
use squall_controller::store::{
    Minted, NewHost, NewJoinToken, NewRun, NewSchedule, NewToken, Role, Secrets, Store, Tested, Where,
};
use squall_experiments::protocol::{Lifted, Refusal};
use squall_experiments::schedule;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::table::{milliseconds, summary};

const SCHEDULES: usize = 1_000;
/// How often each figure is taken.
const ROUNDS: usize = 20;
const RUNS: usize = 10_000;
const VIEWERS: usize = 50;
/// How many runs are watched, one after the other.
const WATCHED: usize = 10;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The events of a real run on one host.
const LOG: &str = include_str!("../../controller/src/report/tests/run.ndjson");

/// Nothing is planned or begun here.
struct Nobody;

impl Engine for Nobody {
    fn hosts(&self) -> BoxFuture<'_, Vec<HostInfo>> {
        Box::pin(async { Vec::new() })
    }

    fn check(&self, _: &Submission) -> Result<(), Refusal> {
        Ok(())
    }

    fn plan<'a>(&'a self, _: &'a Submission) -> BoxFuture<'a, Result<Planned, Refusal>> {
        Box::pin(async { Err(Refusal::bare("there are no hosts")) })
    }

    fn start<'a>(&'a self, _: &'a str, _: Submission) -> BoxFuture<'a, Result<(), Problem>> {
        Box::pin(async { Err(Refusal::bare("there are no hosts").into()) })
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

/// A controller's server, and somebody who is signed in there. Dropped, it is stopped and forgotten.
struct Served {
    runtime: Runtime,
    store: Store,
    api: Arc<Api>,
    at: SocketAddr,
    session: String,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    directory: PathBuf,
}

impl Served {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("squall-figures-{name}-{}", std::process::id()));
        let runtime = Runtime::new().unwrap();
        let store = Store::open(&Where::Sqlite(directory.clone())).unwrap();
        let secrets = Secrets::open(&directory).unwrap();
        let Minted { token, hash } = secrets.mint("token");
        let text = |text: &str| text.to_owned();
        let new = NewToken {
            id: text("t"),
            hash,
            name: text("ada"),
            role: Role::Viewer,
            made_by: text("figures"),
            expires_at: None,
        };
        let approvals = Approvals::Optional;
        let (api, at, serving) = runtime.block_on(async {
            store.new_token(new).await.unwrap();
            let api = Api::new(store.clone(), secrets, Arc::new(Nobody), BTreeSet::new(), approvals);
            let listening = Listening::on(([127, 0, 0, 1], 0).into(), None).await.unwrap();
            let at = listening.address().unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            let served = Arc::clone(&api);
            let serving =
                tokio::spawn(async move { listening.serve(&served, async { drop(stopped.await) }).await });
            (api, at, (stop, serving))
        });
        let session = signed_in(at, &token);
        Served { runtime, store, api, at, session, serving: Some(serving), directory }
    }

    fn asks(&self, path: &str) -> TcpStream {
        asked(
            self.at,
            &format!("GET {path} HTTP/1.1\r\nAccept: text/html\r\nCookie: {}\r\n", self.session),
            "",
        )
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.api.close();
        if let Some((stop, serving)) = self.serving.take() {
            let _ = stop.send(());
            let _ = self.runtime.block_on(serving);
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Sends a request; gives the connection on which its answer comes.
fn asked(at: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("{head}Host: {at}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn whole(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// What stands between two others, the first time.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("no `{before}` in {text}"));
    rest.split(after).next().unwrap_or_default()
}

/// As a browser does it; gives its cookies.
fn signed_in(at: SocketAddr, token: &str) -> String {
    let cookies = |answer: &str| {
        let set = answer.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
        let pair = |line: &str| line.split(';').next().unwrap_or_default().to_owned();
        set.map(pair).filter(|pair| !pair.ends_with('=')).collect::<Vec<_>>().join("; ")
    };
    let page = whole(asked(at, "GET /sign-in HTTP/1.1\r\nAccept: text/html\r\n", ""));
    let proof = between(&page, "name=\"proof\" value=\"", "\"");
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nAccept: text/html\r\nContent-Type: application/x-www-form-urlencoded\r\nCookie: {}\r\n",
        cookies(&page)
    );
    let answer = whole(asked(at, &head, &format!("token={token}&to=%2F&proof={proof}")));
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    cookies(&answer)
}

/// The year of 2027, as `GET /v1/calendar` computes it: of a third each, every day in Berlin, every work day in UTC, and at random.
pub fn schedules() {
    let served = Served::new("schedules");
    let text = |n: usize| {
        let head = format!("schedule: 1\nname: s{n:04}\nexperiment: x\n");
        let minute = n % 60;
        match n % 3 {
            0 => format!("{head}zone: Europe/Berlin\nwhen: {{ cron: \"{minute} 3 * * *\" }}\n"),
            1 => format!("{head}when: {{ cron: \"{minute} 3 * * MON-FRI\" }}\n"),
            _ => format!(
                "{head}zone: America/New_York\nopt-in: {{ chaos: \"yes\" }}\nwhen: {{ random: {{ mean: 2 }} }}\n"
            ),
        }
    };
    // From 2027-01-01 on.
    let at = 1_798_761_600_000;
    let (begin, end) = ("2027-01-01T00:00:00Z".parse().unwrap(), "2028-01-01T00:00:00Z".parse().unwrap());
    let added = |n: usize| {
        let schedule = schedule::read("s.yaml", text(n).as_bytes()).unwrap();
        let document = serde_json::to_string(&schedule).unwrap();
        let (name, by) = (schedule.name.to_string(), "ada".to_owned());
        served.store.new_schedule(NewSchedule { name, document, seed: n as u64, by, at })
    };
    served.runtime.block_on(async {
        let labels = BTreeMap::from([("chaos".to_owned(), "yes".to_owned())]);
        let token = NewJoinToken {
            id: "figures".to_owned(),
            hash: "figures".to_owned(),
            made_by: "figures".to_owned(),
            expires_at: i64::MAX.unsigned_abs(),
            uses: 1,
        };
        served.store.new_join_token(token).await.unwrap();
        let host = NewHost { name: "web".to_owned(), labels, ..NewHost::default() };
        served.store.enrol("figures", host).await.unwrap();
        join_all((0..SCHEDULES).map(added)).await.into_iter().for_each(|added| added.unwrap());
    });
    let mut entries = 0;
    let times = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        let pages = served.api.scheduler().calendar(None, begin, end, begin);
        let pages = served.runtime.block_on(pages).unwrap();
        entries = pages.entries.len();
        begun.elapsed()
    });
    let times = milliseconds(times.collect::<Vec<_>>());
    println!("a year of {SCHEDULES} schedules, {entries} entries: {}", summary(times));
}

fn a_run(id: &str, title: String) -> NewRun {
    let text = |text: &str| text.to_owned();
    NewRun {
        id: text(id),
        title,
        document: text("squall: 1"),
        plan: text("00"),
        by: text("ada"),
        tested: Tested { weight: 1, ..Tested::default() },
    }
}

/// The page of all runs, and what is behind the last of those who watch one.
pub fn pages() {
    let served = Served::new("pages");
    let kept = async |n: usize| {
        let (id, title) = (format!("kept-{n:05}"), format!("Experiment {}", n % 20));
        served.store.new_run(a_run(&id, title)).await.unwrap();
        served
            .store
            .set_run_state(&id, if n.is_multiple_of(7) { "deviated" } else { "held" }, 0)
            .await
            .unwrap();
    };
    let all: Vec<usize> = (0..RUNS).collect();
    for some in all.chunks(500) {
        served.runtime.block_on(join_all(some.iter().map(|n| kept(*n))));
    }
    let times = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        let page = whole(served.asks("/runs"));
        let took = begun.elapsed();
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("Older ones"), "{page}");
        took
    });
    let times = milliseconds(times.collect::<Vec<_>>());
    println!("the page of {RUNS} runs: {}", summary(times));
    let times = milliseconds((0..WATCHED).map(|n| watched(&served, &format!("watched-{n}"))));
    println!("the last of {VIEWERS} who watch a run, behind its event: {}", summary(times));
}

/// How long after an event was kept the last of all who watch has seen what it says.
fn watched(served: &Served, run: &str) -> Duration {
    let began = json!({
        "seq": 1, "at_ms": 0, "fleet": "began", "run": run, "title": "T", "date": "2026-11-22T06:00:00Z", "seed": 7,
        "plan": "00", "version": "0.1.0", "on_partial": "revert", "hosts": ["web"],
    });
    let own =
        (2..).zip(LOG.lines()).map(|(seq, line)| format!("{{\"seq\":{seq},\"host\":\"web\",{}", &line[1..]));
    let all: Vec<String> = std::iter::once(began.to_string()).chain(own).collect();
    let cut = all.iter().position(|line| line.contains("\"event\":\"injected\"")).unwrap() + 1;
    served.runtime.block_on(async {
        served.store.new_run(a_run(run, "Watched".to_owned())).await.unwrap();
        served.store.set_run_state(run, "running", 0).await.unwrap();
    });
    let ready = Barrier::new(VIEWERS + 1);
    let took = thread::scope(|scope| {
        let watching: Vec<_> = (0..VIEWERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = served.asks(&format!("/runs/{run}/live?host="));
                    until(&mut stream, "waiting for its first host");
                    ready.wait();
                    until(&mut stream, "a fault is live");
                    Instant::now()
                })
            })
            .collect();
        ready.wait();
        let begun = Instant::now();
        served.runtime.block_on(served.store.append(0, run, 0, &all[..cut])).unwrap();
        watching.into_iter().map(|one| one.join().unwrap()).max().unwrap() - begun
    });
    served.runtime.block_on(served.store.set_run_state(run, "held", 0)).unwrap();
    took
}

/// Reads until something was said.
fn until(stream: &mut TcpStream, wanted: &str) {
    let mut said = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while !String::from_utf8_lossy(&said).contains(wanted) {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "it ended without `{wanted}`: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&piece[..read]);
    }
}
