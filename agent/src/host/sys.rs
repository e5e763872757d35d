//! The system calls that no safe wrapper offers: the only place of this crate where `unsafe` stands.
#![expect(unsafe_code, reason = "raw system calls; each block argues its case")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`): every lease and deadline counts on this clock.
pub fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists since Linux 2.6.39");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Forks. Returns the child's pid in the parent, `None` in the child.
///
/// # Panics
/// When the process has more than one thread: a fork would copy the locks of the others in any state.
pub fn fork() -> io::Result<Option<Pid>> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(1);
    assert_eq!(threads, 1, "the agent forks before any runtime");
    // SAFETY: a single-threaded process (asserted above) may run any code after a fork.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Closes every descriptor from `first` on, except those given.
pub fn close_from(first: RawFd, keep: &[RawFd]) {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    let mut start = first;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if start < fd {
            // SAFETY: only called in a fresh fork whose owners of these descriptors never run again.
            unsafe { libc::syscall(libc::SYS_close_range, start, fd.saturating_sub(1), 0) };
        }
        start = fd.saturating_add(1);
    }
}

/// Asks a netlink socket to explain its errors in words. Older kernels do not; that is no failure.
pub fn ask_for_error_texts(socket: BorrowedFd<'_>) {
    const SOL_NETLINK: i32 = 270;
    for option in [10 /* NETLINK_CAP_ACK */, 11 /* NETLINK_EXT_ACK */] {
        let on: i32 = 1;
        // SAFETY: the pointer and the length describe `on`, which outlives the call.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                SOL_NETLINK,
                option,
                std::ptr::from_ref(&on).cast(),
                size_of::<i32>() as libc::socklen_t,
            );
        }
    }
}

/// Keeps a netlink socket from reporting that messages were lost because it was full (`NETLINK_NO_ENOBUFS`): whoever
/// counts what arrives knows that anyway. A kernel without the option reports it; that is no failure.
pub fn keep_silent_about_overruns(socket: BorrowedFd<'_>) {
    const SOL_NETLINK: i32 = 270;
    const NETLINK_NO_ENOBUFS: i32 = 5;
    let on: i32 = 1;
    // SAFETY: the pointer and the length describe `on`, which outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            SOL_NETLINK,
            NETLINK_NO_ENOBUFS,
            std::ptr::from_ref(&on).cast(),
            size_of::<i32>() as libc::socklen_t,
        );
    }
}

/// Gives the calling thread the lowest real-time priority (`SCHED_FIFO` 1), which its children do not inherit.
pub fn run_urgently() -> io::Result<()> {
    schedule(libc::SCHED_FIFO, 1)
}

/// Takes it back.
pub fn run_as_usual() -> io::Result<()> {
    schedule(libc::SCHED_OTHER, 0)
}

fn schedule(policy: i32, sched_priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority };
    // SAFETY: the pointer is to `parameter`, which outlives the call; 0 names the calling thread.
    let result =
        unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const parameter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The cookie of the calling thread's network namespace: unique until reboot (`SO_NETNS_COOKIE`, Linux 5.14).
pub fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers describe `cookie` and `length`, which outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// The network namespace of a socket, as a descriptor (`SIOCGSKNS`, closed on exec by the kernel).
/// Source: `net/socket.c`, `open_related_ns`.
pub fn netns_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: this request takes no argument and touches no memory of ours.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_PROG_TYPE_CGROUP_SOCK`, and where such a program is attached: `BPF_CGROUP_INET_SOCK_CREATE`.
pub const SOCK: u32 = 9;
/// See [`SOCK`].
pub const SOCK_CREATE: u32 = 2;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
pub const SOCK_ADDR: u32 = 18;

/// Loads a BPF program of a type, to be attached at a hook. Source: `include/uapi/linux/bpf.h`, `union bpf_attr`.
pub fn bpf_load(program_type: u32, hook: u32, name: [u8; 16], instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let load = Load {
        program_type,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        attach_type: hook,
    };
    // SAFETY: `load` and what it points to outlive the call; the layout is the kernel's, without implicit padding.
    unsafe { bpf(5, std::ptr::from_ref(&load).cast(), size_of::<Load>()) }
}

/// Makes a BPF map of a type, with keys and values of so many bytes each, and so many of them at most.
pub fn bpf_map(map_type: u32, key: u32, value: u32, most: u32) -> io::Result<OwnedFd> {
    let create: [u32; 4] = [map_type, key, value, most];
    // SAFETY: `create` outlives the call; the layout is the kernel's, and what is not given is zero.
    unsafe { bpf(0, create.as_ptr().cast(), size_of_val(&create)) }
}

/// What an operation on one element of a map is told. Source: `union bpf_attr`.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts a value into a map. Key and value are as long as the map's, or that is an error.
pub fn bpf_put(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    fits(map, key, value.len())?;
    let (key, value) = (key.as_ptr() as u64, value.as_ptr() as u64);
    let element = Element { map: map.as_raw_fd() as u32, padding: 0, key, value, flags: 0 };
    // SAFETY: `element` and what it points to outlive the call, and are as long as the kernel reads (looked at above).
    let done = unsafe { libc::syscall(libc::SYS_bpf, 2, &raw const element, size_of::<Element>()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a value of a map; `false` where there is none. Key and value are as long as the map's, or that is an error.
pub fn bpf_get(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    fits(map, key, value.len())?;
    let (key, value) = (key.as_ptr() as u64, value.as_mut_ptr() as u64);
    let element = Element { map: map.as_raw_fd() as u32, padding: 0, key, value, flags: 0 };
    // SAFETY: as above; the value is borrowed mutably, and nobody else sees it.
    let done = unsafe { libc::syscall(libc::SYS_bpf, 1, &raw const element, size_of::<Element>()) };
    match io::Error::last_os_error() {
        _ if done == 0 => Ok(true),
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        error => Err(error),
    }
}

/// Whether a map has keys and values of these lengths: the kernel reads and writes as much as the map has, whatever it is
/// given (`struct bpf_map_info`).
fn fits(map: BorrowedFd<'_>, key: &[u8], value: usize) -> io::Result<()> {
    #[repr(C)]
    struct Asked {
        map: u32,
        length: u32,
        info: u64,
    }
    // Type, number, size of a key, size of a value, how many; the rest is not asked for.
    let mut info = [0_u32; 5];
    let mut asked = Asked {
        map: map.as_raw_fd() as u32,
        length: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes into `asked` and at most `length` bytes into `info`, which both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, 15, &raw mut asked, size_of::<Asked>()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain numbers that the kernel has just written; read so that the compiler knows of that.
    let info = unsafe { std::ptr::read_volatile(&raw const info) };
    // Values are rounded up to eight bytes only inside the kernel.
    let same = info[2] as usize == key.len() && info[3] as usize == value;
    if same { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Makes a BPF map of so many numbers at most, of 32 bits each, with nothing beside them (`BPF_MAP_TYPE_HASH`).
pub fn bpf_numbers(most: u32) -> io::Result<OwnedFd> {
    bpf_map(1, 4, 4, most)
}

/// Puts a number into such a map, or takes it out; one that is not there is no error.
pub fn bpf_number(map: BorrowedFd<'_>, number: u32, there: bool) -> io::Result<()> {
    let value = 1_u32;
    let element = Element {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: std::ptr::from_ref(&number) as u64,
        value: std::ptr::from_ref(&value) as u64,
        flags: 0,
    };
    let command = if there { 2 } else { 3 };
    // SAFETY: `element` and what it points to outlive the call; the layout is the kernel's, without implicit padding.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const element, size_of::<Element>()) };
    match io::Error::last_os_error() {
        _ if done == 0 => Ok(()),
        gone if !there && gone.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        error => Err(error),
    }
}

/// Attaches a program to a control group at a hook, by a link: closing the descriptor detaches it.
pub fn bpf_link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let link = Link {
        program: program.as_raw_fd() as u32,
        target: cgroup.as_raw_fd() as u32,
        attach_type: hook,
        flags: 0,
    };
    // SAFETY: `link` outlives the call; the layout is the kernel's, without padding.
    unsafe { bpf(28, std::ptr::from_ref(&link).cast(), size_of::<Link>()) }
}

/// # Safety
/// `attributes` points to `size` bytes in the layout that `command` reads, and so do the pointers inside.
unsafe fn bpf(command: i32, attributes: *const u8, size: usize) -> io::Result<OwnedFd> {
    // SAFETY: promised by the caller.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all commands used here return a new descriptor that nobody else knows (closed on exec by the kernel).
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A descriptor whose readability the runtime waits for.
pub fn awaited(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and the wrapper owns it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// A timer that kills the whole process when it is not put off in time; no thread can ward it off. Source: timer_create(2).
#[derive(Debug)]
pub struct DeathTimer(Timer);

// SAFETY: a timer's id is a number of the kernel's for the whole process, not a pointer to anything; nix has it as one.
unsafe impl Send for DeathTimer {}

impl DeathTimer {
    /// Not armed yet.
    pub fn new() -> io::Result<Self> {
        let event = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
        Ok(DeathTimer(Timer::new(ClockId::CLOCK_MONOTONIC, event)?))
    }

    /// Kills after so long, unless it is set anew; zero disarms.
    pub fn set(&mut self, after: Duration) {
        let _ = self.0.set(Expiration::OneShot(after.into()), TimerSetTimeFlags::empty());
    }
}
