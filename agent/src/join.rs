//! How a command finds the agent of its network namespace, or starts one.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use squall_experiments::protocol::Refusal;

use crate::state::{self, Place};

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
        let lock = place.lock().map_err(|error| {
            Refusal::new(
                format!("cannot lock `{}`: {error}", place.directory().display()),
                "make room, or choose another place with `--state-dir`",
            )
        })?;
        if lock.is_some() {
            drop(lock);
            return start(&root);
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

fn start(root: &Path) -> Result<UnixStream, Refusal> {
    let failed = |error: std::io::Error| Refusal::bare(format!("cannot start the agent: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("squall").arg("agent").arg("--state-dir").arg(root).args(["run", "--on-stdin"]);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
    command.spawn().map_err(failed)?;
    Ok(ours)
}
