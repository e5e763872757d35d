//! One attempt to tell one receiver, and what it came to.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use squall_experiments::document::Redactor;
use tokio::time::timeout;

use super::happening::Happening;
use super::receiver::Receiver;
use super::secret::Value;
use super::story::Told;
use super::{chat, email, grafana, webhook};
use crate::ask::{Answered, AskError};

/// The longest wait that a receiver may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How much of an answer is told on.
const SHOWN: usize = 200;

/// What an attempt came to. No text of it holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has it, and said this.
    Taken(String),
    /// Not now: it is tried again, after this time at the earliest where the receiver has asked for that.
    Later {
        /// Why.
        why: String,
        /// How long it is to be left alone.
        after: Option<Duration>,
    },
    /// It would not be taken another time either.
    Never(String),
}

impl Attempt {
    pub(super) fn later(why: impl ToString) -> Self {
        Attempt::Later { why: why.to_string(), after: None }
    }
}

/// Tells a receiver, within its time.
pub async fn attempt(receiver: &Receiver, happening: &Happening, told: &Told) -> Attempt {
    let telling = async {
        if let Some(webhook) = &receiver.webhook {
            webhook::tell(webhook, receiver, told).await
        } else if let Some(slack) = &receiver.slack {
            chat::tell(slack, receiver, told).await
        } else if let Some(email) = &receiver.email {
            email::tell(email, receiver, told).await
        } else if let Some(grafana) = &receiver.grafana {
            grafana::tell(grafana, receiver, happening, told).await
        } else {
            Attempt::Never("there is no way to tell it".to_owned())
        }
    };
    let late = || Attempt::later(format!("there is no answer within {}", receiver.timeout));
    timeout(receiver.timeout.get(), telling).await.unwrap_or_else(|_| late())
}

/// What an answer over HTTP means; `secret` is taken out of what is shown of it.
pub(super) fn judged(answered: Result<Answered, AskError>, secret: &Value) -> Attempt {
    let answered = match answered {
        Ok(answered) => answered,
        Err(error) => return Attempt::later(error),
    };
    let Answered { status, retry_after, body } = answered;
    let mut redactor = Redactor::default();
    redactor.learn("notify", secret.expose());
    let body = String::from_utf8_lossy(&body);
    let body: String = redactor.redact(&body).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    let said = match body.trim() {
        "" => format!("it answered {status}"),
        body => format!("it answered {status}: {body}"),
    };
    match status {
        200..=299 => Attempt::Taken(said),
        408 | 425 | 429 | 500..=599 => {
            let after = retry_after.and_then(|text| wait(&text, Timestamp::now()));
            Attempt::Later { why: said, after }
        }
        300..=399 => Attempt::Never(format!("it answered {status}; redirects are not followed")),
        _ => Attempt::Never(said),
    }
}

/// How long `Retry-After` asks to wait (RFC 9110 10.2.3): seconds, or a date.
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let asked = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        }
    };
    Some(asked.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_says_how_long_it_wants_to_be_left_alone() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("an instant");
        let after = |text| wait(text, now).map(|wait| wait.as_secs());
        assert_eq!(after("7"), Some(7));
        assert_eq!(after("Sun, 22 Nov 2026 12:00:30 GMT"), Some(30));
        assert_eq!(after("Sun, 22 Nov 2026 11:00:00 GMT"), Some(0));
        assert_eq!(after("99999999"), Some(3600));
        assert_eq!(after("soon"), None);
    }
}
