//! One TCP connection that sends as fast as it can.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::connect;
use crate::netns::Netns;
use crate::wait;

/// What the connection may take to grow its window before it counts.
const GROWING: Duration = Duration::from_millis(500);

/// Bits a second that arrive from one host on a port of another, measured for so long after the start has settled.
///
/// # Panics
/// When there is no connection, or it breaks.
pub fn bits_per_second(from: &Netns, to: &Netns, address: SocketAddr, during: Duration) -> f64 {
    let listener = to.inside(|| TcpListener::bind(address).expect("the port is free"));
    listener.set_nonblocking(true).expect("it is a socket");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = connect(from, address, Duration::from_secs(10)).expect("the port is reached");
            let bytes = vec![0; 1 << 18];
            while !stop.load(Ordering::Relaxed) {
                if stream.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
        let (mut stream, _) = wait::until("the connection", wait::PATIENCE, || listener.accept().ok());
        stream.set_nonblocking(false).expect("it is a socket");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out can be set");
        let mut bytes = vec![0; 1 << 18];
        let mut read = || match stream.read(&mut bytes) {
            // A call with a time-out is not begun again by itself, such as after the machine was frozen.
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            read => read.expect("the stream goes on"),
        };
        let begun = Instant::now();
        while begun.elapsed() < GROWING {
            read();
        }
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < during {
            count += read();
        }
        let rate = count as f64 * 8.0 / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    })
}
