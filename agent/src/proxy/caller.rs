//! Which process of this host made a connection, as far as that can be known at little cost.
//!
//! The kernel is asked for the client's own socket (`SOCK_DIAG_BY_FAMILY` for one pair of addresses), which tells its
//! user, its inode and the control group it was made in. The process is the one that holds the inode, looked for first
//! among those that were found before and then among those of the control group. This takes no more than a tenth of one
//! processor: under many new connections, and for clients of other hosts or other network namespaces, the caller is
//! unknown.
//!
//! A process that may not look at others has somebody ask in its place who may: [`Callers::through`] and [`answer`].

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use procfs::process::Process;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::cgroup::{Cgroup, directories};
use crate::host::descriptors;
use crate::host::netlink::NetlinkError;
use crate::host::sockets::Sockets;
use crate::line::Line;

/// How many may wait to be looked for.
const WAITING: usize = 256;
/// How many processes of a control group are looked at.
const PROCESSES: usize = 512;
/// How many processes are remembered.
const REMEMBERED: usize = 16;
/// After each search, so many times as long as it took nothing is searched.
const REST: u32 = 9;
/// How old the list of control groups may be.
const STALE: Duration = Duration::from_secs(1);

/// Who made a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The process that holds its socket.
    pub pid: Option<i32>,
    /// The command name of that process.
    pub name: Option<String>,
    /// The user who made it.
    pub uid: u32,
    /// The control group that it was made in, below the root of version 2.
    pub cgroup: Option<String>,
}

/// What is known of a caller so far.
#[derive(Clone, Debug, Default)]
pub struct Asked(Option<Arc<OnceLock<Caller>>>);

impl Asked {
    /// As JSON: `unknown` where it is not known.
    pub fn shown(&self) -> Value {
        let found = self.0.as_ref().and_then(|answer| answer.get());
        found.and_then(|caller| serde_json::to_value(caller).ok()).unwrap_or_else(|| Value::from("unknown"))
    }
}

struct Question {
    client: SocketAddr,
    server: SocketAddr,
    answer: Arc<OnceLock<Caller>>,
}

/// Looks for callers, in a thread of its own.
#[derive(Debug)]
pub struct Callers(SyncSender<Question>);

impl Callers {
    /// Starts the thread; it ends with this value.
    pub fn start() -> io::Result<Self> {
        let (sender, questions) = sync_channel::<Question>(WAITING);
        let thread = thread::Builder::new().name("squall-callers".into()).stack_size(512 << 10);
        thread.spawn(move || {
            // Who may not ask the kernel finds nobody.
            if let Ok(mut search) = Search::new() {
                while let Ok(question) = questions.recv() {
                    let began = Instant::now();
                    question.answered(search.find(question.client, question.server));
                    rest(began);
                }
            }
        })?;
        Ok(Callers(sender))
    }

    /// The same, where another process looks, which [`answer`]s at the other end of this line.
    pub fn through(line: Line) -> io::Result<Self> {
        let (sender, questions) = sync_channel::<Question>(WAITING);
        let thread = thread::Builder::new().name("squall-callers".into()).stack_size(512 << 10);
        thread.spawn(move || {
            while let Ok(question) = questions.recv() {
                let asked = line.send(&(question.client, question.server), None);
                let Ok(Some(found)) = asked.and_then(|()| heard(&line)) else { return };
                question.answered(found);
            }
        })?;
        Ok(Callers(sender))
    }

    /// Asks for the process behind a connection from `client` to `server`, an address of this host.
    pub fn ask(&self, client: SocketAddr, server: SocketAddr) -> Asked {
        let answer = Arc::default();
        let question = Question { client, server, answer: Arc::clone(&answer) };
        match self.0.try_send(question) {
            Ok(()) => Asked(Some(answer)),
            Err(_) => Asked(None),
        }
    }
}

impl Question {
    fn answered(&self, found: Option<Caller>) {
        if let Some(caller) = found {
            let _ = self.answer.set(caller);
        }
    }
}

/// Looks for callers for whoever asks at the other end of this line, until that is closed: in a thread of its own, in the
/// network namespace of the calling one.
pub fn answer(line: Line) -> io::Result<()> {
    let thread = thread::Builder::new().name("squall-callers".into()).stack_size(512 << 10);
    thread.spawn(move || {
        let Ok(mut search) = Search::new() else { return };
        while let Ok(Some((client, server))) = heard(&line) {
            let began = Instant::now();
            let found = search.find(client, server);
            // It is answered before it rests: the other one has its rest by that, too.
            if line.send(&found, None).is_err() {
                return;
            }
            rest(began);
        }
    })?;
    Ok(())
}

/// The next message; `None` is the end of the other side.
fn heard<T: for<'de> Deserialize<'de>>(line: &Line) -> io::Result<Option<T>> {
    loop {
        match line.receive() {
            Ok(message) => return Ok(message.map(|(message, _)| message)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// So long that the search before it took no more than its share of a processor.
fn rest(began: Instant) {
    thread::sleep((began.elapsed() * REST).min(Duration::from_secs(2)));
}

struct Search {
    sockets: Sockets,
    /// Processes that made connections, the latest first.
    recent: VecDeque<i32>,
    /// Control groups by number.
    groups: HashMap<u64, PathBuf>,
    listed: Option<Instant>,
}

impl Search {
    /// In the network namespace of the calling thread.
    fn new() -> Result<Self, NetlinkError> {
        let sockets = Sockets::open()?;
        Ok(Search { sockets, recent: VecDeque::new(), groups: HashMap::new(), listed: None })
    }

    fn find(&mut self, client: SocketAddr, server: SocketAddr) -> Option<Caller> {
        let socket = self.sockets.connection(client, server).ok().flatten()?;
        let group = self.group(socket.cgroup);
        let pid = (socket.inode != 0).then(|| self.holder(socket.inode, group.as_ref())).flatten();
        let name = pid.and_then(|pid| Process::new(pid).and_then(|process| process.stat()).ok());
        let root = Cgroup::root().ok();
        let below = group.as_ref().zip(root.as_ref()).and_then(|(group, root)| group.strip_prefix(root).ok());
        Some(Caller {
            pid,
            name: name.map(|stat| stat.comm),
            uid: socket.uid,
            cgroup: below.map(|path| format!("/{}", path.display())),
        })
    }

    fn holder(&mut self, inode: u32, group: Option<&PathBuf>) -> Option<i32> {
        let recent = self.recent.iter().copied().find(|pid| holds(*pid, inode));
        let found = recent.or_else(|| {
            let members = std::fs::read_to_string(group?.join("cgroup.procs")).ok()?;
            let mut pids = members.lines().filter_map(|line| line.parse().ok()).take(PROCESSES);
            pids.find(|pid| holds(*pid, inode))
        })?;
        self.recent.retain(|pid| *pid != found);
        self.recent.push_front(found);
        self.recent.truncate(REMEMBERED);
        Some(found)
    }

    /// The directory of a control group, by its number: the inode of the directory.
    fn group(&mut self, number: u64) -> Option<PathBuf> {
        let fresh = self.listed.is_some_and(|listed| listed.elapsed() < STALE);
        if number != 0 && !self.groups.contains_key(&number) && !fresh {
            self.groups = directories(&Cgroup::root().ok()?).into_iter().collect();
            self.listed = Some(Instant::now());
        }
        self.groups.get(&number).cloned()
    }
}

/// Whether a process holds a socket, as far as one may look.
fn holds(pid: i32, inode: u32) -> bool {
    descriptors::sockets(pid).is_ok_and(|held| held.iter().any(|(_, found)| *found == inode))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::{Callers, answer};
    use crate::line::Line;

    #[test]
    fn a_process_of_this_host_is_found_by_its_connection() {
        found_by(&Callers::start().expect("a thread"));
    }

    #[test]
    fn somebody_else_may_look_for_it() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("a pair of sockets");
        answer(Line::new(theirs)).expect("a thread");
        found_by(&Callers::through(Line::new(ours)).expect("a thread"));
    }

    fn found_by(callers: &Callers) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(server).expect("it listens");
        let client = stream.local_addr().expect("an address");
        let asked = callers.ask(client, server);
        let begun = Instant::now();
        while asked.shown() == "unknown" && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let caller = asked.shown();
        assert_eq!(caller["uid"], rustix::process::getuid().as_raw(), "{caller}");
        // Where version 2 of control groups is not mounted, the process is not looked for.
        if caller["cgroup"].is_string() {
            assert_eq!(caller["pid"], std::process::id(), "{caller}");
        }
    }
}
