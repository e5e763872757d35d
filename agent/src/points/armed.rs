//! Stopping points that stop.
//!
//! | variable | what it says |
//! |---|---|
//! | `SQUALL_STOP_AT` | orders, with commas between: `worker/after-record:2:kill-both` is the second time that the worker passes there |
//! | `SQUALL_STOP_LOG` | a file to which every passing is appended: role, point, how often, nanoseconds since boot, pid |
//! | `SQUALL_FLAW` | `no-sync`: nothing is ever synced. `late-record`: each entry is written only when the next one comes, so after what it takes back was done |
//!
//! The roles are `guardian`, `worker` and `recovery` (whoever is neither); the actions are those of [`Action`].
//!
//! The journal lies on the worst disk there is: of what was not synced it keeps a torn half. A death of the guardian is
//! thereby a power cut for its journal.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

use super::{Point, Role};
use crate::host::sys;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// `kill-self`: SIGKILL to the one who passes.
    KillSelf,
    /// `kill-other`: to the other of the pair.
    KillOther,
    /// `kill-both`: to both; the other is stopped first, so that it notices nothing.
    KillBoth,
    /// `stop`: SIGSTOP to the one who passes: for whoever waits outside, too.
    Stop,
    /// `stop-both`: to both.
    StopBoth,
    /// `hang`: it never goes on, and holds whatever it holds.
    Hang,
    /// `late`: it goes on after 2.5 s, as if it had waited for the kernel.
    Late,
    /// `panic`, `exit` and `abort`: ends of its own.
    Panic,
    Exit,
    Abort,
    /// `revoke`: from here on it may not alter the network (CAP_NET_ADMIN is dropped).
    Revoke,
    /// `no-ptrace`: from here on it may trace nobody, as where a container's filter forbids it.
    NoPtrace,
}

/// One word of `SQUALL_STOP_AT`.
#[derive(Debug)]
struct Order {
    place: String,
    nth: u32,
    action: Action,
}

const RECOVERY: u8 = 0;
const GUARDIAN: u8 = 1;
const WORKER: u8 = 2;

static ROLE: AtomicU8 = AtomicU8::new(RECOVERY);
static OTHER: AtomicI32 = AtomicI32::new(0);
static PASSED: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());
static ORDERS: LazyLock<Vec<Order>> = LazyLock::new(|| {
    let text = std::env::var("SQUALL_STOP_AT").unwrap_or_default();
    text.split(',').filter(|word| !word.is_empty()).map(order).collect()
});
static FLAW: LazyLock<String> = LazyLock::new(|| std::env::var("SQUALL_FLAW").unwrap_or_default());
/// What the disk has not got yet.
static UNSYNCED: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// With the flaw `late-record`: what is written when the next entry comes.
static LATE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn order(word: &str) -> Order {
    let mut parts = word.split(':');
    let (Some(place), Some(Ok(nth)), Some(action)) =
        (parts.next(), parts.next().map(str::parse), parts.next())
    else {
        panic!("`{word}` is no order for a stopping point: `role/point:nth:action`");
    };
    let action = match action {
        "kill-self" => Action::KillSelf,
        "kill-other" => Action::KillOther,
        "kill-both" => Action::KillBoth,
        "stop" => Action::Stop,
        "stop-both" => Action::StopBoth,
        "hang" => Action::Hang,
        "late" => Action::Late,
        "panic" => Action::Panic,
        "exit" => Action::Exit,
        "abort" => Action::Abort,
        "revoke" => Action::Revoke,
        "no-ptrace" => Action::NoPtrace,
        unknown => panic!("`{unknown}` is nothing that can happen at a stopping point"),
    };
    Order { place: place.to_owned(), nth, action }
}

fn name(point: Point) -> &'static str {
    match point {
        Point::BeforeBegin => "before-begin",
        Point::AfterBegin => "after-begin",
        Point::BeforeRecord => "before-record",
        Point::AfterRecord => "after-record",
        Point::HalfWritten => "half-written",
        Point::BeforePerform => "before-perform",
        Point::AfterPerform => "after-perform",
        Point::BeforeRevert => "before-revert",
        Point::BeforeUndo => "before-undo",
        Point::AfterUndo => "after-undo",
        Point::BeforeUndone => "before-undone",
        Point::AfterUndone => "after-undone",
        Point::BeforeEnd => "before-end",
        Point::AfterEnd => "after-end",
        Point::BeforeRemove => "before-remove",
        Point::BeforeClear => "before-clear",
    }
}

/// From here on this process is one of a pair; it has passed nowhere yet.
pub fn play(role: Role, other: i32) {
    let role = match role {
        Role::Guardian => GUARDIAN,
        Role::Worker => WORKER,
    };
    ROLE.store(role, Ordering::Relaxed);
    OTHER.store(other, Ordering::Relaxed);
    PASSED.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Passes a point: notes it, and does what was ordered for it.
///
/// # Panics
/// When that was ordered, or `SQUALL_STOP_AT` is not understood.
pub fn pass(point: Point) {
    let role = match ROLE.load(Ordering::Relaxed) {
        GUARDIAN => "guardian",
        WORKER => "worker",
        _ => "recovery",
    };
    let point = name(point);
    let nth = {
        let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(point).or_insert(0);
        *count += 1;
        *count
    };
    if let Some(path) = std::env::var_os("SQUALL_STOP_LOG") {
        // Opened anew each time: the worker closes what the guardian has open.
        let log = OpenOptions::new().create(true).append(true).open(path);
        let mut log = log.expect("the log of stopping points opens");
        let line = format!("{role} {point} {nth} {} {}\n", sys::boot_nanos(), std::process::id());
        let _ = log.write_all(line.as_bytes());
    }
    let here = |order: &&Order| {
        order.nth == nth && order.place.split_once('/').is_some_and(|(who, at)| who == role && at == point)
    };
    ORDERS.iter().filter(here).for_each(|order| act(order.action));
}

fn act(action: Action) {
    let (own, other) = (Pid::this(), Pid::from_raw(OTHER.load(Ordering::Relaxed)));
    let send = |to: Pid, signal| {
        if to.as_raw() > 1 {
            let _ = kill(to, signal);
        }
    };
    match action {
        Action::KillSelf => send(own, Signal::SIGKILL),
        Action::KillOther => send(other, Signal::SIGKILL),
        Action::KillBoth => {
            send(other, Signal::SIGSTOP);
            send(other, Signal::SIGKILL);
            send(own, Signal::SIGKILL);
        }
        Action::Stop => send(own, Signal::SIGSTOP),
        Action::StopBoth => {
            send(other, Signal::SIGSTOP);
            send(own, Signal::SIGSTOP);
        }
        Action::Hang => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        Action::Late => std::thread::sleep(Duration::from_millis(2500)),
        Action::Panic => panic!("on purpose, at a stopping point"),
        Action::Exit => std::process::exit(1),
        Action::Abort => std::process::abort(),
        Action::Revoke => {
            let mut held = capabilities(None).expect("a process may read its own capabilities");
            held.effective.remove(CapabilitySet::NET_ADMIN);
            held.permitted.remove(CapabilitySet::NET_ADMIN);
            held.inheritable.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, held).expect("a process may give up a capability");
        }
        Action::NoPtrace => forbid(libc::SYS_ptrace),
    }
}

/// Whoever asks for it is told that it is not permitted.
fn forbid(call: libc::c_long) {
    let arch = std::env::consts::ARCH.try_into().expect("a processor that filters know");
    let (else_, then) = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32));
    let filter = SeccompFilter::new([(call, Vec::new())].into(), else_, then, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter of one call");
    apply_filter_all_threads(&program).expect("a process may give up a call");
}

/// Appends to the journal, on a disk that keeps a torn half of it until it is synced.
pub fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let bytes = match FLAW.as_str() {
        "late-record" => {
            let mut late = LATE.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *late, bytes.to_vec())
        }
        _ => bytes.to_vec(),
    };
    let mut unsynced = UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner);
    let torn = if unsynced.is_empty() { bytes.len() / 2 } else { 0 };
    file.write_all(&bytes[..torn])?;
    unsynced.extend(&bytes[torn..]);
    drop(unsynced);
    pass(Point::HalfWritten);
    Ok(())
}

/// Brings the journal to the disk, unless that is the flaw.
pub fn sync(mut file: &File) -> io::Result<()> {
    if *FLAW == "no-sync" {
        return Ok(());
    }
    let unsynced = std::mem::take(&mut *UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner));
    file.write_all(&unsynced)?;
    file.sync_data()
}
