//! One stream: text between a socket of this process and the connection to the controller, whose side does the same.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use squall_experiments::fleet::frame::LONGEST_TEXT;
use squall_experiments::fleet::stream::whole;
use squall_experiments::fleet::{Fault, Frame, Incoming, Outgoing};
use squall_experiments::protocol::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};

/// Where frames go, as messages: `control` stands in front of `data`, and nobody who reads the connection waits for it.
#[derive(Clone, Debug)]
pub(super) struct Out {
    pub(super) data: mpsc::Sender<String>,
    pub(super) control: mpsc::Sender<String>,
}

/// The end of a stream at which the connection puts what comes. Dropped, the stream is over.
#[derive(Debug)]
pub(super) struct Lane {
    books: Arc<Books>,
    came: mpsc::UnboundedSender<Came>,
}

#[derive(Debug, Default)]
struct Books {
    both: Mutex<(Incoming, Outgoing)>,
    room: Notify,
}

impl Books {
    fn both(&self) -> MutexGuard<'_, (Incoming, Outgoing)> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is handed to a stream: no more of it than the window of [`Incoming`] lets in.
#[derive(Debug)]
enum Came {
    Text(String),
    End,
}

impl Lane {
    /// Takes text. An error ends the stream.
    pub(super) fn text(&self, seq: u64, text: String) -> Result<(), Fault> {
        self.books.both().0.take(seq, text.len())?;
        let _ = self.came.send(Came::Text(text));
        Ok(())
    }

    /// Takes the end of what comes. An error ends the stream.
    pub(super) fn end(&self, seq: u64) -> Result<(), Fault> {
        self.books.both().0.end(seq)?;
        let _ = self.came.send(Came::End);
        Ok(())
    }

    /// Takes that something was handed on. An error ends the stream.
    pub(super) fn acknowledged(&self, seq: u64) -> Result<(), Fault> {
        self.books.both().1.acknowledged(seq)?;
        self.books.room.notify_one();
        Ok(())
    }

    /// Whether nobody listens at its other end any more.
    pub(super) fn is_over(&self) -> bool {
        self.came.is_closed()
    }
}

/// Begins to carry a stream, in a task of its own, until both directions have ended or the lane is dropped. Then the
/// socket is closed, whatever was still to be written.
pub(super) fn begin(stream: u64, local: StdStream, out: Out) -> std::io::Result<Lane> {
    local.set_nonblocking(true)?;
    let local = UnixStream::from_std(local)?;
    let (came, coming) = mpsc::unbounded_channel();
    let books = Arc::new(Books::default());
    let lane = Lane { books: books.clone(), came };
    tokio::spawn(async move {
        let mut carried = Carried { stream, local, books, coming, out };
        // An error is said to the other side, which closes what it has of the stream.
        if let Err(why) = carried.carry().await {
            let why = why.map(|fault| Refusal::bare(fault.to_string()));
            let _ = carried.out.control.send(Frame::Close { stream, why }.text()).await;
        }
    });
    Ok(lane)
}

struct Carried {
    stream: u64,
    local: UnixStream,
    books: Arc<Books>,
    coming: mpsc::UnboundedReceiver<Came>,
    out: Out,
}

impl Carried {
    /// An error is an end that the other side does not know of: because of a fault, or because the socket is closed.
    async fn carry(&mut self) -> Result<(), Option<Fault>> {
        let Carried { stream, local, books, coming, out } = self;
        let stream = *stream;
        let (mut reader, mut writer) = local.split();
        let mut buffer = vec![0; LONGEST_TEXT];
        // Of a character whose end has not been read yet.
        let mut begun = 0;
        let (mut pending, mut written) = (VecDeque::<String>::new(), 0);
        let (mut read_all, mut heard_all, mut shut) = (false, false, false);
        loop {
            while pending.front().is_some_and(|text| text.len() == written) {
                pending.pop_front();
                written = 0;
                let seq = books.both().0.handed_on();
                if let Some(seq) = seq {
                    let ack = Frame::Ack { stream, seq }.text();
                    out.control.send(ack).await.map_err(|_| None)?;
                }
            }
            if heard_all && pending.is_empty() && !shut {
                shut = true;
                let _ = writer.shutdown().await;
            }
            if shut && read_all {
                return Ok(());
            }
            let room = books.both().1.room();
            tokio::select! {
                came = coming.recv() => match came {
                    Some(Came::Text(text)) => pending.push_back(text),
                    Some(Came::End) => heard_all = true,
                    // The connection, or the other side's half of the stream, is gone.
                    None => return Ok(()),
                },
                () = books.room.notified(), if room <= begun && !read_all => {}
                read = reader.read(&mut buffer[begun..room.max(begun)]), if room > begun && !read_all => {
                    let read = read.map_err(|_| None)?;
                    let filled = begun + read;
                    if read == 0 {
                        if begun > 0 {
                            return Err(Some(Fault::NotText));
                        }
                        read_all = true;
                        let seq = books.both().1.end();
                        out.data.send(Frame::End { stream, seq }.text()).await.map_err(|_| None)?;
                        continue;
                    }
                    let length = whole(&buffer[..filled])?;
                    if length > 0 {
                        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        let seq = books.both().1.send(length);
                        out.data.send(Frame::Data { stream, seq, text }.text()).await.map_err(|_| None)?;
                        buffer.copy_within(length..filled, 0);
                    }
                    begun = filled - length;
                }
                wrote = writer.write(pending.front().map_or(&[], |text| &text.as_bytes()[written..])),
                        if !pending.is_empty() => {
                    written += wrote.map_err(|_| None)?;
                }
            }
        }
    }
}
