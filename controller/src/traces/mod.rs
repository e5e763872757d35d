//! OpenTelemetry traces: of each run, and of each request of the interface.
//!
//! With the feature `otel` they go to a collector, by OTLP over HTTP in JSON (opentelemetry.io/docs/specs/otlp): what a span is made of
//! is in the log of a run already, and the interface's own client can send it, so that it takes no further library. Without the feature
//! every function here is empty.
//!
//! Nobody waits for any of it: spans that cannot be sent are dropped, and that is logged.
//!
//! | file | what it is for |
//! |---|---|
//! | `present`, `absent` | what the rest of the controller calls, with the feature and without |
//! | `target` | where spans go, as options and environment say it |
//! | `context` | whose trace a request belongs to (W3C Trace Context) |
//! | `span` | a span, and how OTLP writes it |
//! | `run` | from the log of a run to its spans |
//! | `export` | the way to the collector |

#[cfg(any(test, not(feature = "otel")))]
#[cfg_attr(feature = "otel", allow(dead_code))]
mod absent;
#[cfg(feature = "otel")]
mod context;
#[cfg(feature = "otel")]
mod export;
#[cfg(feature = "otel")]
mod present;
#[cfg(feature = "otel")]
mod run;
#[cfg(feature = "otel")]
mod span;
#[cfg(feature = "otel")]
mod target;
#[cfg(all(test, feature = "otel"))]
mod tests;

#[cfg(not(feature = "otel"))]
pub use absent::Traces;
#[cfg(not(feature = "otel"))]
pub(crate) use absent::{Asked, Context, RunSpans};
#[cfg(feature = "otel")]
pub(crate) use context::Context;
#[cfg(feature = "otel")]
pub(crate) use present::Asked;
#[cfg(feature = "otel")]
pub use present::Traces;
#[cfg(feature = "otel")]
pub(crate) use run::RunSpans;

/// Why no traces can be sent. None of these shows a header.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// This program cannot.
    #[error(
        "this squall was built without OpenTelemetry, so that there is no `--otlp`; help: build it with `cargo build --release --features otel`"
    )]
    NotBuilt,
    /// An address that is none.
    #[error("`{from}` is no address of a collector: {why}")]
    Address {
        /// Where it stands.
        from: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Headers or attributes that are not understood.
    #[error(
        "`{from}` is not understood; help: write `NAME=VALUE,NAME=VALUE`, with `%2C` for a comma in a value"
    )]
    Pairs {
        /// Where it stands.
        from: &'static str,
    },
    /// Somebody on the way could read them.
    #[error(
        "the headers of `OTEL_EXPORTER_OTLP_HEADERS` would be sent to another machine in the clear; help: give an address that begins with `https://`"
    )]
    Readable,
}
