//! The worker: what the forked child does. It wakes the supervisor when something has come or is due.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Message, Refusal, Reply};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::deputy::Deputy;
use crate::fleet::options::Uplink;
use crate::fleet::steward::{self, Wanted};
use crate::host::machine::Machine;
use crate::host::means::Means;
use crate::host::sys;
use crate::host::watch::Watch;
use crate::link::{self, Origin};
use crate::notify;
use crate::points::{self, Point};
use crate::policy::Policy;
use crate::pulse::{Other, Pulse};
use crate::records::Records;
use crate::recover;
use crate::rights;
use crate::state::Place;
use crate::supervisor::Supervisor;
use crate::talk;

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
    /// Where its controllers are: no fault touches the way there.
    pub controllers: Vec<SocketAddr>,
    /// The one that it dials.
    pub uplink: Option<Uplink>,
}

/// Works until the end of the agent, in a process that has just been forked.
pub fn run(setup: Setup) -> Exit {
    // There is one thread yet, and nobody has been heard.
    let policy = Policy::of_this_host();
    if let Ok(policy) = &policy
        && let Err(error) = rights::give_up(policy)
    {
        tracing::error!(%error, "privileges that this host's policy makes needless cannot be given up");
        return Exit::Refused;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, async { work(setup, policy).await }),
        Err(error) => {
            tracing::error!(%error, "cannot start");
            Exit::Bug
        }
    }
}

async fn work(setup: Setup, policy: Result<Policy, Refusal>) -> Exit {
    let Setup { place, records, pulse, control, controllers, uplink } = setup;
    let guardian = nix::unistd::getppid().as_raw();
    let guardian_fd = rustix::process::Pid::from_raw(guardian)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    let policy = match policy {
        Ok(policy) => policy,
        Err(refusal) => return refuse_all(control, refusal).await,
    };
    let (inbox, mut incoming) = mpsc::unbounded_channel();
    let (heard, mut names) = mpsc::unbounded_channel();
    let inbox = Rc::new(inbox);
    let next = Cell::new(0);
    // Connections that have come and not been heard of yet: as long as there are any, the agent does not leave.
    let unheard = RefCell::new(BTreeSet::new());
    let leaves_when_idle = control.is_some();
    let accept_from = |origin: Origin, stream: UnixStream| {
        next.set(next.get() + 1);
        unheard.borrow_mut().insert(next.get());
        tokio::task::spawn_local(link::serve(stream, (next.get(), origin), inbox.clone()));
    };
    let accept = |stream: UnixStream| accept_from(Origin::Here, stream);
    control.into_iter().for_each(&accept);
    let Ok(mut listener) = listen(&place) else { return Exit::Refused };
    // Pulse reads by itself; the runtime only wakes it.
    let ear = pulse.try_clone().map(UnixStream::from).and_then(|ear| {
        ear.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(ear)
    });
    let (Ok(ear), Ok(pulse), Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup), Ok(mut child)) = (
        ear,
        Pulse::new(pulse),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
        signal(SignalKind::child()),
    ) else {
        return Exit::Bug;
    };
    let Ok((watch, watched)) = watch() else { return Exit::Bug };
    let means = Means::new(watch.clone());
    let machine = match Machine::open(means.clone()) {
        Ok(machine) => machine,
        Err(error) => {
            tracing::error!(%error, "the network namespace cannot be looked at");
            return Exit::Bug;
        }
    };
    let records = Records::new(records, means.hand.clone());
    let deputy = Deputy::stand_by(pulse, machine.renewed(), means.clone());
    let Ok(deputy) = deputy else { return Exit::Bug };
    notify::tell("READY=1");
    let (wanted, mut through_link) = mpsc::unbounded_channel();
    let membership = uplink.as_ref().map(|uplink| uplink.directory.clone());
    if let Some(uplink) = uplink {
        steward::start(uplink, policy.clone(), wanted.clone());
    }
    let mut supervisor = Supervisor::new(place.clone(), machine, records, policy, watch, heard);
    supervisor.led_by(controllers.clone());
    supervisor.belongs(membership);
    loop {
        let beat = deputy.beat_if_due(supervisor.is_live());
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
            // What has happened is taken by the supervisor's tick.
            Ok(mut guard) = watched.readable() => guard.clear_ready(),
            Some(message) = incoming.recv() => {
                unheard.borrow_mut().remove(&message.connection());
                // It may begin something; from then on the guardian wants to hear beats.
                deputy.beat_if_due(true);
                supervisor.hear(message);
            }
            Some(heard) = names.recv() => supervisor.resolved(heard),
            Some(wanted) = through_link.recv() => match wanted {
                Wanted::Pinned(addresses) => supervisor.led_by([&controllers[..], &addresses].concat()),
                Wanted::Connected(stream) => accept_from(Origin::Controller, stream),
            },
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
        means.hand.shows();
        let guardian_is = deputy.listen();
        if guardian_is == Other::Dead {
            if let Some(guardian) = &guardian_fd {
                let _ = rustix::process::pidfd_send_signal(guardian, rustix::process::Signal::KILL);
            }
            deputy.alone();
            points::pass(Point::BeforeRevert);
            let exit = supervisor.farewell("the guardian died");
            deputy.alone();
            inherit(&place);
            return exit;
        }
        if beat.is_some_and(|beat| beat <= sys::boot_nanos()) {
            supervisor.keep_alive();
        }
        supervisor.tick();
        if leaves_when_idle && unheard.borrow().is_empty() && supervisor.may_leave() {
            // From here on nobody finds it any more; whoever has found it since it looked is still served.
            let _ = std::fs::remove_file(place.socket());
            let late: Vec<UnixStream> = std::iter::from_fn(|| knocking(&listener)).collect();
            if late.is_empty() {
                return supervisor.farewell("nobody needs it");
            }
            let Ok(again) = listen(&place) else { return supervisor.farewell("it cannot listen any more") };
            listener = again;
            late.into_iter().for_each(&accept);
        }
    }
}

/// What wakes the worker when something happens to a target, and the runtime's view of it.
fn watch() -> std::io::Result<(Watch, AsyncFd<OwnedFd>)> {
    let watch = Watch::open()?;
    let fd = watch.as_fd().try_clone_to_owned()?;
    Ok((watch, sys::awaited(fd)?))
}

/// Listens for commands.
fn listen(place: &Place) -> std::io::Result<UnixListener> {
    let _ = std::fs::remove_file(place.socket());
    UnixListener::bind(place.socket()).inspect_err(|error| {
        talk::error(format_args!("cannot listen on `{}`: {error}", place.socket().display()), None);
    })
}

/// A command that has come and was not seen yet: by asking the kernel, not the runtime, which may not have looked.
fn knocking(listener: &UnixListener) -> Option<UnixStream> {
    rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC).ok().map(UnixStream::from)
}

/// Does for a dead guardian what it would have done: replays the journal, which removes it when nothing is left.
fn inherit(place: &Place) {
    if let Some(_lock) = recover::lock_of(place)
        && let Ok(outcome) = recover::with_lock(place)
        && outcome.stuck.is_empty()
    {
        points::pass(Point::BeforeClear);
        place.clear();
    }
}

/// Tells the one who waits why nothing can be done, and ends.
async fn refuse_all(control: Option<UnixStream>, refusal: Refusal) -> Exit {
    talk::error(&refusal, None);
    if let Some(control) = control {
        let answer = Message::Answer { number: 1, reply: Reply::Refused(refusal) };
        let line = serde_json::to_string(&answer).unwrap_or_default() + "\n";
        let _ = std::io::Write::write_all(&mut &control, line.as_bytes());
    }
    Exit::Refused
}
