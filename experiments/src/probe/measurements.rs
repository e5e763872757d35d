//! Reading what others measured: Prometheus, an endpoint with metrics, a log.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HttpProbe, Tls, get, two_seconds};
use crate::quantity::Period;

/// A query to a Prometheus server (<https://prometheus.io/docs/prometheus/latest/querying/api/>). A server that does not
/// answer, a query that it refuses, a result without any value and `NaN` say nothing about the system: the sample is
/// unclear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PrometheusProbe {
    /// The server's address: `http://prometheus.internal:9090`.
    pub url: String,
    /// PromQL.
    pub query: String,
    /// All values of this time until now; without it the value now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Period>,
    /// With `range`: from one value to the next.
    #[serde(default = "five_seconds")]
    pub step: Period,
    /// What becomes of several values.
    #[serde(default)]
    pub take: Take,
    /// Request headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// After this time the sample is unclear.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
    /// Whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

fn five_seconds() -> Period {
    Period::from_secs(5)
}

/// What becomes of several values: those of several series, or of one over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// Each of them must be as expected.
    #[default]
    All,
    /// There must be one, and no other.
    One,
    /// One of them must be as expected.
    Any,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The mean.
    Mean,
    /// The sum.
    Sum,
}

/// An endpoint in the text format of Prometheus or OpenMetrics
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>). An endpoint that does not answer is a bad sample; a
/// metric that is not there, and `NaN`, make it unclear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MetricsProbe {
    /// Where the metrics are: `http://127.0.0.1:9100/metrics`.
    pub url: String,
    /// The name of the metric, as it stands there.
    pub metric: String,
    /// Labels that it must have; others do not matter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How fast it grows, in a second: it is read twice, so long after each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Period>,
    /// What becomes of several values.
    #[serde(default)]
    pub take: Take,
    /// Request headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// After this time, that of `rate` not counted, the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
    /// Whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Lines that are added to a file, which may be rotated meanwhile. The value is how many of them match, since the last
/// sample; the first sample counts from when the run began. A line that is not finished counts when it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogProbe {
    /// The file, from the root.
    pub file: String,
    /// A regular expression found in a line.
    pub pattern: String,
    /// The user to read it as, by name; `nobody` when squall runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl PrometheusProbe {
    /// The request that asks it, without the query.
    pub fn request(&self) -> HttpProbe {
        request(&self.url, &self.headers, self.timeout, self.tls.as_ref())
    }
}

impl MetricsProbe {
    /// The request that reads the endpoint.
    pub fn request(&self) -> HttpProbe {
        request(&self.url, &self.headers, self.timeout, self.tls.as_ref())
    }
}

fn request(url: &str, headers: &BTreeMap<String, String>, timeout: Period, tls: Option<&Tls>) -> HttpProbe {
    HttpProbe {
        url: url.to_owned(),
        method: get(),
        headers: headers.clone(),
        body: None,
        timeout,
        tls: tls.cloned(),
    }
}
