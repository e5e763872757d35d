//! The controller of a simulated fleet: its own listener behind TLS, hub, connections and streams, and the conductor of any
//! run, one after the other on each host.

use std::cell::Cell;
use std::future::ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use squall_controller::conductor::{Answer, Host, Order, Outlet, Probing, conduct};
use squall_controller::fleet::listener::Peer;
use squall_controller::fleet::registry::{Member, Registry};
use squall_controller::fleet::{Authority, Hub, Listener, Roll, Terms};
use squall_experiments::experiment::Experiment;
use squall_experiments::plan::Plan;
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::run::Event;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::ledger::Ledger;
use crate::{LEASE, PORT};

/// How often hosts show that they are there.
const BEAT: Duration = Duration::from_millis(300);
/// From one run on a host to the next.
const PAUSE: Duration = Duration::from_millis(500);
/// The serial number of every certificate: nobody looks at certificates here.
const SERIAL: &str = "1";

/// Lives until it is crashed. `lives` counts how often it was started.
pub async fn live(
    authority: Arc<Authority>,
    hosts: Rc<Vec<String>>,
    ledger: Ledger,
    lives: Rc<Cell<u32>>,
) -> turmoil::Result {
    lives.set(lives.get() + 1);
    let (roll, hub) = (Arc::new(Roll::default()), Hub::new());
    for host in hosts.iter() {
        roll.allow("token", 1);
        let member = Member { name: host.clone(), serial: SERIAL.to_owned(), ..Member::default() };
        roll.enrol("token", member).await?;
    }
    let terms = Terms { heartbeat: BEAT, ..Terms::default() };
    let agents = Rc::new(Listener::new(authority, roll, hub.clone(), terms)?);
    for host in hosts.iter() {
        spawn_local(conducting(host.clone(), hub.clone(), ledger.clone(), lives.get()));
    }
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

/// One run after the other on a host. Each has a name of its own, as every run has.
async fn conducting(host: String, hub: Hub, ledger: Ledger, life: u32) {
    let document = serde_json::json!({
        "squall": 1, "title": "Somewhere else is far away", "hypothesis": [],
        "method": [
            { "fault": { "partition": { "to": ["192.0.2.1:9"] } }, "for": "900ms" },
            { "wait": "100ms" },
            { "fault": { "partition": { "to": ["192.0.2.2:9"] } }, "for": "600ms" },
        ],
    });
    let experiment: Experiment = serde_json::from_value(document).expect("it is an experiment");
    let plan = Plan::of(&experiment, 7, std::slice::from_ref(&host), "none");
    for number in 1_u32.. {
        sleep(PAUSE).await;
        // A host that does not answer is not waited for: the next run tries again.
        let Ok(Ok(stream)) = timeout(LEASE, hub.agent(&host)).await else { continue };
        let run = RunId(format!("{host}-{life}-{number}"));
        let order = Order {
            run: run.clone(),
            experiment: &experiment,
            plan: &plan,
            version: "simulated".to_owned(),
            origin: None,
            lease: LEASE,
            since_ns: None,
            agent: Some(Ok(stream)),
        };
        let (_interrupt, interruptions) = mpsc::unbounded_channel();
        let watcher = |tell: squall_controller::conductor::Tell<'_>| {
            if let squall_controller::conductor::Tell::Event(record, _) = tell
                && let Event::Finished { sentence, .. } | Event::Stuck { sentence, .. } = &record.event
            {
                ledger.tell(format!("{:?} {run}: {sentence}", turmoil::sim_elapsed().unwrap_or_default()));
            }
        };
        let outlet = Outlet { file: None, redact: None, watcher: Box::new(watcher) };
        let mut far = Far { hub: hub.clone(), host: host.clone() };
        conduct(order, &mut far, interruptions, outlet).await;
    }
}

/// A host as its conductor sees it.
struct Far {
    hub: Hub,
    host: String,
}

impl Host for Far {
    fn prober(&self, _: Option<&str>) -> Answer<Probing> {
        Box::pin(ready(Err(Refusal::bare("nothing is looked at here"))))
    }

    fn resident(&mut self) -> Answer<Option<UnixStream>> {
        let (hub, host) = (self.hub.clone(), self.host.clone());
        Box::pin(async move { hub.agent(&host).await.map(Some) })
    }

    fn recover(&mut self) -> Result<Vec<String>, Refusal> {
        Err(Refusal::bare("what a dead agent left is undone there"))
    }
}
