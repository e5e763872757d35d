//! A way to an agent or a prober, before anybody speaks over it.

use std::io;
use std::os::unix::net::UnixStream;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, split};

/// Bytes both ways. Dropped, it is closed.
#[derive(Debug)]
pub enum Stream {
    /// A connected socket: the other end is another process's.
    Socket(UnixStream),
    /// To another task of this process, which may have a runtime of its own: no file is open for it.
    Memory(DuplexStream),
}

/// What is read of a stream.
pub(crate) type Input = Box<dyn AsyncRead + Send + Unpin>;
/// What is written to it. Shut down, the other end reads its end.
pub(crate) type Output = Box<dyn AsyncWrite + Send + Unpin>;

impl Stream {
    /// Both halves, for the runtime in which this is called. An error where the kernel refuses the socket.
    pub(crate) fn halves(self) -> io::Result<(Input, Output)> {
        match self {
            Stream::Socket(socket) => {
                socket.set_nonblocking(true)?;
                let (input, output) = tokio::net::UnixStream::from_std(socket)?.into_split();
                Ok((Box::new(input), Box::new(output)))
            }
            Stream::Memory(memory) => {
                let (input, output) = split(memory);
                Ok((Box::new(input), Box::new(output)))
            }
        }
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Stream::Socket(socket)
    }
}

impl From<DuplexStream> for Stream {
    fn from(memory: DuplexStream) -> Self {
        Stream::Memory(memory)
    }
}
