//! How the steady state is looked at, and what is expected: the entries of `hypothesis:` and `stop-when:`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{MostPeriod, Percent, Period};
use crate::verdict::{Bound, Mode, Multiple, Terms};

mod answers;
mod budget;
pub mod compare;
mod kind;
mod load;
mod looks;
mod measurements;
mod processes;
mod rate;
mod stores;
mod template;

pub use answers::{DnsProbe, RecordKind, TlsProbe};
pub use budget::Budget;
pub use compare::Comparison;
pub use kind::Probe;
pub(crate) use load::divided;
pub use load::{Control, Count, Endpoint, Group, Load, LoadProbe, QUANTILES, Slot};
pub use looks::{Looks, Quota, When};
pub use measurements::{LogProbe, MetricsProbe, PrometheusProbe, Take};
pub use processes::{Figure, ProcessesProbe};
pub use rate::{ErrorsBound, LatencyBound, QuantileBound, ThroughputBound};
pub use stores::{RedisProbe, SqlProbe};
pub use template::{Filling, Template};

/// One claim about the steady state: a probe with an expectation. Exactly one kind of probe is given.
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
    /// Look at processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessesProbe>,
    /// Send HTTP requests at a steady rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadProbe>,
    /// Ask a name server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsProbe>,
    /// Look at a server's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsProbe>,
    /// Ask a Prometheus server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusProbe>,
    /// Read an endpoint with metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsProbe>,
    /// Send a command to Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisProbe>,
    /// Ask PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlProbe>,
    /// Count lines of a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogProbe>,
    /// Take a sample this often. A sample of `load` is what began in this time, at least one request.
    #[serde(default = "every_second")]
    pub every: Period,
    /// How many looks make a sample; without it, one. Not of a load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Looks>,
    /// In which parts of the run it is looked at; without it, in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<When>,
    /// Samples that begin so soon after a fault began, or after everything was undone, are shown and not judged.
    #[serde(default = "nothing", skip_serializing_if = "is_zero")]
    pub delay: Period,
    /// What a good sample looks like.
    #[serde(default)]
    pub expect: Expect,
    /// What counts as one observation of a rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How sure a verdict on a rate must be; without it, 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Percent>,
    /// When so many requests, or looks, failed since the method began, everything is reverted at once. Counted, not
    /// estimated. Where nothing else is expected of a rate, it alone decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// After the fault it holds again within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovers_within: Option<Period>,
}

fn is_zero(period: &Period) -> bool {
    period.is_zero()
}

fn nothing() -> Period {
    Period::ZERO
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
    /// What the probe found, as a value: a number, a text or a list. Of `http` it is the body and of `process` the
    /// standard output, as text without white space around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Comparison>,
    /// HTTP: the status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Comparison>,
    /// HTTP: headers of the answer and what each is compared with; of one that is there several times, any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Comparison>,
    /// HTTP: a regular expression found in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// JSONPath (RFC 9535) to what the first value that it finds is compared with; where the value is JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, Comparison>,
    /// DNS: the response code; without it `NOERROR`, with an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// TLS: in how many days the first certificate of the chain expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days_left: Option<Comparison>,
    /// Process: the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Comparison>,
    /// Process: a regular expression found in standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Processes: how many match; without it, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<Comparison>,
    /// Processes: how many that match began since the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<Comparison>,
    /// Processes: processor time as a share of one processor, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<Comparison>,
    /// Processes: resident memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<Comparison>,
    /// Processes: how many files each has open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<Comparison>,
    /// Processes: seconds since they began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<Comparison>,
    /// The answer arrives within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Period>,
    /// The share of requests, or of looks, without the expected answer. Of a load without it, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorsBound>,
    /// Load: how many requests are answered as expected in a time, compared with the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<ThroughputBound>,
    /// Load: how fast answers are, compared with the baseline or with the control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyBound>,
    /// Load: half of the requests are answered within this time; or compared with the baseline or the control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<QuantileBound>,
    /// Load: 90 % of the requests are answered within this time; or compared, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<QuantileBound>,
    /// Load: 99 % of the requests are answered within this time; or compared, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<QuantileBound>,
    /// Load: 99.9 % of the requests are answered within this time; or compared, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999: Option<QuantileBound>,
    /// The share of bad samples that is still steady.
    #[serde(default, skip_serializing_if = "Percent::is_zero")]
    pub tolerate: Percent,
}

impl Hypothesis {
    /// What is claimed of a rate; `None` where single looks are judged by counting them. Without a bound where there is a
    /// budget, and nothing else is said about how much may fail.
    pub fn terms(&self) -> Option<Terms> {
        let alone = self.budget.is_some() && self.expect.tolerate.is_zero();
        let bounds = self.expect.bounds(self.load.is_some() && !alone);
        (alone || !bounds.is_empty()).then(|| Terms {
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
            Some(ErrorsBound::OfControl(times)) => Some(Bound::ErrorsOfControl(times)),
            None if load && self.throughput.is_none() => Some(Bound::Errors(Percent::default())),
            None => None,
        };
        let quantile = |(_, thousandths, bound): (&str, u64, QuantileBound)| match bound {
            QuantileBound::Within(most) => Bound::Quantile { thousandths, within: most.0 },
            QuantileBound::OfBaseline(times) => Bound::QuantileOfBaseline(Multiple { thousandths, times }),
            QuantileBound::OfControl(times) => Bound::QuantileOfControl(Multiple { thousandths, times }),
        };
        let quantiles = self.given().map(quantile);
        let throughput = self.throughput.map(|bound| Bound::Throughput(bound.0));
        let latency = self.latency.map(|bound| match bound {
            LatencyBound::OfBaseline => Bound::Latency,
            LatencyBound::OfControl => Bound::LatencyOfControl,
        });
        errors.into_iter().chain(quantiles).chain(throughput).chain(latency).collect()
    }

    /// The bounds of latencies that are given as a time: key, thousandths of the requests, bound.
    pub fn quantiles(&self) -> impl Iterator<Item = (&'static str, u64, MostPeriod)> {
        self.given().filter_map(|(name, share, bound)| match bound {
            QuantileBound::Within(most) => Some((name, share, most)),
            QuantileBound::OfBaseline(_) | QuantileBound::OfControl(_) => None,
        })
    }

    /// All bounds of latencies.
    fn given(&self) -> impl Iterator<Item = (&'static str, u64, QuantileBound)> {
        let bounds = [self.p50, self.p90, self.p99, self.p999];
        QUANTILES.into_iter().zip(bounds).filter_map(|((name, share), bound)| Some((name, share, bound?)))
    }
}

/// One sample of the system: what a prober reports.
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
    /// Whether it says nothing at all about the system: what was to be compared was not there, or no number. Never of a
    /// good one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unclear: bool,
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
        expect: Box<Expect>,
        /// How many looks make a sample.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        looks: Option<Looks>,
        /// Say that requests fail before the sample is complete; only of a load.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        promptly: bool,
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
    /// So many requests failed by now of a sample of a load that is not complete: see [`ProberRequest::Load`].
    Failing {
        /// Which.
        probe: u32,
        /// When the sample was begun, as it will say itself.
        begun_ns: u64,
        /// How many.
        failed: u64,
    },
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
