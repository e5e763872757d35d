use super::super::node::{Data, Node};
use super::Check;

impl Check {
    /// What the document says about the hosts of all its steps.
    pub(super) fn fleet(&mut self, root: &Node) {
        if let Some(on) = root.get("on") {
            self.hosts(on, "on");
        }
        let Some(entry) = root.entry("on-partial") else { return };
        let steps = root.get("method").map(Node::items).unwrap_or_default();
        let children = steps.iter().filter_map(|step| step.get("parallel")).flat_map(Node::items);
        let somewhere = root.get("on").is_some()
            || steps.iter().any(|step| step.get("on").is_some())
            || children.into_iter().any(|step| step.get("on").is_some());
        if !somewhere {
            let what = "`on-partial` has no meaning without `on`";
            self.at(
                entry.key_span,
                "on-partial",
                what,
                "say which hosts with `on`, or leave `on-partial` out",
            );
        }
    }

    /// An `on:`. That it says anything at all is the schema's business.
    pub(super) fn hosts(&mut self, on: &Node, path: &str) {
        if !matches!(on.data, Data::Map(_)) {
            return;
        }
        let select = ["labels", "zone", "cell", "name"];
        let empty = |node: &Node| match &node.data {
            Data::Map(_) => node.entries().is_empty(),
            Data::List(items) => items.is_empty(),
            Data::Text(text) => text.trim().is_empty(),
            _ => false,
        };
        for key in select {
            if let Some(entry) = on.entry(key).filter(|entry| empty(&entry.value)) {
                let what = format!("`on` with empty `{key}` would choose every host");
                let help = "say which, leave it out, or write `on: { pick: all }` for every host";
                self.at(entry.key_span, &format!("{path}.{key}"), what, help);
            }
        }
        if let Some(entry) = on.entry("spread") {
            let all =
                on.get("pick").is_none_or(|pick| matches!(&pick.data, Data::Text(text) if text == "all"));
            if all {
                let what = "`spread` has no meaning where every host is taken";
                self.at(entry.key_span, &format!("{path}.spread"), what, "give a `pick`, or leave it out");
            } else if on.get("zone").is_some() {
                let what = "`spread: zone` has no meaning in one `zone`";
                self.at(entry.key_span, &format!("{path}.spread"), what, "leave one of them out");
            }
        }
        let names = on.get("name").map(Node::items).unwrap_or_default();
        for (at, name) in names.iter().enumerate() {
            let same =
                |other: &Node| matches!((&other.data, &name.data), (Data::Text(a), Data::Text(b)) if a == b);
            if names[..at].iter().any(same) {
                let help = "leave one of them out";
                self.at(name.span, &format!("{path}.name[{at}]"), "this host is named twice", help);
            }
        }
    }
}
