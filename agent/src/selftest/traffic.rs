//! What the faults of the test act on: a server on loopback, and a process that waits.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use squall_experiments::protocol::Refusal;

use crate::host::process::Target;

/// A server that answers every datagram and every byte, as long as the process lives.
#[derive(Debug)]
pub struct Traffic {
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

impl Traffic {
    /// Starts the server.
    pub fn start() -> Result<Self, Refusal> {
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
        Ok(Traffic { address })
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

    /// A connection that stays open.
    pub fn connect(&self) -> Option<TcpStream> {
        TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()
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
