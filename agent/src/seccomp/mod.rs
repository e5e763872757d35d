//! System calls that a process without privileges gives up, for itself and whatever it starts.
//!
//! The prober, the proxy of an outage and the link read what strangers send. Whoever took one over would look for a flaw of
//! the kernel next, and the ways there are few and known by name: user namespaces, `io_uring`, BPF, tracing, keyrings. So
//! this is a list of what is refused, not of what is allowed. A list of what is allowed would have to know each call of every
//! version of the C library and of every program that a probe may start; where it lacks one, a probe fails on a newer system
//! and says nothing true about what it looks at. What a list of refusals lacks is what kernels will learn later.
//!
//! * What no honest child of ours ever calls ends a process that starts no programs (`SIGSYS`), and is refused with `EPERM`
//!   where a probe's programs run, some of which try it and do without (`io_uring`).
//! * What merely needs privileges that are gone is refused with `EPERM`.
//! * `clone3` says `ENOSYS`: its arguments lie in memory, where no filter sees them. Libraries then use `clone`, where a
//!   new namespace is seen.
//! * Calls by another architecture's or by x32's numbers end the process: the list does not know them.
//!
//! Source: seccomp(2), `kernel/seccomp.c`.

use std::collections::BTreeMap;
use std::path::Path;

use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads, sock_filter,
};

/// Present where the kernel has filters that can end a process (Linux 4.14).
const AVAILABLE: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// What the process does beside its own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing: it starts no program, and opens no sockets but those of IP, Unix and route netlink.
    ToItself,
    /// Programs of probes, which take the filter with them.
    Programs,
}

/// Never needed by a process that probes, carries or links.
const HOSTILE: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_perf_event_open,
    libc::SYS_open_by_handle_at,
];

/// What needs privileges that these processes do not have.
const PRIVILEGED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_fanotify_init,
    libc::SYS_kcmp,
    libc::SYS_lookup_dcookie,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_pidfd_getfd,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// `clone` of any of these makes a namespace.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Sockets of a process that keeps to itself; route netlink is how the C library sorts the addresses of a name.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// `TIOCSTI` and `TIOCLINUX`: words put into the mouth of whoever sits at the terminal.
const TERMINAL: [u64; 2] = [0x5412, 0x541c];

/// Why a process does not begin its work.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// It is not understood.
    #[error("the filter of system calls cannot be made: {0}")]
    Made(#[from] seccompiler::BackendError),
    /// The kernel refuses it.
    #[error("the filter of system calls cannot be installed: {0}")]
    Installed(#[from] seccompiler::Error),
}

/// Whether this kernel has filters of system calls, and this program knows the processor's numbers.
pub fn is_available() -> bool {
    Path::new(AVAILABLE).exists() && architecture().is_some()
}

fn architecture() -> Option<TargetArch> {
    // Those whose numbers were looked at; `clone` has its flags first on both.
    match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64") => arch.try_into().ok(),
        _ => None,
    }
}

/// Gives up system calls for ever: for all threads, those to come, and all that they start. Sets `no_new_privs`. Where the
/// kernel has no filters nothing is done, which `preflight` says.
pub fn give_up(keeps: Keeps) -> Result<(), SeccompError> {
    if !is_available() {
        return Ok(());
    }
    for program in programs(keeps)? {
        apply_filter_all_threads(&program)?;
    }
    Ok(())
}

/// One filter for each answer: the kernel asks all of them, and the sternest answer counts.
fn programs(keeps: Keeps) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = architecture()
        .ok_or_else(|| seccompiler::BackendError::InvalidTargetArch(std::env::consts::ARCH.to_owned()))?;
    let made = |rules: Rules, answer: SeccompAction| -> Result<BpfProgram, seccompiler::BackendError> {
        SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?.try_into()
    };
    let refused = |errno: Errno| SeccompAction::Errno(errno as u32);
    let mut hostile = hostile()?;
    let mut all = Vec::new();
    #[cfg(target_arch = "x86_64")]
    all.push(x32());
    if keeps == Keeps::ToItself {
        hostile.extend(whole(&[libc::SYS_execve, libc::SYS_execveat]));
        let other = FAMILIES.map(|family| (SeccompCmpOp::Ne, family as u64)).to_vec();
        let socket = BTreeMap::from([(libc::SYS_socket, vec![rule(0, other)?])]);
        all.push(made(socket, refused(Errno::EAFNOSUPPORT))?);
        all.push(made(hostile, SeccompAction::KillProcess)?);
    } else {
        all.push(made(hostile, refused(Errno::EPERM))?);
    }
    let mut privileged = whole(PRIVILEGED);
    let typed = TERMINAL.map(|request| rule(1, vec![(SeccompCmpOp::Eq, request)]));
    privileged.insert(libc::SYS_ioctl, typed.into_iter().collect::<Result<_, _>>()?);
    all.push(made(privileged, refused(Errno::EPERM))?);
    all.push(made(whole(&[libc::SYS_clone3]), refused(Errno::ENOSYS))?);
    Ok(all)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// These calls, whatever their arguments.
fn whole(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn hostile() -> Result<Rules, seccompiler::BackendError> {
    let mut rules = whole(HOSTILE);
    let namespaces = NAMESPACES.map(|flag| rule(0, vec![(SeccompCmpOp::MaskedEq(flag as u64), flag as u64)]));
    rules.insert(libc::SYS_clone, namespaces.into_iter().collect::<Result<_, _>>()?);
    Ok(rules)
}

/// A call whose argument of this number meets all conditions.
fn rule(
    argument: u8,
    conditions: Vec<(SeccompCmpOp, u64)>,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions
        .into_iter()
        .map(|(compare, value)| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// Ends whoever calls by the numbers of x32, which the kernel tells by their bit 30 and not by the architecture
/// (`__X32_SYSCALL_BIT`).
#[cfg(target_arch = "x86_64")]
fn x32() -> BpfProgram {
    let one = |code: u32, yes: u8, no: u8, k: u32| sock_filter { code: code as u16, jt: yes, jf: no, k };
    vec![
        // The number is the first word of `struct seccomp_data`.
        one(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        one(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, 0x4000_0000),
        one(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        one(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests;
