//! What the owner of this host allows: a file that no controller can change.

mod owner;
mod reach;
mod wards;
mod windows;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use squall_experiments::change::Change;
use squall_experiments::limits::{KINDS, Limits};
use squall_experiments::peer::{Peer, PeerHost, Ports};
use squall_experiments::probe::Probe;
use squall_experiments::protocol::Refusal;
use squall_experiments::quantity::Period;
use squall_experiments::scope::Scope;

pub use reach::{Probes, whole};
pub use wards::Wards;
pub use windows::Window;

use crate::host::process::uid_of;
use crate::host::unit;

/// Where the policy lies.
pub const FILE: &str = "/etc/squall/policy.json";

/// Limits on what may be done here. Without a file the defaults hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Policy {
    /// Whether anything may be injected at all.
    pub enabled: bool,
    /// The longest that one change may last.
    pub max_duration: Period,
    /// The longest that packets may be held.
    pub max_delay: Period,
    /// When faults may be live; at any time where there are none. A change that would last beyond is refused.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
        Self::read(Path::new(FILE))
    }

    fn read(path: &Path) -> Result<Self, Refusal> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Policy::default()),
            file => file,
        };
        let wrong = |what: String| {
            Refusal::new(
                format!("the policy `{}` {what}", path.display()),
                "nothing is injected until it is mended",
            )
        };
        let mut text = String::new();
        let file = file.and_then(|mut file| file.read_to_string(&mut text).map(|_| file));
        let file = file.map_err(|error| wrong(format!("cannot be read: {error}")))?;
        // Of the file that was read, and of where whoever may write there could put another one.
        let of_file = file.metadata().map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let of_folder =
            std::fs::metadata(folder).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        for (what, about) in [("", of_file), ("lies in a directory that ", of_folder)] {
            if let Some(why) = owner::objection(about.uid(), about.mode()) {
                return Err(wrong(format!("{what}{why}")));
            }
        }
        let mut policy: Policy =
            serde_json::from_str(&text).map_err(|error| wrong(format!("is not understood: {error}")))?;
        if let Some(word) = policy.allow.iter().find(|word| !KINDS.contains(&word.as_str())) {
            return Err(wrong(format!(
                "allows `{word}`, which is no kind of change: there are {}",
                KINDS.map(|kind| format!("`{kind}`")).join(", ")
            )));
        }
        if let Some(peer) = policy.protect_addresses.iter().find(|peer| !is_of_addresses(peer)) {
            return Err(wrong(format!(
                "protects `{peer}`, which is not an address, a network, or `any` with a port"
            )));
        }
        if let Some(unit) = policy.protect_units.iter().find(|unit| !unit::is_full_name(unit)) {
            return Err(wrong(format!(
                "protects `{unit}`, which is not the full name of a unit, such as `db.service`"
            )));
        }
        Wards::of(&policy).map_err(|refusal| wrong(format!("protects a user: {}", refusal.what)))?;
        if let Some(peer) = policy.controllers.probes.named() {
            return Err(wrong(format!("names `{peer}` for probes, which is not an address or a network")));
        }
        policy.version = blake3::hash(text.as_bytes()).to_hex()[..12].to_owned();
        Ok(policy)
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

/// Whether it can be compared with packets as it stands. Everything is not protected: then `enabled` is `false`.
fn is_of_addresses(peer: &Peer) -> bool {
    match peer.host {
        PeerHost::Net(..) => true,
        PeerHost::Any => peer.ports.is_some(),
        PeerHost::Name(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_broken_policy_is_an_error_and_a_missing_one_the_default() {
        let directory = std::env::temp_dir().join(format!("squall-policy-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        open(&directory, 0o755);
        let file = directory.join("policy.json");
        assert_eq!(Policy::read(&file).unwrap(), Policy::default());
        for text in
            ["", "{", r#"{"max-duration": 60}"#, r#"{"alow": []}"#, r#"{"protect-addresses": ["db"]}"#]
        {
            std::fs::write(&file, text).unwrap();
            assert!(Policy::read(&file).is_err(), "{text}");
        }
        for text in [
            r#"{"windows": ["Mon 09:00-17:00"]}"#,
            r#"{"controllers": {"probes": {"allow": ["db.internal"]}}}"#,
            r#"{"controllers": {"probes": {"load": "fast"}}}"#,
            r#"{"protect-addresses": ["any"]}"#,
            r#"{"protect-units": ["db"]}"#,
            r#"{"protect-users": ["nobody-of-that-name"]}"#,
            r#"{"protect-ports": ["0"]}"#,
            // A fault, and not what it does to a host.
            r#"{"allow": ["block", "partition"]}"#,
        ] {
            std::fs::write(&file, text).unwrap();
            assert!(Policy::read(&file).is_err(), "{text}");
        }
        std::fs::write(
            &file,
            r#"{"max-duration": "1m", "allow": ["block"], "protect-addresses": ["any:5432"]}"#,
        )
        .unwrap();
        for mode in [0o666, 0o664, 0o646] {
            open(&file, mode);
            let refusal = Policy::read(&file).unwrap_err();
            assert!(refusal.what.contains("by others than its owner"), "{refusal}");
        }
        open(&file, 0o640);
        open(&directory, 0o775);
        let refusal = Policy::read(&file).unwrap_err();
        assert!(refusal.what.contains("lies in a directory that can be written"), "{refusal}");
        open(&directory, 0o755);
        if nix::unistd::geteuid().is_root() {
            // A file that belongs to somebody who is not its administrator, though no other may write it; and its directory.
            for path in [&file, &directory] {
                std::os::unix::fs::chown(path, Some(4711), None).unwrap();
                let refusal = Policy::read(&file).unwrap_err();
                assert!(refusal.what.contains("belongs to the user 4711"), "{refusal}");
                std::os::unix::fs::chown(path, Some(0), None).unwrap();
            }
        }
        let policy = Policy::read(&file).unwrap();
        assert_eq!(policy.version.len(), 12);
        assert_eq!(policy.max_duration, Period::from_secs(60));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_file_of_the_package_says_what_holds_without_one() {
        let packaged: Policy = serde_json::from_str(include_str!("../../package/policy.json")).unwrap();
        assert_eq!(Policy { version: "none".to_owned(), ..packaged }, Policy::default());
    }

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
