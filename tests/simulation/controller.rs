//! The controller of a simulated fleet: its own listener behind TLS, hub, connections and streams, and runs over all hosts
//! that are there, as a muster drives them. What it knows from one life to the next is the names of runs that did not end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use squall_controller::conductor::Answer;
use squall_controller::fleet::listener::Peer;
use squall_controller::fleet::registry::{Member, Registry};
use squall_controller::fleet::{Authority, Hub, Listener, Roll, Terms};
use squall_controller::muster::{self, Machines, Order};
use squall_controller::stream::Stream;
use squall_experiments::document::Redactor;
use squall_experiments::experiment::Experiment;
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::targets::{Candidate, Targets};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::ledger::Ledger;
use crate::{Bug, LEASE, PORT};

/// How often hosts show that they are there.
const BEAT: Duration = Duration::from_millis(300);
/// From one run to the next, and from one try to tell a host of an epoch to the next.
const PAUSE: Duration = Duration::from_millis(200);
/// The serial number of every certificate: nobody looks at certificates here.
const SERIAL: &str = "1";

/// What outlives a controller.
#[derive(Default)]
pub struct Store {
    lives: Cell<u64>,
    runs: Cell<u64>,
    /// Runs that were begun and have not ended.
    live: RefCell<BTreeSet<RunId>>,
}

/// What is around a controller.
#[derive(Clone)]
pub struct Surroundings {
    pub authority: Arc<Authority>,
    pub hosts: Rc<Vec<String>>,
    pub ledger: Ledger,
    pub store: Rc<Store>,
    pub bug: Option<Bug>,
}

/// Lives until it is crashed.
pub async fn live(around: Surroundings) -> turmoil::Result {
    let store = Rc::clone(&around.store);
    store.lives.set(store.lives.get() + 1);
    let (roll, hub) = (Arc::new(Roll::default()), Hub::new());
    for host in around.hosts.iter() {
        roll.allow("token", 1);
        let member = Member { name: host.clone(), serial: SERIAL.to_owned(), ..Member::default() };
        roll.enrol("token", member).await?;
    }
    let terms = Terms { heartbeat: BEAT, ..Terms::default() };
    let agents = Rc::new(Listener::new(Arc::clone(&around.authority), roll, hub.clone(), terms)?);
    let left: Vec<RunId> = store.live.borrow().iter().cloned().collect();
    if around.bug != Some(Bug::BeginsAgain) {
        for run in &left {
            let hosts = around.hosts.iter().cloned();
            hosts
                .for_each(|host| drop(spawn_local(fence(hub.clone(), host, run.clone(), store.lives.get()))));
        }
        store.live.borrow_mut().clear();
    }
    spawn_local(running(around.clone(), hub.clone(), left));
    let listener = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    loop {
        let (stream, from) = listener.accept().await?;
        let host = turmoil::reverse_lookup(from.ip()).ok_or("a stranger")?;
        let until = SystemTime::now() + Duration::from_secs(86_400);
        let peer = Peer { host, serial: SERIAL.to_owned(), key: Vec::new(), until };
        let agents = Rc::clone(&agents);
        let from = SocketAddr::new(from.ip(), from.port());
        spawn_local(async move { agents.serve_known(stream, peer, from).await });
    }
}

/// Tells a host that a run of an earlier life is over, until it knows.
async fn fence(hub: Hub, host: String, run: RunId, epoch: u64) {
    while hub.fence(&host, &run, epoch).await.is_err() {
        sleep(PAUSE).await;
    }
}

/// One run after the other, each with a name of its own.
async fn running(around: Surroundings, hub: Hub, left: Vec<RunId>) {
    let document = serde_json::json!({
        "squall": 1, "title": "Somewhere else is far away", "on": { "pick": "all" }, "hypothesis": [],
        "on-partial": "continue",
        "method": [
            { "fault": { "partition": { "to": ["192.0.2.1:9"] } }, "for": "500ms" },
            { "wait": "50ms" },
            { "fault": { "partition": { "to": ["192.0.2.2:9"] } }, "for": "400ms" },
        ],
    });
    let experiment: Experiment = serde_json::from_value(document).expect("it is an experiment");
    let mut again = match around.bug {
        Some(Bug::BeginsAgain) => left,
        _ => Vec::new(),
    };
    loop {
        sleep(PAUSE).await;
        let connected = hub.connected();
        let candidate = |host: &String| Candidate {
            name: host.clone(),
            connected: connected.contains(host),
            ..Candidate::default()
        };
        let candidates: Vec<Candidate> = around.hosts.iter().map(candidate).collect();
        let Ok(targets) = Targets::of(&experiment, &candidates, 7) else { continue };
        let run = again.pop().unwrap_or_else(|| {
            around.store.runs.set(around.store.runs.get() + 1);
            RunId(format!("run-{}", around.store.runs.get()))
        });
        around.store.live.borrow_mut().insert(run.clone());
        let order = Order {
            run: run.clone(),
            experiment: experiment.clone(),
            targets,
            seed: 7,
            version: "simulated".to_owned(),
            origin: None,
            lease: LEASE,
            redactor: Redactor::default(),
            epoch: 0,
            sights: None,
            approved: None,
        };
        let (_interrupt, interruptions) = mpsc::unbounded_channel();
        let machines: Arc<dyn Machines> = Arc::new(Way { hub: hub.clone() });
        let muster = muster::run_here(order, machines, Box::new(|_| {}), interruptions).await;
        around.store.live.borrow_mut().remove(&run);
        around.ledger.ran(&muster);
    }
}

/// The hosts as runs see them.
struct Way {
    hub: Hub,
}

impl Machines for Way {
    fn agent(&self, host: &str) -> Answer<Stream> {
        let (hub, host) = (self.hub.clone(), host.to_owned());
        Box::pin(async move { hub.agent(&host).await.map(Stream::Memory) })
    }

    fn prober(&self, _: &str, _: Option<&str>) -> Answer<Stream> {
        Box::pin(std::future::ready(Err(Refusal::bare("nothing is looked at here"))))
    }
}
