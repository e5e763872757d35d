//! The demo's four acts: two faults, each on a shop that cannot bear it and on one that can.

use squall_experiments::exit::Exit;

use super::rehearsal::Seen;

/// One experiment of the demo.
pub(super) struct Act {
    /// How the storefront is started.
    pub(super) options: &'static [&'static str],
    /// The experiment's file name.
    pub(super) file: &'static str,
    /// And what is in it.
    pub(super) text: &'static str,
    /// What is about to happen.
    pub(super) announcement: &'static str,
    /// Whose packets it concerns.
    pub(super) supplier: &'static str,
    /// What the closing table calls it.
    pub(super) row: &'static str,
    /// How it comes out.
    pub(super) expected: Exit,
    /// Why it came out so.
    pub(super) why: fn(&Seen) -> String,
}

macro_rules! shipped {
    ($name:literal) => {
        include_str!(concat!("../../../../experiments/shipped/", $name))
    };
}

/// In the order in which they are played. The first finds the storefront as it was opened: without options.
pub(super) const ACTS: [Act; 4] = [
    Act {
        options: &[],
        file: "payments-slow.yaml",
        text: shipped!("payments-slow.yaml"),
        announcement: "Payments is 400 ms further away. Checkout waits for it, without a time-out.",
        supplier: "payments",
        row: "payments slow, no time-out",
        expected: Exit::Deviated,
        why: workers_wait,
    },
    Act {
        options: &["--payment-timeout", "200ms", "--fallback"],
        file: "payments-slow-with-fallback.yaml",
        text: shipped!("payments-slow-with-fallback.yaml"),
        announcement: "The same fault. The storefront was started again with `--payment-timeout 200ms --fallback`.",
        supplier: "payments",
        row: "payments slow, time-out, fallback",
        expected: Exit::Held,
        why: checkout_moves_on,
    },
    Act {
        options: &["--payment-timeout", "200ms", "--fallback"],
        file: "catalogue-lossy.yaml",
        text: shipped!("catalogue-lossy.yaml"),
        announcement: "Another fault, the same storefront: 30 % of the packets from the catalogue are lost.",
        supplier: "the catalogue",
        row: "catalogue lossy, no time-out",
        expected: Exit::Deviated,
        why: tcp_is_patient,
    },
    Act {
        options: &[
            "--catalogue-timeout",
            "100ms",
            "--retries",
            "3",
            "--payment-timeout",
            "200ms",
            "--fallback",
        ],
        file: "catalogue-lossy-with-retries.yaml",
        text: shipped!("catalogue-lossy-with-retries.yaml"),
        announcement: "The same fault. The storefront was started again with `--catalogue-timeout 100ms --retries 3`.",
        supplier: "the catalogue",
        row: "catalogue lossy, time-out, retries",
        expected: Exit::Held,
        why: retries_are_faster,
    },
];

fn workers_wait(seen: &Seen) -> String {
    let when = seen.exhausted_after.map_or_else(
        || "Soon".to_owned(),
        |after| format!("{:.1} s after the fault began", after.as_secs_f64().max(0.1)),
    );
    format!(
        "each checkout kept its worker for two slow round trips. {when} all {} workers\n\
         \x20       were waiting, and up to {} requests queued for one, the front page's too,\n\
         \x20       although the front page never asks payments. Nothing failed: slow was enough.",
        seen.worst.workers, seen.worst.queued
    )
}

fn checkout_moves_on(seen: &Seen) -> String {
    format!(
        "after 200 ms checkout stops waiting and accepts the order; the payment is taken later.\n\
         \x20       Of {} workers {} were busy at a typical moment, so the front page found a free one.",
        seen.worst.workers, seen.typically_busy
    )
}

fn tcp_is_patient(seen: &Seen) -> String {
    format!(
        "TCP repairs loss by waiting: 200 ms for lost data, a second for a lost answer to a new\n\
         \x20       connection. Up to {} of {} workers were waiting for the catalogue.",
        seen.worst.busy, seen.worst.workers
    )
}

fn retries_are_faster(seen: &Seen) -> String {
    format!(
        "another attempt after 100 ms is faster than TCP's patience. Of {} workers {} were busy\n\
         \x20       at a typical moment.",
        seen.worst.workers, seen.typically_busy
    )
}
