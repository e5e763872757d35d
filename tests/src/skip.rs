//! What a test needs of the machine, and a loud skip where it is missing.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::netns;

/// Where version 2 control groups are mounted: the hybrid layout, or the pure one.
pub const CGROUP_ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// The server of systemd's journal.
pub const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// Whether the kernel has filters of system calls: what reads from the network then bears one.
pub fn has_filters() -> bool {
    Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

/// Something that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The real root user: servers change their user, and that needs more than one mapped id.
    Root,
    /// nf_tables in the kernel and `nft` to look at it.
    Nftables,
    /// iptables' commands over nf_tables.
    IptablesNft,
    /// NFQUEUE in the kernel, or as a module that can be loaded.
    Queue,
    /// `htb` in the kernel, and `tc` to look at it.
    Htb,
    /// `ifb` in the kernel, and what leads packets into it.
    Ifb,
    /// `netem` in the kernel, and `tc` to set it up beside ours.
    Netem,
    /// A mounted version 2 control group hierarchy.
    Cgroup2,
    /// systemd's hierarchy of version 1 control groups, mounted.
    Cgroup1,
    /// The right to load BPF programs.
    Bpf,
    /// Time namespaces.
    TimeNamespaces,
    /// Unprivileged user namespaces.
    UserNamespaces,
    /// The OpenSSH server. The tests install it in CI alone: a machine of somebody must not get a remote login by testing.
    Sshd,
    /// A file system that can be held still: a loop device with ext4.
    Freezable,
    /// A Docker daemon that can be started by hand, and a static busybox for its containers.
    Docker,
    /// containerd with `ctr` and `runc`, and a static busybox for its containers.
    Containerd,
    /// Podman with `runc`, and a static busybox for its containers.
    Podman,
    /// `dpkg`, to build, install and remove a package below another root.
    Dpkg,
    /// `systemd-analyze`, which needs no systemd that runs.
    SystemdAnalyze,
    /// nginx.
    Nginx,
    /// systemd's journal: its server and `journalctl`, neither of which needs systemd to run.
    Journald,
    /// Prometheus.
    Prometheus,
    /// Python, without any package.
    Python,
    /// Redis.
    Redis,
    /// PostgreSQL's server, and its user.
    Postgres,
    /// Chromium, which needs no display here.
    Chromium,
}

impl Need {
    /// Why it is missing; `None` when it is there.
    pub fn missing(self) -> Option<String> {
        let unless = |there: bool, why: &str| (!there).then(|| why.to_owned());
        match self {
            Need::Root => {
                unless(is_root(), "needs root: network namespaces and servers that change their user")
            }
            Need::Nftables => {
                unless(netns::look(None, &["nft", "list", "tables"]).is_ok(), "needs nf_tables and `nft`")
            }
            Need::IptablesNft => {
                unless(found("iptables-nft-restore"), "needs iptables over nf_tables (package `iptables`)")
            }
            Need::Queue => unless(
                Path::new("/proc/net/netfilter/nfnetlink_queue").exists() || module("nfnetlink_queue"),
                "needs NFQUEUE (CONFIG_NETFILTER_NETLINK_QUEUE, module `nfnetlink_queue`)",
            ),
            Need::Htb => unless(takes(&["htb"]), "needs `htb` (CONFIG_NET_SCH_HTB) and `tc`"),
            Need::Ifb => unless(
                leads_through_a_device(),
                "needs `ifb`, `fwd` and `fib` of nftables (CONFIG_IFB, CONFIG_NFT_FWD_NETDEV, CONFIG_NFT_FIB_NETDEV)",
            ),
            Need::Netem => {
                unless(takes(&["netem", "delay", "1ms"]), "needs `netem` (CONFIG_NET_SCH_NETEM) and `tc`")
            }
            Need::Cgroup2 => {
                unless(cgroup_root().is_some(), "needs a mounted version 2 control group hierarchy")
            }
            Need::Cgroup1 => unless(
                systemd_root().is_some(),
                "needs systemd's version 1 control group hierarchy, which this host has given up",
            ),
            Need::Bpf => unless(
                has_capability(39) || has_capability(21),
                "needs CAP_BPF: the scope's mark is set by a BPF program",
            ),
            Need::TimeNamespaces => unless(Path::new("/proc/self/ns/time").exists(), "needs time namespaces"),
            Need::UserNamespaces => unless(
                unprivileged_unshare(),
                "needs unprivileged user namespaces, which this system forbids",
            ),
            Need::Sshd => unless(
                found("sshd") && found("ssh-keygen"),
                "needs the OpenSSH server, which the tests install in CI alone (package `openssh-server`)",
            ),
            Need::Freezable => unless(
                Path::new("/dev/loop-control").exists() && found("mkfs.ext4") && found("fsfreeze"),
                "needs loop devices, `mkfs.ext4` and `fsfreeze`",
            ),
            Need::Docker => unless(
                is_root() && crate::docker::available(),
                "needs Docker and busybox (packages `docker.io`, `busybox-static`)",
            ),
            Need::Containerd => unless(
                is_root() && crate::containerd::available(),
                "needs containerd, runc and busybox (packages `containerd`, `runc`, `busybox-static`)",
            ),
            Need::Podman => unless(
                is_root() && crate::podman::available(),
                "needs Podman, runc and busybox (packages `podman`, `runc`, `busybox-static`)",
            ),
            Need::Dpkg => unless(found("dpkg") && found("dpkg-deb"), "needs `dpkg` (a Debian system)"),
            Need::SystemdAnalyze => {
                unless(found("systemd-analyze"), "needs `systemd-analyze` (package `systemd`)")
            }
            Need::Nginx => unless(found("nginx"), "needs nginx (package `nginx-light`)"),
            Need::Journald => unless(
                Path::new(JOURNALD).exists() && found("journalctl"),
                "needs systemd's journal (package `systemd`)",
            ),
            Need::Prometheus => unless(found("prometheus"), "needs Prometheus (package `prometheus`)"),
            Need::Python => unless(found("python3"), "needs `python3` (package `python3`)"),
            Need::Redis => unless(found("redis-server"), "needs Redis (package `redis-server`)"),
            Need::Chromium => unless(found("chromium"), "needs a browser (package `chromium`)"),
            Need::Postgres => unless(
                crate::service::postgres_programs().is_some(),
                "needs PostgreSQL (package `postgresql`)",
            ),
        }
    }
}

/// Whether the tests run as root of the machine, not of a user namespace.
pub fn is_root() -> bool {
    let initial = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    nix::unistd::geteuid().is_root() && initial
}

/// The mount point of version 2 control groups.
pub fn cgroup_root() -> Option<&'static Path> {
    CGROUP_ROOTS.iter().map(Path::new).find(|root| root.join("cgroup.procs").exists())
}

/// Whether the kernel has an `ifb` and sends what enters there: tried in a network namespace that goes with its process.
fn leads_through_a_device() -> bool {
    const TRIAL: &str = "ip link add trial type ifb && nft -f - <<'END'
table netdev trial {
    chain in {
        type filter hook ingress device lo priority 0;
        fib daddr type != unicast fwd to trial
    }
}
END";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", TRIAL]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether the kernel takes a queueing discipline: in a network namespace that goes with the one process in it.
fn takes(discipline: &[&str]) -> bool {
    let mut command = Command::new("unshare");
    command.args(["--net", "tc", "qdisc", "add", "dev", "lo", "root"]).args(discipline);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The mount point of systemd's hierarchy of version 1 control groups.
pub fn systemd_root() -> Option<&'static Path> {
    Some(Path::new("/sys/fs/cgroup/systemd")).filter(|root| root.join("tasks").exists())
}

/// Whether a kernel module could be loaded; it is not.
fn module(name: &str) -> bool {
    let mut command = Command::new("modprobe");
    command.args(["--dry-run", "--quiet", name]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_some_and(|set| set >> number & 1 == 1)
}

fn unprivileged_unshare() -> bool {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "unshare"]);
        command
    } else {
        Command::new("unshare")
    };
    command.args(["-Urn", "ip", "link", "set", "lo", "up"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether a program stands in one of the system's directories.
pub fn found(program: &str) -> bool {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists())
}

/// Says loudly that the running test is skipped, and notes it for the summary. Use [`skip!`](crate::skip!).
pub fn log(reason: &str) {
    let current = thread::current();
    log_as(current.name().unwrap_or("a test"), reason);
}

/// [`log`] for a test that does not run on a thread of its name.
pub fn log_as(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    let Some(path) = std::env::var_os("SQUALL_SKIP_LOG") else {
        return;
    };
    let written = OpenOptions::new().create(true).append(true).open(&path);
    // One write, so that lines of parallel tests do not mix.
    let written = written.and_then(|mut file| file.write_all(format!("{test}\t{reason}\n").as_bytes()));
    if let Err(error) = written {
        panic!("cannot note a skip in `{}`: {error}", path.display());
    }
}

/// Skips the running test: loud, noted, returns.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        $crate::skip::log(&format!($($reason)+));
        return;
    }};
}

/// Skips the running test unless the machine has all of these: `needs!(Root, Nginx)`.
#[macro_export]
macro_rules! needs {
    ($($need:ident),+ $(,)?) => {
        $(if let Some(why) = $crate::skip::Need::$need.missing() { $crate::skip!("{why}"); })+
    };
}
