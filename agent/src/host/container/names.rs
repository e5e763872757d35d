//! What containers are called, from the files in which their runtimes keep it.
//!
//! | runtime | where |
//! |---|---|
//! | Docker | `containers/<id>/config.v2.json` below the data root of each daemon that runs |
//! | Podman | `containers.json` beside the container's bundle, which its monitor names, or in the system's storage |
//! | CRI-O | annotations in `config.json` of the bundle, which the container's monitor names |
//! | containerd | annotations in `config.json` of the running task, below the state of each daemon that runs |
//!
//! Paths are looked up as the daemon sees them, which may be in a mount namespace of its own. A file that is not there or
//! cannot be read gives no name: the container is then known by its id alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use procfs::process::Process as Entry;
use serde::Deserialize;

use super::Container;

/// Where containerd keeps its state, unless it is told otherwise.
const CONTAINERD: &str = "/run/containerd";
/// What runs, below that: one directory per containerd namespace, one below it per container.
const TASKS: &str = "io.containerd.runtime.v2.task";
/// Podman's storage of the system.
const STORAGE: &str = "/var/lib/containers/storage";

/// The names of each of these containers.
pub fn of(containers: &[Container]) -> Vec<Vec<String>> {
    if containers.is_empty() {
        return Vec::new();
    }
    let (docker, tasks) = (docker_roots(), containerd_tasks());
    containers.iter().map(|container| names(container, &docker, &tasks)).collect()
}

fn names(container: &Container, docker: &[PathBuf], tasks: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    for root in docker {
        names.extend(docker_name(&root.join("containers").join(&container.id).join("config.v2.json")));
    }
    let bundle = bundle(container.init.pid);
    // `<storage>/<driver>-containers/<id>/userdata`.
    let beside = bundle.as_deref().and_then(|bundle| bundle.ancestors().nth(2)).map(Path::to_owned);
    for list in beside.into_iter().chain(podman_lists(Path::new(STORAGE))) {
        names.extend(podman_names(&list.join("containers.json"), &container.id));
    }
    names.extend(bundle.into_iter().flat_map(|bundle| annotated(&bundle.join("config.json"))));
    for space in tasks.iter().flat_map(|tasks| below(tasks)) {
        names.extend(annotated(&space.join(&container.id).join("config.json")));
    }
    if let Some((_, chosen)) = container.id.split_once('/') {
        names
            .extend(tasks.iter().flat_map(|tasks| annotated(&tasks.join(&container.id).join("config.json"))));
        names.extend([chosen.to_owned(), container.id.clone()]);
    }
    let mut known = BTreeSet::new();
    names.retain(|name| known.insert(name.clone()));
    names
}

/// The tasks of containerd whose ids somebody chose (`ctr run … web`): containerd's namespace and the id, with the control group that is
/// named after it. Where two of one name run, neither is known: it could be the other that is meant.
pub fn chosen() -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Config {
        linux: Linux,
    }
    #[derive(Deserialize)]
    struct Linux {
        #[serde(rename = "cgroupsPath")]
        group: String,
    }
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for task in containerd_tasks().iter().flat_map(|tasks| below(tasks)).flat_map(|space| below(&space)) {
        let mut ends = task.iter().rev().filter_map(|part| part.to_str());
        let (Some(id), Some(space)) = (ends.next(), ends.next()) else { continue };
        let Some(config) = read::<Config>(&task.join("config.json")).filter(|_| !super::is_id(id)) else {
            continue;
        };
        let group = config.linux.group.trim_start_matches('/');
        if group.rsplit('/').next() == Some(id) {
            groups.entry(format!("{space}/{id}")).or_default().insert(group.to_owned());
        }
    }
    let one = |(id, groups): (String, BTreeSet<String>)| {
        (groups.len() == 1).then(|| (groups.into_iter().next().unwrap_or_default(), id))
    };
    groups.into_iter().filter_map(one).collect()
}

fn below(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The value of an option on a command line, written `-x VALUE` or `-x=VALUE`.
fn option(arguments: &[String], names: &[&str]) -> Option<String> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        for name in names {
            match argument.strip_prefix(name) {
                Some("") => return arguments.next().cloned(),
                Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_owned()),
                _ => {}
            }
        }
    }
    None
}

/// The data roots of the Docker daemons that run, each as it is reached from here.
fn docker_roots() -> Vec<PathBuf> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "data-root", alias = "graph")]
        root: Option<String>,
    }
    let mut roots: Vec<PathBuf> = daemons("dockerd")
        .into_iter()
        .map(|Daemon { pid, arguments }| {
            let seen = |path: &str| PathBuf::from(format!("/proc/{pid}/root{path}"));
            let config =
                option(&arguments, &["--config-file"]).unwrap_or("/etc/docker/daemon.json".to_owned());
            let configured = || read::<Config>(&seen(&config)).and_then(|config| config.root);
            let root = option(&arguments, &["--data-root", "-g", "--graph"]).or_else(configured);
            seen(&root.unwrap_or("/var/lib/docker".to_owned()))
        })
        .collect();
    if roots.is_empty() {
        // Containers may live on while their daemon is being restarted.
        roots.push(PathBuf::from("/var/lib/docker"));
    }
    roots
}

/// A program that runs, with its command line.
struct Daemon {
    pid: i32,
    arguments: Vec<String>,
}

/// Those of this name.
fn daemons(name: &str) -> Vec<Daemon> {
    let named = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let pids = super::pids().unwrap_or_default().into_iter().filter(named);
    pids.map(|pid| {
        let arguments = Entry::new(pid).and_then(|entry| entry.cmdline()).unwrap_or_default();
        Daemon { pid, arguments }
    })
    .collect()
}

/// Where each containerd that runs keeps its tasks, as it is reached from here; and the usual place, as containers may live
/// on while it is being restarted.
fn containerd_tasks() -> Vec<PathBuf> {
    let tasks = |Daemon { pid, arguments }: Daemon| {
        let seen = |path: &str| PathBuf::from(format!("/proc/{pid}/root{path}"));
        let config =
            option(&arguments, &["--config", "-c"]).unwrap_or("/etc/containerd/config.toml".to_owned());
        let configured = || state(&std::fs::read_to_string(seen(&config)).ok()?);
        let state = option(&arguments, &["--state"]).or_else(configured);
        seen(&state.unwrap_or(CONTAINERD.to_owned())).join(TASKS)
    };
    let usual = Path::new(CONTAINERD).join(TASKS);
    daemons("containerd").into_iter().map(tasks).chain([usual]).collect()
}

/// The directory of its state in containerd's configuration (TOML): a key that stands before all tables.
fn state(config: &str) -> Option<String> {
    let mut top = config.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    top.find_map(|line| {
        let value = line.strip_prefix("state")?.trim_start().strip_prefix('=')?.trim();
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''))?;
        value[1..].split(quote).next().map(str::to_owned)
    })
}

/// Docker writes names with a slash before them.
fn docker_name(path: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Name")]
        name: String,
    }
    let name = read::<Config>(path)?.name;
    Some(name.strip_prefix('/').unwrap_or(&name).to_owned())
}

/// Where Podman keeps its lists below its storage: one directory for each storage driver that was ever used.
fn podman_lists(storage: &Path) -> Vec<PathBuf> {
    below(storage)
        .into_iter()
        .filter(|path| path.as_os_str().as_encoded_bytes().ends_with(b"-containers"))
        .collect()
}

fn podman_names(path: &Path, id: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Known {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let all: Vec<Known> = read(path).unwrap_or_default();
    all.into_iter().filter(|known| known.id == id).flat_map(|known| known.names).collect()
}

/// The bundle that the `conmon` which watches over a container was given, as it is reached from here.
fn bundle(init: i32) -> Option<PathBuf> {
    let parent = Entry::new(Entry::new(init).ok()?.stat().ok()?.ppid).ok()?;
    let arguments = (parent.stat().ok()?.comm == "conmon").then(|| parent.cmdline().ok())??;
    let bundle = option(&arguments, &["-b", "--bundle"])?;
    Some(PathBuf::from(format!("/proc/{}/root{bundle}", parent.pid)))
}

/// Names from the annotations of an OCI bundle: the container's, and with its pod's and the pod's namespace before it.
fn annotated(path: &Path) -> Vec<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    read::<Config>(path).map(|config| named(&config.annotations)).unwrap_or_default()
}

fn named(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let first = |keys: [&str; 2]| keys.iter().find_map(|key| annotations.get(*key)).cloned();
    if let Some(name) = annotations.get("nerdctl/name") {
        return vec![name.clone()];
    }
    let kind = first(["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
    // What only holds a pod's namespaces has no name of its own.
    if kind.is_some_and(|kind| kind == "sandbox") {
        return Vec::new();
    }
    let Some(name) = first(["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]) else {
        return Vec::new();
    };
    let pod = first(["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]);
    let space = first(["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]);
    let mut names = vec![name];
    for before in [pod, space].into_iter().flatten() {
        names.push(format!("{before}/{}", names.last().expect("it begins with one")));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_read_in_both_spellings() {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let root = |text: &str| option(&line(text), &["--data-root", "-g"]);
        assert_eq!(root("dockerd --bridge=none --data-root /srv/docker").as_deref(), Some("/srv/docker"));
        assert_eq!(root("dockerd --data-root=/srv/docker").as_deref(), Some("/srv/docker"));
        assert_eq!(root("dockerd --data-root-elsewhere /srv"), None);
        assert_eq!(root("dockerd --data-root"), None);
    }

    #[test]
    fn containerds_state_is_where_its_configuration_says() {
        let config =
            "version = 2\nroot = \"/srv/root\"\n  state = \"/srv/state\" # here\n[debug]\nstate = \"no\"\n";
        assert_eq!(state(config).as_deref(), Some("/srv/state"));
        assert_eq!(state("state='/srv/state'").as_deref(), Some("/srv/state"));
        assert_eq!(state("version = 2\n[plugins]\n  state = \"/elsewhere\"\n"), None);
        assert_eq!(state("statement = \"/elsewhere\"\nstate = 5"), None);
        assert!(containerd_tasks().iter().any(|tasks| tasks.starts_with(CONTAINERD)), "also where none runs");
    }

    #[test]
    fn a_container_of_a_pod_has_three_names_and_its_sandbox_none() {
        let annotations = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let pod = [
            ("io.kubernetes.cri.sandbox-name", "shop-7d9f"),
            ("io.kubernetes.cri.sandbox-namespace", "prod"),
            ("io.kubernetes.cri.container-name", "app"),
        ];
        assert_eq!(named(&annotations(&pod)), ["app", "shop-7d9f/app", "prod/shop-7d9f/app"]);
        let sandbox = [("io.kubernetes.cri.container-type", "sandbox"), pod[0], pod[1]];
        assert!(named(&annotations(&sandbox)).is_empty());
        assert!(named(&annotations(&[("io.kubernetes.cri-o.ContainerType", "container")])).is_empty());
    }

    #[test]
    fn files_of_docker_and_podman_give_names_and_damaged_ones_none() {
        let directory = std::env::temp_dir().join(format!("squall-names-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let docker =
            file("config.v2.json", r#"{"State":{"Running":true},"ID":"aa","Name":"/shop","Driver":"vfs"}"#);
        assert_eq!(docker_name(&docker).as_deref(), Some("shop"));
        let podman = file("containers.json", r#"[{"id":"aa","names":["shop"],"layer":"x"},{"id":"bb"}]"#);
        assert_eq!(podman_names(&podman, "aa"), ["shop"]);
        assert!(podman_names(&podman, "bb").is_empty());
        std::fs::create_dir(directory.join("vfs-containers")).unwrap();
        std::fs::create_dir(directory.join("vfs-layers")).unwrap();
        assert_eq!(podman_lists(&directory), [directory.join("vfs-containers")]);
        let torn = file("torn.json", r#"[{"id":"aa","na"#);
        assert!(
            podman_names(&torn, "aa").is_empty()
                && docker_name(&torn).is_none()
                && annotated(&torn).is_empty()
        );
        assert!(docker_name(&directory.join("absent")).is_none());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
