//! A run over several hosts, for people and for programs. JUnit and Markdown take its hosts as a suite
//! ([`Muster::as_suite`]).

use std::fmt::Write;

use squall_experiments::exit::Exit;
use squall_experiments::muster::{Muster, OnHost, Start};
use squall_experiments::summary::seconds;

use super::{Paint, printable};

/// The report on a terminal, ending with a line feed: what each host had in a few lines. The whole report of one host is
/// [`super::human`] of its summary.
pub fn fleet(muster: &Muster, paint: Paint) -> String {
    let began = &muster.began;
    let mut out = format!("{}\n", paint.bold(&printable::text(&began.title)));
    let plan: String = began.plan.chars().take(12).collect();
    let facts = format!(
        "run {}, {}, took {}, seed {}, plan {plan}",
        began.run,
        began.date,
        seconds(muster.took_ms),
        began.seed
    );
    let _ = writeln!(out, "{}", paint.dim(&facts));
    let _ = writeln!(out, "\n{}", paint.bold("Hosts"));
    let width = muster.hosts.iter().map(|on| on.host.chars().count()).max().unwrap_or(0);
    for on in &muster.hosts {
        host(on, width, &mut out);
    }
    if !began.unconnected.is_empty() {
        let names: Vec<&str> = began.unconnected.iter().map(String::as_str).collect();
        let _ = writeln!(out, "  not connected, so not chosen from: {}", printable::text(&names.join(", ")));
    }
    if let Some(grown) = &muster.grown {
        let sizes: Vec<String> = grown.sizes.iter().map(u32::to_string).collect();
        let words = grown.in_words();
        let _ = writeln!(out, "\n{}\n  {} hosts; {words}", paint.bold("Stages"), sizes.join(", "));
    }
    if !muster.starts.is_empty() {
        let _ = writeln!(out, "\n{}", paint.bold("Started together"));
    }
    for start in &muster.starts {
        let _ = writeln!(out, "  {}", printable::text(&apart(start)));
    }
    if let Some(why) = &muster.stopped {
        let _ = writeln!(out, "\n{}", printable::text(why));
    }
    if let Some(head) = &muster.audit {
        let _ =
            writeln!(out, "\n{}", paint.dim(&format!("audit log: {}", printable::text(&head.to_string()))));
    }
    let sentence = printable::text(&muster.sentence);
    let _ = writeln!(out, "\n{}", paint.verdict(muster.exit, &sentence));
    out
}

/// How far apart the hosts of one fault were.
fn apart(start: &Start) -> String {
    let Start { name, hosts, asked_ms, injected_ms, .. } = start;
    let Some((began_us, within_us)) = start.began_us.zip(start.within_us) else {
        return format!(
            "`{name}` on {hosts} hosts: asked for within {asked_ms} ms, in force within {injected_ms} ms"
        );
    };
    let ms = |micros: u64| micros as f64 / 1000.0;
    let late = match start.late {
        0 => String::new(),
        late => format!("; {late} of them were told too late"),
    };
    format!(
        "`{name}` on {hosts} hosts: in force within {:.1} ms by their own clocks, each known within {:.1} ms{late}",
        ms(began_us),
        ms(within_us)
    )
}

fn host(on: &OnHost, width: usize, out: &mut String) {
    let name = printable::text(&on.host);
    let _ = writeln!(out, "  {name:<width$}  {}", on.verdict);
    let Some(summary) = &on.summary else { return };
    let mut line = |text: &str| {
        let _ = writeln!(out, "  {:<width$}    {}", "", printable::text(text));
    };
    for claim in &summary.hypotheses {
        if let Some(judgement) = &claim.judgement {
            line(&format!("`{}` {}: {}", claim.name, judgement.outcome.word(), judgement.why));
        }
    }
    for part in &summary.parts {
        line(&match part.injected_at_ms {
            Some(_) => format!("`{}`: {}", part.name, part.evidence_in_words()),
            None => format!("`{}` was not injected", part.name),
        });
    }
    // A claim that did not hold stands above.
    let known =
        |what: &str| summary.hypotheses.iter().any(|claim| what.starts_with(&format!("`{}`: ", claim.name)));
    let reasons =
        summary.reasons.iter().filter(|reason| reason.exit != Exit::Deviated || !known(&reason.what));
    reasons.for_each(|reason| line(&reason.what));
    let undone = summary.parts.iter().any(|part| part.injected_at_ms.is_some());
    if undone && summary.stuck.is_empty() {
        line(&match &summary.host {
            Some(host) if host.ours == 0 => {
                format!("undone; {} things of the host are as before", host.things)
            }
            _ => format!("undone: {}", summary.undone.join("; ")),
        });
    }
}

/// One JSON document: the sum, with the summary of each host.
pub fn fleet_json(muster: &Muster) -> String {
    let mut text = serde_json::to_string_pretty(muster).unwrap_or_default();
    text.push('\n');
    text
}
