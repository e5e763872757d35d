//! The prober: an unprivileged process that runs probes and actions for a conductor or a worker.
//!
//! It is started as `squall prober [--user NAME]`, gives up every privilege before it reads its first line, and then
//! speaks [`ProberRequest`](squall_experiments::probe::ProberRequest) and
//! [`ProberReply`](squall_experiments::probe::ProberReply), one JSON object per line. An *action* is loaded as a probe
//! with the default expectation and sampled once.
//!
//! It is not responsible for when samples are taken, nor for what they mean: that is the conductor's. Only the requests
//! of a load begin by its own clock, to the microsecond.

mod certificate;
pub(crate) mod dns;
mod expect;
mod family;
mod http;
mod load;
mod log;
mod looks;
mod metrics;
mod prepare;
pub(crate) mod privileges;
mod process;
mod processes;
mod prometheus;
mod reach;
mod redis;
mod request;
mod serve;
mod sql;
mod stream;
mod tcp;
pub(crate) mod tls;
mod value;

use squall_experiments::exit::Exit;

use crate::policy::Probes;
use crate::seccomp::Keeps;
use crate::talk::{self, LogFormat};

/// Options of the hidden `squall prober`.
#[derive(Debug, clap::Args)]
pub struct Prober {
    /// Run as this user; without it as `nobody` where the process is root.
    #[arg(long)]
    user: Option<String>,
    /// Start no program for whoever asks: neither probe nor action.
    #[arg(long)]
    no_programs: bool,
    /// Reach nothing but this: the part of the host's policy that is about the probes of controllers, as JSON.
    #[arg(long, value_name = "JSON", value_parser = bounds)]
    within: Option<Probes>,
    /// As whoever has started it talks.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

fn bounds(text: &str) -> Result<Probes, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Prober {
    /// Drops every privilege, then serves standard input until its end. The process must be single-threaded.
    ///
    /// Ends with [`Exit::Refused`] where the privileges cannot be dropped: it never serves with more than it should
    /// have. Everything that it started is dead when it returns.
    pub fn run(&self) -> Exit {
        talk::keep(self.log_format);
        let _ = nix::sys::prctl::set_name(c"squall-prober");
        let keeps = if self.no_programs { Keeps::ToItself } else { Keeps::Programs };
        if let Err(error) = privileges::drop(self.user.as_deref(), keeps) {
            talk::error(&error, error.help());
            return Exit::Refused;
        }
        if let Some(within) = &self.within {
            reach::bind(within.clone());
        }
        match serve::serve(std::io::stdin(), std::io::stdout(), !self.no_programs) {
            Ok(()) => Exit::Held,
            Err(error) => {
                talk::error(error, None);
                Exit::Bug
            }
        }
    }
}
