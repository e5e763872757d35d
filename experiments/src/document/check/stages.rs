use super::super::node::{Data, Node};
use super::Check;
use crate::quantity::Pick;

impl Check {
    /// A `stages:`. What its values are in themselves is the schema's business.
    pub(super) fn stages(&mut self, root: &Node) {
        let Some(entry) = root.entry("stages") else { return };
        let node = &entry.value;
        if !matches!(node.data, Data::Map(_)) {
            return;
        }
        if let Some(ramp) = root.entry("ramp") {
            let what = "`ramp` makes the fault harder and `stages` bring it to more hosts: one at a time";
            self.at(ramp.key_span, "ramp", what, "leave one of them out");
        }
        self.not_zero(node, "bake", "stages", "watch each stage for a time, such as `30s`");
        self.staged_method(root, node);
        match (node.entry("grow"), node.entry("sizes")) {
            (Some(_), Some(sizes)) => {
                let what = "`sizes` has no meaning beside `grow`";
                self.at(sizes.key_span, "stages.sizes", what, "leave one of them out");
            }
            (None, None) => {
                let help = "write `grow: 2x`, or `sizes: [1, 10%, 50%, all]`";
                self.at(node.head(), "stages", "these stages do not say how they grow", help);
            }
            (None, Some(sizes)) => self.sizes(&sizes.value),
            (Some(_), None) => {}
        }
    }

    /// Sizes of one kind grow. How a number compares with a share is only known with the hosts.
    fn sizes(&mut self, sizes: &Node) {
        let items = sizes.items();
        if items.len() < 2 && matches!(sizes.data, Data::List(_)) {
            let help = "give it more, or leave `stages` out: `sizes: [1, 10%, 50%, all]`";
            return self.at(sizes.span, "stages.sizes", "this is one stage", help);
        }
        let (mut count, mut share, mut all) = (0, 0.0, false);
        for (at, item) in items.iter().enumerate() {
            let Some(size) = item.decode::<Pick>() else { continue };
            let grows = match size {
                Pick::Count(own) => !all && std::mem::replace(&mut count, own) < own,
                Pick::Share(own) => !all && std::mem::replace(&mut share, own.get()) < own.get(),
                Pick::All => !std::mem::replace(&mut all, true) && share < 100.0,
            };
            if !grows {
                let what = format!("the stage with `{size}` has no more hosts than those before");
                let help =
                    "each size is that of the whole stage, not what it adds, and larger than the one before";
                return self.at(item.span, &format!("stages.sizes[{at}]"), what, help);
            }
        }
    }

    /// The method is one fault, or several at the same time, all on the same hosts.
    fn staged_method(&mut self, root: &Node, node: &Node) {
        let Some(method) = root.entry("method") else { return };
        let steps = method.value.items();
        let children = |step: &Node| step.get("parallel").map(Node::items).unwrap_or_default().to_vec();
        let is_fault = |step: &Node| step.get("fault").is_some();
        let staged = |step: &Node| {
            is_fault(step) || (!children(step).is_empty() && children(step).iter().all(is_fault))
        };
        match steps {
            [] => return,
            [one] if staged(one) => {}
            _ => {
                let what = "a method in stages is one fault, or several of them in one `parallel`";
                let help = "the fault stays while it comes to more hosts: leave the other steps out";
                return self.at(method.key_span, "method", what, help);
            }
        }
        if let Some(on) = children(&steps[0]).iter().find_map(|child| child.entry("on").cloned()) {
            let what = "all faults of a stage are for the same hosts";
            self.at(on.key_span, "method[0].parallel", what, "say them once, with `on` of the experiment");
        }
        if root.get("on").is_none() && steps[0].get("on").is_none() {
            let help = "say which hosts with `on`; on this host alone there is nothing to grow over";
            self.at(node.head(), "stages", "`stages` has no meaning without `on`", help);
        }
    }
}
