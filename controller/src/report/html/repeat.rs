//! How to do it again, and where it was done.

use std::path::Path;

use squall_experiments::summary::Summary;

use super::markup::Markup;

/// Writes the section. `events` is the event file.
pub(super) fn repeat(page: &mut Markup, summary: &Summary, events: Option<&Path>) {
    let origin = summary.origin.clone().unwrap_or_default();
    page.element("section", &[], |page| {
        page.text("h2", &[], "Do it again");
        let command =
            origin.command.clone().unwrap_or_else(|| format!("squall run FILE --seed {}", summary.seed));
        page.element("pre", &[("tabindex", "0")], |page| page.text("code", &[], &command));
        if let Some(events) = events {
            let again = format!("squall verdict {}", quoted(&events.display().to_string()));
            page.text("p", &[], "This report, made again from the run's events:");
            page.element("pre", &[("tabindex", "0")], |page| page.text("code", &[], &again));
        }
        page.element("dl", &[("class", "pairs")], |page| {
            page.fact("run", &summary.run.0);
            page.fact("seed", &summary.seed.to_string());
            page.fact("plan", &summary.plan);
            page.fact("experiment", origin.content.as_deref().unwrap_or_default());
            page.fact("squall", &summary.version);
            page.fact("agent", summary.agent.as_deref().unwrap_or_default());
            page.fact("build", origin.build.as_deref().unwrap_or_default());
            page.fact("system", origin.system.as_deref().unwrap_or_default());
            page.fact("audit log", &summary.audit.as_ref().map(ToString::to_string).unwrap_or_default());
        });
    });
}

/// A word as one types it in a POSIX shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_where_a_shell_would_read_them_otherwise() {
        for (word, typed) in [
            ("run", "run"),
            ("a/b.yaml", "a/b.yaml"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(quoted(word), typed);
        }
    }
}
