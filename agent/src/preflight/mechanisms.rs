//! The mechanisms that faults are made of, each tried without changing anything that anybody could see.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use serde::Serialize;

use crate::host::netlink::Socket;
use crate::host::netns::Netns;
use crate::host::process::Cgroup;
use crate::host::qdisc::{self, htb, ifb, netem};
use crate::host::queue::Queue;
use crate::host::rule::{Reject, Rule};
use crate::host::sockets::Sockets;
use crate::host::table::Table;
use crate::host::{nft, redirect, sys};
use crate::seccomp;

/// One thing that faults need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// An nftables table that its socket owns.
    Table,
    /// Rules that answer packets with an error.
    Rejects,
    /// Rules that ask in which control group the socket of a packet was made.
    SocketGroups,
    /// Rules that ask for the mark of a packet's socket.
    SocketMarks,
    /// Rules that hand packets over, and queues to read them from.
    Queues,
    /// Sockets that send whole packets.
    RawSockets,
    /// A thread that runs before others.
    RealTime,
    /// The kernel's own line.
    Htb,
    /// The kernel's own bad network.
    Netem,
    /// Leading what enters through a device.
    Entry,
    /// Listing and destroying sockets.
    SocketDiagnosis,
    /// Processes that cannot be mistaken.
    Pidfd,
    /// Stopping processes so that they go on by themselves.
    Ptrace,
    /// Control groups of version 2.
    Cgroup,
    /// Marks on sockets.
    Marks,
    /// New connections led elsewhere.
    Redirects,
    /// Entering other network namespaces.
    Namespaces,
    /// System calls that processes without privileges give up. No fault needs it.
    Filters,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// What was tried.
    pub mechanism: Mechanism,
    /// The same in words.
    pub what: &'static str,
    /// Whether it works here.
    pub works: bool,
    /// What was seen, or what is missing and what brings it.
    pub detail: String,
}

/// What brings a module of the kernel, on the systems that people use.
pub fn brings(module: &str) -> String {
    format!(
        "load `{module}`; Debian has it in the kernel's own package, Ubuntu in `linux-modules-extra`, Fedora and RHEL in \
         `kernel-modules-extra`"
    )
}

/// Tries every mechanism.
pub fn findings() -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |mechanism, what, tried: Result<String, String>| {
        let works = tried.is_ok();
        findings.push(Finding { mechanism, what, works, detail: tried.unwrap_or_else(|missing| missing) });
    };
    add(Mechanism::Table, "nftables table owned by a socket (Linux 5.12)", nftables());
    add(Mechanism::Rejects, "rules that refuse (nftables' `reject`)", rejects());
    add(
        Mechanism::SocketGroups,
        "rules by control group (nftables' `socket cgroupv2`, Linux 5.13)",
        takes(Rule::commented(TRIAL).cgroup(1, 1), "nft_socket"),
    );
    add(
        Mechanism::SocketMarks,
        "rules by socket mark (nftables' `socket mark`)",
        takes(Rule::commented(TRIAL).socket_mark(1), "nft_socket"),
    );
    add(Mechanism::Queues, "packet queues (nfnetlink_queue)", queues());
    add(Mechanism::RawSockets, "raw sockets", raw_sockets());
    add(Mechanism::RealTime, "real-time priority (SCHED_FIFO)", urgency());
    add(Mechanism::Htb, "queueing discipline `htb`", discipline(htb::KIND));
    add(Mechanism::Netem, "queueing discipline `netem`", discipline(netem::KIND));
    add(Mechanism::Entry, "what enters led through a device (`ifb`; nftables' `fwd` and `fib`)", entry());
    add(Mechanism::SocketDiagnosis, "socket diagnosis (CONFIG_INET_DIAG_DESTROY)", socket_diagnosis());
    add(Mechanism::Pidfd, "pidfd", pidfd());
    add(Mechanism::Ptrace, "ptrace, else SIGSTOP", ptrace());
    add(Mechanism::Cgroup, "control groups of version 2", cgroup());
    add(Mechanism::Marks, "BPF on sock_create, pidfd_getfd", marks());
    add(Mechanism::Redirects, "BPF on connect and getpeername", redirects());
    add(Mechanism::Namespaces, "other network namespaces (setns)", namespaces());
    add(Mechanism::Filters, "filters of system calls (seccomp)", filters());
    findings
}

/// Asked for in a way that the kernel refuses after it has looked for it.
fn discipline(kind: &'static str) -> Result<String, String> {
    match qdisc::kinds(|| ()).get(kind) {
        Some(Ok(())) => Ok("the kernel knows it".to_owned()),
        Some(Err(error)) => Err(format!("{error}; {}", brings(&format!("sch_{kind}")))),
        None => Err("it could not be asked for".to_owned()),
    }
}

/// Asked for in ways that make nothing.
fn entry() -> Result<String, String> {
    match qdisc::kinds(|| ()).get(ifb::KIND) {
        Some(Ok(())) => Ok("the kernel can do it".to_owned()),
        Some(Err(error)) => {
            Err(format!("{error}; {}, `nft_fwd_netdev`, `nft_fib_netdev`", brings(ifb::KIND)))
        }
        None => Err("it could not be asked for".to_owned()),
    }
}

/// Goes where it is already.
fn namespaces() -> Result<String, String> {
    let entered = Netns::here().and_then(|here| here.enter(|| ()));
    entered.map_err(|error| format!("{error}; it needs CAP_SYS_ADMIN"))?;
    Ok("they can be entered".to_owned())
}

/// A transaction that makes an owned table and is refused at its end, so that nothing is ever committed.
fn nftables() -> Result<String, String> {
    let help = "run as root (CAP_NET_ADMIN) on a kernel with nf_tables";
    let mut socket =
        Socket::open(SockProtocol::NetlinkNetFilter).map_err(|error| format!("{error}; {help}"))?;
    let name = "squall-preflight";
    let messages = vec![nft::new_owned_table(name), nft::delete_table("squall-preflight-absent")];
    match socket.request(nft::batch(messages)) {
        Err(error) if error.errno() == Errno::ENOENT => Ok("owned tables work".to_owned()),
        Err(error) => Err(format!("{error}; {help}")),
        Ok(()) => Err("the kernel accepted a transaction that it must refuse".to_owned()),
    }
}

/// The comment of a rule that is tried and never committed.
const TRIAL: &str = "squall: a trial";

fn takes(rule: Rule, module: &str) -> Result<String, String> {
    let taken = Table::open().and_then(|mut table| table.takes(rule));
    taken.map_err(|error| format!("{error}; {}", brings(module)))?;
    Ok("the kernel takes them".to_owned())
}

/// Every way to refuse, of which a kernel may have some.
fn rejects() -> Result<String, String> {
    for how in [Reject::TcpReset, Reject::PortUnreachable, Reject::HostUnreachable, Reject::AdminProhibited] {
        let rule = Rule::commented(TRIAL);
        let rule = if how == Reject::TcpReset { rule.transport(6) } else { rule };
        takes(rule.reject(how), "nft_reject_inet")?;
    }
    Ok("the kernel takes them: resets, and three errors of ICMP and ICMPv6".to_owned())
}

/// A rule that queues is tried in a transaction that is never committed; a queue is bound and let go, named by no rule.
fn queues() -> Result<String, String> {
    let mut table = Table::open().map_err(|error| error.to_string())?;
    let how = match (table.queues(true), table.queues(false)) {
        (Ok(()), _) => "by the kernel's own expression",
        (_, Ok(())) => "by iptables' target (the kernel has no `nft_queue`)",
        (Err(expression), Err(target)) => {
            return Err(format!(
                "no rule can queue (expression: {expression}; target: {target}); load `nft_queue`, or `xt_NFQUEUE` with \
                 `nft_compat`"
            ));
        }
    };
    let queue = Queue::bind().map_err(|refusal| format!("{refusal}; {}", brings("nfnetlink_queue")))?;
    Ok(format!("rules queue {how}; queue {} was free", queue.number()))
}

fn raw_sockets() -> Result<String, String> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        match socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw) {
            // IPv6 may be compiled out.
            Ok(_) | Err(Errno::EAFNOSUPPORT) => {}
            Err(errno) => return Err(format!("{}; it needs CAP_NET_RAW", errno.desc())),
        }
    }
    Ok("raw sockets can be opened".to_owned())
}

/// Tried on a thread that ends at once.
fn urgency() -> Result<String, String> {
    let tried = std::thread::spawn(sys::run_urgently).join();
    match tried {
        Ok(Ok(())) => Ok("packet engines get it".to_owned()),
        Ok(Err(error)) => Err(format!(
            "{error}; without it delays are a few milliseconds late while the host is busy: CAP_SYS_NICE, and a share of \
             `cpu.rt_runtime_us` where control groups of version 1 limit it"
        )),
        Err(_) => Err("the trial panicked".to_owned()),
    }
}

/// Tried on a listener of its own that nobody knows of.
fn socket_diagnosis() -> Result<String, String> {
    let shown = |error: &dyn std::fmt::Display| {
        format!("{error}; it needs CAP_NET_ADMIN, `inet_diag`, `tcp_diag` and `udp_diag`")
    };
    let mut sockets = Sockets::open().map_err(|error| shown(&error))?;
    let all = sockets.all().map_err(|error| shown(&error))?;
    let listener = match TcpListener::bind("127.0.0.1:0") {
        // The loopback interface is down, as in a new namespace.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            return Ok(format!(
                "{} sockets listed; without `lo` none of its own could be destroyed to try it",
                all.len()
            ));
        }
        listener => listener.map_err(|error| shown(&error))?,
    };
    let address = listener.local_addr().map_err(|error| shown(&error))?;
    let all = sockets.all().map_err(|error| shown(&error))?;
    let own = all.iter().find(|socket| socket.listens() && socket.local == (address.ip(), address.port()));
    let own = own.ok_or_else(|| "a socket that is open is not listed".to_owned())?;
    match sockets.destroy(own) {
        Ok(true) => Ok(format!("{} sockets listed; one of its own was destroyed", all.len())),
        Ok(false) => Err("a socket that is open could not be destroyed".to_owned()),
        Err(error) if error.errno() == Errno::EOPNOTSUPP => {
            Err(format!("{error}: this kernel has no CONFIG_INET_DIAG_DESTROY, and no module brings it"))
        }
        Err(error) => Err(shown(&error)),
    }
}

/// Only looked for: whoever installs one keeps it.
fn filters() -> Result<String, String> {
    if seccomp::is_available() {
        return Ok("prober, proxy and link give up the system calls that they do not need".to_owned());
    }
    Err("without `CONFIG_SECCOMP_FILTER` prober, proxy and link have no privileges all the same, and every system call"
        .to_owned())
}

fn pidfd() -> Result<String, String> {
    let me = rustix::process::getpid();
    rustix::process::pidfd_open(me, rustix::process::PidfdFlags::empty())
        .map_err(|error| format!("{error}"))?;
    Ok("processes are held by pidfd".to_owned())
}

fn ptrace() -> Result<String, String> {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "3" => Ok("Yama forbids ptrace until reboot: SIGSTOP with an undo record is used".to_owned()),
        "2" | "1" if !nix::unistd::geteuid().is_root() => {
            Ok("Yama limits ptrace to root: SIGSTOP with an undo record is used".to_owned())
        }
        _ => Ok("ptrace is allowed".to_owned()),
    }
}

fn cgroup() -> Result<String, String> {
    Cgroup::root().map(|root| format!("mounted at {}", root.display())).map_err(|refusal| refusal.what)
}

/// Loaded, never attached.
fn redirects() -> Result<String, String> {
    redirect::trial().map_err(|refusal| refusal.what)?;
    redirect::proxy::identity(redirect::proxy::ACCOUNT).map_err(|refusal| refusal.what)?;
    Ok("new connections can be led to a proxy".to_owned())
}

fn marks() -> Result<String, String> {
    let help = "it needs CAP_BPF and CAP_NET_ADMIN on the host itself, and control groups of version 2";
    let cookie = sys::netns_cookie().map_err(|error| format!("{error}; Linux 5.14"))?;
    let root = Cgroup::root().map_err(|refusal| refusal.what)?;
    File::open(root).map_err(|error| format!("{error}; {help}"))?;
    // mov r0, 1; exit: loaded, never attached.
    let program = [0x0000_0001_0000_00b7, 0x95];
    let loaded = sys::bpf_load(sys::SOCK, sys::SOCK_CREATE, *b"squall_trial\0\0\0\0", &program)
        .map_err(|error| format!("{error}; {help}"))?;
    let _ = loaded.as_fd();
    Ok(format!("BPF programs load; this namespace is {cookie}"))
}
