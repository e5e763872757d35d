//! How a command finds the agent of its network namespace, or starts one.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use squall_experiments::protocol::Refusal;

use crate::state::{self, Lock, Place};

/// How long an agent that has just taken the lock may take to listen.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection to the agent of this network namespace; `None` when there is none.
pub fn resident(state_dir: Option<&Path>) -> Result<Option<UnixStream>, Refusal> {
    let place = Place::here(&state::root(state_dir))?;
    match UnixStream::connect(place.socket()) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Refusal::new(
            format!("the agent's socket `{}` may not be used by this user", place.socket().display()),
            "use the agent's own user, or root",
        )),
        Err(_) => Ok(None),
    }
}

/// A connection to the agent of this network namespace; one is started where there is none. It belongs to this command:
/// it leaves when nobody needs it any more, however this command ends.
///
/// Blocks for a few milliseconds. Must not be called from several threads at once.
pub fn agent(state_dir: Option<&Path>) -> Result<UnixStream, Refusal> {
    let root = state::root(state_dir);
    let place = Place::here(&root)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(stream) = resident(state_dir)? {
            return Ok(stream);
        }
        place.create()?;
        let unlockable = |error| {
            Refusal::new(
                format!("cannot lock `{}`: {error}", place.directory().display()),
                "make room, or choose another place with `--state-dir`",
            )
        };
        // Two commands at once start one agent: the second waits here and then joins the first one's.
        if let Some(_starting) = unless_gone(place.starting()).map_err(unlockable)? {
            // Only looked at: the agent that is started takes it.
            let free = unless_gone(place.lock()).map_err(unlockable)?.is_some();
            if free {
                return start(&root, &place, deadline);
            }
        }
        if Instant::now() > deadline {
            return Err(Refusal::new(
                format!("an agent holds `{}`, but does not listen", place.directory().display()),
                "it may be ending: try again; `squall-agent status` says more",
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A place that was cleared between two looks is one to look at again.
fn unless_gone(lock: std::io::Result<Option<Lock>>) -> std::io::Result<Option<Lock>> {
    match lock {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        lock => lock,
    }
}

/// Starts an agent and waits until it listens, or has ended: then the connection holds its reason.
fn start(root: &Path, place: &Place, deadline: Instant) -> Result<UnixStream, Refusal> {
    let failed = |error: std::io::Error| Refusal::bare(format!("cannot start the agent: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("squall").arg("agent").arg("--state-dir").arg(root).args(["run", "--on-stdin"]);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    while UnixStream::connect(place.socket()).is_err() && Instant::now() < deadline {
        if child.try_wait().map_err(failed)?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(ours)
}
