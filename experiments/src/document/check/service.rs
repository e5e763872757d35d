use std::net::IpAddr;

use super::super::node::{Data, Node};
use super::super::suggest;
use super::Check;
use super::probe::text;

impl Check {
    /// Probes that ask a service of a kind: names, certificates, measurements, stores, logs.
    pub(super) fn services(&mut self, parent: &Node, path: &str) {
        for kind in ["tls", "redis", "sql"] {
            if let Some(probe) = parent.get(kind) {
                self.address(probe, &format!("{path}.{kind}"));
            }
        }
        for kind in ["prometheus", "metrics"] {
            if let Some(probe) = parent.get(kind) {
                self.http(probe, &format!("{path}.{kind}"));
            }
        }
        if let Some(dns) = parent.get("dns") {
            self.dns(dns, &format!("{path}.dns"));
        }
        if let Some(prometheus) = parent.get("prometheus") {
            let path = format!("{path}.prometheus");
            self.not_empty(prometheus, "query", &path, "write a query: `sum(rate(errors_total[1m]))`");
            self.not_zero(prometheus, "range", &path, "leave it out for the value now");
            self.not_zero(prometheus, "step", &path, "write for example `5s`");
        }
        if let Some(metrics) = parent.get("metrics") {
            self.metrics(metrics, &format!("{path}.metrics"));
        }
        if let Some(redis) = parent.get("redis") {
            self.redis(redis, &format!("{path}.redis"));
        }
        if let Some(sql) = parent.get("sql") {
            let path = format!("{path}.sql");
            self.not_empty(sql, "query", &path, "write a query: `SELECT count(*) FROM orders`");
            self.not_empty(sql, "user", &path, "name a user of the database");
        }
        if let Some(processes) = parent.get("processes") {
            self.processes(processes, &format!("{path}.processes"));
        }
        if let Some(log) = parent.get("log") {
            let path = format!("{path}.log");
            if let Some((file, span)) = text(log, "file")
                && !file.starts_with('/')
            {
                let what = format!("`{file}` is a relative path");
                self.at(span, &format!("{path}.file"), what, "write it from the root: `/var/log/shop.log`");
            }
            if let Some((pattern, span)) = text(log, "pattern") {
                self.regex(pattern, span, &format!("{path}.pattern"));
            }
            self.not_empty(log, "pattern", &path, "the empty pattern is found in every line");
        }
    }

    fn processes(&mut self, processes: &Node, path: &str) {
        self.process_selector(processes, path);
        self.not_empty(processes, "unit", path, "write a unit by its full name: `shop.service`");
        let chosen = ["exe", "name", "args", "pid", "listening", "unit"];
        if matches!(processes.data, Data::Map(_)) && !chosen.iter().any(|key| processes.get(key).is_some()) {
            let help = format!("give it at least one of {}", suggest::list(&chosen));
            self.at(processes.head(), path, "nothing says which processes", help);
        }
        self.not_zero(processes, "over", path, "write for example `1s`");
    }

    fn dns(&mut self, dns: &Node, path: &str) {
        if let Some((name, span)) = text(dns, "name") {
            let letters = |label: &str| {
                (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_graphic() && c != '.')
            };
            let bare = name.strip_suffix('.').unwrap_or(name);
            if bare.len() > 253 || !bare.split('.').all(letters) {
                let what =
                    format!("`{}` is not a name that can be asked for", super::super::node::short(name));
                let help = "write it in full: `db.internal`; other letters than ASCII as `xn--…`";
                self.at(span, &format!("{path}.name"), what, help);
            }
        }
        if let Some((server, span)) = text(dns, "server") {
            let address = server.parse::<IpAddr>().is_ok() || server.parse::<std::net::SocketAddr>().is_ok();
            if !address {
                let what = format!("`{server}` is not the address of a name server");
                self.at(
                    span,
                    &format!("{path}.server"),
                    what,
                    "write `10.0.0.2`, `10.0.0.2:5353` or `[::1]:53`",
                );
            }
        }
        self.not_zero(dns, "timeout", path, "write for example `2s`");
    }

    fn metrics(&mut self, metrics: &Node, path: &str) {
        if let Some((name, span)) = text(metrics, "metric") {
            let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(letter)
            {
                let what = format!("`{}` is not the name of a metric", super::super::node::short(name));
                let help = "write the name alone, and labels in `labels`: `{ method: \"GET\" }`";
                self.at(span, &format!("{path}.metric"), what, help);
            }
        }
        self.not_zero(metrics, "rate", path, "leave it out for the value itself");
    }

    fn redis(&mut self, redis: &Node, path: &str) {
        if let Some(entry) = redis.entry("command")
            && matches!(&entry.value.data, Data::List(words) if words.is_empty())
        {
            let help = "write the command and its arguments: `[\"GET\", \"state\"]`";
            self.at(entry.key_span, &format!("{path}.command"), "`command` is empty", help);
        }
        let first = redis.get("command").map(Node::items).and_then(<[Node]>::first);
        if let Some(Node { data: Data::Text(word), span }) = first {
            let blocking = ["subscribe", "psubscribe", "ssubscribe", "monitor", "sync", "psync"];
            if word.contains(' ') || word.is_empty() {
                let help = "write each word of it as an item of the list";
                self.at(*span, &format!("{path}.command[0]"), format!("`{word}` is not a command"), help);
            } else if blocking.contains(&word.to_lowercase().as_str()) {
                let what = format!("`{word}` answers for ever, and has no value");
                self.at(
                    *span,
                    &format!("{path}.command[0]"),
                    what,
                    "ask for one value: `[\"GET\", \"state\"]`",
                );
            }
        }
        if redis.get("user").is_some() && redis.get("password").is_none() {
            let help = "write `password: \"${secret:REDIS}\"`";
            self.at(redis.head(), path, "a user without a password", help);
        }
    }

    fn not_empty(&mut self, parent: &Node, key: &str, path: &str, help: &str) {
        if let Some((value, span)) = text(parent, key)
            && value.trim().is_empty()
        {
            self.at(span, &format!("{path}.{key}"), format!("`{key}` is empty"), help);
        }
    }
}
