//! Names become addresses: by the hosts file, then by DNS with this host's name servers and search domains, else by the
//! system's own order (`nsswitch.conf`). While a fault with names is live they are asked again when the answer is over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use squall_experiments::protocol::Refusal;
use tokio::task::{AbortHandle, JoinSet};

use crate::host::aim::{News, Resolved};

/// How long one way of asking may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer is asked for again after its time to live, but not sooner than this,
const SOONEST: Duration = Duration::from_secs(1);
/// and not later than this. The hosts file and the system's own order say nothing of a time to live.
const LATEST: Duration = Duration::from_secs(60);
/// Where nobody answered, it is asked again so soon at the latest.
const RETRY: Duration = Duration::from_secs(5);

/// What a name came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// All its addresses, IPv4 and IPv6, never none.
    pub addresses: BTreeSet<IpAddr>,
    again: Duration,
    by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The hosts file or DNS.
    Names,
    /// `getaddrinfo`.
    System,
}

/// What every name came to.
pub type Answers = BTreeMap<String, Answer>;

/// The addresses alone.
pub fn resolved(answers: &Answers) -> Resolved {
    let addresses = |answer: &Answer| answer.addresses.iter().copied().collect();
    answers.iter().map(|(name, answer)| (name.clone(), addresses(answer))).collect()
}

/// What the reader must know.
pub fn notes(answers: &Answers) -> Vec<String> {
    let system = answers.iter().filter(|(_, answer)| answer.by == By::System);
    let note = |name: &String| {
        format!(
            "`{name}` is in no hosts file and not in DNS: the system's own order (`nsswitch.conf`) knows it, and is \
             asked again every {} s",
            LATEST.as_secs()
        )
    };
    system.map(|(name, _)| note(name)).collect()
}

/// Every address of every name, IPv4 and IPv6, all names at once. One name that does not resolve refuses all.
///
/// To be called on a `LocalSet`. Dropping it ends what it has begun.
pub async fn addresses(names: BTreeSet<String>) -> Result<Answers, Refusal> {
    let mut asking = JoinSet::new();
    for name in names {
        asking.spawn_local(async move {
            let answer = first(&name).await;
            (name, answer)
        });
    }
    let mut answers = Answers::new();
    while let Some(asked) = asking.join_next().await {
        let (name, answer) =
            asked.map_err(|error| Refusal::bare(format!("a name was not asked: {error}")))?;
        let answer = answer.map_err(|why| {
            Refusal::new(
                format!("the name `{name}` does not resolve on this host: {why}"),
                "check the spelling and this host's resolver (`getent ahosts NAME`)",
            )
        })?;
        answers.insert(name, answer);
    }
    Ok(answers)
}

/// A name is asked again as long as this lives.
#[derive(Debug)]
pub struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks a name again whenever its answer is over, and tells what has changed.
pub fn follow(name: String, answer: Answer, tell: impl Fn(News) + 'static) -> Follower {
    let task = async move {
        let mut last = answer;
        let mut lost = false;
        // Each address leaves once: a name that answers with some of many at a time is no news for ever.
        let mut gone: BTreeSet<IpAddr> = BTreeSet::new();
        loop {
            let wait = if lost { last.again.min(RETRY) } else { last.again };
            tokio::time::sleep(wait).await;
            let mut news = News { name: name.clone(), ..News::default() };
            match again(&name, last.by).await {
                Ok(answer) => {
                    let left = last.addresses.difference(&answer.addresses);
                    news.left = left.copied().filter(|address| gone.insert(*address)).collect();
                    news.addresses = answer.addresses.iter().copied().collect();
                    news.asking = lost.then(|| "it answers again".to_owned());
                    let changed = answer.addresses != last.addresses;
                    (last, lost) = (answer, false);
                    if changed || news.asking.is_some() {
                        tell(news);
                    }
                }
                Err(why) if !lost => {
                    lost = true;
                    news.asking = Some(format!("it could not be asked again ({why}): its last answer stays"));
                    tell(news);
                }
                Err(_) => {}
            }
        }
    };
    Follower(tokio::task::spawn_local(task).abort_handle())
}

async fn first(name: &str) -> Result<Answer, String> {
    match again(name, By::Names).await {
        Ok(answer) => Ok(answer),
        Err(why) => again(name, By::System).await.map_err(|_| why),
    }
}

async fn again(name: &str, by: By) -> Result<Answer, String> {
    let asked = async {
        match by {
            By::Names => match in_hosts_file(name) {
                Some(addresses) => Ok((addresses, LATEST)),
                None => in_dns(name).await,
            },
            By::System => {
                let found = tokio::net::lookup_host((name, 0)).await.map_err(|error| error.to_string())?;
                Ok((found.map(|address| address.ip()).collect(), LATEST))
            }
        }
    };
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    let (addresses, lives) = answered.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))??;
    let addresses: BTreeSet<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(Answer { addresses, again: lives.clamp(SOONEST, LATEST), by })
}

/// What the hosts file says, which then is all that counts: DNS would be asked in vain for the other family, and may be
/// out of reach.
fn in_hosts_file(name: &str) -> Option<Vec<IpAddr>> {
    let hosts = Hosts::from_system().ok()?;
    let mut name = Name::from_utf8(name).ok()?;
    name.set_fqdn(true);
    let lookups = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)));
    let addresses: Vec<IpAddr> = lookups
        .flat_map(|found| {
            found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        })
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// What the name servers say, with the search domains. The configuration is read again each time: it may have changed.
async fn in_dns(name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    // A slow server leaves time for the next.
    options.timeout = options.timeout.min(PATIENCE / 3);
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let found = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let lives = found.valid_until().saturating_duration_since(Instant::now());
    Ok((found.iter().collect(), lives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_in_the_hosts_file_and_needs_no_server() {
        let found = in_hosts_file("localhost").expect("every hosts file names it");
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(in_hosts_file("no-such-name.invalid").is_none());
    }
}
