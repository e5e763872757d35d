//! What the owner of this host allows: a file that no controller can change.

mod file;
mod owner;
mod reach;
mod wards;
mod windows;

use std::path::Path;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squall_experiments::change::Change;
use squall_experiments::limits::{KINDS, Limits};
use squall_experiments::peer::{Peer, Ports};
use squall_experiments::probe::Probe;
use squall_experiments::protocol::Refusal;
use squall_experiments::quantity::Period;
use squall_experiments::scope::Scope;

pub use file::{FILE, schema};
pub use reach::{Probes, whole};
pub use wards::Wards;
pub use windows::Window;

use crate::host::process::uid_of;

/// Limits on what may be done here. Without a file the defaults hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Policy {
    /// Whether anything may be injected at all.
    pub enabled: bool,
    /// The longest that one change may last.
    pub max_duration: Period,
    /// The longest that packets may be held.
    pub max_delay: Period,
    /// When faults may be live; at any time where there are none. A change that would last beyond is refused.
    #[schemars(with = "Vec<String>")]
    pub windows: Vec<Window>,
    /// Which changes are allowed, by their [`KINDS`].
    pub allow: Vec<String>,
    /// Networks and addresses that no fault touches, and ports at any address.
    pub protect_addresses: Vec<Peer>,
    /// Command names of processes that no fault touches.
    pub protect_processes: Vec<String>,
    /// Units, by their full names, whose processes and traffic no fault touches.
    pub protect_units: Vec<String>,
    /// Users, by name or number, whose processes and traffic no fault touches.
    pub protect_users: Vec<String>,
    /// Ports of this host itself, TCP and UDP, at which no fault touches traffic.
    pub protect_ports: Vec<Ports>,
    /// Whether the root queueing discipline of an interface may be replaced while a run lasts.
    pub graft: Graft,
    /// What a controller may do here that somebody on this host may do in any case.
    pub controllers: Controllers,
    /// A short hash of the file, `none` without one.
    #[serde(skip)]
    pub version: String,
}

/// See [`Policy::controllers`]. It may be compromised, so that the least is the default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Controllers {
    /// Whether this host may belong to one at all.
    pub allowed: bool,
    /// Whether its probes and actions may start programs here.
    pub programs: bool,
    /// As which users its probes may run beside `nobody`; never `root`.
    pub users: Vec<String>,
    /// Where its probes may send requests, and how many.
    pub probes: Probes,
    /// Whether its runs must have been approved.
    pub approval: Approval,
}

/// See [`Controllers::approval`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// A run needs none.
    #[default]
    Optional,
    /// A run without one is refused.
    Required,
}

impl Default for Controllers {
    fn default() -> Self {
        Controllers {
            allowed: true,
            programs: false,
            users: Vec::new(),
            probes: Probes::default(),
            approval: Approval::Optional,
        }
    }
}

/// See [`Policy::graft`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Graft {
    /// Where a fault is better done so.
    #[default]
    Allowed,
    /// Never: it costs a few packets of everybody's at the moments when it comes and goes.
    Never,
}

impl Default for Policy {
    fn default() -> Self {
        let allow = KINDS.map(str::to_owned).to_vec();
        Policy {
            enabled: true,
            max_duration: Period::from_secs(3600),
            max_delay: Period::from_secs(60),
            windows: Vec::new(),
            allow,
            protect_addresses: Vec::new(),
            protect_processes: Vec::new(),
            protect_units: Vec::new(),
            protect_users: Vec::new(),
            protect_ports: Vec::new(),
            graft: Graft::default(),
            controllers: Controllers::default(),
            version: "none".to_owned(),
        }
    }
}

impl Policy {
    /// Reads the policy of this host. A file that cannot be read or understood is an error, never "no limits".
    pub fn of_this_host() -> Result<Self, Refusal> {
        file::read(Path::new(FILE))
    }

    /// Whether a change may be made for so long.
    pub fn permits(&self, change: &Change, lasts: Period) -> Result<(), Refusal> {
        let help = format!("the owner of this host decides, in `{FILE}`");
        if let Some(why) = self.limits().objection(change, lasts) {
            return Err(Refusal::new(why, help));
        }
        if let Some(Scope::User(asked)) = change.scope() {
            // The same user by another name, or by the number.
            let uid = uid_of(asked).ok();
            let is = |user: &&String| uid.is_some() && uid_of(user).ok() == uid;
            if let Some(user) = self.protect_users.iter().find(is) {
                return Err(Refusal::new(format!("this host's policy protects the user `{user}`"), help));
            }
        }
        match windows::objection(&self.windows, Timestamp::now(), lasts) {
            Some(why) => Err(Refusal::new(why, help)),
            None => Ok(()),
        }
    }

    /// What a plan can be compared with beforehand.
    pub fn limits(&self) -> Limits {
        Limits {
            enabled: self.enabled,
            max_duration: self.max_duration,
            max_delay: self.max_delay,
            windows: self.windows.iter().map(ToString::to_string).collect(),
            allow: self.allow.clone(),
            protect_units: self.protect_units.clone(),
            protect_users: self.protect_users.clone(),
            protect_ports: self.protect_ports.clone(),
        }
    }

    /// Whether this host may belong to a controller.
    pub fn permits_controllers(&self) -> Result<(), Refusal> {
        let help = format!("the owner of this host decides, in `{FILE}` (`controllers.allowed`)");
        let refused = || Refusal::new("this host's policy allows no controller", help);
        if self.controllers.allowed { Ok(()) } else { Err(refused()) }
    }

    /// Whether a controller may begin a run that nobody has approved.
    pub fn permits_unapproved(&self) -> Result<(), Refusal> {
        match self.controllers.approval {
            Approval::Optional => Ok(()),
            Approval::Required => Err(Refusal::new(
                "this host's policy lets a controller begin nothing that was not approved",
                "submit it, and let somebody approve it: `squall plan --submit`, `squall approve`",
            )),
        }
    }

    /// Whether a probe of a controller's may run as this user; without one it runs as nobody.
    pub fn permits_controllers_prober(&self, user: Option<&str>) -> Result<(), Refusal> {
        match user {
            None => Ok(()),
            Some(user) if user != "root" && self.controllers.users.iter().any(|allowed| allowed == user) => {
                Ok(())
            }
            Some(user) => Err(Refusal::new(
                format!(
                    "this host's policy lets no probe of a controller run as `{}`",
                    user.escape_default()
                ),
                format!("the owner of this host decides, in `{FILE}` (`controllers.users`; never `root`)"),
            )),
        }
    }

    /// Whether the agent may look at this for a controller.
    pub fn permits_controllers_probe(&self, probe: &Probe) -> Result<(), Refusal> {
        if matches!(probe, Probe::Process(_)) && !self.controllers.programs {
            return Err(Refusal::new(
                "this host's policy lets no controller start programs",
                format!("the owner of this host decides, in `{FILE}` (`controllers.programs`)"),
            ));
        }
        if let Probe::Load { load, .. } = probe
            && !self.controllers.probes.permits_load(load)
        {
            return Err(Refusal::new(
                format!("this host's policy allows a controller no load of {}", whole(load)),
                format!("the owner of this host decides, in `{FILE}` (`controllers.probes.load`)"),
            ));
        }
        self.permits_controllers_prober(probe.user())
    }

    /// Whether traffic at a port of this host is protected.
    pub fn protects_port(&self, port: u16) -> bool {
        self.protect_ports.iter().any(|ports| (ports.first..=ports.last).contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_may_look_as_nobody_and_start_nothing_unless_the_owner_says_so() {
        let probe = |text: &str| serde_json::from_str::<Probe>(text).unwrap();
        let program = probe(r#"{"process": {"argv": ["true"]}}"#);
        let by_shop = probe(r#"{"process": {"argv": ["true"], "user": "shop"}}"#);
        let tcp = probe(r#"{"tcp": {"address": "127.0.0.1:1"}}"#);
        let strict = Policy::default();
        strict.permits_controllers().unwrap();
        strict.permits_controllers_prober(None).unwrap();
        strict.permits_controllers_probe(&tcp).unwrap();
        for user in ["shop", "root", "nobody"] {
            assert!(strict.permits_controllers_prober(Some(user)).is_err(), "{user}");
        }
        assert!(strict.permits_controllers_probe(&program).is_err());
        let text = r#"{"controllers": {"programs": true, "users": ["shop", "root"]}}"#;
        let wide: Policy = serde_json::from_str(text).unwrap();
        wide.permits_controllers_probe(&program).unwrap();
        wide.permits_controllers_probe(&by_shop).unwrap();
        assert!(wide.permits_controllers_prober(Some("root")).is_err());
        assert!(wide.permits_controllers_prober(Some("other")).is_err());
        let none: Policy = serde_json::from_str(r#"{"controllers": {"allowed": false}}"#).unwrap();
        assert!(none.permits_controllers().is_err());
    }

    #[test]
    fn a_load_above_the_limit_is_refused_to_a_controller() {
        let load = |rate: &str| {
            let load = format!(r#"{{"url": "http://127.0.0.1/", "rate": "{rate}"}}"#);
            let probe = format!(r#"{{"load": {{"load": {load}, "tick": "1s"}}}}"#);
            serde_json::from_str::<Probe>(&probe).unwrap()
        };
        let policy = Policy::default();
        policy.permits_controllers_probe(&load("1000/s")).unwrap();
        let refusal = policy.permits_controllers_probe(&load("2000/s")).unwrap_err();
        assert!(refusal.what.contains("no load of 2000/s"), "{refusal}");
        let Probe::Load { mut load, tick } = load("600/s") else { panic!("a load") };
        load.control = Some(serde_json::from_str("{}").unwrap());
        let refusal = policy.permits_controllers_probe(&Probe::Load { load, tick }).unwrap_err();
        assert!(refusal.what.contains("no load of 600/s to each of two groups"), "{refusal}");
    }

    #[test]
    fn outside_of_its_windows_nothing_begins() {
        use squall_experiments::change::{Block, Verdict};
        use squall_experiments::flow::{Direction, Flow};
        let block = || {
            let (flow, direction) = (Flow::default(), Direction::Ingress);
            Change::Block(Block { flow, direction, verdict: Verdict::Drop })
        };
        let policy = |windows: &str| -> Policy {
            serde_json::from_str(&format!(r#"{{"windows": {windows}}}"#)).unwrap()
        };
        let lasts = Period::from_secs(60);
        policy(r#"["daily 00:00-24:00 UTC"]"#).permits(&block(), lasts).unwrap();
        // Never today, nor yesterday, by whichever clock.
        let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let day = today.checked_add(jiff::ToSpan::days(3)).unwrap().strftime("%a").to_string();
        let refusal = policy(&format!(r#"["{day} 00:00-24:00 UTC"]"#)).permits(&block(), lasts).unwrap_err();
        assert!(refusal.what.contains("allows faults only in"), "{refusal}");
        assert!(refusal.help.is_some_and(|help| help.contains(FILE)));
    }

    #[test]
    fn a_delay_above_the_limit_is_refused_with_both_figures_and_who_decides() {
        use squall_experiments::change::Shape;
        use squall_experiments::flow::{Direction, Flow};
        use squall_experiments::impairment::{Chance, Delay, Impairment, Reorder};
        let flow = Flow::default();
        let shape = |impairment| {
            let direction = Direction::Ingress;
            Change::Shape(Shape {
                flow: flow.clone(),
                direction,
                impairment,
                limit: 1,
                engine: Default::default(),
                root: Default::default(),
            })
        };
        let held = |seconds| {
            let delay: Delay = serde_json::from_str(&format!("{{\"delay\": \"{seconds}s\"}}")).unwrap();
            let delay = Some(delay);
            shape(Impairment { delay, ..Impairment::default() })
        };
        let late = |seconds| {
            let reorder = Reorder { chance: Chance::default(), late: Period::from_secs(seconds) };
            shape(Impairment { reorder: Some(reorder), ..Impairment::default() })
        };
        let policy = Policy::default();
        let lasts = Period::from_secs(10);
        for allowed in [held(60), late(60), shape(Impairment::default())] {
            policy.permits(&allowed, lasts).unwrap();
        }
        for refused in [held(3600), late(61)] {
            let refusal = policy.permits(&refused, lasts).unwrap_err();
            assert!(refusal.what.contains("`max-delay`: 1m"), "{}", refusal.what);
            assert!(refusal.help.as_deref().is_some_and(|help| help.contains(FILE)), "{refusal:?}");
        }
    }
}
