//! How the steady state is looked at, and what is expected: the entries of `hypothesis:` and `stop-when:`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{MostPeriod, Percent, Period};
use crate::verdict::{Bound, Mode, Terms};

mod load;
mod rate;

pub use load::{Count, Load, LoadProbe, QUANTILES, Slot};
pub use rate::{ErrorsBound, LatencyBound, ThroughputBound};

/// One claim about the steady state: a probe with an expectation. Exactly one of `http`, `tcp`, `process` and `load` is
/// given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hypothesis {
    /// What is claimed, in words; unique in the file.
    pub name: String,
    /// Ask an HTTP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// Open a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// Run a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessProbe>,
    /// Send HTTP requests at a steady rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadProbe>,
    /// Take a sample this often. A sample of `load` is what began in this time, at least one request.
    #[serde(default = "every_second")]
    pub every: Period,
    /// What a good sample looks like.
    #[serde(default)]
    pub expect: Expect,
    /// What counts as one observation of a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How sure a verdict on a rate must be; without it, 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Percent>,
    /// After the fault it holds again within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovers_within: Option<Period>,
}

fn every_second() -> Period {
    Period::from_secs(1)
}

/// An HTTP request. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HttpProbe {
    /// An absolute `http://` or `https://` address.
    pub url: String,
    /// The request method.
    #[serde(default = "get")]
    pub method: String,
    /// Request headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The request body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// After this time, connecting and body included, the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
    /// Whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

fn get() -> String {
    "GET".to_owned()
}

fn two_seconds() -> Period {
    Period::from_secs(2)
}

/// Whom an `https` probe trusts; without it the certificates of the system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Tls {
    /// A file with trusted certificates (PEM) instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Accept every certificate: only for test systems.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

/// A TCP connection that is opened and closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TcpProbe {
    /// Host and port: `db.internal:5432`.
    pub address: String,
    /// After this time the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
}

/// A program, run without a shell and with a clean environment, never as root unless asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessProbe {
    /// The program by absolute path or by name in `/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin`, then its arguments.
    pub argv: Vec<String>,
    /// Its environment; nothing else is inherited but `PATH`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The user to run as, by name; `nobody` when squall runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// After this time the program and everything that it started is killed, and the sample is bad.
    #[serde(default = "ten_seconds")]
    pub timeout: Period,
}

fn ten_seconds() -> Period {
    Period::from_secs(10)
}

/// What a good sample looks like: all that is given must hold. Without any: HTTP 2xx, a connection, exit code 0. What is
/// expected of an HTTP answer is expected of every request of a load; one without it is an error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expect {
    /// HTTP: the status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// HTTP: headers that must be present with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// HTTP: a regular expression found in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// HTTP: JSONPath (RFC 9535) to the value that the first match must equal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, serde_json::Value>,
    /// Process: the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Process: a regular expression found in standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The answer arrives within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
    /// The share of requests, or of looks, without the expected answer. Of a load without it, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorsBound>,
    /// Load: how many requests are answered as expected in a time, compared with the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<ThroughputBound>,
    /// Load: how fast answers are, compared with the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyBound>,
    /// Load: half of the requests are answered within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<MostPeriod>,
    /// Load: 90 % of the requests are answered within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<MostPeriod>,
    /// Load: 99 % of the requests are answered within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<MostPeriod>,
    /// Load: 99.9 % of the requests are answered within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999: Option<MostPeriod>,
    /// The share of bad samples that is still steady.
    #[serde(default, skip_serializing_if = "Percent::is_zero")]
    pub tolerate: Percent,
}

impl Hypothesis {
    /// What is claimed of a rate; `None` where single looks are judged by counting them.
    pub fn terms(&self) -> Option<Terms> {
        let bounds = self.expect.bounds(self.load.is_some());
        (!bounds.is_empty()).then(|| Terms {
            bounds,
            mode: self.mode.unwrap_or_default(),
            confidence: self.confidence.unwrap_or(Percent::USUALLY_SURE),
        })
    }
}

impl Expect {
    /// The bounds of rates. A load that says neither what may fail nor what must succeed allows no error.
    fn bounds(&self, load: bool) -> Vec<Bound> {
        let errors = match self.errors {
            Some(ErrorsBound::Share(most)) => Some(Bound::Errors(most.0)),
            Some(ErrorsBound::OfBaseline(times)) => Some(Bound::ErrorsOfBaseline(times)),
            None if load && self.throughput.is_none() => Some(Bound::Errors(Percent::default())),
            None => None,
        };
        let quantile =
            |(_, thousandths, most): (&str, u64, MostPeriod)| Bound::Quantile { thousandths, within: most.0 };
        let throughput = self.throughput.map(|bound| Bound::Throughput(bound.0));
        let latency = self.latency.map(|LatencyBound| Bound::Latency);
        errors.into_iter().chain(self.quantiles().map(quantile)).chain(throughput).chain(latency).collect()
    }

    /// The bounds of latencies that are given: key, thousandths of the requests, bound.
    pub fn quantiles(&self) -> impl Iterator<Item = (&'static str, u64, MostPeriod)> {
        let bounds = [self.p50, self.p90, self.p99, self.p999];
        QUANTILES.into_iter().zip(bounds).filter_map(|((name, share), bound)| Some((name, share, bound?)))
    }
}

/// What a probe does, without its claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// See [`HttpProbe`].
    Http(HttpProbe),
    /// See [`TcpProbe`].
    Tcp(TcpProbe),
    /// See [`ProcessProbe`].
    Process(ProcessProbe),
    /// See [`LoadProbe`].
    Load {
        /// What is sent, and how often.
        load: LoadProbe,
        /// A sample is what begins within this time, and at least one request.
        tick: Period,
    },
}

impl Hypothesis {
    /// The one probe; `None` where none or several are given, which `check` reports.
    pub fn probe(&self) -> Option<Probe> {
        match (&self.http, &self.tcp, &self.process, &self.load) {
            (Some(http), None, None, None) => Some(Probe::Http(http.clone())),
            (None, Some(tcp), None, None) => Some(Probe::Tcp(tcp.clone())),
            (None, None, Some(process), None) => Some(Probe::Process(process.clone())),
            (None, None, None, Some(load)) => Some(Probe::Load { load: load.clone(), tick: self.tick(load) }),
            _ => None,
        }
    }

    /// How long a sample of a load lasts: [`Hypothesis::every`], and at least from one request to the next.
    fn tick(&self, load: &LoadProbe) -> Period {
        self.every.get().max(load.rate.offset(1)).into()
    }
}

/// One look at the system: what a prober reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sample {
    /// Which probe, by the number that the asker gave it.
    pub probe: u32,
    /// When it was begun: nanoseconds on the boot clock.
    pub begun_ns: u64,
    /// How long it took.
    pub took_ns: u64,
    /// Whether all expectations held.
    pub good: bool,
    /// What was seen, short: `200`, `timed out after 2s`, `exit 1`.
    pub seen: String,
    /// What the requests came to that began within it; only of a load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// What a prober is told, one JSON line each, on its standard input. End of file ends it, and everything it started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProberRequest {
    /// Know a probe under a number.
    Load {
        /// The number that samples carry.
        probe: u32,
        /// What to do.
        what: Probe,
        /// What is good.
        expect: Expect,
    },
    /// Take one sample now.
    Once {
        /// Which.
        probe: u32,
    },
    /// Take samples, the first at once, until [`ProberRequest::Stop`]. A sample never waits for an earlier one.
    ///
    /// Requests of a load that is going on go on at their times; the sample under way ends, and the next one begins.
    /// The period is that of the loaded probe.
    Every {
        /// Which.
        probe: u32,
        /// From start to start.
        period: Period,
    },
    /// No new samples of this probe; those under way are still reported. A load answers with [`ProberReply::Rested`]
    /// after the last of them, once for each of these requests.
    Stop {
        /// Which.
        probe: u32,
    },
}

/// What a prober says, one JSON line each, on its standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProberReply {
    /// A sample.
    Sample(Sample),
    /// A probe cannot be run at all: a program that is not there, a certificate file that cannot be read.
    Unusable {
        /// Which.
        probe: u32,
        /// Why.
        why: String,
    },
    /// A load was stopped, and everything that it began is reported.
    Rested {
        /// Which.
        probe: u32,
    },
}
