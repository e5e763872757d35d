//! The prober of a run's guards: a child without privileges, and the pipes to it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use squall_experiments::probe::{ProberReply, ProberRequest};
use squall_experiments::protocol::LONGEST_LINE;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use crate::policy::Probes;
use crate::talk;

/// What is heard of a prober.
#[derive(Debug)]
pub enum Told {
    /// An answer.
    Reply(ProberReply),
    /// It is gone, or is not understood: nothing more comes.
    Gone(String),
}

/// A running prober. When it is dropped its input ends, and with that it and everything that it started.
#[derive(Debug)]
pub struct Prober(mpsc::UnboundedSender<Vec<u8>>);

impl Prober {
    /// Starts one that runs as `user`, or as nobody, and reaches what it may, where it is bound; `told` is called in this thread with what it says. Returns before it
    /// has said anything: what it cannot do is told.
    pub fn start(
        user: Option<&str>,
        within: Option<&Probes>,
        told: impl Fn(Told) + 'static,
    ) -> io::Result<Self> {
        // Not by its path: that may name another program by now. Whatever this one is, it has that verb.
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg0("squall").arg("prober");
        if let Some(user) = user {
            command.args(["--user", user]);
        }
        if let Some(within) = within {
            command.arg("--within").arg(serde_json::to_string(within)?);
        }
        talk::hand_on(&mut command);
        // Everything else that this process has open closes when the prober begins: a socket of the agent's that lived on
        // in it would keep the rules alive, or the guardian from noticing the worker's end.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Command::from(command).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the prober has no pipes"));
        };
        let (lines, queue) = mpsc::unbounded_channel();
        spawn_local(write(input, queue));
        spawn_local(async move {
            let why = read(output, &told).await;
            told(Told::Gone(why));
            // Waited for, so that it does not stay as a zombie.
            let _ = child.wait().await;
        });
        Ok(Prober(lines))
    }

    /// Tells it something. To one that is gone it makes no difference.
    pub fn tell(&self, request: &ProberRequest) {
        let Ok(mut line) = serde_json::to_vec(request) else { return };
        line.push(b'\n');
        let _ = self.0.send(line);
    }
}

async fn write(mut input: ChildStdin, mut lines: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if input.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Reads to the end, and says what that was.
async fn read(output: ChildStdout, told: &impl Fn(Told)) -> String {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut output).take(LONGEST_LINE as u64 + 1);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) => return "the prober ended".to_owned(),
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(_) => return "the prober ended in the middle of a line".to_owned(),
            Err(error) => return format!("the prober cannot be read: {error}"),
        }
        match serde_json::from_slice(&line) {
            Ok(reply) => told(Told::Reply(reply)),
            Err(error) => return format!("the prober is not understood: {error}"),
        }
    }
}
