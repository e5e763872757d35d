//! What the command line says of controllers.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use squall_experiments::fleet::{JoinToken, is_name};
use squall_experiments::protocol::Refusal;

use super::identity;
use crate::talk;

/// The port of a controller where its URL names none.
const PORT: u16 = 8417;
/// The longest token file, in bytes.
const LONGEST: u64 = 4096;

/// Options of `squall-agent run`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where a controller of this agent is: no fault touches the way there. A URL (`https://controller:8417`) is dialled, the
    /// first that answers; ADDRESS:PORT is only left alone. May be repeated.
    #[arg(long = "controller", value_name = "URL")]
    controllers: Vec<Controller>,
    /// A file with the token by which this host joins the fleet; `-` is standard input. Not needed once it belongs to it.
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
    /// The token itself. Everybody on this host can read it: better use `--join-file`.
    #[arg(long, value_name = "TOKEN", conflicts_with = "join_file")]
    join: Option<JoinToken>,
    /// What this host wants to be called in the fleet [default: its host name].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A label of this host, by which experiments choose it. May be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Where this host stands, such as a data centre.
    #[arg(long)]
    zone: Option<String>,
    /// To which part of the whole it belongs.
    #[arg(long)]
    cell: Option<String>,
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Controller {
    /// One that is dialled: a name or an address, and a port.
    Dialled(String, u16),
    /// One to which only the way is left alone.
    Way(SocketAddr),
}

impl FromStr for Controller {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("https://") else {
            let wrong =
                |_| "write `https://HOST:PORT`, or ADDRESS:PORT of one that is not dialled".to_owned();
            return text.parse().map(Controller::Way).map_err(wrong);
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let wrong = || format!("`{text}` is not `https://HOST` or `https://HOST:PORT`");
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or_else(wrong)?,
            None => rest.find(':').map_or((rest, ""), |at| rest.split_at(at)),
        };
        let port = match port {
            "" => PORT,
            port => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(wrong)?,
        };
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
            return Err(wrong());
        }
        Ok(Controller::Dialled(host.to_owned(), port))
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((label, value)) if !label.is_empty() => Ok((label.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// What the link needs to know.
#[derive(Clone, Serialize, Deserialize)]
pub struct Uplink {
    /// Whom to dial, in this order.
    pub controllers: Vec<(String, u16)>,
    /// A join token, where there is one.
    pub token: Option<String>,
    /// What the host wants to be called.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Its cell.
    pub cell: Option<String>,
    /// Where key and certificate lie.
    pub directory: PathBuf,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Uplink")
            .field("controllers", &self.controllers)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Those that are not dialled.
    pub fn ways(&self) -> Vec<SocketAddr> {
        let ways = self.controllers.iter().filter_map(|controller| match controller {
            Controller::Way(way) => Some(*way),
            Controller::Dialled(..) => None,
        });
        ways.collect()
    }

    /// What the link needs, where there is a controller to dial. Reads the token, which nothing else does.
    pub fn uplink(&self, root: &Path) -> Result<Option<Uplink>, Refusal> {
        let dialled = self.controllers.iter().filter_map(|controller| match controller {
            Controller::Dialled(host, port) => Some((host.clone(), *port)),
            Controller::Way(_) => None,
        });
        let controllers: Vec<_> = dialled.collect();
        if controllers.is_empty() {
            return match self.join.is_some() || self.join_file.is_some() {
                true => Err(Refusal::new(
                    "there is a join token, and no controller to join",
                    "say where it is: `--controller https://HOST:PORT`",
                )),
                false => Ok(None),
            };
        }
        let directory = root.join(identity::DIRECTORY);
        let name = self.name.clone().unwrap_or_else(host_name);
        if !is_name(&name) {
            return Err(Refusal::new(
                format!("`{}` cannot be a host's name", name.escape_default()),
                "choose one of at most 64 small letters, digits, `-`, `_` and `.` with `--name`",
            ));
        }
        let token = self.token(identity::belongs(&directory))?.map(|token| token.to_string());
        let labels = self.labels.iter().cloned().collect();
        let (zone, cell) = (self.zone.clone(), self.cell.clone());
        Ok(Some(Uplink { controllers, token, name, labels, zone, cell, directory }))
    }

    /// The token; a file that is gone is no matter where the host belongs to a fleet already.
    fn token(&self, belongs: bool) -> Result<Option<JoinToken>, Refusal> {
        if let Some(token) = &self.join {
            let words = "everybody on this host can read a token in the arguments: use `--join-file`";
            talk::warning(words, None);
            return Ok(Some(token.clone()));
        }
        let Some(file) = &self.join_file else {
            if belongs {
                return Ok(None);
            }
            let help = "make a join token on the controller, and give it with `--join-file FILE`";
            return Err(Refusal::new("this host does not belong to a fleet yet", help));
        };
        let mut text = String::new();
        let read = if file.as_os_str() == "-" {
            std::io::stdin().take(LONGEST).read_to_string(&mut text)
        } else {
            std::fs::File::open(file).and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        };
        let help = "give the file that the controller wrote, with one join token in it";
        let of = || format!("the join token in `{}`", file.display());
        match read {
            Err(_) if belongs => Ok(None),
            Err(error) => Err(Refusal::new(format!("{} cannot be read: {error}", of()), help)),
            Ok(_) => match text.parse() {
                Ok(token) => Ok(Some(token)),
                Err(_) if belongs => Ok(None),
                Err(error) => Err(Refusal::new(format!("{}: {error}", of()), help)),
            },
        }
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_a_url_or_an_address_to_be_left_alone() {
        let dialled = |host: &str, port| Ok(Controller::Dialled(host.to_owned(), port));
        let of = str::parse::<Controller>;
        assert_eq!(of("https://squall.example.org"), dialled("squall.example.org", PORT));
        assert_eq!(of("https://10.0.0.1:443/"), dialled("10.0.0.1", 443));
        assert_eq!(of("https://[fd00::1]:443"), dialled("fd00::1", 443));
        assert_eq!(of("https://[fd00::1]"), dialled("fd00::1", PORT));
        assert_eq!(of("10.0.0.1:443"), Ok(Controller::Way("10.0.0.1:443".parse().unwrap())));
        for wrong in [
            "",
            "http://a",
            "https://",
            "https://a:",
            "https://a:x",
            "https://a/b",
            "https://[a",
            "a:1",
            "https://u@a",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
