//! Where this prober may send requests: told once, when it begins, and held at each connection.
//!
//! An address is looked at when it is about to be connected to, after names were resolved: a name that is pointed elsewhere
//! between two looks (DNS rebinding), and a server that leads elsewhere, come by here too.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::OnceLock;

use squall_experiments::probe::LoadProbe;

use crate::policy::{FILE, Probes, whole};

/// Unset in a prober that is bound to nothing.
static BOUND: OnceLock<Probes> = OnceLock::new();

/// How every refusal begins.
const REFUSED: &str = "this host's policy lets no probe of a controller";

tokio::task_local! {
    /// Whether the last connection of a look was refused.
    static LAST: Cell<bool>;
}

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

/// Whether a load may be sent at its rate.
pub(super) fn permits_load(load: &LoadProbe) -> Result<(), String> {
    match BOUND.get() {
        Some(bound) if !bound.permits_load(load) => {
            Err(format!("{REFUSED} send {} (`controllers.probes.load` in `{FILE}`)", whole(load)))
        }
        _ => Ok(()),
    }
}

/// Says of a connection whether it was refused, and nothing was tried.
pub(super) fn was_refused(refused: bool) {
    let _ = LAST.try_with(|last| last.set(refused));
}

/// Does something, and says whether the last connection that it wanted was refused: where it failed, that says nothing
/// then about what was to be looked at. What else goes wrong may be in the words of whoever was asked.
pub(super) async fn watched<T>(work: impl Future<Output = T>) -> (T, bool) {
    let work = async {
        let done = work.await;
        (done, LAST.with(Cell::get))
    };
    LAST.scope(Cell::new(false), work).await
}
