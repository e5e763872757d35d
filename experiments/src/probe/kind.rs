//! A probe by its kind.

use serde::{Deserialize, Serialize};

use super::{
    DnsProbe, HttpProbe, Hypothesis, LoadProbe, LogProbe, MetricsProbe, ProcessProbe, ProcessesProbe,
    PrometheusProbe, RedisProbe, SqlProbe, TcpProbe, TlsProbe, two_seconds,
};
use crate::quantity::Period;
use crate::verdict::IN_A_ROW;

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
    /// See [`ProcessesProbe`].
    Processes(ProcessesProbe),
    /// See [`LoadProbe`].
    Load {
        /// What is sent, and how often.
        load: LoadProbe,
        /// A sample is what begins within this time, and at least one request.
        tick: Period,
    },
    /// See [`DnsProbe`].
    Dns(DnsProbe),
    /// See [`TlsProbe`].
    Tls(TlsProbe),
    /// See [`PrometheusProbe`].
    Prometheus(PrometheusProbe),
    /// See [`MetricsProbe`].
    Metrics(MetricsProbe),
    /// See [`RedisProbe`].
    Redis(RedisProbe),
    /// See [`SqlProbe`].
    Sql(SqlProbe),
    /// See [`LogProbe`].
    Log(LogProbe),
}

impl Probe {
    /// The longest time that one look takes.
    pub fn timeout(&self) -> Period {
        match self {
            Probe::Http(http) => http.timeout,
            Probe::Tcp(tcp) => tcp.timeout,
            Probe::Process(process) => process.timeout,
            Probe::Processes(processes) => (two_seconds().get() + processes.over.get()).into(),
            // Several samples that are asked for at once follow each other.
            Probe::Load { load, tick } => (tick.get() * IN_A_ROW + load.timeout.get()).into(),
            Probe::Dns(dns) => dns.timeout,
            Probe::Tls(tls) => tls.timeout,
            Probe::Prometheus(prometheus) => prometheus.timeout,
            Probe::Metrics(metrics) => {
                let between = metrics.rate.unwrap_or(Period::ZERO).get();
                (metrics.timeout.get() + between).into()
            }
            Probe::Redis(redis) => redis.timeout,
            Probe::Sql(sql) => sql.timeout,
            Probe::Log(_) => two_seconds(),
        }
    }

    /// The user to run it as, where it is not nobody.
    pub fn user(&self) -> Option<&str> {
        match self {
            Probe::Process(process) => process.user.as_deref(),
            Probe::Processes(processes) => processes.user.as_deref(),
            Probe::Log(log) => log.user.as_deref(),
            _ => None,
        }
    }
}

impl Hypothesis {
    /// The one probe; `None` where none or several are given, which `check` reports.
    pub fn probe(&self) -> Option<Probe> {
        let mut given = [
            self.http.clone().map(Probe::Http),
            self.tcp.clone().map(Probe::Tcp),
            self.process.clone().map(Probe::Process),
            self.processes.clone().map(Probe::Processes),
            self.load.clone().map(|load| Probe::Load { tick: self.tick(&load), load }),
            self.dns.clone().map(Probe::Dns),
            self.tls.clone().map(Probe::Tls),
            self.prometheus.clone().map(Probe::Prometheus),
            self.metrics.clone().map(Probe::Metrics),
            self.redis.clone().map(Probe::Redis),
            self.sql.clone().map(Probe::Sql),
            self.log.clone().map(Probe::Log),
        ]
        .into_iter()
        .flatten();
        let only = given.next();
        only.filter(|_| given.next().is_none())
    }

    /// How long a sample of a load lasts: [`Hypothesis::every`], and at least from one request to the next.
    fn tick(&self, load: &LoadProbe) -> Period {
        self.every.get().max(load.rate.offset(1)).into()
    }
}
