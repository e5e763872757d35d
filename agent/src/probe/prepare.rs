//! A probe as it is loaded, whatever its kind.

use squall_experiments::probe::{Expect, Probe};

use super::expect::Seen;
use super::family::Family;
use super::http::HttpLook;
use super::load::Task;
use super::process::ProcessLook;
use super::tcp::TcpLook;

/// A probe that is ready.
pub(super) enum Prepared {
    /// It is looked at, again and again.
    Look(Look),
    /// It goes on by itself.
    Load(Box<Task>),
}

/// A probe that can be sampled.
pub(super) enum Look {
    Http(Box<HttpLook>),
    Tcp(TcpLook),
    Process(ProcessLook),
}

impl Prepared {
    /// Compiles and loads what the probe needs, and contacts nobody; an error says why it can never be sampled.
    pub(super) fn new(probe: &Probe, expect: &Expect) -> Result<Self, String> {
        Ok(Prepared::Look(match probe {
            Probe::Http(http) => Look::Http(Box::new(HttpLook::new(http, expect)?)),
            Probe::Tcp(tcp) => Look::Tcp(TcpLook::new(tcp, expect)?),
            Probe::Process(process) => Look::Process(ProcessLook::new(process, expect)?),
            Probe::Load { load, tick } => {
                return Ok(Prepared::Load(Box::new(Task::new(load, *tick, expect)?)));
            }
        }))
    }
}

impl Look {
    /// Takes one sample. An error says why the probe cannot be sampled at all any more.
    pub(super) async fn look(&self, family: &Family) -> Result<Seen, String> {
        match self {
            Look::Http(http) => Ok(http.look().await),
            Look::Tcp(tcp) => Ok(tcp.look().await),
            Look::Process(process) => process.look(family).await,
        }
    }
}
