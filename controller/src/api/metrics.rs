//! Figures in Prometheus' text form, version 0.0.4.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;

use crate::fleet::HostInfo;
use crate::notify::Standing;

/// Answers by the class of their status.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; 6]);

impl Counts {
    /// One more answer.
    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).min(5);
        self.0[class].fetch_add(1, Ordering::Relaxed);
    }

    /// All figures.
    pub(crate) fn text(&self, hosts: &[HostInfo], blocked: bool, receivers: &[Standing]) -> String {
        let mut out = String::new();
        let head = |name: &str, kind: &str, help: &str| {
            let mut text = String::new();
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            text
        };
        out += &head("squall_api_answers_total", "counter", "Answers of the interface by class of status.");
        for class in 1..=5 {
            let count = self.0[class].load(Ordering::Relaxed);
            let _ = writeln!(out, "squall_api_answers_total{{class=\"{class}xx\"}} {count}");
        }
        out += &head("squall_build_info", "gauge", "Which release answers.");
        let _ = writeln!(out, "squall_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        let connected = hosts.iter().filter(|host| host.connected).count();
        let held: usize = hosts.iter().map(|host| host.holds.len()).sum();
        let stuck = hosts.iter().flat_map(|host| &host.holds).filter(|active| active.stuck).count();
        for (name, help, value) in [
            ("squall_hosts_known", "Hosts that have joined.", hosts.len()),
            ("squall_hosts_connected", "Hosts that are connected.", connected),
            ("squall_injections_active", "Injections that hosts hold.", held),
            ("squall_injections_stuck", "Injections of which something could not be undone.", stuck),
            ("squall_runs_blocked", "Whether a halt blocks new runs.", usize::from(blocked)),
        ] {
            out += &head(name, "gauge", help);
            let _ = writeln!(out, "{name} {value}");
        }
        type Of = fn(&Standing) -> u64;
        let notices: [(&str, &str, &str, Of); 4] = [
            ("squall_notify_sent_total", "counter", "Notices that a receiver has taken.", |it| it.sent),
            ("squall_notify_failed_total", "counter", "Notices that were given up.", |it| it.failed),
            ("squall_notify_dropped_total", "counter", "Notices dropped because too many waited.", |it| {
                it.dropped
            }),
            ("squall_notify_waiting", "gauge", "Notices that wait.", |it| it.waiting),
        ];
        for (name, kind, help, of) in notices.into_iter().filter(|_| !receivers.is_empty()) {
            out += &head(name, kind, help);
            for receiver in receivers {
                let _ = writeln!(out, "{name}{{receiver=\"{}\"}} {}", receiver.name, of(receiver));
            }
        }
        out
    }
}
