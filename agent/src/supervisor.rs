//! The worker: the one actor that owns live injections, their leases and deadlines.
//!
//! One thread. Everything that alters the host is done here, one thing after the other; connections only carry lines.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use squall_experiments::change::Change;
use squall_experiments::exit::Exit;
use squall_experiments::flow::Flow;
use squall_experiments::protocol::{Call, Lifted, Message, Refusal, Reply, Request, RunId, VERSION};
use squall_experiments::quantity::Period;
use tokio::io::Interest;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::host::aim::{Aim, names};
use crate::host::block::Resolved;
use crate::host::{Host, sys};
use crate::injection::{Injection, Terms};
use crate::link::{self, Connection, Incoming};
use crate::policy::Policy;
use crate::pulse::{Other, Pulse};
use crate::records::{Ask, Records};
use crate::state::Place;
use crate::veto::{self, Veto};
use crate::{recover, resolve};

/// How often an undo that failed is tried again.
const RETRY: u64 = 1_000_000_000;
/// How long an agent that leaves when idle tries to undo what is stuck.
const PERSIST: u64 = 30_000_000_000;

/// What the worker gets from the guardian.
#[derive(Debug)]
pub struct Setup {
    /// Where its state lies.
    pub place: Place,
    /// To the guardian's pen.
    pub records: OwnedFd,
    /// To the guardian's ear.
    pub pulse: OwnedFd,
    /// A connection that is there already; with it the agent leaves when idle.
    pub control: Option<UnixStream>,
}

/// Works until the end of the agent, in a process that has just been forked.
pub fn run(setup: Setup) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, async { work(setup).await }),
        Err(error) => {
            tracing::error!(%error, "cannot start");
            Exit::Bug
        }
    }
}

struct Client {
    pid: Option<i32>,
    outgoing: mpsc::UnboundedSender<Message>,
}

/// A request whose names have been resolved.
struct Ready {
    connection: Connection,
    number: u64,
    apply: Apply,
    resolved: Result<Resolved, Refusal>,
}

struct Apply {
    run: RunId,
    part: u32,
    changes: Vec<Change>,
    lasts: u64,
}

struct Supervisor {
    place: Place,
    host: Host,
    records: Records,
    policy: Policy,
    clients: BTreeMap<Connection, Client>,
    injections: BTreeMap<RunId, Injection>,
    /// Injections that could not be undone, with the time of the next try and of the first.
    stuck: Vec<(Injection, u64, u64)>,
    ready: mpsc::UnboundedSender<Ready>,
    guardian: i32,
}

async fn work(setup: Setup) -> Exit {
    let Setup {
        place,
        records,
        pulse,
        control,
    } = setup;
    let guardian = nix::unistd::getppid().as_raw();
    let guardian_fd = rustix::process::Pid::from_raw(guardian)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    let policy = match Policy::of_this_host() {
        Ok(policy) => policy,
        Err(refusal) => return refuse_all(control, refusal).await,
    };
    let (inbox, mut incoming) = mpsc::unbounded_channel();
    let (ready, mut resolved) = mpsc::unbounded_channel();
    let inbox = Rc::new(inbox);
    let next = Rc::new(Cell::new(0));
    let leaves_when_idle = control.is_some();
    let accept = {
        let (inbox, next) = (inbox.clone(), next.clone());
        move |stream: UnixStream| {
            next.set(next.get() + 1);
            tokio::task::spawn_local(link::serve(stream, next.get(), inbox.clone()));
        }
    };
    control.into_iter().for_each(&accept);
    let _ = std::fs::remove_file(place.socket());
    let listener = match tokio::net::UnixListener::bind(place.socket()) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("error: cannot listen on `{}`: {error}", place.socket().display());
            return Exit::Refused;
        }
    };
    // Pulse reads by itself; the runtime only wakes it.
    let ear = pulse.try_clone().map(UnixStream::from).and_then(|ear| {
        ear.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(ear)
    });
    let (Ok(ear), Ok(mut pulse), Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup), Ok(mut child)) = (
        ear,
        Pulse::new(pulse),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
        signal(SignalKind::child()),
    ) else {
        return Exit::Bug;
    };
    let host = Host::open();
    let records = Records::new(records);
    if let Some(socket) = host.table_socket()
        && let Err(refusal) = records.ask(&Ask::Hold, Some(socket))
    {
        tracing::error!(%refusal, "the guardian cannot be told");
        return Exit::Bug;
    }
    let mut supervisor = Supervisor {
        place,
        host,
        records,
        policy,
        clients: BTreeMap::new(),
        injections: BTreeMap::new(),
        stuck: Vec::new(),
        ready,
        guardian,
    };
    let mut served = false;
    loop {
        pulse.set_live(!supervisor.injections.is_empty() || !supervisor.stuck.is_empty());
        let beat = pulse.beat_if_due();
        let wake = [beat, supervisor.due()].into_iter().flatten().min();
        let sleep = async {
            match wake {
                Some(wake) => {
                    tokio::time::sleep(Duration::from_nanos(wake.saturating_sub(sys::boot_nanos()))).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = ear.readable() => {
                let _ = ear.try_io(Interest::READABLE, || Err::<(), _>(std::io::ErrorKind::WouldBlock.into()));
            }
            Some(message) = incoming.recv() => {
                served = true;
                supervisor.hear(message);
            }
            Some(ready) = resolved.recv() => supervisor.apply(ready),
            Ok((stream, _)) = listener.accept() => {
                if let Ok(stream) = stream.into_std() {
                    accept(stream);
                }
            }
            _ = terminate.recv() => return supervisor.farewell("the agent was told to end"),
            _ = interrupt.recv() => return supervisor.farewell("the agent was interrupted"),
            _ = hangup.recv() => return supervisor.farewell("the agent's terminal hung up"),
            _ = child.recv() => {}
            () = sleep => {}
        }
        if pulse.listen() == Other::Dead {
            if let Some(guardian) = &guardian_fd {
                let _ = rustix::process::pidfd_send_signal(guardian, rustix::process::Signal::KILL);
            }
            pulse.set_live(false);
            let place = supervisor.place.clone();
            let exit = supervisor.farewell("the guardian died");
            inherit(&place);
            return exit;
        }
        if beat.is_some_and(|beat| beat <= sys::boot_nanos()) && !supervisor.host.renew() {
            supervisor.end_all("this host was too slow to keep the rules alive");
        }
        supervisor.tick();
        let idle = supervisor.clients.is_empty() && supervisor.injections.is_empty();
        if leaves_when_idle && served && idle && supervisor.may_leave() {
            return supervisor.farewell("nobody needs it");
        }
    }
}

/// Does for a dead guardian what it would have done: replays the journal, which removes it when nothing is left.
fn inherit(place: &Place) {
    if let Ok(Some(_lock)) = place.lock()
        && let Ok(outcome) = recover::with_lock(place)
        && outcome.stuck.is_empty()
    {
        place.clear();
    }
}

/// Tells the one who waits why nothing can be done, and ends.
async fn refuse_all(control: Option<UnixStream>, refusal: Refusal) -> Exit {
    eprintln!("error: {refusal}");
    if let Some(control) = control {
        let answer = Message::Answer {
            number: 1,
            reply: Reply::Refused(refusal),
        };
        let line = serde_json::to_string(&answer).unwrap_or_default() + "\n";
        let _ = std::io::Write::write_all(&mut &control, line.as_bytes());
    }
    Exit::Refused
}

impl Supervisor {
    fn hear(&mut self, message: Incoming) {
        match message {
            Incoming::Opened {
                connection,
                pid,
                outgoing,
            } => {
                self.clients.insert(connection, Client { pid, outgoing });
            }
            Incoming::Closed(connection) => {
                self.clients.remove(&connection);
                let theirs = self
                    .injections
                    .values()
                    .filter(|injection| injection.connection == connection);
                let runs: Vec<RunId> = theirs.map(|injection| injection.run.clone()).collect();
                for run in runs {
                    self.end(&run, Some("its command is gone"));
                }
            }
            Incoming::Asked(connection, Call { number, request }) => {
                if let Some(reply) = self.answer(connection, number, request) {
                    self.send(connection, Message::Answer { number, reply });
                }
            }
        }
    }

    fn send(&self, connection: Connection, message: Message) {
        if let Some(client) = self.clients.get(&connection) {
            let _ = client.outgoing.send(message);
        }
    }

    /// The answer, unless it comes later.
    fn answer(&mut self, connection: Connection, number: u64, request: Request) -> Option<Reply> {
        let mine = |injections: &BTreeMap<RunId, Injection>, run: &RunId| {
            let found = injections
                .get(run)
                .filter(|injection| injection.connection == connection);
            found
                .map(|_| ())
                .ok_or_else(|| Refusal::bare(format!("run {run} is not live on this connection")))
        };
        let refused = |result: Result<Reply, Refusal>| result.unwrap_or_else(Reply::Refused);
        Some(match request {
            Request::Hello { version } if version != VERSION => Reply::Refused(Refusal::new(
                format!("this agent speaks version {VERSION} of the protocol, not {version}"),
                "use the same release of squall and squall-agent",
            )),
            Request::Hello { .. } => Reply::Hello {
                version: VERSION,
                guardian: self.guardian as u32,
                worker: std::process::id(),
                state: self.place.directory().display().to_string(),
                policy: self.policy.version.clone(),
            },
            Request::Begin {
                run,
                title,
                seed,
                lease_ms,
                deadline_ms,
                plan: _,
            } => {
                let deadline = sys::boot_nanos().saturating_add(deadline_ms.saturating_mul(1_000_000));
                let lease = lease_ms.saturating_mul(1_000_000);
                refused(self.begin(Terms {
                    run,
                    title,
                    seed,
                    connection,
                    lease,
                    deadline,
                }))
            }
            Request::Renew { run } => refused(mine(&self.injections, &run).map(|()| {
                if let Some(injection) = self.injections.get_mut(&run) {
                    injection.renewed = sys::boot_nanos();
                }
                Reply::Done
            })),
            Request::Apply {
                run,
                part,
                changes,
                lasts_ms,
            } => {
                let apply = Apply {
                    run,
                    part,
                    changes,
                    lasts: lasts_ms.saturating_mul(1_000_000),
                };
                match mine(&self.injections, &apply.run).and_then(|()| self.permits(&apply)) {
                    Ok(()) => {
                        self.resolve(connection, number, apply);
                        return None;
                    }
                    Err(refusal) => Reply::Refused(refusal),
                }
            }
            Request::Observe { run, part } => refused(mine(&self.injections, &run).and_then(|()| {
                let injection = self
                    .injections
                    .get_mut(&run)
                    .ok_or_else(|| Refusal::bare("no such run"))?;
                injection.observe(part, &mut self.host).map(Reply::Measured)
            })),
            Request::Lift { run, part } => match self.injections.get_mut(&run) {
                Some(injection) => Reply::Lifted(injection.lift(part, &mut self.host, &self.records)),
                None => Reply::Lifted(Lifted::default()),
            },
            Request::End { run } => Reply::Lifted(self.end(&run, None)),
            Request::Status => {
                let host = &mut self.host;
                let live = self.injections.values_mut();
                let stuck = self.stuck.iter_mut().map(|(injection, ..)| injection);
                Reply::Status(
                    live.chain(stuck)
                        .map(|injection| injection.active(host))
                        .collect(),
                )
            }
            Request::Halt => Reply::Lifted(self.end_all("halted")),
        })
    }

    fn begin(&mut self, terms: Terms) -> Result<Reply, Refusal> {
        if self.injections.contains_key(&terms.run) {
            return Err(Refusal::bare(format!("run {} has begun already", terms.run)));
        }
        if !self.stuck.is_empty() {
            return Err(Refusal::new(
                "this host is still modified by an earlier run",
                "`squall status` names what is left; nothing new is injected until it is gone",
            ));
        }
        let (run, title, deadline) = (terms.run.clone(), terms.title.clone(), terms.deadline);
        self.records.ask(
            &Ask::Begin {
                run: run.clone(),
                title,
                deadline,
            },
            None,
        )?;
        self.injections.insert(run, Injection::begin(terms));
        Ok(Reply::Done)
    }

    fn permits(&self, apply: &Apply) -> Result<(), Refusal> {
        if apply.changes.is_empty() {
            return Err(Refusal::bare("there is nothing to apply"));
        }
        let lasts = Period::from(Duration::from_nanos(apply.lasts));
        apply
            .changes
            .iter()
            .try_for_each(|change| self.policy.permits(change, lasts))
    }

    /// Resolves every name, then comes back through [`Supervisor::apply`].
    fn resolve(&self, connection: Connection, number: u64, apply: Apply) {
        let ready = self.ready.clone();
        let flow = |change: &Change| match change {
            Change::Block(block) => Some(block.flow.clone()),
            Change::Disconnect(disconnect) => Some(disconnect.flow.clone()),
            Change::Signal(_) | Change::Pause(_) => None,
        };
        let flows: Vec<Flow> = apply.changes.iter().filter_map(flow).collect();
        let wanted: BTreeSet<String> = flows.iter().flat_map(names).map(str::to_owned).collect();
        tokio::task::spawn_local(async move {
            let resolved = resolve::addresses(wanted).await;
            let _ = ready.send(Ready {
                connection,
                number,
                apply,
                resolved,
            });
        });
    }

    fn apply(&mut self, ready: Ready) {
        let Ready {
            connection,
            number,
            apply,
            resolved,
        } = ready;
        let Apply {
            run,
            part,
            changes,
            lasts,
        } = apply;
        let applied = resolved.and_then(|resolved| {
            let mut injection = self
                .injections
                .remove(&run)
                .ok_or_else(|| Refusal::bare(format!("run {run} has ended")))?;
            let veto = self.veto();
            let login_ports = veto::login_ports();
            let aim = Aim {
                policy: &self.policy,
                veto: &veto,
                login_ports: &login_ports,
                resolved: &resolved,
            };
            let (host, records, others) = (&mut self.host, &self.records, &self.injections);
            let applied = injection.apply(part, changes, lasts, host, records, &aim, others);
            self.injections.insert(run, injection);
            applied
        });
        let reply = applied.map_or_else(Reply::Refused, Reply::Applied);
        self.send(connection, Message::Answer { number, reply });
    }

    fn veto(&self) -> Veto {
        let clients = self
            .clients
            .values()
            .filter_map(|client| client.pid)
            .chain([self.guardian])
            .collect();
        Veto::now(&self.policy, &clients)
    }

    /// When something is due, on the boot clock.
    fn due(&self) -> Option<u64> {
        let live = self.injections.values().map(Injection::due);
        live.chain(self.stuck.iter().map(|(_, retry, _)| *retry)).min()
    }

    fn tick(&mut self) {
        let now = sys::boot_nanos();
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let veto = self.veto();
        let login_ports = veto::login_ports();
        let resolved = Resolved::new();
        let aim = Aim {
            policy: &self.policy,
            veto: &veto,
            login_ports: &login_ports,
            resolved: &resolved,
        };
        let mut over = Vec::new();
        for injection in self.injections.values_mut() {
            let parts = injection.tick(&aim);
            if injection.deadline <= now {
                over.push((injection.run.clone(), "its deadline was reached"));
            } else if injection.renewed + injection.lease <= now {
                over.push((injection.run.clone(), "its lease was not renewed"));
            } else {
                for part in parts {
                    let lifted = injection.lift(part, &mut self.host, &self.records);
                    let why = "its time was over".to_owned();
                    let message = Message::Ended {
                        run: injection.run.clone(),
                        part: Some(part),
                        why,
                        lifted,
                    };
                    if let Some(client) = self.clients.get(&injection.connection) {
                        let _ = client.outgoing.send(message);
                    }
                }
            }
        }
        for (run, why) in over {
            self.end(&run, Some(why));
        }
        self.retry(now);
    }

    /// Tries again what could not be undone.
    fn retry(&mut self, now: u64) {
        for (mut injection, retry, since) in std::mem::take(&mut self.stuck) {
            if retry > now {
                self.stuck.push((injection, retry, since));
                continue;
            }
            let lifted = injection.end(&mut self.host, &self.records);
            if lifted.stuck.is_empty() {
                let _ = self.records.ask(
                    &Ask::End {
                        run: injection.run.clone(),
                    },
                    None,
                );
            } else {
                self.stuck.push((injection, now + RETRY, since));
            }
        }
    }

    /// Whether nothing is stuck, or has been for so long that a later start must try.
    fn may_leave(&self) -> bool {
        let now = sys::boot_nanos();
        self.stuck.iter().all(|(_, _, since)| now - since > PERSIST)
    }

    /// Undoes a run. Whoever began it is told when somebody else wanted it.
    fn end(&mut self, run: &RunId, why: Option<&str>) -> Lifted {
        let Some(mut injection) = self.injections.remove(run) else {
            return Lifted::default();
        };
        let lifted = injection.end(&mut self.host, &self.records);
        if lifted.stuck.is_empty() {
            if let Err(refusal) = self.records.ask(&Ask::End { run: run.clone() }, None) {
                tracing::info!(%refusal, "the journal does not know yet that the run has ended");
            }
        } else {
            tracing::error!(%run, stuck = ?lifted.stuck, "this host is still modified");
        }
        if let Some(why) = why {
            let message = Message::Ended {
                run: run.clone(),
                part: None,
                why: why.to_owned(),
                lifted: lifted.clone(),
            };
            self.send(injection.connection, message);
        }
        if !lifted.stuck.is_empty() {
            let now = sys::boot_nanos();
            self.stuck.push((injection, now + RETRY, now));
        }
        lifted
    }

    fn end_all(&mut self, why: &str) -> Lifted {
        let runs: Vec<RunId> = self.injections.keys().cloned().collect();
        let mut all = Lifted::default();
        for run in runs {
            let lifted = self.end(&run, Some(why));
            all.evidence.extend(lifted.evidence);
            all.undone
                .extend(lifted.undone.into_iter().map(|what| format!("{run}: {what}")));
            all.stuck
                .extend(lifted.stuck.into_iter().map(|what| format!("{run}: {what}")));
            all.others.extend(lifted.others);
            all.took_us += lifted.took_us;
        }
        all
    }

    /// Undoes everything and ends the worker.
    fn farewell(mut self, why: &str) -> Exit {
        self.end_all(why);
        let _ = std::fs::remove_file(self.place.socket());
        if self.stuck.is_empty() {
            Exit::Held
        } else {
            Exit::Modified
        }
    }
}
