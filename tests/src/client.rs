//! Clients of the services: they keep their connection, have time-outs, and say exactly what they got.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::netns::Netns;

/// How long a client waits when nothing else is said.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// A conversation over one connection that can be repeated.
pub trait Talk: Send {
    /// One question and its right answer; anything else is an error.
    fn talk(&mut self) -> io::Result<()>;
}

fn wrong(said: impl std::fmt::Debug) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer: {said:?}"))
}

/// Opens a TCP connection from inside a namespace.
pub fn connect(from: &Netns, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    from.inside(|| {
        let stream = TcpStream::connect_timeout(&to, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
}

/// HTTP/1.1 with keep-alive.
#[derive(Debug)]
pub struct Http(BufReader<TcpStream>);

impl Http {
    /// Speaks over a connection.
    pub fn over(stream: TcpStream) -> Self {
        Http(BufReader::new(stream))
    }

    /// Asks for a path; gives status and body.
    pub fn get(&mut self, path: &str) -> io::Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: keep-alive\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status =
            line.split_whitespace().nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| wrong(&line))?;
        let mut length = 0;
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(|_| wrong(value))?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

impl Talk for Http {
    fn talk(&mut self) -> io::Result<()> {
        match self.get("/")? {
            (200, _) => Ok(()),
            other => Err(wrong(other)),
        }
    }
}

/// Redis' protocol (RESP2), as much of it as `PING`, `SET` and `GET` need.
#[derive(Debug)]
pub struct Redis(BufReader<TcpStream>);

impl Redis {
    /// Speaks over a connection.
    pub fn over(stream: TcpStream) -> Self {
        Redis(BufReader::new(stream))
    }

    /// Sends a command; gives the simple or bulk answer.
    pub fn call(&mut self, words: &[&str]) -> io::Result<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        match (line.get(..1), line.get(1..)) {
            (Some("+" | ":"), Some(rest)) => Ok(rest.to_owned()),
            (Some("$"), Some(length)) => {
                let length: usize = length.parse().map_err(|_| wrong(line))?;
                let mut body = vec![0; length + 2];
                self.0.read_exact(&mut body)?;
                Ok(String::from_utf8_lossy(&body[..length]).into_owned())
            }
            _ => Err(wrong(line)),
        }
    }
}

impl Talk for Redis {
    fn talk(&mut self) -> io::Result<()> {
        match self.call(&["PING"])?.as_str() {
            "PONG" => Ok(()),
            other => Err(wrong(other)),
        }
    }
}

/// PostgreSQL's protocol 3.0: start-up without a password, and simple queries.
#[derive(Debug)]
pub struct Postgres(TcpStream);

impl Postgres {
    /// Starts a session as user `postgres`, on the database of that name.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        Postgres::on(stream, "postgres")
    }

    /// The same, on another database.
    pub fn on(mut stream: TcpStream, database: &str) -> io::Result<Self> {
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        body.extend(format!("user\0postgres\0database\0{database}\0\0").bytes());
        let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &body].concat())?;
        let mut session = Postgres(stream);
        session.until_ready()?;
        Ok(session)
    }

    /// Runs a query; gives the first column of its first row.
    pub fn query(&mut self, sql: &str) -> io::Result<String> {
        let length = u32::try_from(sql.len() + 5).map_err(io::Error::other)?;
        self.0.write_all(&[b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat())?;
        self.until_ready()
    }

    /// Reads messages until the server waits for the next query; gives the first value met on the way.
    fn until_ready(&mut self) -> io::Result<String> {
        let mut value = String::new();
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]).saturating_sub(4) as usize;
            let mut body = vec![0; length];
            self.0.read_exact(&mut body)?;
            match head[0] {
                b'Z' => return Ok(value),
                b'E' => return Err(wrong(String::from_utf8_lossy(&body))),
                // Two bytes of column count, four of length, then the first column.
                b'D' if value.is_empty() && length > 6 => {
                    let wide = u32::from_be_bytes([body[2], body[3], body[4], body[5]]) as usize;
                    value = String::from_utf8_lossy(body.get(6..6 + wide).unwrap_or_default()).into_owned();
                }
                _ => {}
            }
        }
    }
}

impl Talk for Postgres {
    fn talk(&mut self) -> io::Result<()> {
        match self.query("select 40 + 2")?.as_str() {
            "42" => Ok(()),
            other => Err(wrong(other)),
        }
    }
}

/// A line to the echo server, and back.
#[derive(Debug)]
pub struct Echo(BufReader<TcpStream>);

impl Echo {
    /// Speaks over a connection.
    pub fn over(stream: TcpStream) -> Self {
        Echo(BufReader::new(stream))
    }
}

impl Talk for Echo {
    fn talk(&mut self) -> io::Result<()> {
        self.0.get_mut().write_all(b"are you there?\n")?;
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "are you there?\n" { Ok(()) } else { Err(wrong(line)) }
    }
}

/// A datagram to the echo server, and back.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    sent: u32,
}

impl Datagrams {
    /// A socket inside a namespace, connected to a server.
    pub fn to(from: &Netns, server: SocketAddr, timeout: Duration) -> io::Result<Self> {
        from.inside(|| {
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(timeout))?;
            socket.connect(server)?;
            Ok(Datagrams { socket, sent: 0 })
        })
    }
}

impl Talk for Datagrams {
    fn talk(&mut self) -> io::Result<()> {
        self.sent += 1;
        self.socket.send(&self.sent.to_be_bytes())?;
        let mut answer = [0; 4];
        loop {
            match self.socket.recv(&mut answer) {
                // A call with a time-out is not begun again by itself, such as after the machine was frozen.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            // A late answer to an earlier datagram is not this one's.
            if answer == self.sent.to_be_bytes() {
                return Ok(());
            }
        }
    }
}

/// One look of a [`Steady`] client.
#[derive(Debug)]
pub struct Glance {
    /// When it began.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub outcome: io::Result<()>,
}

/// A client that keeps asking on a thread of its own: the witness for "nothing else was touched".
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Glance>>>,
    what: String,
}

impl Steady {
    /// Begins to ask, with this pause between an answer and the next question.
    pub fn start(
        what: &str,
        pause: Duration,
        mut ask: impl FnMut() -> io::Result<()> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut glances = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let at = Instant::now();
                let outcome = ask();
                glances.push(Glance { at, took: at.elapsed(), outcome });
                thread::sleep(pause);
            }
            glances
        });
        Steady { stop, thread: Some(thread), what: what.to_owned() }
    }

    /// Stops asking; gives everything that was seen.
    ///
    /// # Panics
    /// When the client's thread did.
    pub fn finish(mut self) -> Vec<Glance> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a steady client is finished once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Stops asking, and fails the test unless there were at least `least` answers and every one was right.
    ///
    /// # Panics
    /// With the first wrong answer.
    pub fn saw_nothing(self, least: usize) {
        let what = self.what.clone();
        let begun = Instant::now();
        let glances = self.finish();
        assert!(glances.len() >= least, "`{what}` asked only {} times, {least} were expected", glances.len());
        for glance in &glances {
            if let Err(error) = &glance.outcome {
                let ago = begun.saturating_duration_since(glance.at);
                panic!("`{what}` was to see nothing, but {ago:?} before the end it got: {error}");
            }
        }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test that owned it is panicking already; what its client saw no longer matters.
            drop(thread.join());
        }
    }
}
