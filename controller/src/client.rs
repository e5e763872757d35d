//! Asks the agent of this host a question or two, without a run.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use squall_experiments::protocol::{
    Active, Call, LONGEST_LINE, Lifted, Message, Refusal, Reply, Request, VERSION,
};

/// An agent that takes longer than this to answer does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that has been greeted. Blocking.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    number: u64,
}

impl Client {
    /// Greets the agent on a connected socket.
    pub fn greet(stream: UnixStream) -> Result<Client, Refusal> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| unanswered(&error))?;
        let mut client = Client { stream: BufReader::new(stream), number: 0 };
        match client.ask(Request::Hello { version: VERSION })? {
            Reply::Hello { version: VERSION, .. } => Ok(client),
            Reply::Hello { version, .. } => Err(Refusal::new(
                format!("the agent speaks version {version} of the protocol, this squall version {VERSION}"),
                "run the agent and squall from the same release",
            )),
            other => Err(misunderstood(&other)),
        }
    }

    /// What is active on the host.
    pub fn status(&mut self) -> Result<Vec<Active>, Refusal> {
        match self.ask(Request::Status)? {
            Reply::Status(active) => Ok(active),
            other => Err(misunderstood(&other)),
        }
    }

    /// Undoes everything of every run.
    pub fn halt(&mut self) -> Result<Lifted, Refusal> {
        match self.ask(Request::Halt)? {
            Reply::Lifted(lifted) => Ok(lifted),
            other => Err(misunderstood(&other)),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.number += 1;
        let number = self.number;
        let mut line =
            serde_json::to_string(&Call { number, request }).map_err(|error| unanswered(&error))?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|error| unanswered(&error))?;
        loop {
            let mut line = Vec::new();
            let mut limited = std::io::Read::take(&mut self.stream, LONGEST_LINE as u64);
            limited.read_until(b'\n', &mut line).map_err(|error| unanswered(&error))?;
            if line.is_empty() {
                return Err(unanswered(&"it closed the connection"));
            }
            match serde_json::from_slice(&line).map_err(|error| unanswered(&error))? {
                Message::Answer { number: to, reply } if to == number => {
                    return match reply {
                        Reply::Refused(refusal) => Err(refusal),
                        reply => Ok(reply),
                    };
                }
                // An answer to nobody, or news about runs that are not ours.
                Message::Answer { .. }
                | Message::Ended { .. }
                | Message::Guard { .. }
                | Message::Saw { .. } => {}
            }
        }
    }
}

fn unanswered(why: &impl std::fmt::Display) -> Refusal {
    Refusal::new(
        format!("the agent of this host does not answer: {why}"),
        "an agent that hangs ends by itself within seconds: try again",
    )
}

fn misunderstood(reply: &Reply) -> Refusal {
    Refusal::bare(format!("the agent gave another answer than was asked for: {reply:?}"))
}
