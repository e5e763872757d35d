//! What the faults of the test act on: a server on loopback, and a process that waits. Each is this very program in a
//! process of its own: what the test itself is connected to counts as the way to a controller, which no fault touches.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signal::{SigSet, Signal};
use squall_experiments::protocol::Refusal;

use super::pair::own_verb;
use crate::host::process::Target;
use crate::say;

/// What a process is in the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// It answers every datagram and every byte, and keeps a connection to itself.
    Server,
    /// It does nothing, and is there to be hit. The veto knows it by the arguments that it is started with.
    Sufferer,
}

/// Plays a role until standard input ends, so no longer than whoever started it lives. Says when it is ready on standard
/// output: the server with its address.
pub fn be(role: Role) -> Result<(), Refusal> {
    match role {
        Role::Server => serve()?,
        Role::Sufferer => {
            let mut ignored = SigSet::empty();
            // What the fault `kill` sends.
            ignored.add(Signal::SIGUSR1);
            ignored.thread_block().map_err(|errno| failed(errno.into()))?;
            say::line("ready");
        }
    }
    std::io::stdin().read_to_end(&mut Vec::new()).map(drop).map_err(failed)
}

/// A process that plays a role until this is dropped.
#[derive(Debug)]
struct Player {
    child: Child,
    _input: Option<ChildStdin>,
}

impl Player {
    /// Starts it, and waits for what it says.
    fn start(role: &str) -> Result<(Self, String), Refusal> {
        let mut child = own_verb()
            .args(["self-test", "--be", role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let player = Player { child, _input: input };
        let mut said = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut said).map_err(failed)?;
        }
        Ok((player, said.trim().to_owned()))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server.
#[derive(Debug)]
pub struct Traffic {
    _server: Player,
    address: SocketAddr,
}

/// A process that does nothing.
#[derive(Debug)]
pub struct Sufferer {
    _player: Player,
    /// Which it is.
    pub target: Target,
}

fn failed(error: std::io::Error) -> Refusal {
    Refusal::bare(format!("the test's own server does not work: {error}"))
}

fn serve() -> Result<(), Refusal> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    let udp = UdpSocket::bind(address).map_err(failed)?;
    thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = udp.recv_from(&mut packet) {
            let _ = udp.send_to(&packet[..length], from);
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    thread::spawn(move || {
        loop {
            // There to be destroyed; made again soon after.
            let open = TcpStream::connect_timeout(&address, Duration::from_millis(100));
            thread::sleep(Duration::from_millis(250));
            drop(open);
        }
    });
    say::line(address);
    Ok(())
}

impl Traffic {
    /// Starts the server.
    pub fn start() -> Result<Self, Refusal> {
        let (server, said) = Player::start("server")?;
        let address = said.parse();
        let address = address.map_err(|_| Refusal::bare("the test's own server does not say where it is"))?;
        Ok(Traffic { _server: server, address })
    }

    /// The server as an experiment writes it.
    pub fn peer(&self) -> String {
        self.address.to_string()
    }

    /// Sends some datagrams and makes a connection, whatever becomes of them: more at once than 1 Mbit/s carries in 50 ms,
    /// so that a busy machine exceeds a rate, too.
    pub fn send(&self) {
        const BRIEF: Duration = Duration::from_millis(100);
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.set_nonblocking(true);
            for number in 0..32u8 {
                let _ = socket.send_to(&[number; 256], self.address);
            }
        }
        if let Ok(mut stream) = TcpStream::connect_timeout(&self.address, BRIEF) {
            let _ = stream.set_read_timeout(Some(BRIEF));
            let _ = stream.write_all(b"?").and_then(|()| stream.read(&mut [0; 1]).map(drop));
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0; 1];
    while stream.read(&mut byte).is_ok_and(|length| length == 1) && stream.write_all(&byte).is_ok() {}
}

impl Sufferer {
    /// Starts one.
    pub fn start() -> Result<Self, Refusal> {
        let (player, _) = Player::start("sufferer")?;
        let target = i32::try_from(player.child.id()).ok().and_then(Target::of);
        let target = target.ok_or_else(|| Refusal::bare("the process that is to suffer ended at once"))?;
        Ok(Sufferer { _player: player, target })
    }
}
