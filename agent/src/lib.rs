//! Everything of Squall that alters a host.

pub mod cli;
pub mod probe;
pub mod state;
