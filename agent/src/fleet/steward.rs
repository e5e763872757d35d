//! The worker's side of the link: starts it, and gives it what it may have.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use squall_experiments::fleet::Kind;
use squall_experiments::protocol::Refusal;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::errand::{Ask, Errands, Told};
use super::identity::Vault;
use super::options::Uplink;
use crate::host::redirect::proxy::identity;
use crate::line::Line;
use crate::policy::{Controllers, Policy};
use crate::talk;

/// The user that a host may have for the link.
const ACCOUNT: &str = "squall-link";
/// From the end of a link to the start of the next.
const PAUSE: Duration = Duration::from_secs(2);

/// What the link leads to.
#[derive(Debug)]
pub enum Wanted {
    /// Its controllers are at these addresses.
    Pinned(Vec<SocketAddr>),
    /// A conductor that speaks through it.
    Connected(UnixStream),
}

/// Keeps a link alive for as long as the worker lives; `wanted` is told in this thread. Must be called in a local set.
pub fn start(uplink: Uplink, policy: Policy, wanted: mpsc::UnboundedSender<Wanted>) {
    spawn_local(async move {
        loop {
            match serve(&uplink, &policy, &wanted).await {
                Ok(()) => talk::warning("the link to the controller has ended, and is started again", None),
                Err(error) => talk::warning(format_args!("the link to the controller: {error}"), None),
            }
            if wanted.is_closed() {
                return;
            }
            sleep(PAUSE).await;
        }
    });
}

async fn serve(
    uplink: &Uplink,
    policy: &Policy,
    wanted: &mpsc::UnboundedSender<Wanted>,
) -> Result<(), Refusal> {
    let failed = |error: io::Error| Refusal::bare(format!("it cannot be started: {error}"));
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.map_err(|error| failed(error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    // `squall` carries the agent behind a verb.
    if program.file_name().is_none_or(|name| !name.to_string_lossy().starts_with("squall-agent")) {
        command.arg("agent");
    }
    command.arg("link");
    if nix::unistd::geteuid().is_root() {
        let (uid, gid) = identity(ACCOUNT)?;
        command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
    }
    talk::hand_on(&mut command);
    // A group of its own: Ctrl-C on the terminal is for the guardian.
    command.current_dir("/").process_group(0).stdin(Stdio::from(theirs)).stdout(Stdio::null());
    // Its parent's death ends it; so does the end of its line.
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(failed)?;
    let errands = Errands::new(Line::new(ours)).map_err(failed)?;
    errands.say(&Told::Begin(uplink.clone()), None).map_err(failed)?;
    while let Ok(Some((ask, _))) = errands.hear::<Ask>().await {
        match ask {
            Ask::Pin { addresses } => {
                let _ = wanted.send(Wanted::Pinned(addresses));
            }
            Ask::Keep(membership) => {
                let kept = Vault::open(&uplink.directory).and_then(|vault| vault.keep(&membership));
                if let Err(error) = &kept {
                    let place = uplink.directory.display();
                    let words = format!("this host's certificate cannot be kept in `{place}`: {error}");
                    talk::error(words, None);
                }
                let told = Told::Kept { until: membership.until, done: kept.is_ok() };
                if errands.say(&told, None).is_err() {
                    break;
                }
            }
            Ask::Open { number, to } => {
                let (socket, refused) = match open(to, policy, wanted) {
                    Ok(socket) => (Some(socket), None),
                    Err(refusal) => (None, Some(refusal)),
                };
                if errands.say(&Told::Opened { number, refused }, socket.as_ref()).is_err() {
                    break;
                }
            }
        }
    }
    drop(errands);
    let _ = child.kill().await;
    Ok(())
}

fn open(to: Kind, policy: &Policy, wanted: &mpsc::UnboundedSender<Wanted>) -> Result<OwnedFd, Refusal> {
    let failed = |what: &str, error: io::Error| Refusal::bare(format!("{what}: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(|error| failed("no socket pair", error))?;
    match to {
        Kind::Agent => {
            wanted.send(Wanted::Connected(ours)).map_err(|_| Refusal::bare("the agent is ending"))?;
        }
        Kind::Prober { user } => {
            policy.permits_controllers_prober(user.as_deref())?;
            prober(user.as_deref(), &policy.controllers, ours)
                .map_err(|error| failed("a prober cannot be started", error))?;
        }
    }
    Ok(theirs.into())
}

/// Starts a prober at one end of a socket. It ends with the other.
fn prober(user: Option<&str>, may: &Controllers, socket: UnixStream) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("squall").arg("prober");
    if let Some(user) = user {
        command.args(["--user", user]);
    }
    if !may.programs {
        command.arg("--no-programs");
    }
    command.arg("--within").arg(serde_json::to_string(&may.probes)?);
    talk::hand_on(&mut command);
    let output = OwnedFd::from(socket.try_clone()?);
    command
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::from(output));
    let mut child = tokio::process::Command::from(command).spawn()?;
    // Waited for, so that it does not stay as a zombie.
    spawn_local(async move { drop(child.wait().await) });
    Ok(())
}
