//! What the kernel counts.

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::netns::Netns;

/// A count of a namespace's IPv4 stack, as `/proc/net/snmp` names it: `counted("Udp", "InDatagrams")`.
///
/// # Panics
/// When the kernel has no such count.
pub fn v4(netns: &Netns, group: &str, name: &str) -> u64 {
    let table = netns.inside(|| fs::read_to_string("/proc/thread-self/net/snmp"));
    let table = table.expect("the kernel counts");
    let mut lines = table.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, values) = (lines.next(), lines.next());
    let (names, values) = names.zip(values).unwrap_or_else(|| panic!("no group `{group}` in\n{table}"));
    let at = names.split(' ').position(|word| word == name);
    let value = at.and_then(|at| values.split(' ').nth(at)?.parse().ok());
    value.unwrap_or_else(|| panic!("no count `{name}` in `{names}`"))
}

/// A count of a namespace's IPv6 stack, as `/proc/net/snmp6` names it: `Udp6InCsumErrors`.
///
/// # Panics
/// When the kernel has no such count.
pub fn v6(netns: &Netns, name: &str) -> u64 {
    let table = netns.inside(|| fs::read_to_string("/proc/thread-self/net/snmp6"));
    let table = table.expect("the kernel counts");
    let mut pairs = table.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let value = pairs.find(|(word, _)| *word == name).and_then(|(_, value)| value.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no count `{name}` in\n{table}"))
}

/// The processor time that a process has used so far, all of its threads.
///
/// # Panics
/// When there is no such process.
pub fn processor_time(pid: i32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(pid));
    let time = clock.and_then(clock_gettime);
    time.unwrap_or_else(|error| panic!("no processor time of pid {pid}: {error}")).into()
}
