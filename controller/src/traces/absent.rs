//! A squall without OpenTelemetry: nothing is said, and whoever asks for it is told how to get it.

use axum::http::{HeaderMap, Method, StatusCode};
use squall_experiments::muster::Line;

use super::TracesError;

/// No traces. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Traces(());

/// There is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Context {}

/// A request of which nothing is said.
pub(crate) struct Asked;

/// A run of which nothing is said.
pub(crate) struct RunSpans;

impl Traces {
    /// None; an error where somebody asks for them by an option.
    pub fn begin(
        told: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Traces, TracesError> {
        if told.is_some() {
            return Err(TracesError::NotBuilt);
        }
        // The environment may be meant for others: it keeps nothing from starting.
        let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        if let Some(name) = names.into_iter().find(|name| environment(name).is_some_and(|at| !at.is_empty()))
        {
            tracing::warn!(
                "`{name}` is set, and this squall was built without OpenTelemetry (`--features otel`)"
            );
        }
        Ok(Traces(()))
    }

    /// Nothing is waited for.
    pub async fn close(&self) {}

    pub(crate) fn request(&self, _: &Method, _path: &str, _: &HeaderMap) -> Asked {
        Asked
    }

    pub(crate) fn of_run(&self, _run: &str, _under: Option<Context>) -> RunSpans {
        RunSpans
    }
}

impl Asked {
    pub(crate) fn context(&self) -> Option<Context> {
        None
    }

    pub(crate) fn let_in(&mut self) {}

    pub(crate) fn answered(self, _: StatusCode) {}
}

impl RunSpans {
    pub(crate) fn hear(&mut self, _: &Line) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_traces_is_told_how_to_get_them_and_an_environment_keeps_nothing_from_starting() {
        let refused = Traces::begin(Some("http://127.0.0.1:4318"), |_| None).expect_err("it cannot");
        assert!(refused.to_string().contains("--features otel"), "{refused}");
        Traces::begin(None, |_| Some("http://127.0.0.1:4318".to_owned())).expect("it starts");
    }
}
