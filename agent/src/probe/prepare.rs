//! A probe as it is loaded, whatever its kind.

use squall_experiments::probe::{Expect, Probe};

use std::time::Duration;

use super::certificate::CertificateLook;
use super::dns::DnsLook;
use super::expect::Seen;
use super::family::Family;
use super::http::HttpLook;
use super::load::Task;
use super::log::LogLook;
use super::metrics::MetricsLook;
use super::process::ProcessLook;
use super::processes::ProcessesLook;
use super::prometheus::PrometheusLook;
use super::redis::RedisLook;
use super::sql::SqlLook;
use super::tcp::TcpLook;

/// A probe that is ready.
pub(super) enum Prepared {
    /// It is looked at, again and again.
    Look(Look),
    /// It goes on by itself.
    Load(Box<Task>),
}

/// A probe that can be sampled.
pub(super) enum Look {
    Http(Box<HttpLook>),
    Tcp(TcpLook),
    Process(Box<ProcessLook>),
    Dns(DnsLook),
    Certificate(Box<CertificateLook>),
    Prometheus(Box<PrometheusLook>),
    Metrics(Box<MetricsLook>),
    Redis(Box<RedisLook>),
    Sql(Box<SqlLook>),
    Log(Box<LogLook>),
    Processes(Box<ProcessesLook>),
}

impl Prepared {
    /// Compiles and loads what the probe needs, and contacts nobody; an error says why it can never be sampled.
    pub(super) fn new(probe: &Probe, expect: &Expect) -> Result<Self, String> {
        Ok(Prepared::Look(match probe {
            Probe::Http(http) => Look::Http(Box::new(HttpLook::new(http, expect)?)),
            Probe::Tcp(tcp) => Look::Tcp(TcpLook::new(tcp, expect)?),
            Probe::Process(process) => Look::Process(Box::new(ProcessLook::new(process, expect)?)),
            Probe::Dns(dns) => Look::Dns(DnsLook::new(dns, expect)?),
            Probe::Tls(tls) => Look::Certificate(Box::new(CertificateLook::new(tls, expect)?)),
            Probe::Prometheus(probe) => Look::Prometheus(Box::new(PrometheusLook::new(probe, expect)?)),
            Probe::Metrics(metrics) => Look::Metrics(Box::new(MetricsLook::new(metrics, expect)?)),
            Probe::Redis(redis) => Look::Redis(Box::new(RedisLook::new(redis, expect)?)),
            Probe::Sql(sql) => Look::Sql(Box::new(SqlLook::new(sql, expect)?)),
            Probe::Log(log) => Look::Log(Box::new(LogLook::new(log, expect)?)),
            Probe::Processes(probe) => Look::Processes(Box::new(ProcessesLook::new(probe, expect)?)),
            Probe::Load { load, tick } => {
                return Ok(Prepared::Load(Box::new(Task::new(load, *tick, expect)?)));
            }
        }))
    }
}

impl Look {
    /// Looks once, and no longer than what is left, where that is given. An error says why the probe cannot be sampled at
    /// all any more.
    pub(super) async fn look(&self, family: &Family, left: Option<Duration>) -> Result<Seen, String> {
        Ok(match self {
            Look::Http(http) => http.look(left).await,
            Look::Tcp(tcp) => tcp.look(left).await,
            Look::Process(process) => return process.look(family, left).await,
            Look::Dns(dns) => dns.look(left).await,
            Look::Certificate(certificate) => certificate.look(left).await,
            Look::Prometheus(prometheus) => prometheus.look(left).await,
            Look::Metrics(metrics) => metrics.look(left).await,
            Look::Redis(redis) => redis.look(left).await,
            Look::Sql(sql) => sql.look(left).await,
            Look::Log(log) => log.look(),
            Look::Processes(processes) => processes.look(left).await,
        })
    }
}
