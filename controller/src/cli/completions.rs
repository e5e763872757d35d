//! `squall completions`: what a shell needs to complete these commands.

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use squall_experiments::exit::Exit;

use super::{Cli, Common, print};

/// Options of `squall completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
    /// Of which program.
    #[arg(long, value_enum, default_value_t = Program::Squall)]
    of: Program,
}

/// The programs that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Program {
    /// The commands of people and pipelines, and the controller.
    Squall,
    /// The privileged process of a host.
    SquallAgent,
}

impl Completions {
    /// Prints the script: `squall completions bash >/etc/bash_completion.d/squall`.
    pub fn run(&self, _: &Common) -> anyhow::Result<Exit> {
        let mut command = match self.of {
            Program::Squall => Cli::command(),
            Program::SquallAgent => squall_agent::cli::Cli::command(),
        };
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, &mut command, name, &mut script);
        print::result(&String::from_utf8(script)?)?;
        Ok(Exit::Held)
    }
}
