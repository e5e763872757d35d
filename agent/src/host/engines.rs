//! The packet engines that run: one per queue.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use squall_experiments::evidence::Engine;
use squall_experiments::protocol::Refusal;

use super::nft::Hook;
use super::queue::{Orders, Queue, drain};
use super::sys;
use super::table::Table;
use super::undo::Undone;
use crate::pulse::SILENCE;

/// See the module.
#[derive(Debug, Default)]
pub struct Engines {
    running: BTreeMap<u16, Running>,
    ended: BTreeMap<u16, Engine>,
    /// Sockets of queues that have ended: see [`Engines::settle`].
    closing: Vec<OwnedFd>,
    native: Option<bool>,
}

#[derive(Debug)]
struct Running {
    queue: Queue,
    /// When its thread last answered, on the boot clock.
    heard: u64,
    /// It has not answered for too long: nothing waits for it any more.
    hangs: bool,
    /// What it said last.
    counts: Engine,
    /// Which packets are in its own memory while they wait.
    keeps: Keeps,
}

/// What an engine that holds packets has taken out of the kernel: that is lost where it hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// Nothing: the kernel holds every packet.
    Nothing,
    /// Second copies, and altered ones, which go on as they came instead.
    Copies,
    /// All that wait to be sent again.
    All,
}

impl Keeps {
    fn of(orders: &Orders) -> Self {
        let impairment = &orders.impairment;
        match orders.hook {
            _ if !impairment.holds() => Keeps::Nothing,
            Hook::Output => Keeps::All,
            _ if impairment.duplicate.is_some() || impairment.corrupt.is_some() => Keeps::Copies,
            _ => Keeps::Nothing,
        }
    }

    /// What became of everything, once the kernel's part of a queue whose engine hangs has been let go.
    fn told(self, number: u16) -> String {
        let lost = match self {
            Keeps::Nothing => "nothing is lost",
            Keeps::Copies => "second copies are lost, and what was to be corrupted went on as it was",
            Keeps::All => "what the engine had taken, to send it later, is lost",
        };
        format!("the engine of queue {number} hangs: what the kernel held went on its way, and {lost}")
    }
}

impl Engines {
    /// Whether rules queue by the kernel's own expression (`true`) or by iptables' target; refused where by neither.
    pub fn native(&mut self, table: &mut Table) -> Result<bool, Refusal> {
        if let Some(native) = self.native {
            return Ok(native);
        }
        let native = match table.queues(true) {
            Ok(()) => true,
            Err(expression) => match table.queues(false) {
                Ok(()) => false,
                Err(target) => {
                    return Err(Refusal::new(
                        format!(
                            "this kernel hands no packets to a queue (expression: {expression}; target: {target})"
                        ),
                        "load `nfnetlink_queue`, and `nft_queue` or `xt_NFQUEUE` with `nft_compat`; `squall-agent preflight` \
                         says what works",
                    ));
                }
            },
        };
        self.native = Some(native);
        Ok(native)
    }

    /// Starts an engine. Says what it could not have, such as real-time priority.
    pub fn start(&mut self, mut queue: Queue, orders: Orders) -> Result<Vec<String>, Refusal> {
        let keeps = Keeps::of(&orders);
        let notes = queue.run(orders)?;
        let number = queue.number();
        self.ended.remove(&number);
        self.running.insert(
            number,
            Running { queue, heard: sys::boot_nanos(), hangs: false, counts: Engine::default(), keeps },
        );
        Ok(notes)
    }

    /// What an engine did so far, or did until its end.
    pub fn counts(&mut self, number: u16) -> Engine {
        match self.running.get_mut(&number) {
            Some(running) => {
                if !running.hangs {
                    running.counts = running.queue.counts();
                }
                running.counts.clone()
            }
            None => self.ended.get(&number).cloned().unwrap_or_default(),
        }
    }

    /// Whether every engine has answered within [`SILENCE`]. To be asked once a beat.
    pub fn answer(&mut self) -> bool {
        let now = sys::boot_nanos();
        for running in self.running.values_mut() {
            if running.queue.lives() {
                running.heard = now;
            }
            running.hangs = now.saturating_sub(running.heard) > SILENCE.as_nanos() as u64;
        }
        self.running.values().all(|running| !running.hangs)
    }

    /// Ends an engine and lets everything go that it holds; no rule names its queue any more. One that does not run is
    /// no error.
    pub fn stop(&mut self, number: u16) -> Undone {
        let Some(Running { mut queue, hangs, counts, keeps, .. }) = self.running.remove(&number) else {
            return Ok(format!("nobody reads queue {number}"));
        };
        self.closing.extend(queue.socket().try_clone_to_owned());
        if !hangs {
            let (counts, answered) = queue.stop();
            self.ended.insert(number, counts);
            if !answered {
                return Ok(keeps.told(number));
            }
            return Ok(format!(
                "what waited in queue {number} went on its way, and nobody reads it any more"
            ));
        }
        self.ended.insert(number, counts);
        let drained = drain(queue.socket(), number);
        queue.unbind();
        // Its end takes the patience that a hanging thread is given; this thread has none.
        std::thread::spawn(move || drop(queue));
        drained
            .map(|_| keeps.told(number))
            .map_err(|error| format!("queue {number}, whose engine hangs, cannot be emptied: {error}"))
    }

    /// Closes the sockets of queues that have ended, once the guardian has dropped its duplicates.
    ///
    /// Whoever closes the last one waits for the kernel to clean up after every change of nftables (`nft_rcv_nl_event`
    /// waits for an RCU grace period, which takes seconds while a real-time thread is busy). That must be neither the
    /// guardian nor the worker's main thread: both have to beat.
    pub fn settle(&mut self) {
        if !self.closing.is_empty() {
            let closing = std::mem::take(&mut self.closing);
            std::thread::spawn(move || drop(closing));
        }
    }

    /// Forgets the counts of an engine that has ended.
    pub fn forget(&mut self, number: u16) {
        self.ended.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(hook: Hook, impairment: &str) -> String {
        let impairment = serde_json::from_str(impairment).unwrap();
        Keeps::of(&Orders { impairment, hook, limit: 9, seed: [0; 32], mark: (0, 0) }).told(7)
    }

    #[test]
    fn what_a_hanging_engine_costs_is_told_by_who_holds_the_packets() {
        const LATE: &str = r#""delay":{"delay":"10ms"}"#;
        let (late, both) =
            (format!("{{{LATE}}}"), format!("{{{LATE},\"duplicate\":{{\"percent\":\"5%\"}}}}"));
        for hook in [Hook::Input, Hook::Ingress] {
            assert!(told(hook, &late).ends_with("nothing is lost"), "{}", told(hook, &late));
            assert!(told(hook, &both).contains("second copies are lost"), "{}", told(hook, &both));
        }
        assert!(told(Hook::Output, &late).ends_with("to send it later, is lost"));
        let loss = r#"{"loss":{"random":{"percent":"5%"}}}"#;
        assert!(told(Hook::Output, loss).ends_with("nothing is lost"));
    }
}
