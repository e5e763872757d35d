//! `squall prober`, the real process, against real servers on loopback and real programs.

mod conversation;
mod http;
mod privileges;
mod prober;
mod process;
mod server;
mod tcp;
