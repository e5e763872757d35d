//! Containers that run: found by the control groups of their processes, without any runtime's interface.
//!
//! Every runtime puts the container's 64-digit id into the path of its control group; where somebody chose another id (`ctr`), containerd's
//! task names the group. From the processes there follow the container's first process, its network namespace, and where its runtime keeps what it is called (`names`).

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use procfs::process::{Process as Entry, Stat};
use squall_experiments::protocol::Refusal;

use super::process::{Cgroup, Target};

/// How many characters of an id are enough: what runtimes print.
const SHORT: usize = 12;
/// How many an id has.
const WHOLE: usize = 64;

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits; where somebody chose another id, containerd's namespace before it (`default/web`).
    pub id: String,
    /// What it is called: in a pod also with the pod's name before it.
    pub names: Vec<String>,
    /// Its oldest process whose parent is not its own.
    pub init: Target,
    /// Its processes, by pid.
    pub pids: BTreeSet<i32>,
    /// The inode of its network namespace.
    pub network: u64,
    /// Its control group of version 2 below the root, where it has one of its own there.
    group: Option<String>,
}

/// The containers of this machine.
#[derive(Debug)]
pub struct Containers(Vec<Container>);

/// What is seen of one process in a container.
struct Seen {
    stat: Stat,
    /// The ids on its paths, and the control group of version 2 that each names.
    ids: BTreeMap<String, Option<String>>,
    pid_namespace: Option<u64>,
}

impl Containers {
    /// Looks at `/proc`. Containers whose processes cannot be looked at are left out.
    pub fn running() -> Result<Self, Refusal> {
        let pids = pids().map_err(|error| Refusal::bare(format!("cannot read `/proc`: {error}")))?;
        // Most processes are in no container: of those nothing else is read.
        let (mut seen, mut rest) = (Vec::new(), Vec::new());
        let chosen = names::chosen();
        for pid in pids {
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let ids = ids(&groups, &chosen);
            if ids.is_empty() {
                rest.push(pid);
            } else {
                seen.extend(look(pid, ids));
            }
        }
        let names: BTreeSet<&String> = seen.iter().flat_map(|seen| seen.ids.keys()).collect();
        let mut containers: Vec<Container> = names.into_iter().filter_map(|id| one(id, &seen)).collect();
        strays(&mut containers, &seen, &rest);
        let names = names::of(&containers);
        for (container, names) in containers.iter_mut().zip(names) {
            container.names = names;
        }
        Ok(Containers(containers))
    }

    /// The one with this name, or whose id begins so. None and several are refused, naming what there is.
    pub fn find(&self, wanted: &str) -> Result<&Container, Refusal> {
        let begins_id = wanted.len() >= SHORT && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        let matches = |container: &&Container| {
            container.names.iter().any(|name| name == wanted)
                || begins_id && is_id(&container.id) && container.id.starts_with(&wanted.to_ascii_lowercase())
        };
        let found: Vec<&Container> = self.0.iter().filter(matches).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => {
                let all: Vec<String> = self.0.iter().map(Container::to_string).collect();
                let help = if all.is_empty() {
                    "no container of Docker, Podman, containerd or CRI-O runs on this host".to_owned()
                } else {
                    format!(
                        "names are exact, ids at least {SHORT} characters long; there are: {}",
                        all.join(", ")
                    )
                };
                Err(Refusal::new(format!("no running container is called `{wanted}`"), help))
            }
            several => {
                let all: Vec<&str> = several.iter().map(|container| container.short()).collect();
                Err(Refusal::new(
                    format!("{} running containers are called `{wanted}`", several.len()),
                    format!("choose one by its id: {}", all.join(", ")),
                ))
            }
        }
    }

    /// The containers in a network namespace.
    pub fn within(&self, network: u64) -> impl Iterator<Item = &Container> {
        self.0.iter().filter(move |container| container.network == network)
    }
}

impl Container {
    /// The container with this name, or whose id begins so.
    pub fn find(wanted: &str) -> Result<Self, Refusal> {
        Containers::running()?.find(wanted).cloned()
    }

    /// So much of its id as one may give to name it.
    fn short(&self) -> &str {
        if is_id(&self.id) { &self.id[..SHORT] } else { &self.id }
    }

    /// Its processes, sorted by pid; those that have ended meanwhile are left out.
    pub fn processes(&self) -> Vec<Target> {
        self.pids.iter().filter_map(|pid| Target::of(*pid)).filter(Target::alive).collect()
    }

    /// Its control group of version 2, where it has one that holds nobody else.
    pub fn cgroup(&self) -> Option<Cgroup> {
        Cgroup::find(self.group.as_deref()?).ok()
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names.first() {
            Some(name) => write!(f, "{name} ({})", self.short()),
            None => f.write_str(self.short()),
        }
    }
}

fn inode(path: String) -> Option<u64> {
    std::fs::metadata(path).ok().map(|found| found.ino())
}

fn pid_namespace(pid: i32) -> Option<u64> {
    inode(format!("/proc/{pid}/ns/pid"))
}

/// Every process of this machine, by pid.
fn pids() -> std::io::Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn look(pid: i32, ids: BTreeMap<String, Option<String>>) -> Option<Seen> {
    let stat = Entry::new(pid).and_then(|entry| entry.stat()).ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then(|| Seen { stat, ids, pid_namespace: pid_namespace(pid) })
}

/// The container with this id, of what was seen.
fn one(id: &str, seen: &[Seen]) -> Option<Container> {
    let mine = seen.iter().filter(|seen| seen.ids.contains_key(id));
    let pids: BTreeSet<i32> = mine.clone().map(|seen| seen.stat.pid).collect();
    let outside = mine.filter(|seen| !pids.contains(&seen.stat.ppid));
    let Seen { stat, ids, .. } = outside.min_by_key(|seen| (seen.stat.starttime, seen.stat.pid))?;
    Some(Container {
        id: id.to_owned(),
        names: Vec::new(),
        init: Target { pid: stat.pid, start: stat.starttime, name: stat.comm.clone() },
        network: inode(format!("/proc/{}/ns/net", stat.pid))?,
        group: ids.get(id).cloned().flatten(),
        pids,
    })
}

/// Processes that have left their container's control group are still inside by its pid namespace, where it is known whose
/// that is: not the agent's, and not shared by several containers of a pod.
fn strays(containers: &mut [Container], seen: &[Seen], rest: &[i32]) {
    let own = inode("/proc/self/ns/pid".to_owned());
    let space = |init: i32| seen.iter().find(|seen| seen.stat.pid == init)?.pid_namespace;
    let spaces: Vec<Option<u64>> = containers
        .iter()
        .map(|container| space(container.init.pid).filter(|space| Some(*space) != own))
        .collect();
    if spaces.iter().all(Option::is_none) {
        return;
    }
    for pid in rest {
        let Some(space) = pid_namespace(*pid) else { continue };
        let mut owners = (0..spaces.len()).filter(|index| spaces[*index] == Some(space));
        if let (Some(owner), None) = (owners.next(), owners.next()) {
            containers[owner].pids.insert(*pid);
        }
    }
}

/// The ids on the paths of a `/proc/<pid>/cgroup`, outermost container first on each; with the path up to the id where
/// the hierarchy is version 2. `chosen` are ids by the control group that has them.
fn ids(groups: &str, chosen: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(_), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let mut reached = String::new();
        for part in Path::new(path).iter().filter_map(|part| part.to_str()).filter(|part| *part != "/") {
            reached = if reached.is_empty() { part.to_owned() } else { format!("{reached}/{part}") };
            if let Some(id) = id_in(part).or_else(|| chosen.get(&reached).map(String::as_str)) {
                let group = found.entry(id.to_owned()).or_default();
                if number == "0" {
                    *group = Some(reached.clone());
                }
            }
        }
    }
    found
}

/// The id in one part of a control group's path: alone (Docker and containerd without systemd), with the runtime before
/// it (`libpod-`), and as a scope of systemd (`docker-….scope`). Monitors of containers have other words before the id.
fn id_in(part: &str) -> Option<&str> {
    const RUNTIMES: [&str; 5] = ["docker-", "libpod-", "cri-containerd-", "crio-", "nerdctl-"];
    let part = part.strip_suffix(".scope").unwrap_or(part);
    // A slice of systemd's where the runtime makes directories: `kubepods-pod1.slice:cri-containerd:<id>`.
    let part = part.rsplit(':').next().unwrap_or(part);
    let id = RUNTIMES.iter().find_map(|runtime| part.strip_prefix(runtime)).unwrap_or(part);
    is_id(id).then_some(id)
}

fn is_id(id: &str) -> bool {
    id.len() == WHOLE && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "0b1b2b3b4b5b6b7b8b9b0b1b2b3b4b5b6b7b8b9b0b1b2b3b4b5b6b7b8b9b0b1b";

    #[test]
    fn every_runtime_writes_its_ids_in_its_own_way() {
        let own = |path: &str| ids(&format!("0::{path}\n"), &BTreeMap::new()).into_iter().next();
        for (path, group) in [
            (format!("/docker/{A}"), format!("docker/{A}")),
            (format!("/system.slice/docker-{A}.scope"), format!("system.slice/docker-{A}.scope")),
            (format!("/docker/{A}/init.scope"), format!("docker/{A}")),
            (format!("/machine.slice/libpod-{A}.scope/container"), format!("machine.slice/libpod-{A}.scope")),
            (format!("/libpod_parent/libpod-{A}"), format!("libpod_parent/libpod-{A}")),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-{A}.scope"
                ),
                format!(
                    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-{A}.scope"
                ),
            ),
            (format!("/kubepods/besteffort/pod1/{A}"), format!("kubepods/besteffort/pod1/{A}")),
            (format!("/kubepods.slice/crio-{A}.scope"), format!("kubepods.slice/crio-{A}.scope")),
            (format!("/k8s.io/{A}"), format!("k8s.io/{A}")),
            (
                format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{A}"),
                format!("system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{A}"),
            ),
        ] {
            assert_eq!(own(&path), Some((A.to_owned(), Some(group))), "{path}");
        }
    }

    #[test]
    fn monitors_and_other_groups_are_no_containers() {
        for path in [
            format!("/machine.slice/libpod-conmon-{A}.scope"),
            format!("/kubepods.slice/crio-conmon-{A}.scope"),
            "/system.slice/docker.service".to_owned(),
            format!("/docker/{}", &A[..12]),
            format!("/docker/{}", A.to_uppercase()),
            "/".to_owned(),
        ] {
            assert!(ids(&format!("0::{path}\n"), &BTreeMap::new()).is_empty(), "{path}");
        }
    }

    #[test]
    fn of_the_hierarchies_only_version_2_names_a_group_and_a_container_may_hold_another() {
        let found = ids(
            &format!("4:memory:/docker/{A}\n1:name=systemd:/docker/{A}/docker/{B}\n0::/\n"),
            &BTreeMap::new(),
        );
        assert_eq!(found, BTreeMap::from([(A.to_owned(), None), (B.to_owned(), None)]));
    }

    #[test]
    fn an_id_that_somebody_chose_is_known_by_its_whole_control_group() {
        let chosen = BTreeMap::from([("default/web".to_owned(), "default/web".to_owned())]);
        let own = |path: &str| ids(&format!("0::{path}\n"), &chosen).into_iter().next();
        let web = Some(("default/web".to_owned(), Some("default/web".to_owned())));
        assert_eq!(own("/default/web"), web);
        assert_eq!(own("/default/web/child"), web);
        for path in ["/default", "/default/webs", "/other/web", "/a/default/web"] {
            assert_eq!(own(path), None, "{path}");
        }
        let all =
            Containers(vec![container("default/web", &["web", "default/web"]), container(A, &["shop"])]);
        assert_eq!(all.find("web").unwrap().id, "default/web");
        assert_eq!(all.find("default/web").unwrap().to_string(), "web (default/web)");
        assert!(all.find("default/w").is_err());
    }

    fn container(id: &str, names: &[&str]) -> Container {
        Container {
            id: id.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            init: Target { pid: 1, start: 0, name: "init".into() },
            pids: BTreeSet::new(),
            network: 1,
            group: None,
        }
    }

    #[test]
    fn a_container_is_found_by_its_exact_name_or_the_beginning_of_its_id() {
        let all = Containers(vec![container(A, &["shop"]), container(B, &["shop-db", "prod/db"])]);
        assert_eq!(all.find("shop").unwrap().id, A);
        assert_eq!(all.find("prod/db").unwrap().id, B);
        assert_eq!(all.find(&B[..12]).unwrap().id, B);
        assert_eq!(all.find(&B.to_uppercase()).unwrap().id, B);
        for wanted in ["sho", "db", &B[..11], ""] {
            let refusal = all.find(wanted).unwrap_err();
            assert!(refusal.help.unwrap().contains("shop (aaaaaaaaaaaa), shop-db (0b1b2b3b4b5b)"));
        }
    }

    #[test]
    fn a_name_that_two_have_is_refused_with_their_ids() {
        let all = Containers(vec![container(A, &["app"]), container(B, &["app"])]);
        let refusal = all.find("app").unwrap_err();
        assert_eq!(refusal.what, "2 running containers are called `app`");
        assert!(refusal.help.unwrap().ends_with("aaaaaaaaaaaa, 0b1b2b3b4b5b"));
    }
}
