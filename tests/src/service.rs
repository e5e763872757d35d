//! Real services in a namespace, with their data in the world's directory; ready when they answer.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::{Echo, Http, Postgres, Redis, TIMEOUT, Talk, connect};
use crate::host::Host;
use crate::netns::{Netns, Process};
use crate::wait;

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// nginx with two workers and keep-alive.
    Nginx,
    /// Redis without persistence.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// Lines and datagrams come back; runs inside the tests themselves.
    Echo,
}

/// A service that answers.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is.
    pub kind: Kind,
    /// Its main process; 0 for [`Kind::Echo`].
    pub pid: i32,
    /// Its port, on every address of its host.
    pub port: u16,
    /// The namespace that it runs in.
    pub netns: Arc<Netns>,
}

impl Service {
    /// Opens a connection from a host and gets ready to talk.
    pub fn dial(&self, from: &Host, address: IpAddr) -> io::Result<Box<dyn Talk>> {
        self.dial_within(from, address, TIMEOUT)
    }

    /// [`Service::dial`] with another time-out, for the connection and for each answer.
    pub fn dial_within(&self, from: &Host, address: IpAddr, timeout: Duration) -> io::Result<Box<dyn Talk>> {
        talker(self.kind, connect(&from.netns, SocketAddr::new(address, self.port), timeout)?)
    }

    /// Its processes of a name, such as the workers of nginx or the backends of PostgreSQL.
    pub fn processes(&self, name: &str) -> Vec<Process> {
        self.netns.processes().into_iter().filter(|process| process.name == name).collect()
    }

    /// nginx' workers, oldest first.
    pub fn workers(&self) -> Vec<Process> {
        let mut workers = self.processes("nginx");
        workers.retain(|process| process.parent == self.pid);
        workers.sort_by_key(|process| (process.started, process.pid));
        workers
    }
}

fn talker(kind: Kind, stream: TcpStream) -> io::Result<Box<dyn Talk>> {
    Ok(match kind {
        Kind::Nginx => Box::new(Http::over(stream)),
        Kind::Redis => Box::new(Redis::over(stream)),
        Kind::Postgres => Box::new(Postgres::over(stream)?),
        Kind::Echo => Box::new(Echo::over(stream)),
    })
}

/// How a service is started: the command inside its namespace, and what it speaks.
pub(crate) struct Recipe {
    pub kind: Kind,
    pub port: u16,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Run as this user and its main group.
    pub user: Option<&'static str>,
}

/// nginx in the foreground, its master as root and two workers as `www-data`.
pub(crate) fn nginx(directory: &Path, port: u16) -> io::Result<Recipe> {
    let place = directory.display();
    let site = directory.join("site");
    fs::create_dir_all(&site)?;
    fs::write(site.join("index.html"), "a page\n")?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {place}/{kind};\n"))
        .collect();
    fs::write(
        directory.join("nginx.conf"),
        format!(
            "daemon off;\nuser www-data;\nworker_processes 2;\npid {place}/pid;\nerror_log {place}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\n  split_clients a$request_id $hundredth {{ 1% 1; * 0; }}\n  \
             split_clients c$request_id $half {{ 50% 1; * 0; }}\n  \
             split_clients b$request_id $fifth {{ 20% 1; * 0; }}\n  access_log off;\n  keepalive_timeout 600s;\n  keepalive_requests 1000000;\n{temporary}  \
             server {{\n    listen {port} reuseport;\n    listen [::]:{port} ipv6only=on reuseport;\n    \
             root {place}/site;\n    location /health {{ return 200 \"well\\n\"; }}\n    \
             location /flaky {{ if ($hundredth) {{ return 503; }} return 200; }}\n    \
             location /breaks {{ set $bad 0; if (-f {place}/broken) {{ set $bad $fifth; }} \
             if ($bad) {{ return 503; }} return 200; }}\n    \
             location /bursts {{ set $bad 0; if (-f {place}/burst) {{ set $bad $half; }} \
             if ($bad) {{ return 503; }} return 200; }}\n  }}\n}}\n"
        ),
    )?;
    Ok(Recipe {
        kind: Kind::Nginx,
        port,
        program: PathBuf::from("/usr/sbin/nginx"),
        arguments: vec![
            "-e".to_owned(),
            format!("{place}/error.log"),
            "-c".to_owned(),
            format!("{place}/nginx.conf"),
        ],
        user: None,
    })
}

/// Redis that keeps everything in memory.
pub(crate) fn redis(directory: &Path, port: u16) -> Recipe {
    let arguments = format!(
        "--port {port} --bind 0.0.0.0 :: --protected-mode no --daemonize no --appendonly no --dir {}",
        directory.display()
    );
    let mut arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    arguments.extend(["--save".to_owned(), String::new()]);
    Recipe { kind: Kind::Redis, port, program: PathBuf::from("/usr/bin/redis-server"), arguments, user: None }
}

/// Where Debian keeps the programs of the newest installed PostgreSQL.
pub fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut programs: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    programs.retain(|bin| bin.join("postgres").exists() && bin.join("initdb").exists());
    programs.sort();
    programs.pop()
}

/// PostgreSQL with a fresh cluster that trusts everybody, owned by user `postgres`.
pub(crate) fn postgres(directory: &Path, port: u16) -> io::Result<Recipe> {
    /// Two clusters made at once take longer than one after the other.
    static MAKING: Mutex<()> = Mutex::new(());
    let programs = postgres_programs().ok_or(io::ErrorKind::NotFound)?;
    let data = directory.join("data");
    {
        let _alone = MAKING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        run(Command::new("chown").arg("postgres:").arg(directory))?;
        let mut make = as_user("postgres");
        make.arg(programs.join("initdb"))
            .args(["-N", "-A", "trust", "-U", "postgres", "--locale", "C", "-D"]);
        run(make.arg(&data).current_dir("/"))?;
        fs::write(
            data.join("pg_hba.conf"),
            "local all all trust\nhost all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n",
        )?;
    }
    let arguments = format!(
        "-p {port} -c listen_addresses=* -c fsync=off -c shared_buffers=8MB -k {}",
        directory.display()
    );
    let mut arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    arguments.extend(["-D".to_owned(), data.display().to_string()]);
    Ok(Recipe {
        kind: Kind::Postgres,
        port,
        program: programs.join("postgres"),
        arguments,
        user: Some("postgres"),
    })
}

fn as_user(user: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]);
    command
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("{command:?}: {}: {said}", output.status)))
}

impl Recipe {
    /// The command inside a namespace. It dies with the thread that starts it, should the tests be killed.
    pub fn command(&self, netns: &Netns, log: &Path) -> io::Result<Command> {
        let mut command = netns.command("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = self.user {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.arg("--").arg(&self.program).args(&self.arguments).current_dir("/");
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

/// Waits until a service on this host's loopback answers a question of its own protocol.
///
/// # Panics
/// After 20 seconds, or when the process has ended, with its log.
pub(crate) fn ready(service: &Service, log: &Path, mut ended: impl FnMut() -> bool) {
    let address = SocketAddr::from(([127, 0, 0, 1], service.port));
    wait::holds(
        &format!("{:?} to answer; its log is `{}`", service.kind, log.display()),
        wait::PATIENCE,
        || {
            if ended() {
                let said = fs::read_to_string(log).unwrap_or_default();
                panic!("{:?} ended before it answered:\n{said}", service.kind);
            }
            connect(&service.netns, address, TIMEOUT)
                .and_then(|stream| talker(service.kind, stream)?.talk())
                .is_ok()
        },
    );
    if service.kind == Kind::Nginx {
        wait::holds("nginx to have its two workers", wait::PATIENCE, || service.workers().len() == 2);
    }
}

/// Serves lines over TCP and datagrams over UDP on every address of a namespace until `stop` is set.
pub(crate) fn echo(netns: &Netns, port: u16, stop: &Arc<AtomicBool>) -> io::Result<()> {
    let (listener, socket) = netns.inside(|| -> io::Result<_> {
        let listener = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port))?;
        let socket = UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, port))?;
        Ok((listener, socket))
    })?;
    let pause = Duration::from_millis(50);
    listener.set_nonblocking(true)?;
    socket.set_read_timeout(Some(pause))?;
    let stopped = Arc::clone(stop);
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while !stopped.load(Ordering::Relaxed) {
            // A refused earlier answer shows up as an error here, and says nothing of the next datagram.
            if let Ok((length, sender)) = socket.recv_from(&mut datagram) {
                drop(socket.send_to(&datagram[..length], sender));
            }
        }
    });
    let stopped = Arc::clone(stop);
    thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let stopped = Arc::clone(&stopped);
                    thread::spawn(move || repeat(stream, pause, &stopped));
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    });
    Ok(())
}

fn repeat(mut stream: TcpStream, pause: Duration, stopped: &AtomicBool) {
    if stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(pause))).is_err() {
        return;
    }
    let mut bytes = [0; 2048];
    while !stopped.load(Ordering::Relaxed) {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => {
                if stream.write_all(&bytes[..length]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}
