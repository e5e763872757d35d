use super::super::node::{Data, Node};
use super::Check;
use crate::scope::Scope;

/// The kernel cuts command names after so many bytes.
const LONGEST_COMM: usize = 15;

impl Check {
    /// The `in:` of a step. That a process scope names at least one field is the schema's business.
    pub(super) fn scope(&mut self, node: &Node, path: &str) {
        if let Some(process) = node.get("process") {
            self.process_selector(process, &format!("{path}.process"));
        }
        let text = |key: &str| match node.get(key).map(|node| (&node.data, node.span)) {
            Some((Data::Text(text), span)) => Some((text.clone(), span)),
            _ => None,
        };
        if let Some((cgroup, span)) = text("cgroup") {
            let path = format!("{path}.cgroup");
            let help = "write its path below the cgroup root: `system.slice/shop.service`";
            if cgroup.trim_matches('/').is_empty() {
                let what =
                    if cgroup.is_empty() { "`cgroup` is empty" } else { "the root cgroup is the whole host" };
                self.at(span, &path, what, help);
            } else if cgroup.starts_with('/') || cgroup.split('/').any(|part| part == ".." || part == ".") {
                self.at(span, &path, format!("`{cgroup}` is not a path below the cgroup root"), help);
            }
        }
        for (key, help) in [
            ("user", "write a user by name or number"),
            ("unit", "write a unit by its full name: `shop.service`"),
            ("container", "write a container by its name or id"),
            ("netns", "write a name below `/run/netns`, or the path of a namespace"),
            ("interface", "write an interface by its name: `eth0`"),
        ] {
            if let Some((_, span)) = text(key).filter(|(text, _)| text.trim().is_empty()) {
                self.at(span, &format!("{path}.{key}"), format!("`{key}` is empty"), help);
            }
        }
        if matches!(node.decode::<Scope>(), Some(Scope::Process(selector)) if selector.pid == Some(1)) {
            let span = node
                .get("process")
                .and_then(|process| process.get("pid"))
                .map_or(node.head(), |pid| pid.span);
            let help = "choose the processes that are meant by `name`, `exe` or `listening`";
            self.at(
                span,
                &format!("{path}.process.pid"),
                "process 1 is the host itself and is never hit",
                help,
            );
        }
    }

    /// What processes are, field by field.
    pub(super) fn process_selector(&mut self, process: &Node, path: &str) {
        for entry in process.entries() {
            let path = format!("{path}.{}", entry.key);
            let span = entry.value.span;
            match (entry.key.as_str(), &entry.value.data) {
                ("exe" | "name" | "args", Data::Text(text)) if text.is_empty() => {
                    let help = format!("write what is meant, or leave `{}` out", entry.key);
                    self.at(
                        span,
                        &path,
                        format!("`{}` is empty and would match every process", entry.key),
                        help,
                    );
                }
                ("exe", Data::Text(exe)) if !exe.starts_with('/') => {
                    let help = "write it from the root: `/usr/sbin/nginx`; a bare command is `name: nginx`";
                    self.at(span, &path, format!("`{exe}` is not an absolute path"), help);
                }
                ("name", Data::Text(name)) if name.len() > LONGEST_COMM => {
                    let cut = name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= LONGEST_COMM);
                    let cut: String = cut.map(|(_, c)| c).collect();
                    let what = format!(
                        "`{name}` is longer than the {LONGEST_COMM} bytes that the kernel keeps of a name"
                    );
                    self.at(span, &path, what, format!("write `{cut}`, or use `exe` or `args`"));
                }
                ("args", Data::Text(pattern)) => self.regex(pattern, span, &path),
                ("pid" | "listening", Data::Number(number, _)) if number.as_u64() == Some(0) => {
                    let range = if entry.key == "pid" {
                        "process ids go from 2 up"
                    } else {
                        "ports go from 1 to 65535"
                    };
                    self.at(span, &path, format!("`{}` cannot be 0", entry.key), range);
                }
                _ => {}
            }
        }
    }
}
