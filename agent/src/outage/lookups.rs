//! What comes to a name server: questions for the names that are meant are answered by the proxy, or by nobody; all others,
//! and their answers, pass as they are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use squall_experiments::ailment::Answered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::order::Counts;
use super::question::{about, answer, normal};
use super::sighting::Sighting;
use crate::proxy::caller::Asked;
use crate::proxy::observations::Observations;
use crate::proxy::toxics::Dice;

/// How long an answer to a datagram is waited for: longer than any usual resolver does.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many questions and connections are under way at most; of those above that nobody hears, and they are counted.
const MOST: usize = 1024;
/// How long a connection may be open without a question: as name servers do, who keep it for some seconds or more (RFC
/// 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(30);
/// A pause after something that cannot be accepted.
const REST: Duration = Duration::from_millis(10);

/// What is wrong with answers.
#[derive(Clone, Debug)]
struct Fault {
    names: Vec<String>,
    answered: Answered,
    share: f64,
}

/// What all sockets share.
#[derive(Debug)]
struct Shared {
    fault: RwLock<Option<Fault>>,
    seed: u64,
    meant: AtomicU64,
    harmed: AtomicU64,
    passed: AtomicU64,
    /// Passed neither, for want of room.
    unheard: AtomicU64,
    room: Arc<Semaphore>,
    idle: Duration,
    observations: Arc<Observations>,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is of another name.
    Pass,
    /// It is meant, and not in the share.
    Spare,
    Drop,
    Answer(Vec<u8>),
}

/// A socket to which questions come.
pub(super) enum Socket {
    /// Datagrams.
    Udp(std::net::UdpSocket),
    /// Connections.
    Tcp(std::net::TcpListener),
}

/// The thread that answers. It ends with the process.
pub(super) struct Lookups {
    shared: Arc<Shared>,
    jobs: UnboundedSender<(Socket, SocketAddr)>,
}

impl Lookups {
    /// Starts it.
    pub(super) fn start(
        seed: u64,
        (names, answered, share): (&[String], &Answered, f32),
        observations: Arc<Observations>,
    ) -> io::Result<Self> {
        let names = names.iter().map(|name| normal(name)).collect();
        let fault = Fault { names, answered: *answered, share: share.into() };
        let shared = Shared::new(seed, fault, observations);
        let (jobs, mut wanted) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = shared.clone();
        thread::Builder::new().name("squall-lookups".into()).spawn(move || {
            runtime.block_on(async {
                while let Some((socket, server)) = wanted.recv().await {
                    tokio::spawn(serve(work.clone(), socket, server));
                }
            });
        })?;
        Ok(Lookups { shared, jobs })
    }

    /// Answers what comes to a socket, or passes it on to the server.
    pub(super) fn serve(&self, socket: Socket, server: SocketAddr) {
        // The thread lives as long as this value.
        let _ = self.jobs.send((socket, server));
    }

    /// Lookups of these names are meant, too.
    pub(super) fn mean(&self, names: &[String]) {
        let mut fault = self.shared.fault.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = &mut *fault {
            fault.names.extend(names.iter().map(|name| normal(name)));
        }
    }

    /// From now on everything passes.
    pub(super) fn heal(&self) {
        *self.shared.fault.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Adds what was counted.
    pub(super) fn count(&self, all: &mut Counts) {
        all.requests += self.shared.meant.load(Ordering::Relaxed);
        all.requests_harmed += self.shared.harmed.load(Ordering::Relaxed);
        all.passed += self.shared.passed.load(Ordering::Relaxed);
        all.unreached += self.shared.unheard.load(Ordering::Relaxed);
        all.open += (MOST - self.shared.room.available_permits()) as u64;
    }
}

impl Shared {
    fn new(seed: u64, fault: Fault, observations: Arc<Observations>) -> Arc<Self> {
        Arc::new(Shared {
            fault: RwLock::new(Some(fault)),
            seed,
            meant: AtomicU64::default(),
            harmed: AtomicU64::default(),
            passed: AtomicU64::default(),
            unheard: AtomicU64::default(),
            room: Arc::new(Semaphore::new(MOST)),
            idle: IDLE,
            observations,
        })
    }

    /// Room for one more; who gets none is counted.
    fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.room.clone().try_acquire_owned().ok();
        if permit.is_none() {
            self.unheard.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// A question goes on to the server.
    fn passes(&self, verdict: &Verdict) {
        if *verdict == Verdict::Pass {
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What becomes of a question of a client. All questions of one socket have the same fate: those for both families of
    /// addresses, and what is asked again.
    fn judge(&self, message: &[u8], client: SocketAddr) -> Verdict {
        let fault = self.fault.read().unwrap_or_else(PoisonError::into_inner);
        let Some((fault, question)) =
            fault.as_ref().and_then(|fault| Some((fault, about(message, &fault.names)?)))
        else {
            return Verdict::Pass;
        };
        self.meant.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice::new(self.seed, &[client.to_string().as_bytes()]);
        if dice.share() >= fault.share {
            return Verdict::Spare;
        }
        self.harmed.fetch_add(1, Ordering::Relaxed);
        answer(&question, &fault.answered).map_or(Verdict::Drop, Verdict::Answer)
    }
}

async fn serve(shared: Arc<Shared>, socket: Socket, server: SocketAddr) {
    let ended = match socket {
        Socket::Udp(socket) => match UdpSocket::from_std(socket) {
            Ok(socket) => datagrams(&shared, Arc::new(socket), server).await,
            Err(error) => error,
        },
        Socket::Tcp(listener) => match TcpListener::from_std(listener) {
            Ok(listener) => connections(&shared, &listener, server).await,
            Err(error) => error,
        },
    };
    tracing::warn!("questions for {server} are not answered any more: {ended}");
}

async fn datagrams(shared: &Arc<Shared>, socket: Arc<UdpSocket>, server: SocketAddr) -> io::Error {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // A client that has gone before its answer came.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return error,
        };
        let question = &buffer[..length];
        // To look for whoever sent a datagram would take longer than the datagram's socket often lives.
        let over = ("udp", Asked::default());
        let mut sighting = Sighting::of(question, &shared.observations, (client, server), over);
        match shared.judge(question, client) {
            Verdict::Drop => sighting.iter_mut().for_each(Sighting::harmed),
            Verdict::Answer(said) => {
                sighting.iter_mut().for_each(Sighting::harmed);
                sighting.iter_mut().for_each(|sighting| sighting.answered(&said));
                let _ = socket.send_to(&said, client).await;
            }
            verdict @ (Verdict::Pass | Verdict::Spare) => {
                let Some(permit) = shared.admit() else { continue };
                shared.passes(&verdict);
                let (question, socket) = (question.to_vec(), socket.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(said)) = timeout(PATIENCE, ask(&question, server)).await {
                        sighting.iter_mut().for_each(|sighting| sighting.answered(&said));
                        let _ = socket.send_to(&said, client).await;
                    }
                    drop(sighting);
                    drop(permit);
                });
            }
        }
    }
}

/// The server's own answer to a datagram.
async fn ask(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let far = UdpSocket::bind((any, 0)).await?;
    far.connect(server).await?;
    far.send(question).await?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = far.recv(&mut buffer).await?;
        // Its number is the first thing in a message (RFC 1035 section 4.1.1).
        if length >= 2 && question.get(..2) == Some(&buffer[..2]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn connections(shared: &Arc<Shared>, listener: &TcpListener, server: SocketAddr) -> io::Error {
    loop {
        let Ok((near, client)) = listener.accept().await else {
            sleep(REST).await;
            continue;
        };
        let Some(permit) = shared.admit() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = connection(&shared, near, client, server).await {
                tracing::debug!("a connection to {server} ended: {error}");
            }
            drop(permit);
        });
    }
}

/// Questions of one connection, each behind its length (RFC 1035 section 4.2.2).
async fn connection(
    shared: &Shared,
    near: TcpStream,
    client: SocketAddr,
    server: SocketAddr,
) -> io::Result<()> {
    let caller = near.local_addr().ok().zip(shared.observations.callers());
    let caller = caller.map(|(local, callers)| callers.ask(client, local)).unwrap_or_default();
    // Those that the server was asked, by the numbers that clients gave them.
    let pending: Arc<Mutex<HashMap<[u8; 2], Sighting>>> = Arc::default();
    let (mut questions, answers) = near.into_split();
    let answers = Arc::new(Mutex::new(answers));
    let mut far: Option<(OwnedWriteHalf, JoinHandle<()>)> = None;
    // Who asks nothing for long is as good as at the end.
    while let Ok(question) = timeout(shared.idle, framed(&mut questions)).await
        && let Some(question) = question?
    {
        let mut sighting =
            Sighting::of(&question, &shared.observations, (client, server), ("tcp", caller.clone()));
        match shared.judge(&question, client) {
            Verdict::Drop => sighting.iter_mut().for_each(Sighting::harmed),
            Verdict::Answer(said) => {
                sighting.iter_mut().for_each(Sighting::harmed);
                sighting.iter_mut().for_each(|sighting| sighting.answered(&said));
                write(&mut *answers.lock().await, &said).await?;
            }
            verdict @ (Verdict::Pass | Verdict::Spare) => {
                shared.passes(&verdict);
                if let Some((number, sighting)) = question.first_chunk().copied().zip(sighting) {
                    pending.lock().await.insert(number, sighting);
                }
                let (sender, _) = match &mut far {
                    Some(far) => far,
                    None => {
                        let (mut back, sender) = TcpStream::connect(server).await?.into_split();
                        let (answers, pending) = (answers.clone(), pending.clone());
                        let task = tokio::spawn(async move {
                            while let Ok(Some(said)) = framed(&mut back).await {
                                let number = said.first_chunk::<2>();
                                if let Some(number) = number
                                    && let Some(mut sighting) = pending.lock().await.remove(number)
                                {
                                    sighting.answered(&said);
                                }
                                if write(&mut *answers.lock().await, &said).await.is_err() {
                                    return;
                                }
                            }
                            // The server has said all: so has the proxy.
                            let _ = answers.lock().await.shutdown().await;
                        });
                        far.insert((sender, task))
                    }
                };
                write(sender, &question).await?;
            }
        }
    }
    if let Some((mut sender, task)) = far {
        sender.shutdown().await?;
        let _ = timeout(PATIENCE, task).await;
    }
    Ok(())
}

/// One message; `None` at the end.
async fn framed(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write(stream: &mut OwnedWriteHalf, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let message = [&length.to_be_bytes()[..], message].concat();
    // Who does not read keeps nobody waiting for ever.
    timeout(PATIENCE, stream.write_all(&message)).await?
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query};
    use hickory_resolver::proto::rr::{Name, RecordType};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { timeout(LONG * 2, test).await.expect("it ends") });
    }

    fn shared(idle: Duration) -> Arc<Shared> {
        let fault = Fault { names: vec![normal("shop.test")], answered: Answered::Nxdomain, share: 1.0 };
        let mut shared = Shared::new(7, fault, Arc::new(Observations::alone(0)));
        Arc::get_mut(&mut shared).expect("nobody else has it").idle = idle;
        shared
    }

    fn question(name: &str) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_utf8(name).expect("a name"), RecordType::A));
        message.to_vec().expect("a message")
    }

    #[test]
    fn what_has_no_room_is_not_told_as_passed() {
        run(async {
            let shared = shared(LONG);
            let server = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
            let near = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
            let (to, address) = (near.local_addr().expect("one"), server.local_addr().expect("one"));
            let work = shared.clone();
            tokio::spawn(async move { datagrams(&work, Arc::new(near), address).await });
            let client = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
            let all = u32::try_from(MOST).expect("few");
            let held = shared.room.clone().acquire_many_owned(all).await.expect("all of it");
            client.send_to(&question("other.test."), to).await.expect("sent");
            // One that is answered here needs no room; they are taken in order.
            client.send_to(&question("shop.test."), to).await.expect("sent");
            client.recv_from(&mut [0; 512]).await.expect("an answer");
            let counted =
                || [&shared.meant, &shared.passed, &shared.unheard].map(|n| n.load(Ordering::Relaxed));
            assert_eq!(counted(), [1, 0, 1]);
            drop(held);
            client.send_to(&question("other.test."), to).await.expect("sent");
            server.recv_from(&mut [0; 512]).await.expect("it is passed on");
            assert_eq!(counted(), [1, 1, 1]);
        });
    }

    #[test]
    fn a_connection_without_a_question_is_closed_and_makes_room() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let to = listener.local_addr().expect("an address");
            let shared = shared(Duration::from_millis(50));
            let work = shared.clone();
            tokio::spawn(async move { connections(&work, &listener, to).await });
            let mut client = TcpStream::connect(to).await.expect("it listens");
            let read = client.read(&mut [0; 2]).await.expect("an orderly end");
            assert_eq!(read, 0);
            while shared.room.available_permits() < MOST {
                sleep(Duration::from_millis(2)).await;
            }
        });
    }
}
