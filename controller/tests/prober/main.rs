//! `squall prober`, the real process, against real servers on loopback and real programs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conversation;
mod groups;
mod http;
mod load;
mod looks;
mod privileges;
mod prober;
mod process;
mod processes;
mod reach;
mod server;
mod services;
mod tcp;
