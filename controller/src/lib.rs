//! Runs experiments: the conductor, its reports, and a client for the agent of this host.
//!
//! This library never alters a host and does not know how an agent is started: it speaks to one over a socket.

pub mod api;
mod aside;
mod ask;
pub mod budget;
pub mod client;
pub mod conductor;
pub mod config;
pub mod fleet;
pub mod gameday;
pub mod gates;
pub mod launch;
pub mod muster;
pub mod notify;
mod rate;
pub mod report;
pub mod runs;
pub mod scheduler;
pub mod sights;
pub mod standing;
pub mod store;
pub mod stream;
pub mod traces;
pub mod web;
