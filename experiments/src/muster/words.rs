//! Why a host stopped, and how a run over several ended, in words.

use super::OnHost;
use crate::exit::Exit;
use crate::run::Event;

/// Why a run stopped by itself before its method was over, where this event says that; whether it stops all hosts whatever
/// the document says of partial failure.
pub fn own_stop(event: &Event) -> Option<(String, bool)> {
    let (why, always) = match event {
        Event::GuardTripped { name, seen } => (format!("the guard `{name}` did not hold: {seen}"), true),
        Event::BudgetSpent { name, .. } => (format!("`{name}` has spent its budget"), true),
        Event::BaselineNotMet { name, seen } => {
            (format!("`{name}` did not hold before anything was done: {seen}"), false)
        }
        Event::Refused { refusal, .. } => (format!("refused: {}", refusal.what), false),
        Event::AgentLost { why } => (format!("the connection to its agent broke: {why}"), false),
        Event::Blind { why } => (format!("it could not be looked at: {why}"), false),
        Event::ActionEnded { good: false, seen, .. } => (format!("an action failed: {seen}"), false),
        Event::Interrupted { by } => (format!("ended on the host itself: {by}"), false),
        Event::Lifted { why: Some(why), .. } => (format!("ended on the host itself: {why}"), false),
        Event::Lifted { .. } => ("something could not be undone".to_owned(), false),
        _ => return None,
    };
    Some((why, always))
}

/// The closing sentence of all.
pub(super) fn sentence(exit: Exit, hosts: &[OnHost]) -> String {
    let all = hosts.len();
    let leading: Vec<&OnHost> = hosts.iter().filter(|on| on.exit == exit).collect();
    let Some(first) = leading.first() else {
        return format!("{}: on none of {all} hosts", exit.meaning());
    };
    let said = first.summary.as_ref().map_or("nothing was heard of it", |summary| &summary.sentence);
    let own = format!("{}: ", exit.meaning());
    let said = said.strip_prefix(&own).unwrap_or(said);
    let on = match (leading.len(), all) {
        (1, 1) => String::new(),
        (count, all) if count == all => format!(" on all {all} hosts"),
        (count, all) => format!(" on {count} of {all} hosts"),
    };
    format!("{}{on}: `{}`: {said}", exit.meaning(), first.host)
}
