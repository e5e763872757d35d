//! One stream: text between a task of this process and the connection to a host. The agent's side does the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use squall_experiments::fleet::frame::LONGEST_TEXT;
use squall_experiments::fleet::stream::{HOLD, whole};
use squall_experiments::fleet::{Fault, Frame, Held, Incoming, Outgoing};
use squall_experiments::protocol::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

/// How much is read at once at first: most of what is said is shorter, and there may be ten thousand streams.
const FIRST: usize = 2 << 10;

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
/// lane is dropped. Then this end is closed, whatever was still to be written.
pub(super) fn begin(stream: u64, local: DuplexStream, out: Out) -> Lane {
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
    lane
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
    local: DuplexStream,
    books: Arc<Books>,
    coming: mpsc::UnboundedReceiver<Came>,
    way: Way,
}

impl Carried {
    /// An error is an end that the other side does not know of: because of a fault, or because this end is closed.
    async fn carry(&mut self) -> Result<(), Option<Fault>> {
        let Carried { stream, local, books, coming, way } = self;
        let stream = *stream;
        let (mut reader, mut writer) = tokio::io::split(local);
        let mut buffer = vec![0; FIRST];
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
            let size = buffer.len();
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
                // No other connection came: whoever is at its other end is told by its end.
                () = sleep_until(way.until), if way.out.is_none() => return Ok(()),
                read = reader.read(&mut buffer[begun..room.min(size).max(begun)]), if room > begun && !read_all => {
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
                    if filled == size && size < LONGEST_TEXT {
                        buffer.resize((size * 4).min(LONGEST_TEXT), 0);
                    }
                }
                wrote = writer.write(pending.front().map_or(&[], |text| &text.as_bytes()[written..])),
                        if !pending.is_empty() => {
                    written += wrote.map_err(|_| None)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use squall_experiments::fleet::stream::WINDOW;
    use std::time::Duration;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A stream, its socket's other end, and what it sends.
    struct Bench {
        lane: Lane,
        socket: DuplexStream,
        data: mpsc::Receiver<String>,
        control: mpsc::Receiver<String>,
    }

    fn bench() -> Bench {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (data, datas) = mpsc::channel(4);
        let (control, controls) = mpsc::channel(64);
        let lane = begin(7, theirs, Out { data, control });
        Bench { lane, socket: ours, data: datas, control: controls }
    }

    async fn next(from: &mut mpsc::Receiver<String>) -> Frame {
        let text = timeout(PATIENCE, from.recv()).await.expect("a frame comes").expect("the stream goes on");
        Frame::read(&text).unwrap()
    }

    #[tokio::test]
    async fn text_goes_both_ways_and_each_direction_ends_by_itself() {
        let mut bench = bench();
        bench.lane.text(1, "hello\n".to_owned()).unwrap();
        assert_eq!(next(&mut bench.control).await, Frame::Ack { stream: 7, seq: 1 });
        let mut line = [0; 6];
        timeout(PATIENCE, bench.socket.read_exact(&mut line)).await.unwrap().unwrap();
        assert_eq!(&line, b"hello\n");
        bench.lane.end(2).unwrap();
        assert_eq!(timeout(PATIENCE, bench.socket.read(&mut line)).await.unwrap().unwrap(), 0);
        bench.socket.write_all("späte".as_bytes()).await.unwrap();
        assert_eq!(next(&mut bench.data).await, Frame::Data { stream: 7, seq: 1, text: "späte".to_owned() });
        bench.socket.shutdown().await.unwrap();
        assert_eq!(next(&mut bench.data).await, Frame::End { stream: 7, seq: 2 });
        assert!(!bench.lane.is_over(), "what is not acknowledged may have to be sent again");
        bench.lane.acknowledged(1).unwrap();
        timeout(PATIENCE, bench.lane.came.closed()).await.expect("the stream is over");
        assert!(bench.control.recv().await.is_none(), "an orderly end is nothing to close");
    }

    #[tokio::test]
    async fn what_comes_twice_or_too_early_is_never_handed_on() {
        let mut bench = bench();
        bench.lane.text(1, "a".to_owned()).unwrap();
        assert_eq!(bench.lane.text(1, "a".to_owned()), Err(Fault::Replayed(1)));
        assert_eq!(bench.lane.text(3, "c".to_owned()), Err(Fault::Gap { came: 3, expected: 2 }));
        bench.lane.text(2, "b".to_owned()).unwrap();
        bench.lane.end(3).unwrap();
        let mut all = String::new();
        timeout(PATIENCE, bench.socket.read_to_string(&mut all)).await.unwrap().unwrap();
        assert_eq!(all, "ab");
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_stops_the_writer_and_nobody_else() {
        let mut bench = bench();
        let mut seq = 0;
        // As much as the other side may send before anything is read, and no more.
        let text = "x".repeat(LONGEST_TEXT);
        let mut sent = 0;
        while bench.lane.text(seq + 1, text.clone()).is_ok() {
            seq += 1;
            sent += text.len();
            assert!(seq < 1000, "there is no bound");
            // The socket itself takes some; what it has taken is acknowledged.
            tokio::task::yield_now().await;
        }
        let mut got = vec![0; 1 << 16];
        let mut read = 0;
        while read < sent {
            read += timeout(PATIENCE, bench.socket.read(&mut got)).await.unwrap().unwrap();
            while bench.control.try_recv().is_ok() {}
        }
        assert_eq!(read, sent);
        bench.lane.text(seq + 1, text).expect("there is room again");
    }

    #[tokio::test]
    async fn without_acknowledgements_no_more_is_read_than_the_window() {
        let mut bench = bench();
        let writing = tokio::spawn(async move {
            let _ = timeout(PATIENCE, bench.socket.write_all(&vec![b'x'; 4 << 20])).await;
            bench.socket
        });
        let (mut came, mut last) = (0, 0);
        // Each frame costs something beside its text.
        while came + 64 * last < WINDOW {
            let Frame::Data { text, seq, .. } = next(&mut bench.data).await else { panic!("no text") };
            came += text.len();
            last = usize::try_from(seq).unwrap();
        }
        let more = timeout(Duration::from_millis(200), bench.data.recv()).await;
        assert!(more.is_err(), "more than the window: {more:?}");
        bench.lane.acknowledged(3).unwrap();
        assert!(matches!(next(&mut bench.data).await, Frame::Data { .. }));
        drop(bench.lane);
        drop(writing.await);
    }

    #[tokio::test]
    async fn a_lost_connection_closes_the_socket_and_a_closed_socket_the_stream() {
        let mut lost = bench();
        drop(lost.lane);
        let mut nothing = [0; 1];
        assert_eq!(timeout(PATIENCE, lost.socket.read(&mut nothing)).await.unwrap().unwrap(), 0);
        let mut closed = bench();
        drop(closed.socket);
        assert!(matches!(next(&mut closed.data).await, Frame::End { seq: 1, .. }));
        closed.lane.text(1, "to nobody".to_owned()).unwrap();
        assert_eq!(next(&mut closed.control).await, Frame::Close { stream: 7, why: None });
    }

    #[tokio::test]
    async fn what_is_no_text_ends_the_stream_with_a_reason() {
        let mut bench = bench();
        bench.socket.write_all(b"a\xff").await.unwrap();
        let Frame::Close { why: Some(why), .. } = next(&mut bench.control).await else { panic!("no reason") };
        assert_eq!(why.what, "the stream is not UTF-8");
    }
}
