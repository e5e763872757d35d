//! The runs of a controller: planned over the hosts that are connected, carried out, kept.
//!
//! Each is a task of its own. Its log goes to the store line by line, before whoever asks can see it (`keeping`).

mod halting;
pub(crate) mod keeping;
mod takeover;
mod windows;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use squall_experiments::document::{self, Document, LONGEST_FAULT, Sources};
use squall_experiments::exit::Exit;
use squall_experiments::experiment::Experiment;
use squall_experiments::fleet::JoinToken;
use squall_experiments::limits::Limits;
use squall_experiments::mandate::Approved;
use squall_experiments::muster::Line;
use squall_experiments::plan::PlanStep;
use squall_experiments::protocol::{Lifted, Refusal, RunId};
use squall_experiments::run::Origin;
use squall_experiments::targets::{Candidate, FleetPlan, OnHost, Targets};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use crate::api::engine::{Engine, Planned, Preview, Submission};
use crate::budget::{self, HostUse};
use crate::conductor::{Answer, LEASE};
use crate::fleet::{Authority, HostInfo, Hub, prospect};
use crate::muster::{self, Machines};
use crate::report;
use crate::sights::{Page, Sights};
use crate::store::{HostRow, Minted, RunRow, Store, StoreError, now_ms};
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

    /// The order of a run, as it would be now.
    async fn order(&self, run: &str, submission: &Submission) -> Result<muster::Order, Refusal> {
        let document = self.read(submission)?;
        // 32 bits are enough to repeat a run, and stay exact in every JSON reader.
        let chosen = || u64::from(rand::random::<u32>());
        let seed = submission.seed.or(document.experiment.seed).unwrap_or_else(chosen);
        let candidates = self.candidates(&submission.only).await?;
        let targets = Targets::of(&document.experiment, &candidates, seed)?;
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

    /// Adds to the warnings of each host what its owner would refuse, by what it said when it connected. They do not count for
    /// the hash: the host decides when the run begins.
    fn forewarn(&self, plan: &mut FleetPlan) {
        let hosts = self.0.hub.hosts().into_iter();
        let said: BTreeMap<String, Arc<serde_json::Value>> =
            hosts.map(|host| (host.name, host.preflight)).collect();
        for on in &mut plan.hosts {
            // An agent of a version before says nothing of it.
            let limits = said.get(&on.host).and_then(|said| Limits::deserialize(&said["policy"]).ok());
            let Some(limits) = limits else { continue };
            let mut warnings = Vec::new();
            for step in on.plan.faults() {
                let PlanStep::Fault { part, changes, lasts, .. } = step else { continue };
                let why = changes.iter().filter_map(|change| limits.objection(change, *lasts));
                warnings.extend(why.map(|why| format!("part {part} would be refused on {}: {why}", on.host)));
            }
            if !limits.windows.is_empty() {
                let windows = limits.windows.join(", ");
                warnings.push(format!("{} allows faults only in {windows}", on.host));
            }
            on.plan.warnings.extend(warnings);
        }
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
        self.live().remove(&run.id);
        self.0.ended.notify_waiters();
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

/// A plan in words; `redact` takes secrets out of them.
fn preview(plan: &FleetPlan, redact: &dyn Fn(&str) -> String) -> Preview {
    let mut preview = Preview {
        watching: plan.hosts.iter().filter(|on| on.watching).map(|on| on.host.clone()).collect(),
        unconnected: plan.unconnected.iter().cloned().collect(),
        ..Preview::default()
    };
    let once = |all: &mut Vec<String>, new: &[String]| {
        for line in new.iter().map(|line| redact(line)) {
            if !all.contains(&line) {
                all.push(line);
            }
        }
    };
    for on in &plan.hosts {
        let steps = redact(&report::steps(&on.plan, ""));
        match preview.done.iter_mut().find(|(_, known)| *known == steps) {
            Some((hosts, _)) => hosts.push(on.host.clone()),
            None => preview.done.push((vec![on.host.clone()], steps)),
        }
        once(&mut preview.never_hit, &on.plan.carve_outs);
        once(&mut preview.warnings, &on.plan.warnings);
    }
    let expiry = plan.hosts.iter().map(|on| on.plan.expiry).max();
    preview.expires = expiry.map(|expiry| expiry.to_string()).unwrap_or_default();
    preview
}

/// How long a run may go on whose method with its revert takes so long. Where nothing is claimed, nothing is looked at before and after.
fn goes_on(experiment: &Experiment, method: Duration) -> Duration {
    if experiment.hypothesis.is_empty() {
        return method;
    }
    let baseline = experiment.baseline.map_or(Duration::ZERO, |baseline| baseline.get());
    baseline + method + experiment.recovery.get()
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
            let order = self.order("", submission).await?;
            let mut plan = FleetPlan::on(&order.experiment, &order.targets, order.seed);
            self.forewarn(&mut plan);
            let title = order.redactor.redact(&plan.title).into_owned();
            let mut shown = serde_json::to_value(&plan).unwrap_or_default();
            let hosts = self.0.hub.hosts();
            for (on, shown) in plan.hosts.iter().zip(shown["hosts"].as_array_mut().into_iter().flatten()) {
                let preflight = hosts.iter().find(|host| host.name == on.host).map(|host| &*host.preflight);
                shown["engines"] = json!(prospect::engines(&on.plan, preflight.unwrap_or(&Value::Null)));
            }
            order.redactor.redact_value(&mut shown);
            let preview = preview(&plan, &|text| order.redactor.redact(text).into_owned());
            let origin = order.origin.unwrap_or_default();
            // A step of a ramp that deviates is what the ramp looks for.
            let weight = if origin.step.is_some() { 0 } else { order.experiment.weight };
            let content = origin.content.unwrap_or_default();
            let tags = order.experiment.tags.iter();
            let tags = tags.map(|tag| order.redactor.redact(tag).into_owned()).collect();
            let candidates = self.candidates(&submission.only).await?;
            let known: BTreeMap<&str, &Candidate> =
                candidates.iter().map(|candidate| (candidate.name.as_str(), candidate)).collect();
            let used = |host: &OnHost| {
                let known = known.get(host.host.as_str());
                HostUse {
                    host: host.host.clone(),
                    labels: known.map(|host| host.labels.clone()).unwrap_or_default(),
                    zone: known.and_then(|host| host.zone.clone()),
                    faults: budget::faults(&host.plan.steps),
                }
            };
            let uses = plan.hosts.iter().map(used).collect();
            let method = plan.hosts.iter().map(|host| host.plan.expiry.get()).max().unwrap_or_default();
            let seconds = goes_on(&order.experiment, method).as_secs();
            let approvable = Approved::fits(&plan);
            Ok(Planned {
                title,
                hash: plan.hash,
                seed: plan.seed,
                weight,
                content,
                tags,
                shown,
                approvable,
                preview,
                uses,
                seconds,
            })
        })
    }

    fn start<'a>(&'a self, run: &'a str, submission: Submission) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            let broken = |error: StoreError| Refusal::bare(error.to_string());
            let kept = self.0.store.run(run).await.map_err(broken)?;
            let kept = kept.ok_or_else(|| Refusal::bare(format!("there is no run `{run}`")))?;
            // Who is that late has lost it: whoever took it over has closed it, and hosts may know.
            if kept.epoch != 0 || kept.state != "submitted" {
                return Err(Refusal::bare(format!("another controller has taken the run `{run}` over")));
            }
            let mut order = self.order(run, &submission).await?;
            let approved = self.0.store.plan_of_run(run).await.map_err(broken)?;
            let approved = approved.map(|plan| (plan.submitted_by, plan.approved_by.unwrap_or_default()));
            let plan = FleetPlan::on(&order.experiment, &order.targets, order.seed);
            if plan.hash != kept.plan {
                return Err(Refusal::new(
                    "the hosts changed after the plan was made",
                    "submit it again: it is planned anew",
                ));
            }
            let needed = muster::open_files(&plan);
            let room = self.0.hub.room().run(needed, plan.hosts.len())?;
            (order.epoch, order.approved) = (kept.epoch, approved);
            let (interrupt, interruptions) = mpsc::unbounded_channel();
            if submission.observe {
                self.0.sights.begin(run);
            }
            self.live().insert(run.to_owned(), interrupt.clone());
            let machines = Arc::new(Way { hub: self.0.hub.clone(), runtime: Handle::current() });
            tracing::info!(run, by = kept.by, hosts = plan.hosts.len(), "a run begins");
            let spans = self.0.traces.of_run(run, submission.trace);
            let carried = self.clone().carry_out(kept, order, machines, interruptions, interrupt, spans);
            tokio::spawn(async move {
                carried.await;
                drop(room);
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

    fn halt<'a>(
        &'a self,
        hosts: Option<&'a [String]>,
    ) -> BoxFuture<'a, BTreeMap<String, Result<Lifted, Refusal>>> {
        if hosts.is_none() {
            self.interrupt_all("halt");
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
