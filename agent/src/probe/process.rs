//! Process probes: a program without a shell, with a clean environment, of which nothing stays.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Pid, User, access, geteuid};
use rustix::process::{PidfdFlags, pidfd_open};
use squall_experiments::probe::{Expect, ProcessProbe};
use squall_experiments::quantity::Period;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use super::expect::{ExpectProcess, Seen};
use super::family::Family;
use super::looks::shorter;
use super::tcp::words;

/// Where programs are looked for, and the only thing in their environment that the probe does not name.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// How much of standard output is kept for the expectation, in bytes; the rest is read and dropped.
const KEPT_OUT: usize = 1 << 20;
/// How much of standard error is kept for the reader, in bytes.
const KEPT_ERR: usize = 64 << 10;
/// How long the pipes are read on after the end of the program, should a daemon of its hold them open.
const GRACE: Duration = Duration::from_millis(50);
/// How long a killed program may take to end.
const DYING: Duration = Duration::from_secs(1);

/// A process probe, ready to be sampled.
pub(super) struct ProcessLook {
    program: PathBuf,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    timeout: Period,
    expect: ExpectProcess,
}

impl ProcessLook {
    /// Finds the program; an error says why it can never run here.
    pub(super) fn new(probe: &ProcessProbe, expect: &Expect) -> Result<Self, String> {
        let name = probe.argv.first().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| "`argv` names no program".to_owned())?;
        if let Some(user) = &probe.user {
            runs_as(user)?;
        }
        for (key, value) in &probe.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!("`{key}` cannot stand in an environment"));
            }
        }
        if probe.argv.iter().any(|argument| argument.contains('\0')) {
            return Err("an argument holds a NUL byte".to_owned());
        }
        Ok(ProcessLook {
            program: find(name)?,
            argv: probe.argv.clone(),
            env: probe.env.clone(),
            timeout: probe.timeout,
            expect: ExpectProcess::new(expect)?,
        })
    }

    /// Runs the program once. When this returns, its process group is gone, and after a time-out its descendants in
    /// other groups too; a daemon of its goes on until the prober ends.
    pub(super) async fn look(&self, family: &Family, left: Option<Duration>) -> Result<Seen, String> {
        let begun = Instant::now();
        let limit = shorter(self.timeout.get(), left);
        let started =
            self.start().map_err(|error| format!("`{}`: {}", self.program.display(), words(&error)))?;
        let Started { mut child, pidfd, stdout, stderr } = started;
        let pid = Pid::from_raw(child.id().cast_signed());
        family.awaits(pid);

        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut pipes = Box::pin(async {
            tokio::join!(drain(stdout, KEPT_OUT, &mut out), drain(stderr, KEPT_ERR, &mut err))
        });
        let ended = timeout(limit, async {
            tokio::select! {
                _ = pidfd.readable() => false,
                _ = &mut pipes => { let _ = pidfd.readable().await; true }
            }
        });
        let ended = ended.await;
        let took = begun.elapsed();
        // It has ended or it is to end; in both cases it is not reaped, so the group is still its own.
        match ended {
            Ok(_) => family.kill_group(pid),
            Err(_) => family.kill_tree(pid),
        }
        if let Ok(false) = ended {
            let _ = timeout(GRACE, &mut pipes).await;
        }
        drop(pipes);
        let dead = timeout(DYING, pidfd.readable()).await.is_ok();
        let status = if dead { child.wait().ok() } else { None };
        family.forgets(pid);

        Ok(match (ended, status) {
            (Err(_), Some(_)) => Seen::bad(format!("timed out after {}", Period::from(limit))),
            (Err(_), None) => {
                Seen::bad(format!("timed out after {}, and cannot be killed", Period::from(limit)))
            }
            (Ok(_), None) => Seen::bad("ended, and its exit code was lost"),
            (Ok(_), Some(status)) => match (status.code(), status.signal()) {
                (Some(exit), _) => self.expect.judge(exit, &out, &err, took),
                (None, signal) => self.expect.killed(&signal_name(signal.unwrap_or(0)), &err),
            },
        })
    }

    fn start(&self) -> io::Result<Started> {
        let mut command = Command::new(&self.program);
        command
            .arg0(&self.argv[0])
            .args(&self.argv[1..])
            .env_clear()
            .env("PATH", PATH)
            .envs(&self.env)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        // All of these exist: they were asked for, and the child is not reaped.
        match Started::watch(&mut child) {
            Ok((pidfd, stdout, stderr)) => Ok(Started { child, pidfd, stdout, stderr }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

struct Started {
    child: Child,
    pidfd: AsyncFd<OwnedFd>,
    stdout: Receiver,
    stderr: Receiver,
}

impl Started {
    fn watch(child: &mut Child) -> io::Result<(AsyncFd<OwnedFd>, Receiver, Receiver)> {
        let missing = || io::Error::other("no pipe");
        let pid = rustix::process::Pid::from_child(child);
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that may lend a different fd each time; an OwnedFd cannot"
        )]
        let pidfd = AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::NONBLOCK)?, Interest::READABLE)?;
        let stdout = Receiver::from_owned_fd(child.stdout.take().ok_or_else(missing)?.into())?;
        let stderr = Receiver::from_owned_fd(child.stderr.take().ok_or_else(missing)?.into())?;
        Ok((pidfd, stdout, stderr))
    }
}

/// Reads to the end, so that a talkative program never blocks, and keeps the beginning.
async fn drain(mut pipe: Receiver, keep: usize, kept: &mut Vec<u8>) {
    let mut buffer = [0u8; 8192];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let room = keep.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

/// A prober runs as one user; the asker starts another prober for another user.
fn runs_as(user: &str) -> Result<(), String> {
    match User::from_name(user) {
        Ok(Some(found)) if found.uid == geteuid() => Ok(()),
        Ok(Some(_)) => Err(format!("this prober does not run as the user `{user}`")),
        _ => Err(format!("no user is named `{user}` on this host")),
    }
}

fn find(name: &str) -> Result<PathBuf, String> {
    let runnable = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if Path::new(name).is_absolute() {
        let path = PathBuf::from(name);
        return match (path.exists(), runnable(&path)) {
            (_, true) => Ok(path),
            (true, false) => Err(format!("`{name}` cannot be executed by the prober's user")),
            (false, _) => Err(format!("`{name}` does not exist")),
        };
    }
    if name.contains('/') {
        return Err(format!("`{name}` is a relative path: write an absolute one, or a name in {PATH}"));
    }
    let found = PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| runnable(path));
    found.ok_or_else(|| format!("`{name}` is not in {PATH}"))
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}
