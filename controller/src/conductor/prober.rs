//! The prober processes: one per user that probes run as.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use squall_experiments::probe::{ProberReply, ProberRequest};
use tokio::io::{AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Probing, lines};

/// What a prober says.
#[derive(Debug)]
pub(super) enum Told {
    /// An answer.
    Reply(ProberReply),
    /// The prober is gone; its samples under way will not be answered.
    Gone {
        /// Which, by its place in the list of users.
        place: usize,
        /// What was seen of it.
        why: String,
    },
}

/// How long a prober may take to end, with everything that it started.
const ENDING: Duration = Duration::from_secs(5);

/// One running prober. It is never killed while it answers to the end of its input: it then kills what it started, which
/// nobody could after it. Dropping it closes its input; [`Prober::end`] also waits.
pub(super) struct Prober {
    out: mpsc::UnboundedSender<Vec<u8>>,
    end: End,
}

/// By what its end is known.
enum End {
    Child(Child),
    /// Of one that runs elsewhere: whoever reads what it says.
    Reader(JoinHandle<()>),
}

impl Prober {
    /// Starts a prober, or takes over the stream of one. Must be called inside a runtime.
    pub(super) fn start(
        probing: Probing,
        place: usize,
        told: mpsc::UnboundedSender<Told>,
    ) -> io::Result<Prober> {
        let (out, queue) = mpsc::unbounded_channel();
        let end = match probing {
            Probing::Here(mut command) => {
                // A group of its own: Ctrl-C on the terminal is for squall, which still needs the prober to undo actions.
                command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = tokio::process::Command::from(command).spawn()?;
                let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
                    return Err(io::Error::other("the prober has no pipes"));
                };
                tokio::spawn(lines::write(input, queue));
                tokio::spawn(read(output, place, told));
                End::Child(child)
            }
            Probing::Elsewhere(stream) => {
                let (output, input) = stream.halves()?;
                tokio::spawn(lines::write(input, queue));
                End::Reader(tokio::spawn(read(output, place, told)))
            }
        };
        Ok(Prober { out, end })
    }

    /// Closes its input and waits until it and everything that it started has ended.
    pub(super) async fn end(self) {
        let Prober { out, end } = self;
        drop(out);
        match end {
            End::Child(mut child) => {
                if timeout(ENDING, child.wait()).await.is_err() {
                    let _ = child.kill().await;
                }
            }
            End::Reader(reader) => {
                let stop = reader.abort_handle();
                if timeout(ENDING, reader).await.is_err() {
                    stop.abort();
                }
            }
        }
    }

    /// Sends a request. One that cannot be delivered any more is answered by [`Told::Gone`].
    pub(super) fn tell(&self, request: &ProberRequest) {
        let _ = self.out.send(lines::line(request));
    }
}

/// Passes on what a prober says, until it ends or is not understood.
async fn read(output: impl AsyncRead + Unpin, place: usize, told: mpsc::UnboundedSender<Told>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    let why = loop {
        match lines::read(&mut output, &mut line).await {
            Ok(Some(reply)) => drop(told.send(Told::Reply(reply))),
            Ok(None) => break "the prober ended".to_owned(),
            Err(error) => break format!("the prober is not understood: {error}"),
        }
    };
    let _ = told.send(Told::Gone { place, why });
}
