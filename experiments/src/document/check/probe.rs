use std::collections::HashMap;

use super::super::node::{Data, Node};
use super::super::problem::Span;
use super::super::suggest;
use super::Check;
use super::rate::OF_RATES;
use crate::peer::{Peer, PeerHost};
use crate::quantity::{Percent, Period};
use crate::url::HttpUrl;

/// The kinds of probes, each with its expectations; `load` has those of `http` too.
const PROBES: [(&str, &[&str]); 12] = [
    ("http", &["status", "headers", "body", "json", "value"]),
    ("tcp", &[]),
    ("process", &["exit", "stdout", "value", "json"]),
    ("processes", &["count", "restarts", "cpu-percent", "memory-mib", "open-files", "age-seconds"]),
    ("load", &["throughput", "latency"]),
    ("dns", &["rcode", "value"]),
    ("tls", &["days-left"]),
    ("prometheus", &["value"]),
    ("metrics", &["value"]),
    ("redis", &["value", "json"]),
    ("sql", &["value", "json"]),
    ("log", &["value"]),
];
/// The most memory that a compiled regular expression may take, in bytes.
const LARGEST_REGEX: usize = 1 << 20;
/// Expectations of every probe.
const OF_ALL: [&str; 2] = ["within", "tolerate"];

impl Check {
    /// `hypothesis:` and `stop-when:`: each claim by itself, and no name twice in both together.
    pub(super) fn claims(&mut self, root: &Node) {
        let mut names: HashMap<&str, String> = HashMap::new();
        for key in ["hypothesis", "stop-when"] {
            let claims = root.get(key).map(Node::items).unwrap_or_default();
            for (index, claim) in claims.iter().enumerate() {
                let path = format!("{key}[{index}]");
                if let Some((name, span)) = text(claim, "name") {
                    if name.trim().is_empty() {
                        self.at(span, &format!("{path}.name"), "`name` is empty", "say what is claimed");
                    } else if let Some(first) = names.get(name) {
                        let what = format!("the name `{name}` is taken by `{first}`");
                        self.at(
                            span,
                            &format!("{path}.name"),
                            what,
                            "the report needs a name of its own for each claim",
                        );
                    } else {
                        names.insert(name, path.clone());
                    }
                }
                self.claim(claim, &path);
            }
        }
    }

    fn claim(&mut self, claim: &Node, path: &str) {
        if !matches!(claim.data, Data::Map(_)) {
            return;
        }
        let kinds: Vec<&str> =
            PROBES.iter().map(|(kind, _)| *kind).filter(|kind| claim.get(kind).is_some()).collect();
        let misspelt = claim.entries().iter().any(|entry| {
            let known = [
                "name",
                "every",
                "sample",
                "when",
                "delay",
                "expect",
                "mode",
                "confidence",
                "recovers-within",
                "budget",
            ];
            !known.contains(&entry.key.as_str()) && !kinds.contains(&entry.key.as_str())
        });
        match kinds.as_slice() {
            [] if misspelt => {}
            [] => {
                let known = PROBES.map(|(kind, _)| kind);
                let help = format!("give it one of {}", suggest::list(&known));
                self.at(claim.head(), path, "nothing says how to look", help);
            }
            [kind] => {
                self.expectation(claim, kind, path);
                self.value_needed(claim, kind, path);
                self.looks(claim, kind, path);
                self.compared_groups(claim, kind, path);
                self.terms(claim, kind, path);
            }
            [_, second, ..] => {
                let span = claim.entry(second).map_or(claim.head(), |entry| entry.key_span);
                let what = format!("a claim has one probe, and this one has `{}`", kinds.join("` and `"));
                self.at(span, path, what, "give each probe a claim of its own");
            }
        }
        self.not_zero(claim, "every", path, "write at least `100ms`");
        self.probes(claim, path);
    }

    /// The probes themselves, of a claim or of an action.
    pub(super) fn probes(&mut self, parent: &Node, path: &str) {
        if let Some(http) = parent.get("http") {
            self.http(http, &format!("{path}.http"));
        }
        if let Some(load) = parent.get("load") {
            self.load(load, &format!("{path}.load"));
        }
        if let Some(tcp) = parent.get("tcp") {
            self.address(tcp, &format!("{path}.tcp"));
        }
        self.services(parent, path);
        if let Some(process) = parent.get("process") {
            self.process(process, &format!("{path}.process"));
        }
    }

    /// The one host and port of a probe that connects, and its time-out.
    pub(super) fn address(&mut self, probe: &Node, path: &str) {
        if let Some((address, span)) = text(probe, "address") {
            let peer = address.parse::<Peer>();
            let one = peer.is_ok_and(|peer| {
                let single = match peer.host {
                    PeerHost::Net(address, bits) => bits == if address.is_ipv4() { 32 } else { 128 },
                    PeerHost::Name(_) => true,
                    PeerHost::Any => false,
                };
                single && peer.ports.is_some_and(|ports| ports.first == ports.last)
            });
            if !one {
                let help = "write one address or name with one port: `db.internal:5432`, `[::1]:80`";
                self.at(
                    span,
                    &format!("{path}.address"),
                    format!("`{address}` is nothing to connect to"),
                    help,
                );
            }
        }
        self.not_zero(probe, "timeout", path, "write for example `2s`");
    }

    pub(super) fn http(&mut self, http: &Node, path: &str) {
        if let Some((url, span)) = text(http, "url")
            && let Err(error) = url.parse::<HttpUrl>()
        {
            self.at(span, &format!("{path}.url"), error.what, error.help.unwrap_or_default());
        }
        self.request(http, path);
        self.not_zero(http, "timeout", path, "write for example `2s`");
    }

    /// Method and headers.
    pub(super) fn request(&mut self, http: &Node, path: &str) {
        if let Some((method, span)) = text(http, "method")
            && (method.is_empty() || !method.chars().all(|c| c.is_ascii_uppercase()))
        {
            let help = "write it in capitals: `GET`, `POST`";
            self.at(span, &format!("{path}.method"), format!("`{method}` is not a request method"), help);
        }
        self.headers(http, path);
    }

    pub(super) fn headers(&mut self, parent: &Node, path: &str) {
        for entry in parent.get("headers").map(Node::entries).unwrap_or_default() {
            let path = format!("{path}.headers.{}", entry.key);
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if entry.key.is_empty() || !entry.key.chars().all(token) {
                let help = "letters, digits and `-`, as in `Content-Type`";
                self.at(entry.key_span, &path, format!("`{}` cannot name a header", entry.key), help);
            }
            if matches!(&entry.value.data, Data::Text(text) if text.chars().any(|c| c.is_control() && c != '\t'))
            {
                let help = "a header is one line; in YAML write `>-` instead of `|` or `>`";
                self.at(entry.value.span, &path, "a line break or control character in a header", help);
            }
        }
    }

    fn process(&mut self, process: &Node, path: &str) {
        if let Some(entry) = process.entry("argv") {
            let path = format!("{path}.argv");
            let items = entry.value.items();
            match items.first().map(|item| (&item.data, item.span)) {
                None if matches!(entry.value.data, Data::List(_)) => {
                    let help = "write the program and its arguments: `[\"pg_isready\", \"-q\"]`";
                    self.at(entry.key_span, &path, "`argv` is empty", help);
                }
                Some((Data::Text(program), span)) if program.is_empty() => {
                    self.at(
                        span,
                        &format!("{path}[0]"),
                        "the program has no name",
                        "write its path or its name",
                    );
                }
                Some((Data::Text(program), span)) if program.contains(' ') && items.len() == 1 => {
                    let words: Vec<String> =
                        program.split_whitespace().map(|word| format!("\"{word}\"")).collect();
                    let what = "a program and its arguments in one text; no shell takes it apart";
                    self.at(span, &format!("{path}[0]"), what, format!("write `[{}]`", words.join(", ")));
                }
                Some((Data::Text(program), span)) if program.contains('/') && !program.starts_with('/') => {
                    let help = "write it from the root, or the bare name";
                    self.at(span, &format!("{path}[0]"), format!("`{program}` is a relative path"), help);
                }
                _ => {}
            }
            for (index, item) in items.iter().enumerate() {
                if matches!(&item.data, Data::Text(text) if text.contains('\0')) {
                    self.at(
                        item.span,
                        &format!("{path}[{index}]"),
                        "a NUL byte cannot be an argument",
                        "leave it out",
                    );
                }
            }
        }
        for entry in process.get("env").map(Node::entries).unwrap_or_default() {
            if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
                let path = format!("{path}.env.{}", entry.key);
                let what = format!("`{}` cannot name an environment variable", entry.key);
                self.at(entry.key_span, &path, what, "leave `=` out of it");
            }
        }
        self.not_zero(process, "timeout", path, "write for example `10s`");
    }

    fn expectation(&mut self, claim: &Node, kind: &str, path: &str) {
        let Some(expect) = claim.get("expect") else { return };
        let path = format!("{path}.expect");
        let of = |kind: &str| PROBES.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, keys)| keys);
        let own: Vec<&str> = match kind {
            "load" => {
                let http = of("http").iter().copied().filter(|key| *key != "value");
                http.chain(OF_RATES).chain(of("load").iter().copied()).collect()
            }
            _ => [of(kind), &OF_ALL, &OF_RATES].concat(),
        };
        for entry in expect.entries().iter().filter(|entry| !own.contains(&entry.key.as_str())) {
            let owner = PROBES.iter().find(|(_, keys)| keys.contains(&entry.key.as_str()));
            let what = match owner {
                Some((owner, _)) => {
                    format!("`{}` is an answer of `{owner}`, and this probe is `{kind}`", entry.key)
                }
                None if OF_ALL.contains(&entry.key.as_str()) => {
                    format!("`{}` is for one answer, and `{kind}` gets many", entry.key)
                }
                // A misspelt key, which the schema reports.
                None => continue,
            };
            let help = match entry.key.as_str() {
                "within" => "write `p99: \"<= 300ms\"`".to_owned(),
                "tolerate" => "write `errors: \"<= 1%\"`".to_owned(),
                _ => format!("for `{kind}`: {}", suggest::list(&own)),
            };
            self.at(entry.key_span, &format!("{path}.{}", entry.key), what, help);
        }
        self.comparisons(expect, &path);
        for key in ["body", "stdout"] {
            if let Some((pattern, span)) = text(expect, key) {
                self.regex(pattern, span, &format!("{path}.{key}"));
            }
        }
        self.headers(expect, &path);
        let everything = expect.get("tolerate").and_then(|node| Some((node.decode::<Percent>()?, node.span)));
        if let Some((_, span)) = everything.filter(|(share, _)| share.get() >= 100.0) {
            let help = "write the share of bad samples that is still steady: `1%`";
            self.at(
                span,
                &format!("{path}.tolerate"),
                "a claim that tolerates everything claims nothing",
                help,
            );
        }
        self.within(claim, kind, expect, &path);
        self.bounds(claim, kind, expect, &path);
    }

    /// A sample that takes longer than the time-out is bad anyway: a longer `within` would say nothing.
    fn within(&mut self, claim: &Node, kind: &str, expect: &Node, path: &str) {
        self.not_zero(expect, "within", path, "write for example `300ms`");
        let default = Period::from_secs(if kind == "process" { 10 } else { 2 });
        let timeout = claim.get(kind).and_then(|probe| probe.get("timeout"));
        let Some(timeout) = timeout.map_or(Some(default), Node::decode::<Period>) else {
            return;
        };
        let Some((within, span)) =
            expect.get("within").and_then(|node| Some((node.decode::<Period>()?, node.span)))
        else {
            return;
        };
        if within > timeout {
            let what = format!("`within: {within}` is longer than the probe's `timeout: {timeout}`");
            self.at(span, &format!("{path}.within"), what, format!("give `{kind}` a longer `timeout`"));
        }
    }

    pub(super) fn regex(&mut self, pattern: &str, span: Span, path: &str) {
        let Err(error) = regex::RegexBuilder::new(pattern).size_limit(LARGEST_REGEX).build() else {
            return;
        };
        let reason = match &error {
            regex::Error::CompiledTooBig(_) => "it is too big".to_owned(),
            other => {
                other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        };
        let what = format!("`{}` is not a regular expression: {reason}", super::super::node::short(pattern));
        self.at(span, path, what, "put a `\\` before a character that is meant literally");
    }
}

pub(super) fn text<'n>(parent: &'n Node, key: &str) -> Option<(&'n str, Span)> {
    let node = parent.get(key)?;
    match &node.data {
        Data::Text(text) => Some((text, node.span)),
        _ => None,
    }
}
