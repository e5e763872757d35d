//! `/metrics`: what flows, as it flows, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use squall_agent::proxy::control::{Control, Shown};
use squall_agent::proxy::dependency::Counters;
use squall_agent::proxy::toxic::Stream;

/// Which metrics are offered.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Metrics {
    /// Of proxies.
    pub(in super::super) proxies: bool,
    /// Of this process.
    pub(in super::super) runtime: bool,
}

/// A counter of one direction.
type OfDirection = fn(&Counters, Stream) -> u64;
/// A counter of a proxy.
type OfProxy = fn(&Counters) -> &AtomicU64;

const BYTES: [(&str, &str, OfDirection); 2] = [
    ("toxiproxy_proxy_received_bytes_total", "Bytes read from the sender.", |counters, stream| {
        counters.of(stream).both().0
    }),
    ("toxiproxy_proxy_sent_bytes_total", "Bytes written to the receiver.", |counters, stream| {
        counters.of(stream).both().1
    }),
];

const COUNTS: [(&str, &str, &str, OfProxy); 8] = [
    ("squall_proxy_connections_total", "counter", "Connections that clients made.", |counters| {
        &counters.accepted
    }),
    ("squall_proxy_open_connections", "gauge", "Connections that are open.", |counters| &counters.open),
    (
        "squall_proxy_unreached_total",
        "counter",
        "Connections that were closed because the dependency could not be reached.",
        |counters| &counters.unreached,
    ),
    (
        "squall_proxy_looped_total",
        "counter",
        "Connections that were closed because they would have led back to the proxy.",
        |counters| &counters.looped,
    ),
    ("squall_proxy_reset_total", "counter", "Connections that a toxic reset.", |counters| &counters.reset),
    (
        "squall_proxy_refused_total",
        "counter",
        "Connections that a toxic refused before the dependency was connected to.",
        |counters| &counters.refused,
    ),
    ("squall_proxy_requests_total", "counter", "Requests, where they are understood.", |counters| {
        &counters.requests
    }),
    ("squall_proxy_open_requests", "gauge", "Requests that are under way.", |counters| {
        &counters.requests_open
    }),
];

impl Metrics {
    /// Whether there are any.
    pub(super) fn any(self) -> bool {
        self.proxies || self.runtime
    }

    /// All of them now.
    pub(super) fn text(self, control: &Control) -> String {
        let mut text = String::new();
        if self.proxies {
            of_proxies(&mut text, &control.list());
        }
        if self.runtime {
            of_process(&mut text);
        }
        text
    }
}

// Writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($words:tt)*) => { let _ = writeln!($text, $($words)*); };
}

fn head(text: &mut String, name: &str, kind: &str, what: &str) {
    line!(text, "# HELP {name} {what}");
    line!(text, "# TYPE {name} {kind}");
}

fn of_proxies(text: &mut String, proxies: &[Shown]) {
    for (name, what, counter) in BYTES {
        head(text, name, "counter", what);
        for proxy in proxies {
            for stream in [Stream::Upstream, Stream::Downstream] {
                let value = counter(&proxy.counters, stream);
                let (direction, labels) = (stream.name(), labels(proxy));
                line!(text, "{name}{{direction=\"{direction}\",{labels}}} {value}");
            }
        }
    }
    for (name, kind, what, counter) in COUNTS {
        head(text, name, kind, what);
        for proxy in proxies {
            let value = counter(&proxy.counters).load(Ordering::Relaxed);
            line!(text, "{name}{{{}}} {value}", labels(proxy));
        }
    }
    let name = "squall_proxy_toxic_hits_total";
    head(text, name, "counter", "How often a toxic did something to the traffic.");
    for proxy in proxies {
        for toxic in &proxy.toxics {
            let hits = toxic.hits.load(Ordering::Relaxed);
            let (toxic_name, kind) = (escaped(&toxic.name), toxic.kind.name);
            let direction = toxic.stream.name();
            line!(
                text,
                "{name}{{proxy=\"{}\",toxic=\"{toxic_name}\",type=\"{kind}\",direction=\"{direction}\"}} {hits}",
                escaped(&proxy.name)
            );
        }
    }
}

fn labels(proxy: &Shown) -> String {
    format!(
        "proxy=\"{}\",listener=\"{}\",upstream=\"{}\"",
        escaped(&proxy.name),
        escaped(&proxy.listen),
        escaped(&proxy.upstream)
    )
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Memory, descriptors and threads of this process. Source: proc(5).
fn of_process(text: &mut String) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64).ok();
    let figures = [
        ("process_resident_memory_bytes", "Memory in use.", field("VmRSS:").map(|kb| kb * 1024)),
        ("process_virtual_memory_bytes", "Memory reserved.", field("VmSize:").map(|kb| kb * 1024)),
        ("process_threads", "Threads.", field("Threads:")),
        ("process_open_fds", "Open descriptors.", descriptors),
    ];
    for (name, what, figure) in figures {
        if let Some(figure) = figure {
            head(text, name, "gauge", what);
            line!(text, "{name} {figure}");
        }
    }
}
