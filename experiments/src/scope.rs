//! Whose processes and whose traffic a fault concerns on a host: the `in:` of a step.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::peer::Ports;

/// One scope, exactly one key. Without `in:` a network fault concerns its peers' traffic with every process of the host,
/// and a process fault is an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Processes chosen by what they are; all given fields must match.
    Process(ProcessSelector),
    /// A control group, by its path below the cgroup root, such as `system.slice/shop.service`: its processes, the sockets
    /// that they hold, and those created in it.
    Cgroup(String),
    /// A systemd unit, by its full name such as `shop.service`: its control group, found again when the unit restarts.
    Unit(String),
    /// A container, by its name, or by at least 12 characters of its id: its processes and its network. Docker, Podman and
    /// containerd are known; what `ctr run` called `web` also as `default/web`.
    Container(String),
    /// A network namespace, by its name below `/run/netns` or by the path of its file: all traffic in it.
    Netns(String),
    /// Processes and sockets of a user, by name or number.
    User(String),
    /// A network interface, by its exact name: what leaves and enters by it.
    Interface(String),
    /// Sockets bound to a local port or range of ports.
    Port(Ports),
}

/// Which processes; every field that is given must match, and at least one must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct ProcessSelector {
    /// The absolute path of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The exact command name (`comm`, at most 15 bytes), never a substring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A regular expression searched in the arguments, joined by single spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// The process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// A port on which the process listens (TCP) or to which it is bound (UDP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<u16>,
}

impl ProcessSelector {
    /// Whether no field is given: such a selector is an error, never "every process".
    pub fn is_empty(&self) -> bool {
        *self == ProcessSelector::default()
    }
}

impl fmt::Display for ProcessSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.exe.as_ref().map(|exe| format!("exe {exe}")));
        parts.extend(self.name.as_ref().map(|name| format!("name {name}")));
        parts.extend(self.args.as_ref().map(|args| format!("args ~ {args}")));
        parts.extend(self.pid.map(|pid| format!("pid {pid}")));
        parts.extend(self.listening.map(|port| format!("listening on {port}")));
        f.write_str(&parts.join(", "))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Process(selector) => write!(f, "process ({selector})"),
            Scope::Cgroup(path) => write!(f, "cgroup {path}"),
            Scope::Unit(unit) => write!(f, "unit {unit}"),
            Scope::Container(container) => write!(f, "container {container}"),
            Scope::Netns(netns) => write!(f, "network namespace {netns}"),
            Scope::User(user) => write!(f, "user {user}"),
            Scope::Interface(interface) => write!(f, "interface {interface}"),
            Scope::Port(ports) => write!(f, "local port {ports}"),
        }
    }
}
