//! A world: hosts as network namespaces, the services in them, and their end.
//!
//! When a world is dropped it compares every host with what it was, and fails the test if anything differs. A test
//! therefore asserts "left as found" without saying so.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cgroup;
use crate::fingerprint::{Fingerprint, Place};
use crate::host::Host;
use crate::netns::{self, Netns, PREFIX, Process, feed, look};
use crate::service::{self, Kind, Recipe, Service};
use crate::skip;
use crate::squall::MARK;
use crate::wait;
use crate::{failure, sweep};

/// How long a host may take to be again what it was, after everything of the test has ended.
const SETTLING: Duration = Duration::from_secs(5);

/// Hosts, services and the way back. See the module.
#[derive(Debug)]
pub struct World {
    /// The hosts; the first is joined to each of the others by a link of its own.
    pub hosts: Vec<Host>,
    /// A directory that everybody may read, removed with the world.
    pub directory: PathBuf,
    services: Mutex<Vec<Child>>,
    echoes: Arc<AtomicBool>,
    cgroups: Mutex<Vec<PathBuf>>,
    mounted: Mutex<Vec<PathBuf>>,
    before: Mutex<Vec<Fingerprint>>,
}

impl World {
    /// Makes a world of so many hosts.
    ///
    /// # Panics
    /// When it cannot be made: say [`needs!`](crate::needs!) first.
    pub fn new(hosts: usize) -> Self {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        SWEEP.call_once(|| {
            sweep::dead_worlds();
            failure::report_at_once();
        });
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        World::make(&name, hosts).unwrap_or_else(|error| panic!("cannot make the world `{name}`: {error:#}"))
    }

    fn make(name: &str, count: usize) -> Result<Self> {
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        // From here on a failure drops the world, which removes what is there already.
        let mut world = World {
            hosts: Vec::new(),
            directory: directory.clone(),
            services: Mutex::default(),
            echoes: Arc::default(),
            cgroups: Mutex::default(),
            mounted: Mutex::default(),
            before: Mutex::default(),
        };
        for number in 0..count {
            let netns = Arc::new(Netns::create(&format!("{name}-{number}"))?);
            let state = directory.join(format!("state-{number}"));
            fs::create_dir(&state)?;
            fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
            let (v4, v6) = address(number.max(1), if number == 0 { 1 } else { 2 });
            world.hosts.push(Host { netns, state, directory: directory.clone(), v4, v6 });
        }
        for number in 1..count {
            world.join(number)?;
        }
        world.settled();
        let before = world.look()?;
        *world.before.lock().expect("nobody else has it yet") = before;
        Ok(world)
    }

    /// A link between the first host and another. It never stands in the namespace of the tests.
    fn join(&self, number: usize) -> Result<()> {
        let (near, far) = (&self.hosts[0].netns, &self.hosts[number].netns);
        let there = format!("to{number}");
        look(
            Some(near),
            &["ip", "link", "add", &there, "type", "veth", "peer", "name", "to0", "netns", far.name()],
        )?;
        for (netns, link, side) in [(near, there.as_str(), 1), (far, "to0", 2)] {
            let (v4, v6) = address(number, side);
            // No link-local address: one less thing that appears by itself while a test runs.
            let steps = format!(
                "link set {link} addrgenmode none\nlink set {link} up\n\
                 address add {v4}/24 dev {link}\naddress add {v6}/64 dev {link} nodad\n"
            );
            feed(Some(netns), &["ip", "-batch", "-"], &steps)?;
        }
        // A moment passes until each end knows that the other is up: a fingerprint must not be taken before.
        for (netns, link) in [(near, there.as_str()), (far, "to0")] {
            wait::holds("a new link to carry", wait::PATIENCE, || {
                let said = look(Some(netns), &["ip", "link", "show", "dev", link, "up"]).unwrap_or_default();
                said.contains("LOWER_UP") && !said.contains("NO-CARRIER")
            });
        }
        Ok(())
    }

    /// Waits for the carrier of every link, and for the routes to its addresses: the kernel makes them when it finds the
    /// time.
    fn settled(&self) {
        for host in &self.hosts {
            wait::holds("every link to have a carrier", wait::PATIENCE, || {
                !host.look(&["ip", "-o", "link", "show", "up"]).contains("NO-CARRIER")
            });
            wait::holds("every address of its own to be local", wait::PATIENCE, || {
                let local = host.look(&["ip", "-6", "route", "show", "table", "local"]);
                let addresses = host.look(&["ip", "-6", "-o", "address", "show", "up"]);
                let addresses =
                    addresses.lines().filter_map(|line| line.split_once("inet6 ")?.1.split_once('/'));
                addresses.into_iter().all(|(address, _)| local.contains(&format!("local {address} ")))
            });
        }
    }

    /// Fingerprints: the namespace of the tests first, then every host.
    fn look(&self) -> Result<Vec<Fingerprint>> {
        let cgroups = self.cgroups.lock().expect("no test panics while it holds this").clone();
        let mut seen = vec![Fingerprint::of(Place {
            netns: None,
            world: &self.directory,
            directories: &[],
            cgroups: &cgroups,
        })?];
        for host in &self.hosts {
            let directories = [host.state.clone()];
            let place = Place {
                netns: Some(&host.netns),
                world: &self.directory,
                directories: &directories,
                cgroups: &[],
            };
            seen.push(Fingerprint::of(place)?);
        }
        Ok(seen)
    }

    /// Takes what is there now as what must be there at the end: for what the test itself has planted.
    ///
    /// # Panics
    /// When a host cannot be looked at.
    pub fn as_found(&self) {
        let now = self.look().unwrap_or_else(|error| panic!("cannot look at the hosts: {error:#}"));
        *self.before.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = now;
    }

    /// What differs from the start, for a reader; `None` when nothing does.
    ///
    /// # Panics
    /// When a host cannot be looked at.
    pub fn difference(&self) -> Option<String> {
        self.compare().unwrap_or_else(|error| panic!("cannot look at the hosts: {error:#}"))
    }

    fn compare(&self) -> Result<Option<String>> {
        let before = self.before.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let mut text = String::new();
        for (number, (before, after)) in before.iter().zip(self.look()?).enumerate() {
            if let Some(difference) = before.difference(&after) {
                let whose = match number.checked_sub(1) {
                    None => "the namespace of the tests".to_owned(),
                    Some(host) => format!("host {host} ({})", self.hosts[host].netns.name()),
                };
                text.push_str(&format!("{whose}:\n{difference}"));
            }
        }
        for process in self.leftovers() {
            text.push_str(&format!(
                "a process that should have ended: {} (pid {})\n",
                process.name, process.pid
            ));
        }
        Ok((!text.is_empty()).then_some(text))
    }

    /// Waits until the hosts are what they were; gives how long that took.
    ///
    /// # Panics
    /// After `within`, with the difference.
    #[track_caller]
    pub fn restored(&self, within: Duration) -> Duration {
        let begun = Instant::now();
        loop {
            let Some(difference) = self.difference() else {
                return begun.elapsed();
            };
            assert!(begun.elapsed() < within, "not as found after {within:?}:\n{difference}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Squall's processes of this world, wherever they went.
    fn leftovers(&self) -> Vec<Process> {
        let own = self.directory.display().to_string();
        let mut found = netns::processes();
        found.retain(|process| {
            process.program.starts_with("squall") && process.environment(MARK).as_deref() == Some(&own)
        });
        for host in &self.hosts {
            let known: Vec<i32> = found.iter().map(|process| process.pid).collect();
            found.extend(host.squalls().into_iter().filter(|process| !known.contains(&process.pid)));
        }
        found
    }

    /// A directory of its own below the world's.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn place(&self, name: &str) -> PathBuf {
        let place = self.directory.join(name);
        fs::create_dir_all(&place).unwrap_or_else(|error| panic!("`{}`: {error}", place.display()));
        place
    }

    /// A file below the world's directory.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.directory.join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        path.display().to_string()
    }

    /// nginx on every address of a host.
    pub fn nginx(&self, host: usize, port: u16) -> Service {
        self.start(host, |directory| service::nginx(directory, port))
    }

    /// Redis on every address of a host.
    pub fn redis(&self, host: usize, port: u16) -> Service {
        self.start(host, |directory| Ok(service::redis(directory, port)))
    }

    /// PostgreSQL on every address of a host.
    pub fn postgres(&self, host: usize, port: u16) -> Service {
        self.start(host, |directory| service::postgres(directory, port))
    }

    fn start(&self, host: usize, recipe: impl FnOnce(&Path) -> std::io::Result<Recipe>) -> Service {
        let netns = Arc::clone(&self.hosts[host].netns);
        let mut services = self.services.lock().expect("no test panics while it holds this");
        let directory = self.place(&format!("service-{}", services.len()));
        let recipe = recipe(&directory).unwrap_or_else(|error| panic!("cannot prepare a service: {error}"));
        let log = self.directory.join(format!("service-{}.log", services.len()));
        let child = recipe.command(&netns, &log).and_then(|mut command| command.spawn());
        let child =
            child.unwrap_or_else(|error| panic!("cannot start `{}`: {error}", recipe.program.display()));
        let pid = i32::try_from(child.id()).unwrap_or(0);
        services.push(child);
        drop(services);
        let service = Service { kind: recipe.kind, pid, port: recipe.port, netns };
        service::ready(&service, &log, || Process::of(pid).is_none_or(|process| process.state == 'Z'));
        service
    }

    /// An echo server for lines (TCP) and datagrams (UDP) on every address of a host.
    ///
    /// # Panics
    /// When its port cannot be bound.
    pub fn echo(&self, host: usize, port: u16) -> Service {
        let netns = Arc::clone(&self.hosts[host].netns);
        service::echo(&netns, port, &self.echoes)
            .unwrap_or_else(|error| panic!("cannot bind port {port}: {error}"));
        Service { kind: Kind::Echo, pid: 0, port, netns }
    }

    /// An OpenSSH server on every address of a host, with a key of its own; nobody can log in.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn sshd(&self, host: usize, port: u16) -> Process {
        let place = self.place("sshd");
        let key = place.join("key").display().to_string();
        // sshd insists on this directory, which Debian makes when it starts the service.
        fs::create_dir_all("/run/sshd").unwrap_or_else(|error| panic!("`/run/sshd`: {error}"));
        look(None, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key])
            .unwrap_or_else(|error| panic!("{error:#}"));
        let config =
            self.file("sshd/config", format!("Port {port}\nHostKey {key}\nPidFile none\nUsePAM no\n"));
        let server = self.program(host, None, &["/usr/sbin/sshd", "-D", "-e", "-f", &config]);
        wait::holds("sshd to listen", wait::PATIENCE, || {
            let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], port));
            crate::client::connect(&self.hosts[host].netns, loopback, crate::client::TIMEOUT).is_ok()
        });
        server
    }

    /// A program in the background of a host, ended with the world. It runs as the given user.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn program(&self, host: usize, user: Option<u32>, argv: &[&str]) -> Process {
        let mut command = self.hosts[host].netns.command("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = user {
            let user = user.to_string();
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        }
        let nowhere = std::process::Stdio::null;
        command.arg("--").args(argv).current_dir("/").stdin(nowhere()).stdout(nowhere());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start `{}`: {error}", argv.join(" ")));
        let pid = i32::try_from(child.id()).unwrap_or(0);
        self.services.lock().expect("no test panics while it holds this").push(child);
        let helpers = ["nsenter", "setpriv"];
        wait::until(&format!("`{}` to run", argv.join(" ")), wait::PATIENCE, || {
            Process::of(pid).filter(|process| !helpers.contains(&process.name.as_str()))
        })
    }

    /// A version 2 control group of the world's own; gives its path below the root, as `in: { cgroup: … }` wants it.
    ///
    /// # Panics
    /// When it cannot be made: say `needs!(Cgroup2)` first.
    pub fn cgroup(&self, name: &str) -> (String, PathBuf) {
        let root = skip::cgroup_root().expect("version 2 control groups are mounted");
        let world =
            self.directory.file_name().expect("the directory has a name").to_string_lossy().into_owned();
        let relative = format!("{world}-{name}");
        let path = root.join(&relative);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        self.cgroups.lock().expect("no test panics while it holds this").push(path.clone());
        self.as_found();
        (relative, path)
    }

    /// A control group that stands where systemd puts a unit, in a tree of the world's own, of version 2 or, with `old`,
    /// of version 1; gives the unit's name, which no other world has, and its directory.
    ///
    /// # Panics
    /// When it cannot be made: say `needs!(Cgroup2)` or `needs!(Cgroup1)` first.
    pub fn unit(&self, name: &str, old: bool) -> (String, PathBuf) {
        let root = if old { skip::systemd_root() } else { skip::cgroup_root() };
        let root = root.expect("control groups are mounted");
        let world =
            self.directory.file_name().expect("the directory has a name").to_string_lossy().into_owned();
        let top = root.join(format!("{world}-tree"));
        let unit = format!("{world}-{name}");
        let path = top.join("system.slice").join(&unit);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        let mut cgroups = self.cgroups.lock().expect("no test panics while it holds this");
        if !cgroups.contains(&top) {
            cgroups.push(top);
        }
        drop(cgroups);
        self.as_found();
        (unit, path)
    }

    /// Mounts a small file system in memory over a directory.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn tmpfs(&self, over: &Path, bytes: u64) {
        let options = format!("size={bytes},mode=0700");
        mount(Some("tmpfs"), over, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .unwrap_or_else(|error| panic!("cannot mount over `{}`: {error}", over.display()));
        self.mounted.lock().expect("no test panics while it holds this").push(over.to_owned());
        self.as_found();
    }

    /// Mounts a small file system over a directory that `fsfreeze` can hold still.
    ///
    /// # Panics
    /// When it cannot be made: say `needs!(Freezable)` first.
    pub fn ext4(&self, over: &Path) {
        let image = self.file("ext4", "");
        fs::OpenOptions::new()
            .write(true)
            .open(&image)
            .and_then(|file| file.set_len(16 << 20))
            .unwrap_or_else(|error| panic!("`{image}`: {error}"));
        let over_text = over.display().to_string();
        look(None, &["mkfs.ext4", "-q", "-F", &image]).unwrap_or_else(|error| panic!("{error:#}"));
        look(None, &["mount", "-o", "loop", &image, &over_text]).unwrap_or_else(|error| panic!("{error:#}"));
        self.mounted.lock().expect("no test panics while it holds this").push(over.to_owned());
        self.as_found();
    }

    /// Ends everything that the world started and removes what it made.
    fn end(&mut self) -> Vec<String> {
        let mut troubles = Vec::new();
        let own = self.directory.display().to_string();
        netns::end(|process| process.environment(MARK).as_deref() == Some(&own));
        self.echoes.store(true, Ordering::Relaxed);
        let services = self.services.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        for host in &self.hosts {
            if let Err(error) = host.netns.delete() {
                troubles.push(format!("cannot delete `{}`: {error:#}", host.netns.name()));
            }
        }
        for child in services {
            // Killed with its namespace; one that has left it is not, hence the second word.
            drop(child.kill());
            drop(child.wait());
        }
        for path in self.mounted.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            if let Err(error) = umount2(&*path, MntFlags::MNT_DETACH) {
                troubles.push(format!("cannot unmount `{}`: {error}", path.display()));
            }
        }
        for path in self.cgroups.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            if let Err(error) = cgroup::remove(path) {
                troubles.push(format!("cannot remove `{}`: {error}", path.display()));
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            troubles.push(format!("cannot remove `{}`: {error}", self.directory.display()));
        }
        troubles
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let begun = Instant::now();
        let mut verdict = self.compare();
        while !matches!(verdict, Ok(None)) && begun.elapsed() < SETTLING {
            thread::sleep(Duration::from_millis(50));
            verdict = self.compare();
        }
        let mut story = match verdict {
            Ok(None) => String::new(),
            Ok(Some(difference)) => format!("the hosts are not as they were found:\n{difference}"),
            Err(error) => format!("the hosts cannot be compared: {error:#}\n"),
        };
        for trouble in self.end() {
            story.push_str(&trouble);
            story.push('\n');
        }
        if story.is_empty() {
            return;
        }
        if thread::panicking() {
            eprintln!("{story}");
        } else {
            panic!("{story}");
        }
    }
}

/// The addresses of one side of the link between the first host and another.
fn address(link: usize, side: u16) -> (IpAddr, IpAddr) {
    let link = u16::try_from(link).unwrap_or(u16::MAX);
    let [_, low] = link.to_be_bytes();
    let [_, last] = side.to_be_bytes();
    (
        IpAddr::V4(Ipv4Addr::new(10, 77, low, last)),
        IpAddr::V6(Ipv6Addr::new(0xfd77, link, 0, 0, 0, 0, 0, side)),
    )
}
