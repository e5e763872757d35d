//! What a service manager is told: that the agent serves, that it is alive, that it ends.
//!
//! Source: `sd_notify(3)`: one datagram for each message, to the socket that `NOTIFY_SOCKET` names. Without a manager
//! nothing is sent.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::host::sys;

/// Tells the manager something: `READY=1`, `STOPPING=1`, `WATCHDOG=1`. What does not arrive is the manager's loss.
pub fn tell(what: &str) {
    let _ = send(what);
}

fn send(what: &str) -> Option<usize> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
        _ => SocketAddr::from_pathname(&name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A manager that does not read must not hold up who has to beat.
    socket.set_nonblocking(true).ok()?;
    socket.send_to_addr(what.as_bytes(), &address).ok()
}

/// The signs of life that a manager wants, twice as often as it wants them.
#[derive(Debug)]
pub struct Signs {
    every: Option<u64>,
    due: u64,
}

impl Signs {
    /// As the manager asks for them (`WATCHDOG_USEC`), if it asks this process (`WATCHDOG_PID`).
    pub fn wanted() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let asked = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let every = number("WATCHDOG_USEC").filter(|usec| asked && *usec > 0).map(|usec| usec * 1000 / 2);
        Signs { every, due: 0 }
    }

    /// Gives one if it is due; says when the next is, on the boot clock.
    pub fn give_if_due(&mut self) -> Option<u64> {
        let every = self.every?;
        let now = sys::boot_nanos();
        if self.due <= now {
            tell("WATCHDOG=1");
            self.due = now + every;
        }
        Some(self.due)
    }
}
