use super::super::node::{Data, Node};
use super::Check;
use crate::probe::Comparison;
use crate::probe::compare::ComparisonError;

/// The expectations that are compared, each with one value.
const COMPARED: [&str; 10] = [
    "value",
    "status",
    "exit",
    "days-left",
    "count",
    "restarts",
    "cpu-percent",
    "memory-mib",
    "open-files",
    "age-seconds",
];
/// The response codes of DNS (RFC 1035 4.1.1, RFC 2136 2.2) that a server answers a question with.
const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];

impl Check {
    /// What values are compared with.
    pub(super) fn comparisons(&mut self, expect: &Node, path: &str) {
        for key in COMPARED {
            if let Some(node) = expect.get(key) {
                self.comparison(node, &format!("{path}.{key}"));
            }
        }
        for entry in expect.get("json").map(Node::entries).unwrap_or_default() {
            if serde_json_path::JsonPath::parse(&entry.key).is_err() {
                let what = format!("`{}` is not a JSONPath", entry.key);
                let help = "write it by RFC 9535, from the root: `$.items[0].price`";
                self.at(entry.key_span, &format!("{path}.json"), what, help);
            }
            self.comparison(&entry.value, &format!("{path}.json.{}", entry.key));
        }
        for entry in expect.get("headers").map(Node::entries).unwrap_or_default() {
            self.comparison(&entry.value, &format!("{path}.headers.{}", entry.key));
        }
        if let Some((status, node)) =
            expect.get("status").and_then(|node| Some((node.decode::<i64>()?, node)))
            && !(100..=599).contains(&status)
        {
            let what = format!("`{status}` is not an HTTP status");
            self.at(node.span, &format!("{path}.status"), what, "write for example `200`");
        }
        if let Some(Data::Text(code)) = expect.get("rcode").map(|node| &node.data)
            && !RCODES.contains(&code.as_str())
            && let Some(node) = expect.get("rcode")
        {
            let what = format!("`{code}` is not a response code");
            let help = crate::document::suggest::one_of(code, &RCODES, "");
            self.at(node.span, &format!("{path}.rcode"), what, help);
        }
    }

    fn comparison(&mut self, node: &Node, path: &str) {
        if !node.known() {
            return;
        }
        if let Err(ComparisonError { what, help, word }) = Comparison::try_from(node.value()) {
            let entry = word.as_deref().and_then(|word| node.entry(word));
            let span = entry.map_or(node.span, |entry| entry.key_span);
            let path = entry.map_or(path.to_owned(), |entry| format!("{path}.{}", entry.key));
            self.at(span, &path, what, help);
        }
    }

    /// A probe that measures claims nothing without a value to compare with.
    pub(super) fn value_needed(&mut self, claim: &Node, kind: &str, path: &str) {
        let compared = claim.get("expect").is_some_and(|expect| expect.get("value").is_some());
        if ["prometheus", "metrics"].contains(&kind) && !compared {
            let what = format!("nothing is expected of what `{kind}` finds");
            self.at(claim.head(), path, what, "write for example `expect: { value: \"<= 300\" }`");
        }
    }
}
