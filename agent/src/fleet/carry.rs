//! One stream: text between a socket of this process and the connection to the controller, whose side does the same.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use squall_experiments::fleet::frame::LONGEST_TEXT;
use squall_experiments::fleet::stream::{HOLD, whole};
use squall_experiments::fleet::{Fault, Frame, Held, Incoming, Outgoing};
use squall_experiments::protocol::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

/// Where frames go, as messages: `control` stands in front of `data`, and nobody who reads the connection waits for it.
#[derive(Clone, Debug)]
pub(super) struct Out {
    pub(super) data: mpsc::Sender<String>,
    pub(super) control: mpsc::Sender<String>,
}

/// The end of a stream at which the connection puts what comes. Dropped, the stream is over; one whose connection is
/// [lost](Lane::lost) ends by itself where no other one [takes it on](Lane::resume) within [`HOLD`].
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
    Lost,
    Resumed(Out, Held),
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

    /// How far it is, for the other side of the next connection. Nothing may come from the one before any more.
    pub(super) fn held(&self, stream: u64) -> Held {
        self.books.both().0.held(stream)
    }

    /// Its connection is gone.
    pub(super) fn lost(&self) {
        let _ = self.came.send(Came::Lost);
    }

    /// It goes on over another connection, whose other side is so far.
    pub(super) fn resume(&self, out: Out, theirs: Held) {
        let _ = self.came.send(Came::Resumed(out, theirs));
    }

    /// Whether nobody listens at its other end any more.
    pub(super) fn is_over(&self) -> bool {
        self.came.is_closed()
    }
}

/// Begins to carry a stream, in a task of its own, until both directions have ended and everything was handed on, or the
/// lane is dropped. Then the socket is closed, whatever was still to be written.
pub(super) fn begin(stream: u64, local: StdStream, out: Out) -> std::io::Result<Lane> {
    local.set_nonblocking(true)?;
    let local = UnixStream::from_std(local)?;
    let (came, coming) = mpsc::unbounded_channel();
    let books = Arc::new(Books::default());
    let lane = Lane { books: books.clone(), came };
    tokio::spawn(async move {
        let way = Way { out: Some(out), until: Instant::now() };
        let mut carried = Carried { stream, local, books, coming, way };
        // An error is said to the other side, which closes what it has of the stream.
        if let Err(why) = carried.carry().await {
            let why = why.map(|fault| Refusal::bare(fault.to_string()));
            carried.way.control(&Frame::Close { stream, why }).await;
        }
    });
    Ok(lane)
}

/// To where frames of a stream go: to nowhere while its connection is lost.
struct Way {
    out: Option<Out>,
    /// Until when another connection is waited for, while there is none.
    until: Instant,
}

impl Way {
    async fn data(&mut self, frame: &Frame) {
        if let Some(out) = &self.out
            && out.data.send(frame.text()).await.is_err()
        {
            self.lost();
        }
    }

    async fn control(&mut self, frame: &Frame) {
        if let Some(out) = &self.out
            && out.control.send(frame.text()).await.is_err()
        {
            self.lost();
        }
    }

    fn lost(&mut self) {
        if self.out.take().is_some() {
            self.until = Instant::now() + HOLD;
        }
    }
}

struct Carried {
    stream: u64,
    local: UnixStream,
    books: Arc<Books>,
    coming: mpsc::UnboundedReceiver<Came>,
    way: Way,
}

impl Carried {
    /// An error is an end that the other side does not know of: because of a fault, or because the socket is closed.
    async fn carry(&mut self) -> Result<(), Option<Fault>> {
        let Carried { stream, local, books, coming, way } = self;
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
                    way.control(&Frame::Ack { stream, seq }).await;
                }
            }
            if heard_all && pending.is_empty() && !shut {
                shut = true;
                let _ = writer.shutdown().await;
            }
            let (room, handed_on) = {
                let both = books.both();
                (both.1.room(), both.1.is_empty())
            };
            if shut && read_all && handed_on {
                return Ok(());
            }
            tokio::select! {
                came = coming.recv() => match came {
                    Some(Came::Text(text)) => pending.push_back(text),
                    Some(Came::End) => heard_all = true,
                    Some(Came::Lost) => way.lost(),
                    Some(Came::Resumed(out, theirs)) => {
                        way.out = Some(out);
                        let (missing, handed) = {
                            let both = books.both();
                            (both.1.missing(&theirs)?, both.0.handed())
                        };
                        // What was said on the connection before may be lost.
                        if handed > 0 {
                            way.control(&Frame::Ack { stream, seq: handed }).await;
                        }
                        for (seq, text) in missing.texts {
                            way.data(&Frame::Data { stream, seq, text }).await;
                        }
                        if let Some(seq) = missing.end {
                            way.data(&Frame::End { stream, seq }).await;
                        }
                    }
                    // The connection, or the other side's half of the stream, is gone.
                    None => return Ok(()),
                },
                () = books.room.notified(), if read_all || room <= begun => {}
                // No other connection came: whoever is at the socket is told by its end.
                () = sleep_until(way.until), if way.out.is_none() => return Ok(()),
                read = reader.read(&mut buffer[begun..room.max(begun)]), if room > begun && !read_all => {
                    let read = read.map_err(|_| None)?;
                    let filled = begun + read;
                    if read == 0 {
                        if begun > 0 {
                            return Err(Some(Fault::NotText));
                        }
                        read_all = true;
                        let seq = books.both().1.end();
                        way.data(&Frame::End { stream, seq }).await;
                        continue;
                    }
                    let length = whole(&buffer[..filled])?;
                    if length > 0 {
                        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        let seq = books.both().1.send(text.clone());
                        way.data(&Frame::Data { stream, seq, text }).await;
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
