//! Kernel modules: loaded before the first change is prepared, beside the worker's beat.
//!
//! The kernel loads a module in the middle of the request that needs it first, and whoever asked waits for `modprobe`: on
//! a slow machine longer than a worker may be silent. So a thread asks first, for everything that a change may need, in
//! ways that change nothing.

use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use squall_experiments::change::Change;

use super::queue::Queue;
use super::sockets::Sockets;
use super::table::Table;

/// What the requests below may load; what leads packets through disciplines and devices is asked for, in the same way, by
/// [`super::qdisc::kinds`]. Where the kernel has loaded them all, or knows no modules, nothing is asked.
const MODULES: [&str; 7] =
    ["nf_tables", "nft_socket", "nft_reject_inet", "nft_queue", "nfnetlink_queue", "tcp_diag", "udp_diag"];

/// Asks on a thread of its own, and calls `meanwhile` until there is an answer; `None` where the thread has panicked.
pub fn beside<T: Send + 'static>(
    mut meanwhile: impl FnMut(),
    ask: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let asking = thread::spawn(ask);
    while !asking.is_finished() {
        meanwhile();
        thread::sleep(Duration::from_micros(200));
    }
    asking.join().ok()
}

/// Has the kernel load what a change may need, once in a process.
pub fn load(change: &Change, meanwhile: impl FnMut()) {
    static ASKED: OnceLock<()> = OnceLock::new();
    let of_traffic = change.flow().is_some();
    if of_traffic && ASKED.get().is_none() && !loaded() {
        beside(meanwhile, || {
            // What the kernel lacks is found out, and said, by who needs it.
            let _ = Table::open().and_then(|mut table| table.touch());
            drop(Queue::bind());
            let _ = Sockets::open().and_then(|mut sockets| sockets.all());
        });
        ASKED.get_or_init(|| ());
    }
}

fn loaded() -> bool {
    let Ok(modules) = fs::read_to_string("/proc/modules") else { return true };
    let names: Vec<&str> = modules.lines().filter_map(|line| line.split(' ').next()).collect();
    MODULES.iter().all(|module| names.contains(module))
}
