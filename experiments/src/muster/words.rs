//! Why a host stopped, and how a run over several ended, in words.

use super::{Grown, OnHost};
use crate::exit::Exit;
use crate::run::Event;

/// Why a run stopped by itself before its method was over, where this event says that; whether it stops all hosts whatever
/// the document says of partial failure.
pub fn own_stop(event: &Event) -> Option<(String, bool)> {
    let (why, always) = match event {
        Event::GuardTripped { name, seen } => (format!("the guard `{name}` did not hold: {seen}"), true),
        Event::GaveWay { stage, name, seen } => {
            (format!("`{name}` did not hold in stage {stage}: {seen}"), true)
        }
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

impl Grown {
    /// `gave way in stage 3 of 4: between 2 and 4 hosts`.
    pub fn in_words(&self) -> String {
        let hosts = |stage: u32| {
            let size = (stage as usize).checked_sub(1).and_then(|at| self.sizes.get(at)).copied();
            size.unwrap_or_default()
        };
        let all = self.sizes.len();
        let several = |count: u32| if count == 1 { "1 host".to_owned() } else { format!("{count} hosts") };
        match (self.reached, self.gave_way) {
            (0, _) => "no stage began".to_owned(),
            (1, true) => format!("gave way in stage 1 of {all}, with {} already", several(hosts(1))),
            (reached, true) => format!(
                "gave way in stage {reached} of {all}: not yet with {}, but with {}",
                several(hosts(reached - 1)),
                several(hosts(reached))
            ),
            (reached, false) => {
                format!("came to stage {reached} of {all}, with {}", several(hosts(reached)))
            }
        }
    }
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
