//! Which marks the sockets of a network namespace carry, and which packet queues are read in it.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::Seen;
use crate::host::sockets::Sockets;

/// How the name of a mark begins; its value follows in hexadecimal digits.
const MARK: &str = "sockets with mark 0x";
/// How the name of a queue begins; its number follows.
const QUEUE: &str = "packet queue ";

/// Each mark that some socket carries. Which sockets do changes all the time.
pub fn marks(seen: &mut Seen) -> Result<(), String> {
    let all = Sockets::open().and_then(|mut sockets| sockets.all());
    let all = all.map_err(|error| format!("cannot be listed: {error}"))?;
    let marks: BTreeSet<u32> = all.iter().map(|socket| socket.mark).filter(|mark| *mark != 0).collect();
    marks.into_iter().for_each(|mark| seen.say(format!("{MARK}{mark:x}"), "there are some"));
    Ok(())
}

/// Each queue that somebody reads.
pub fn queues(seen: &mut Seen) -> Result<(), String> {
    // `/proc/net` is that of the process, which need not be the thread's.
    match std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue") {
        Ok(list) => {
            let numbers = list.lines().filter_map(|line| line.split_whitespace().next());
            numbers.for_each(|number| seen.say(format!("{QUEUE}{number}"), "is read"));
            Ok(())
        }
        // The kernel has no queues, or has not loaded them.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("cannot be listed: {error}")),
    }
}

/// The mark that a thing of [`marks`] stands for.
pub fn mark_of(name: &str) -> Option<u32> {
    u32::from_str_radix(name.strip_prefix(MARK)?, 16).ok()
}

/// The queue that a thing of [`queues`] stands for.
pub fn queue_of(name: &str) -> Option<u16> {
    name.strip_prefix(QUEUE)?.parse().ok()
}
