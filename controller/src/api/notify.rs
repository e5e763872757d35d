//! Who is notified, and whether that works.

use std::sync::Arc;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use super::plans::person;
use super::problem::Problem;
use super::routes::{Answer, Call};
use crate::notify::{Attempt, Standing};

/// All receivers of notifications.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Receivers {
    /// In the order of the configuration.
    receivers: Vec<Standing>,
}

/// What a receiver said of a trial.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Tried {
    /// Whether it has taken it.
    delivered: bool,
    /// What it said, or why it was not reached.
    said: String,
}

pub(super) async fn list(api: Arc<Api>, _: Call) -> Result<Answer, Problem> {
    Answer::ok(&Receivers { receivers: api.notifier.standing().await? })
}

pub(super) async fn test(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let name = call.part("name");
    let (delivered, said) = match api.notifier.trial(&name, &person(&call)).await {
        None => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                format!("there is no receiver `{name}` of notifications"),
                "GET /v1/notify lists them; they stand under `notify:` in the controller's configuration",
            ));
        }
        Some(Attempt::Taken(said)) => (true, said),
        Some(Attempt::Later { why, .. } | Attempt::Never(why)) => (false, why),
    };
    Answer::ok(&Tried { delivered, said })
}
