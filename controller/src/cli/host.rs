//! This machine, as the verbs that run or end something know it.

use std::future::ready;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use squall_agent::join;
use squall_agent::recover;
use squall_agent::state::{self, Place};
use squall_agent::talk;
use squall_controller::conductor::{Answer, Host, Probing};
use squall_controller::stream::Stream;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::Refusal;

use super::Common;

/// Where the agent of this network namespace is found, and how probers are started.
#[derive(Debug)]
pub struct LocalHost {
    state_dir: Option<PathBuf>,
}

impl LocalHost {
    /// This machine, with the state directory of the command line.
    pub fn new(common: &Common) -> Self {
        LocalHost { state_dir: common.state_dir.clone() }
    }
}

impl Host for LocalHost {
    fn prober(&self, user: Option<&str>) -> Answer<Probing> {
        // Not by its path: that may name another program by now.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("squall").arg("prober");
        if let Some(user) = user {
            command.arg("--user").arg(user);
        }
        Box::pin(ready(Ok(Probing::Here(command))))
    }

    fn resident(&mut self) -> Answer<Option<Stream>> {
        Box::pin(ready(join::resident(self.state_dir.as_deref()).map(|agent| agent.map(Stream::Socket))))
    }

    fn recover(&mut self) -> Result<Vec<String>, Refusal> {
        let outcome = recover::at_start(self.state_dir.as_deref()).map_err(|error| error.refusal())?;
        // A journal that somebody still holds is passed over by the recovery: it is not undone yet.
        if Place::here(&state::root(self.state_dir.as_deref()))?.journal().exists() {
            return Err(Refusal::bare("the agent still holds its journal"));
        }
        Ok(outcome.undone)
    }
}

/// Undoes what dead agents left behind, as every command does when it starts, and says so. `Err` is the exit code
/// where that is not possible.
pub fn recover(common: &Common) -> Result<(), Exit> {
    match recover::at_start(common.state_dir.as_deref()) {
        Ok(outcome) => {
            let mut stderr = io::stderr();
            for line in outcome.undone {
                let _ = writeln!(stderr, "recovered from a dead agent: {line}");
            }
            Ok(())
        }
        Err(error) => Err(refused(&error.refusal())),
    }
}

/// The name that this host calls itself.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".to_owned())
}

/// Says why something was not done.
pub fn refused(refusal: &Refusal) -> Exit {
    talk::error(refusal, refusal.help.as_deref());
    Exit::try_from(refusal.exit).unwrap_or(Exit::Refused)
}
