//! The fault `outage`: what a dependency says instead of its answers, to whom, and for how long.

mod container;
mod endings;
mod grpc;
mod lookups;
mod meanwhile;
mod names;
mod observations;
mod requests;
mod scope;
mod tls;
mod ways;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use squall_tests::client::{Redis, connect};
use squall_tests::host::Host;
use squall_tests::netns::Process;
use squall_tests::world::World;

use crate::trial::{Trial, calm};

/// Longer than any answer takes on a slow machine.
const LONG: Duration = Duration::from_secs(20);

/// An outage of a port of the second host, seen from the first, for longer than any test waits.
fn step(address: IpAddr, port: u16, how: &str, scope: &str) -> String {
    let of = SocketAddr::new(address, port);
    let scope = if scope.is_empty() { String::new() } else { format!("in: {scope}, ") };
    format!("{{ fault: {{ outage: {{ of: \"{of}\", how: {how} }} }}, {scope}for: 80s }}")
}

/// One that is live.
fn outage(world: &World, port: u16, how: &str, scope: &str) -> Trial {
    let step = step(world.hosts[1].v4, port, how, scope);
    let mut trial = Trial::begin(world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    trial
}

/// One question over a new connection.
fn ping(from: &Host, to: IpAddr, port: u16) -> io::Result<String> {
    let stream = connect(&from.netns, SocketAddr::new(to, port), LONG)?;
    Redis::over(stream).call(&["PING"])
}

/// The process that carries what is led to it, where there is one.
fn proxy(host: &Host) -> Option<Process> {
    host.netns.processes().into_iter().find(|process| process.name == "squall-outage")
}
