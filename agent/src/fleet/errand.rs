//! What link and worker say to each other, over a [`Line`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};
use squall_experiments::fleet::Kind;
use squall_experiments::protocol::Refusal;
use tokio::io::unix::AsyncFd;

use super::identity::Membership;
use super::options::Uplink;
use crate::host::sys;
use crate::line::Line;

/// What the link asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// The controller is at these addresses: no fault may touch the way there.
    Pin {
        /// All that its name has.
        addresses: Vec<SocketAddr>,
    },
    /// The host belongs to the fleet: to be kept in a file that the link cannot write. Answered by [`Told::Kept`].
    Keep(Membership),
    /// A socket to something. Answered by [`Told::Opened`].
    Open {
        /// Comes back.
        number: u64,
        /// To what.
        to: Kind,
    },
}

/// What the worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// First: what to do.
    Begin(Uplink),
    /// To [`Ask::Open`]: with a socket, or with a reason why not.
    Opened {
        /// The question's.
        number: u64,
        /// Why not.
        refused: Option<Refusal>,
    },
    /// To [`Ask::Keep`].
    Kept {
        /// When the certificate ends that was to be kept.
        until: u64,
        /// Whether it was.
        done: bool,
    },
}

/// A line in a runtime.
#[derive(Debug)]
pub struct Errands {
    line: Line,
    ready: AsyncFd<OwnedFd>,
}

impl Errands {
    /// Takes one end. Must be called in a runtime.
    pub fn new(line: Line) -> io::Result<Self> {
        let fd = line.as_fd().try_clone_to_owned()?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Errands { line, ready: sys::awaited(fd)? })
    }

    /// Says something without waiting. An error is the end of the line: also where the other side does not read.
    pub fn say<T: Serialize>(&self, message: &T, attached: Option<&OwnedFd>) -> io::Result<()> {
        self.line.send(message, attached.map(AsFd::as_fd))
    }

    /// What is said next; `None` is the end of the other side. Cancel-safe.
    pub async fn hear<T: for<'de> Deserialize<'de>>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        loop {
            let mut ready = self.ready.readable().await?;
            match self.line.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                heard => return heard,
            }
        }
    }
}
