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
        serve(&line, &control, arguments.seed, Duration::from_millis(CARRIES_ON_MS));
    }
    // What is left is reset by whoever wanted that; to wait for threads is for nobody's good.
    Exit::Held
}

/// Carries what it is told to; `carries_on` is how long once its fault is over.
fn serve(line: &Line, control: &Control, seed: u64, carries_on: Duration) {
    let mut lookups: Option<Lookups> = None;
    let mut healed: Option<Instant> = None;
    let mut diary: Option<Diary> = None;
    loop {
        if let Some(healed) = healed {
            let is_late = healed.elapsed() > carries_on;
            if is_late || is_idle(control, lookups.as_ref()) {
                return end(line, control, lookups.as_ref(), &mut diary);
            }
            write(&mut diary, control);
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
                    let wanted = wanted(upstream, &task, control.observations().on());
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
            Order::End => return end(line, control, lookups.as_ref(), &mut diary),
        }
    }
}

/// Resets what is left, and says how much that was.
fn end(line: &Line, control: &Control, lookups: Option<&Lookups>, diary: &mut Option<Diary>) {
    let left = counts(control, lookups);
    control.abort();
    if diary.is_some() {
        let began = Instant::now();
        while under_way(control) > 0 && began.elapsed() < LOOK {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    write(diary, control);
    let _ = line.send(&Answer::Counted(left), None);
}

/// Writes down what is new. Where there is no memory nothing is written any more.
fn write(diary: &mut Option<Diary>, control: &Control) {
    if diary.as_mut().is_some_and(|diary| diary.write(control.observations()).is_err()) {
        *diary = None;
    }
}

/// Whether nothing is left to be carried on.
fn is_idle(control: &Control, lookups: Option<&Lookups>) -> bool {
    counts(control, lookups).open == 0 && under_way(control) == 0
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use squall_experiments::quantity::Period;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn pair() -> (Line, Line) {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a pair");
        (Line::new(one), Line::new(other))
    }

    fn counted(line: &Line) -> Option<Counts> {
        match line.receive().ok()?? {
            (Answer::Counted(counts), _) => Some(counts),
            (other, _) => panic!("{other:?} was not asked for"),
        }
    }

    /// Carries one connection, is told that its fault is over, and says what it has told of itself last.
    fn healed(carries_on: Duration, closes: bool) -> Counts {
        let (ours, theirs) = pair();
        let process = thread::spawn(move || {
            let control = Control::observing(7, Observations::alone(0)).expect("threads");
            serve(&theirs, &control, 7, carries_on);
        });
        let far = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = TcpListener::bind("127.0.0.1:0").expect("a free port");
        near.set_nonblocking(true).expect("a socket");
        let listen = near.local_addr().expect("an address");
        let ailment = Ailment::Late {
            delay: Period::from_millis(1),
            jitter: Period::from_millis(0),
            by_request: false,
        };
        let task = Task { ailment, share: 1.0, tls: None };
        let upstream = far.local_addr().expect("an address");
        let order = Order::Carry { upstream, listen, task };
        ours.send(&order, Some(near.as_fd())).expect("it listens");
        drop(near);
        let mut client = TcpStream::connect(listen).expect("it accepts");
        client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        client.write_all(b"x").expect("sent");
        let (mut server, _) = far.accept().expect("it is carried");
        server.read_exact(&mut [0]).expect("it arrives");
        ours.send(&Order::Count, None).expect("it listens");
        assert_eq!(counted(&ours).map(|counts| counts.open), Some(1));
        ours.send(&Order::Heal, None).expect("it listens");
        if closes {
            drop(client);
            assert_eq!(server.read(&mut [0]).expect("an orderly end"), 0);
            drop(server);
        } else {
            let error = client.read(&mut [0]).expect_err("it is not carried for ever");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        }
        let last = std::iter::from_fn(|| counted(&ours)).last();
        process.join().expect("it ends well");
        last.expect("it says what is left when it ends by itself")
    }

    #[test]
    fn what_ended_by_itself_is_not_told_as_reset() {
        let left = healed(PATIENCE, true);
        assert_eq!((left.came, left.open), (1, 0));
    }

    #[test]
    fn what_is_reset_because_it_lasts_too_long_is_told() {
        let left = healed(Duration::from_millis(100), false);
        assert_eq!((left.came, left.open), (1, 1));
    }
}
