//! The runs of a controller: planned over the hosts that are connected, carried out, kept.
//!
//! Each is a task of its own. Its log goes to the store line by line, before whoever asks can see it (`keeping`).

mod halting;
pub(crate) mod keeping;
mod planning;
mod takeover;
mod windows;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use squall_experiments::document::{self, Document, LONGEST_FAULT, Sources};
use squall_experiments::exit::Exit;
use squall_experiments::fleet::JoinToken;
use squall_experiments::muster::Line;
use squall_experiments::protocol::{Lifted, Refusal, RunId};
use squall_experiments::run::Origin;
use squall_experiments::targets::{Candidate, FleetPlan, Targets};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::api::engine::{Engine, Planned, Submission};
use crate::api::problem::Problem;
use crate::aside::aside;
use crate::conductor::{Answer, LEASE};
use crate::fleet::{Authority, HostInfo, Hub};
use crate::muster::{self, Machines};
use crate::sights::{Page, Sights};
use crate::store::{HostRow, Minted, RunRow, Store, now_ms};
use crate::stream::Stream;
use crate::traces::{RunSpans, Traces};
use keeping::{BEARABLE, Keeper};
use windows::Windows;

/// How long runs may take to revert when the controller is told to end. Their leases end soon after it.
const FAREWELL: Duration = Duration::from_secs(20);
/// The longest secret that is read, in bytes.
const LONGEST_SECRET: u64 = 64 << 10;

/// All runs of this controller. A clone is the same.
#[derive(Clone)]
pub struct Runs(Arc<Shared>);

struct Shared {
    hub: Hub,
    store: Store,
    authority: Arc<Authority>,
    /// Where secrets of experiments are files, each with the name of its secret.
    secrets: PathBuf,
    version: String,
    traces: Traces,
    /// What proxies saw in runs where somebody wanted to know.
    sights: Sights,
    live: Mutex<BTreeMap<String, mpsc::UnboundedSender<String>>>,
    /// Woken when a run has ended.
    ended: Notify,
}

impl Runs {
    /// None goes on yet. Secrets of experiments are files in a directory, which need not be there.
    pub fn new(
        hub: Hub,
        store: Store,
        authority: Arc<Authority>,
        secrets: PathBuf,
        version: &str,
        traces: Traces,
    ) -> Self {
        Runs(Arc::new(Shared {
            hub,
            store,
            authority,
            secrets,
            version: version.to_owned(),
            traces,
            sights: Sights::default(),
            live: Mutex::default(),
            ended: Notify::new(),
        }))
    }

    /// Ends all runs, and waits until they are reverted, for 20 s at most.
    pub async fn close(&self) {
        self.interrupt_all("the controller is told to end");
        let all = async {
            loop {
                let ended = self.0.ended.notified();
                if self.live().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        if timeout(FAREWELL, all).await.is_err() {
            tracing::warn!("some runs are still reverting: their hosts do so by themselves");
        }
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<String, mpsc::UnboundedSender<String>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupt_all(&self, by: &str) {
        self.live().values().for_each(|run| drop(run.send(by.to_owned())));
    }

    fn read(&self, submission: &Submission) -> Result<Document, Refusal> {
        let secret = |name: &str| secret(&self.0.secrets.join(name));
        let sources = Sources { vars: submission.vars.clone(), secret: &secret, longest: LONGEST_FAULT };
        let name = submission.name.as_deref().unwrap_or("the experiment");
        let document =
            document::read(name, submission.document.as_bytes(), &sources).map_err(|problems| Refusal {
                exit: Exit::Invalid as u8,
                ..Refusal::bare(problems.render(false))
            })?;
        match &document.experiment.ramp {
            None => Ok(document),
            Some(ramp) => Err(Refusal::new(
                format!(
                    "this experiment is a ramp of `{}`: a sequence of runs, and this is one",
                    ramp.parameter
                ),
                format!(
                    "`squall run --controller` takes step after step; one of them is the file with a value for the variable \
                     `{0}` (`--var {0}=…`, of a schedule `vars: {{ {0}: … }}`)",
                    ramp.parameter
                ),
            )),
        }
    }

    /// The order of a run on some of these hosts.
    fn order(
        &self,
        run: &str,
        submission: &Submission,
        candidates: &[Candidate],
    ) -> Result<muster::Order, Refusal> {
        let document = self.read(submission)?;
        // 32 bits are enough to repeat a run, and stay exact in every JSON reader.
        let chosen = || u64::from(rand::random::<u32>());
        let seed = submission.seed.or(document.experiment.seed).unwrap_or_else(chosen);
        let targets = Targets::of(&document.experiment, candidates, seed)?;
        let (content, build) = (Some(document.content()), submission.build.clone());
        let origin = Origin { content, build, step: document.step.clone(), ..Origin::default() };
        Ok(muster::Order {
            run: RunId(run.to_owned()),
            experiment: document.experiment,
            targets,
            seed,
            version: self.0.version.clone(),
            origin: Some(origin),
            lease: LEASE,
            redactor: document.redactor,
            sights: submission.observe.then(|| self.0.sights.clone()),
            epoch: 0,
            approved: None,
        })
    }

    /// The hosts of the fleet, as `squall hosts` shows them: what a host says of itself once it has joined chooses nothing.
    async fn candidates(&self, only: &BTreeMap<String, String>) -> Result<Vec<Candidate>, Refusal> {
        let connected = self.0.hub.connected();
        let candidate = |host: HostRow| Candidate {
            connected: connected.contains(&host.name),
            name: host.name,
            labels: host.labels,
            zone: host.zone,
            cell: host.cell,
        };
        let known = self.0.store.hosts().await.map_err(|error| Refusal::bare(error.to_string()))?;
        let meant = |host: &HostRow| {
            host.revoked_at.is_none() && only.iter().all(|(name, value)| host.labels.get(name) == Some(value))
        };
        Ok(known.into_iter().filter(meant).map(candidate).collect())
    }

    /// Carries a run out, to its end.
    async fn carry_out(
        self,
        run: RunRow,
        order: muster::Order,
        machines: Arc<dyn Machines>,
        interruptions: mpsc::UnboundedReceiver<String>,
        interrupt: mpsc::UnboundedSender<String>,
        mut spans: RunSpans,
    ) {
        let (say, lines) = mpsc::unbounded_channel::<Line>();
        let (mut windows, store) = (Windows::of(&run.id), self.0.store.clone());
        let outlet = Box::new(move |line: &Line| {
            let now = now_ms();
            spans.hear(line);
            windows.hear(line, now).into_iter().for_each(|happening| store.tell_at(now, happening));
            let _ = say.send(line.clone());
        });
        let held = takeover::hold(&self.0.store, &run, interrupt.clone(), BEARABLE);
        let keeper = Keeper::new(&self.0.store, &run, interrupt, BEARABLE);
        let carried = async {
            if let Err(error) = keeper.begins().await {
                tracing::error!(run = run.id, %error, "a run does not begin");
                return "refused";
            }
            let carried = async {
                tokio::join!(muster::run(order, machines, outlet, interruptions), keeper.lines(lines))
            };
            let (muster, kept) = carried.await;
            let came = if kept.is_ok() { muster.exit } else { muster.exit.worse(Exit::Interrupted) };
            tracing::info!(run = run.id, exit = came as u8, "{}", muster.sentence);
            came.meaning()
        };
        let came = tokio::select! {
            came = carried => came,
            never = held => match never {},
        };
        if let Err(error) = keeper.state(came).await {
            tracing::error!(run = run.id, %error, "what became of a run cannot be kept");
        }
    }
}

/// A run, from before it begins: whoever halts finds it. Dropped, it has ended.
struct Live {
    runs: Runs,
    run: String,
}

impl Live {
    /// With what tells the run to end, and what the run hears of it.
    fn enter(
        runs: &Runs,
        run: &str,
    ) -> (Live, mpsc::UnboundedSender<String>, mpsc::UnboundedReceiver<String>) {
        let (interrupt, interruptions) = mpsc::unbounded_channel();
        runs.live().insert(run.to_owned(), interrupt.clone());
        (Live { runs: runs.clone(), run: run.to_owned() }, interrupt, interruptions)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.runs.live().remove(&self.run);
        self.runs.0.ended.notify_waiters();
    }
}

/// A secret of an experiment: a file whose last line break does not belong to it.
fn secret(path: &std::path::Path) -> Result<Option<String>, String> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(about) if about.len() > LONGEST_SECRET => return Err("its file is too long".to_owned()),
        _ => {}
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
}

impl Engine for Runs {
    fn hosts(&self) -> BoxFuture<'_, Vec<HostInfo>> {
        Box::pin(async { self.0.hub.hosts() })
    }

    fn check(&self, submission: &Submission) -> Result<(), Refusal> {
        self.read(submission).map(drop)
    }

    fn plan<'a>(&'a self, submission: &'a Submission) -> BoxFuture<'a, Result<Planned, Refusal>> {
        Box::pin(async move {
            let candidates = self.candidates(&submission.only).await?;
            let (runs, submission) = (self.clone(), submission.clone());
            aside(move || {
                let order = runs.order("", &submission, &candidates)?;
                Ok(planning::planned(order, &candidates, runs.0.hub.hosts()))
            })
            .await
        })
    }

    fn start<'a>(&'a self, run: &'a str, submission: Submission) -> BoxFuture<'a, Result<(), Problem>> {
        Box::pin(async move {
            let (live, interrupt, interruptions) = Live::enter(self, run);
            // A halt that did not find it there is kept by now, or finds it when it is.
            crate::api::blocked(&self.0.store).await?;
            let kept = self.0.store.run(run).await?;
            let kept = kept.ok_or_else(|| Refusal::bare(format!("there is no run `{run}`")))?;
            // Who is that late has lost it: whoever took it over has closed it, and hosts may know.
            if kept.epoch != 0 || kept.state != "submitted" {
                return Err(
                    Refusal::bare(format!("another controller has taken the run `{run}` over")).into()
                );
            }
            let candidates = self.candidates(&submission.only).await?;
            let (runs, name, wanted) = (self.clone(), run.to_owned(), submission.clone());
            let planned = move || {
                let order = runs.order(&name, &wanted, &candidates)?;
                let plan = FleetPlan::on(&order.experiment, &order.targets, order.seed);
                Ok::<_, Refusal>((order, plan))
            };
            let (mut order, plan) = aside(planned).await?;
            let approved = self.0.store.plan_of_run(run).await?;
            let approved = approved.map(|plan| (plan.submitted_by, plan.approved_by.unwrap_or_default()));
            if plan.hash != kept.plan {
                let help = "submit it again: it is planned anew";
                return Err(Refusal::new("the hosts changed after the plan was made", help).into());
            }
            let needed = muster::open_files(&plan);
            let room = self.0.hub.room().run(needed, plan.hosts.len())?;
            (order.epoch, order.approved) = (kept.epoch, approved);
            if submission.observe {
                self.0.sights.begin(run);
            }
            let machines = Arc::new(Way { hub: self.0.hub.clone(), runtime: Handle::current() });
            tracing::info!(run, by = kept.by, hosts = plan.hosts.len(), "a run begins");
            let spans = self.0.traces.of_run(run, submission.trace);
            let carried = self.clone().carry_out(kept, order, machines, interruptions, interrupt, spans);
            tokio::spawn(async move {
                carried.await;
                drop((room, live));
            });
            Ok(())
        })
    }

    fn observations(&self, run: &str, from: u64, most: u64) -> Option<Page> {
        self.0.sights.page(run, from, most)
    }

    fn halt_run<'a>(&'a self, run: &'a str) -> BoxFuture<'a, Result<(), Refusal>> {
        let ours = self.live().get(run).map(|live| live.send("halt".to_owned())).is_some();
        Box::pin(async move {
            if !ours {
                // Perhaps another controller carries it on.
                let wanted = self.0.store.want_halt(run).await;
                wanted.map_err(|error| Refusal::bare(error.to_string()))?;
            }
            Ok(())
        })
    }

    fn halt_runs(&self) {
        self.interrupt_all("halt");
    }

    fn halt<'a>(
        &'a self,
        hosts: Option<&'a [String]>,
    ) -> BoxFuture<'a, BTreeMap<String, Result<Lifted, Refusal>>> {
        if hosts.is_none() {
            self.halt_runs();
        }
        Box::pin(async move {
            match hosts {
                None => self.0.hub.halt(None).await,
                Some(hosts) => self.halt_hosts(hosts).await,
            }
        })
    }

    fn join_token(&self) -> Minted {
        let token = JoinToken::new(rand::random(), self.0.authority.fingerprint());
        Minted { hash: token.hash(), token: token.to_string() }
    }

    fn cut_off(&self, host: &str) {
        self.0.hub.cut_off(host);
    }

    fn traces(&self) -> Traces {
        self.0.traces.clone()
    }
}

/// The way to the hosts, for the threads that drive them.
struct Way {
    hub: Hub,
    runtime: Handle,
}

impl Way {
    /// What a task of the controller's runtime finds, for a thread of another.
    fn found<T: Send + 'static>(
        &self,
        what: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Answer<T> {
        let (tell, told) = oneshot::channel();
        self.runtime.spawn(async move { tell.send(what.await) });
        let ending = || Err(Refusal::bare("the controller is about to end"));
        Box::pin(async move { told.await.unwrap_or_else(|_| ending()) })
    }
}

impl Machines for Way {
    fn agent(&self, host: &str) -> Answer<Stream> {
        let (hub, host) = (self.hub.clone(), host.to_owned());
        self.found(async move { hub.agent(&host).await.map(Stream::Memory) })
    }

    fn prober(&self, host: &str, user: Option<&str>) -> Answer<Stream> {
        let (hub, host, user) = (self.hub.clone(), host.to_owned(), user.map(str::to_owned));
        self.found(async move { hub.prober(&host, user.as_deref()).await.map(Stream::Memory) })
    }
}
