//! What the faults of the test act on: a server on loopback, and a process that waits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use squall_experiments::protocol::Refusal;

use super::pair::own_verb;
use crate::host::process::Target;

/// A server that answers every datagram and every byte, and keeps a connection to itself. It is a process of its own: what
/// the test itself is connected to counts as the way to a controller, which no fault touches.
#[derive(Debug)]
pub struct Traffic {
    child: Child,
    _input: Option<ChildStdin>,
    address: SocketAddr,
}

/// A process that does nothing. It ends when this process does, because its standard input ends then.
#[derive(Debug)]
pub struct Sufferer {
    child: Child,
    _input: Option<ChildStdin>,
    /// Which it is.
    pub target: Target,
}

fn failed(error: std::io::Error) -> Refusal {
    Refusal::bare(format!("the test's own server does not work: {error}"))
}

/// Serves until standard input ends, in a process of its own; says where on standard output.
pub fn serve() -> Result<(), Refusal> {
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
    println!("{address}");
    std::io::stdin().read_to_end(&mut Vec::new()).map(drop).map_err(failed)
}

impl Traffic {
    /// Starts the server.
    pub fn start() -> Result<Self, Refusal> {
        let mut child = own_verb()
            .args(["self-test", "--serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let input = child.stdin.take();
        let mut said = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut said).map_err(failed)?;
        }
        let address = said.trim().parse();
        let address = address.map_err(|_| Refusal::bare("the test's own server does not say where it is"))?;
        Ok(Traffic { child, _input: input, address })
    }

    /// The server as an experiment writes it.
    pub fn peer(&self) -> String {
        self.address.to_string()
    }

    /// Sends some datagrams and makes a connection, whatever becomes of them.
    pub fn send(&self) {
        const BRIEF: Duration = Duration::from_millis(100);
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.set_nonblocking(true);
            for number in 0..32u8 {
                let _ = socket.send_to(&[number; 64], self.address);
            }
        }
        if let Ok(mut stream) = TcpStream::connect_timeout(&self.address, BRIEF) {
            let _ = stream.set_read_timeout(Some(BRIEF));
            let _ = stream.write_all(b"?").and_then(|()| stream.read(&mut [0; 1]).map(drop));
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn echo(mut stream: TcpStream) {
    let mut byte = [0; 1];
    while stream.read(&mut byte).is_ok_and(|length| length == 1) && stream.write_all(&byte).is_ok() {}
}

impl Sufferer {
    /// Starts one. Not a program of Squall's: those are never hit.
    pub fn start() -> Result<Self, Refusal> {
        let mut command = Command::new("sh");
        // A shell that ignores what the fault sends, and reads until there is nothing more.
        command.args(["-c", "trap '' USR1; read line"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let input = child.stdin.take();
        let target = i32::try_from(child.id()).ok().and_then(Target::of);
        let target = target.ok_or_else(|| Refusal::bare("the process that is to suffer ended at once"))?;
        // It must have become the shell, and have heard of the signal.
        thread::sleep(Duration::from_millis(50));
        let target = Target::of(target.pid).unwrap_or(target);
        Ok(Sufferer { child, _input: input, target })
    }
}

impl Drop for Sufferer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
