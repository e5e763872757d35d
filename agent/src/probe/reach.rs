//! Where this prober may send requests: told once, when it begins, and held at each connection.
//!
//! An address is looked at when it is about to be connected to, after names were resolved: a name that is pointed elsewhere
//! between two looks (DNS rebinding), and a server that leads elsewhere, come by here too.

use std::net::SocketAddr;
use std::sync::OnceLock;

use squall_experiments::quantity::Rate;

use crate::policy::{FILE, Probes};

/// Unset in a prober that is bound to nothing.
static BOUND: OnceLock<Probes> = OnceLock::new();

/// How every refusal begins.
const REFUSED: &str = "this host's policy lets no probe of a controller";

/// From now on this process is bound; for ever, as the first one counts.
pub(super) fn bind(probes: Probes) {
    let _ = BOUND.set(probes);
}

/// Whether a request may go there.
pub(super) fn permits(to: SocketAddr) -> Result<(), String> {
    match BOUND.get() {
        Some(bound) if !bound.permits(to) => {
            Err(format!("{REFUSED} reach {to} (`controllers.probes` in `{FILE}`)"))
        }
        _ => Ok(()),
    }
}

/// Whether a load may be sent at this rate.
pub(super) fn permits_load(rate: Rate) -> Result<(), String> {
    match BOUND.get() {
        Some(bound) if !bound.permits_load(rate) => {
            Err(format!("{REFUSED} send {rate} (`controllers.probes.load` in `{FILE}`)"))
        }
        _ => Ok(()),
    }
}

/// Whether that is why something failed: it then says nothing about what was to be looked at.
pub(super) fn is_refusal(why: &str) -> bool {
    BOUND.get().is_some() && why.contains(REFUSED)
}
