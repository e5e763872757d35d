use super::super::node::{Data, Node};
use super::Check;
use super::probe::text;
use crate::probe::{Template, divided};
use crate::url::HttpUrl;

impl Check {
    /// What a load sends, and to whom; its rate is checked where it is read.
    pub(super) fn load(&mut self, load: &Node, path: &str) {
        let several = load.get("endpoints").is_some();
        if let Some((url, span)) = text(load, "url") {
            let path = format!("{path}.url");
            let (server, target) = divided(url);
            if server.contains("{{") {
                let help = "write `{{…}}` into the path, a header or the body";
                self.at(
                    span,
                    &path,
                    "a load has one server, and this one differs from request to request",
                    help,
                );
            } else if let Some(target) = self.template(load, "url", &path, target) {
                self.url(&format!("{server}{target}"), load, "url", &path);
                if several && !["", "/"].contains(&target.as_str()) {
                    let help = format!("write `url: \"{server}\"`, and the path into `endpoints`");
                    self.at(span, &path, "with `endpoints` the address of the load has no path", help);
                }
            }
        }
        self.parts(load, path);
        self.not_zero(load, "timeout", path, "write for example `2s`");
        let server = text(load, "url").map_or("", |(url, _)| divided(url).0);
        if let Some(entry) = load.entry("endpoints")
            && matches!(&entry.value.data, Data::List(items) if items.is_empty())
        {
            let help = "give it one: `- path: /cart`, or leave `endpoints` out";
            self.at(entry.key_span, &format!("{path}.endpoints"), "`endpoints` is empty", help);
        }
        for (index, endpoint) in load.get("endpoints").map(Node::items).unwrap_or_default().iter().enumerate()
        {
            let path = format!("{path}.endpoints[{index}]");
            if let Some((target, span)) = text(endpoint, "path") {
                let path = format!("{path}.path");
                if !target.starts_with('/') {
                    let help = "write it from the root of the server: `/cart?id={{n}}`";
                    self.at(span, &path, format!("`{target}` does not begin with `/`"), help);
                } else if let Some(target) = self.template(endpoint, "path", &path, target) {
                    self.url(&format!("{server}{target}"), endpoint, "path", &path);
                }
            }
            self.parts(endpoint, &path);
        }
        if let Some(control) = load.entry("control") {
            self.control(&control.value, control.key_span, &format!("{path}.control"));
        }
    }

    fn control(&mut self, control: &Node, head: super::Span, path: &str) {
        if !matches!(control.data, Data::Map(_)) {
            return;
        }
        if control.get("server").is_none() && control.get("headers").is_none() {
            let help = "write `server: \"http://10.0.0.8:8080\"`, or the `headers` that lead there";
            self.at(head, path, "nothing tells the control group from the tested one", help);
        }
        if let Some((server, span)) = text(control, "server") {
            let path = format!("{path}.server");
            self.url(server, control, "server", &path);
            if !["", "/"].contains(&divided(server).1) {
                let help = "leave the path out: the control group is asked for the same ones";
                self.at(span, &path, format!("`{server}` is more than a server"), help);
            }
        }
        self.headers(control, path);
        self.filled(control, path);
    }

    /// Method, headers and body of a request that is sent again and again.
    fn parts(&mut self, request: &Node, path: &str) {
        self.request(request, path);
        self.filled(request, path);
        if let Some((body, _)) = text(request, "body") {
            self.template(request, "body", &format!("{path}.body"), body);
        }
    }

    fn filled(&mut self, request: &Node, path: &str) {
        let Some(headers) = request.get("headers") else { return };
        for entry in headers.entries() {
            if let Data::Text(value) = &entry.value.data {
                self.template(headers, &entry.key, &format!("{path}.headers.{}", entry.key), value);
            }
        }
    }

    /// What a template comes to for the first request.
    fn template(&mut self, parent: &Node, key: &str, path: &str, template: &str) -> Option<String> {
        match Template::parse(template) {
            Ok(template) => Some(template.example()),
            Err(error) => {
                let span = parent.get(key).map_or(parent.span, |node| node.span);
                self.at(span, path, error.what, error.help.unwrap_or_default());
                None
            }
        }
    }

    fn url(&mut self, url: &str, parent: &Node, key: &str, path: &str) {
        if let Err(error) = url.parse::<HttpUrl>() {
            let span = parent.get(key).map_or(parent.span, |node| node.span);
            self.at(span, path, error.what, error.help.unwrap_or_default());
        }
    }

    /// A control group is there to be compared with, and what compares needs one.
    pub(super) fn compared_groups(&mut self, claim: &Node, kind: &str, path: &str) {
        // A bound that is wrong in itself is said elsewhere; it compares all the same.
        let with_control =
            |node: &&Node| matches!(&node.data, Data::Text(text) if text.trim_end().ends_with("control"));
        let compares = ["errors", "p50", "p90", "p99", "p999", "latency"]
            .into_iter()
            .find_map(|key| Some((key, claim.get("expect")?.get(key).filter(with_control)?)));
        let control = claim.get(kind).filter(|_| kind == "load").and_then(|load| load.entry("control"));
        match (compares, control) {
            (Some((key, compared)), None) => {
                let help = "give the `load` a `control: { server: \"http://10.0.0.8:8080\" }`";
                let path = format!("{path}.expect.{key}");
                self.at(compared.span, &path, "there is no control group to compare with", help);
            }
            (None, Some(control)) => {
                let help =
                    "write for example `expect: { errors: \"<= 1.5x control\", p99: \"<= 1.2x control\" }`";
                let path = format!("{path}.load.control");
                self.at(control.key_span, &path, "nothing is compared with the control group", help);
            }
            _ => {}
        }
    }
}
