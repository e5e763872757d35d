//! The proxy of an outage, as a process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use squall_experiments::ailment::Ailment;
use squall_experiments::exit::Exit;

use super::diary::Diary;
use super::lookups::{Lookups, Socket};
use super::order::Task;
use super::order::{Answer, CARRIES_ON_MS, Counts, Order};
use super::recipe::wanted;
use crate::line::Line;
use crate::probe::privileges;
use crate::proxy::caller::Callers;
use crate::proxy::control::Control;
use crate::proxy::observations::{KEPT, Observations};

/// How the process is called: it begins as all of Squall's do, and is never hit.
pub const NAME: &std::ffi::CStr = c"squall-outage";
/// How often it looks whether it is still needed once its fault is over.
const LOOK: Duration = Duration::from_millis(50);

/// Options of the hidden verb.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// As which user.
    #[arg(long)]
    uid: u32,
    /// As which group.
    #[arg(long)]
    gid: u32,
    /// Of every choice.
    #[arg(long)]
    seed: u64,
    /// Whether what is seen of connections and requests is kept.
    #[arg(long)]
    observe: bool,
}

/// Serves until the end of its line, which is standard input.
pub fn run(arguments: &Arguments) -> Exit {
    let Ok(line) = io::stdin().as_fd().try_clone_to_owned().map(Line::new) else { return Exit::Bug };
    // Capabilities belong to threads: before there is a second one.
    let dropped = privileges::become_number(arguments.uid, arguments.gid).map_err(|error| error.to_string());
    let _ = nix::sys::prctl::set_name(NAME);
    let kept = if arguments.observe { KEPT } else { 0 };
    let start = || Control::observing(arguments.seed, Observations::alone(kept));
    let started = dropped.and_then(|()| start().map_err(|error| error.to_string()));
    let control = match started {
        Ok(control) => control,
        Err(why) => {
            let _ = line.send(&Answer::Failed { why }, None);
            return Exit::Refused;
        }
    };
    if line.send(&Answer::Ready, None).is_ok() {
        serve(&line, &control, arguments.seed);
    }
    // What is left is reset by whoever wanted that; to wait for threads is for nobody's good.
    Exit::Held
}

fn serve(line: &Line, control: &Control, seed: u64) {
    let mut lookups: Option<Lookups> = None;
    let mut healed: Option<Instant> = None;
    let mut diary: Option<Diary> = None;
    loop {
        let over = healed.is_some_and(|healed| is_over(control, lookups.as_ref(), healed));
        if healed.is_some() {
            write(&mut diary, control);
        }
        if over {
            return;
        }
        let mut ready = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
        let wait = if healed.is_some() {
            PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut ready, wait) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        let Ok(Some((order, socket))) = line.receive() else { return };
        match order {
            Order::Hear { upstream, task } => {
                let heard = socket.ok_or_else(|| "a socket is missing".to_owned()).and_then(|socket| {
                    hear((&mut lookups, control, seed), Socket::Udp(socket.into()), (upstream, &task))
                });
                if let Err(why) = heard {
                    let _ = line.send(&Answer::Failed { why }, None);
                    return;
                }
            }
            Order::Carry { upstream, listen, task } => {
                let carried = socket.ok_or_else(|| "a socket is missing".to_owned()).and_then(|socket| {
                    if task.ailment.is_of_lookups() {
                        let socket = Socket::Tcp(socket.into());
                        return hear((&mut lookups, control, seed), socket, (upstream, &task));
                    }
                    let wanted = wanted(upstream, &task);
                    control.adopt(&wanted, socket, listen).map(drop).map_err(|error| error.to_string())
                });
                if let Err(why) = carried {
                    let _ = line.send(&Answer::Failed { why }, None);
                    return;
                }
            }
            Order::Write => diary = socket.map(Diary::new),
            Order::Ask => {
                if let Some(Ok(callers)) = socket.map(|socket| Callers::through(Line::new(socket))) {
                    control.observations().ask(callers);
                }
            }
            Order::Mean { names } => lookups.iter().for_each(|lookups| lookups.mean(&names)),
            Order::Count => {
                write(&mut diary, control);
                if line.send(&Answer::Counted(counts(control, lookups.as_ref())), None).is_err() {
                    return;
                }
            }
            Order::Heal => {
                // Everything is enabled already, so that this only takes the toxics away.
                let _ = control.reset();
                lookups.iter().for_each(Lookups::heal);
                healed.get_or_insert_with(Instant::now);
            }
            Order::End => {
                let left = counts(control, lookups.as_ref());
                control.abort();
                if diary.is_some() {
                    let began = Instant::now();
                    while under_way(control) > 0 && began.elapsed() < LOOK {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
                write(&mut diary, control);
                let _ = line.send(&Answer::Counted(left), None);
                return;
            }
        }
    }
}

/// Writes down what is new. Where there is no memory nothing is written any more.
fn write(diary: &mut Option<Diary>, control: &Control) {
    if diary.as_mut().is_some_and(|diary| diary.write(control.observations()).is_err()) {
        *diary = None;
    }
}

/// Whether nothing is left to be carried on, or for long enough.
fn is_over(control: &Control, lookups: Option<&Lookups>, healed: Instant) -> bool {
    let late = healed.elapsed() > Duration::from_millis(CARRIES_ON_MS);
    if late {
        control.abort();
    }
    late || (counts(control, lookups).open == 0 && under_way(control) == 0)
}

/// How many requests there are of which nothing has been noted yet.
fn under_way(control: &Control) -> u64 {
    control.list().iter().map(|proxy| proxy.counters.requests_open.load(Ordering::Acquire)).sum()
}

fn counts(control: &Control, lookups: Option<&Lookups>) -> Counts {
    let mut all = Counts::default();
    for proxy in control.list() {
        let counters = &proxy.counters;
        all.came += counters.accepted.load(Ordering::Relaxed);
        all.harmed += counters.harmed.load(Ordering::Relaxed);
        all.unreached += counters.unreached.load(Ordering::Relaxed);
        all.open += counters.open.load(Ordering::Acquire);
        all.requests += counters.requests.load(Ordering::Relaxed);
        all.requests_harmed += counters.requests_harmed.load(Ordering::Relaxed);
        all.foreign += counters.foreign.load(Ordering::Relaxed);
        all.believed += counters.believed.load(Ordering::Relaxed);
    }
    if let Some(lookups) = lookups {
        lookups.count(&mut all);
    }
    all
}

/// One more socket to which questions come.
fn hear(
    (lookups, control, seed): (&mut Option<Lookups>, &Control, u64),
    socket: Socket,
    (upstream, task): (SocketAddr, &Task),
) -> Result<(), String> {
    let Ailment::Lookup { names, answer } = &task.ailment else {
        return Err("this is not about lookups".to_owned());
    };
    let started = match lookups.take() {
        Some(lookups) => lookups,
        None => {
            let fault = (&names[..], answer, task.share);
            Lookups::start(seed, fault, control.observations().clone()).map_err(|error| error.to_string())?
        }
    };
    started.serve(socket, upstream);
    *lookups = Some(started);
    Ok(())
}
