//! Connections to conductors: lines in, lines out. What is asked is decided by the supervisor.

use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;

use squall_experiments::protocol::{Call, LONGEST_LINE, Message};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// A connection's number, never used again.
pub type Connection = u64;

/// From where a connection comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody on this host.
    Here,
    /// A controller, through the link.
    Controller,
}

/// What a connection tells the supervisor.
#[derive(Debug)]
pub enum Incoming {
    /// It is there.
    Opened {
        /// Its number.
        connection: Connection,
        /// The pid of the other side, where the kernel knows it.
        pid: Option<i32>,
        /// From where it comes.
        origin: Origin,
        /// Where answers go.
        outgoing: mpsc::UnboundedSender<Message>,
    },
    /// It asks.
    Asked(Connection, Call),
    /// It is gone: so is its lease.
    Closed(Connection),
}

impl Incoming {
    /// Of which connection it comes.
    pub fn connection(&self) -> Connection {
        match self {
            Incoming::Opened { connection, .. }
            | Incoming::Asked(connection, _)
            | Incoming::Closed(connection) => *connection,
        }
    }
}

/// Serves one connection until its end. Only the owner of this process, or root, is heard.
pub async fn serve(
    stream: StdStream,
    (connection, origin): (Connection, Origin),
    inbox: Rc<mpsc::UnboundedSender<Incoming>>,
) {
    let Ok(stream) = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)) else {
        let _ = inbox.send(Incoming::Closed(connection));
        return;
    };
    let peer = stream.peer_cred().ok();
    let me = nix::unistd::geteuid().as_raw();
    if peer.is_none_or(|peer| peer.uid() != 0 && peer.uid() != me) {
        let _ = inbox.send(Incoming::Closed(connection));
        return;
    }
    let (reader, mut writer) = stream.into_split();
    let (outgoing, mut outbox) = mpsc::unbounded_channel::<Message>();
    let pid = peer.and_then(|peer| peer.pid());
    if inbox.send(Incoming::Opened { connection, pid, origin, outgoing }).is_err() {
        return;
    }
    let writing = tokio::task::spawn_local(async move {
        while let Some(message) = outbox.recv().await {
            let Ok(mut line) = serde_json::to_vec(&message) else {
                continue;
            };
            line.push(b'\n');
            if writer.write_all(&line).await.is_err() {
                break;
            }
        }
    });
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(LONGEST_LINE as u64 + 1);
        match limited.read_until(b'\n', &mut line).await {
            Ok(length) if length > 0 && line.ends_with(b"\n") => {}
            _ => break,
        }
        let Ok(call) = serde_json::from_slice::<Call>(&line) else {
            tracing::warn!(connection, "a line that is not understood ends the connection");
            break;
        };
        if inbox.send(Incoming::Asked(connection, call)).is_err() {
            break;
        }
    }
    let _ = inbox.send(Incoming::Closed(connection));
    let _ = writing.await;
}
