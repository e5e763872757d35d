//! Names become addresses: by the hosts file, then by DNS with the name servers and search domains of where the change
//! acts: in a container and in a named namespace those of that place, asked in its network. On the host itself the system's
//! own order (`nsswitch.conf`) has the last word; whom it asks inside a container nobody outside knows. While a fault with
//! names is live they are asked again when the answer is over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use squall_experiments::protocol::Refusal;
use tokio::task::{AbortHandle, JoinSet};

use crate::host::aim::News;
use crate::host::view::{Seen, View, Viewpoint};

/// How long one way of asking may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer is asked for again after its time to live, but not sooner than this,
const SOONEST: Duration = Duration::from_secs(1);
/// and not later than this. The hosts file and the system's own order say nothing of a time to live.
const LATEST: Duration = Duration::from_secs(60);
/// How long the two families of a name are waited for: one that answers is not lost by one that does not.
const FAMILIES: Duration = Duration::from_secs(4);
/// Where nobody answered, it is asked again so soon at the latest.
const RETRY: Duration = Duration::from_secs(5);

/// What a name came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// All its addresses, IPv4 and IPv6, never none.
    pub addresses: BTreeSet<IpAddr>,
    again: Duration,
    by: By,
    /// Addresses of a family that nobody could tell: that there are none is known only where it is said.
    untold: Option<Untold>,
}

/// A family of addresses for which a name server has given no answer, neither some nor that there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Untold {
    v6: bool,
    why: String,
}

impl Untold {
    fn family(&self) -> &'static str {
        if self.v6 { "IPv6" } else { "IPv4" }
    }
}

/// What one way of asking found.
#[derive(Debug)]
struct Found {
    addresses: Vec<IpAddr>,
    lives: Duration,
    untold: Option<Untold>,
}

impl Found {
    /// By who says nothing of a time to live.
    fn whole(addresses: Vec<IpAddr>) -> Self {
        Found { addresses, lives: LATEST, untold: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The hosts file or DNS.
    Names,
    /// `getaddrinfo`.
    System,
}

/// A name, and from where it is seen.
pub type Asked = (Viewpoint, String);

/// What every name came to.
pub type Answers = BTreeMap<Asked, Answer>;

/// The addresses alone.
pub fn resolved(answers: &Answers) -> Seen {
    let mut seen = Seen::new();
    for ((from, name), answer) in answers {
        let addresses = answer.addresses.iter().copied().collect();
        seen.entry(from.clone()).or_default().insert(name.clone(), addresses);
    }
    seen
}

/// What the reader must know.
pub fn notes(answers: &Answers) -> Vec<String> {
    let system = answers.iter().filter(|(_, answer)| answer.by == By::System);
    let elsewhere = answers.keys().filter(|(from, _)| *from != Viewpoint::Host);
    let note = |name: &String| {
        format!(
            "`{name}` is in no hosts file and not in DNS: the system's own order (`nsswitch.conf`) knows it, and is \
             asked again every {} s",
            LATEST.as_secs()
        )
    };
    let seen = |(from, name): &Asked| {
        format!(
            "`{name}` means what it does {from}: its hosts file and name servers are asked, in its network"
        )
    };
    system.map(|((_, name), _)| note(name)).chain(elsewhere.map(seen)).collect()
}

/// Every address of every name, IPv4 and IPv6, all names at once. One name that does not resolve, or of which nobody can
/// tell the addresses of one family, refuses all.
///
/// To be called on a `LocalSet`. Dropping it ends what it has begun.
pub async fn addresses(names: BTreeSet<Asked>) -> Result<Answers, Refusal> {
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
            let (from, name) = &name;
            Refusal::new(
                format!("the name `{name}` does not resolve {from}: {why}"),
                match from {
                    Viewpoint::Host => "check the spelling and this host's resolver (`getent ahosts NAME`)",
                    _ => "check the spelling, and `/etc/hosts` and `/etc/resolv.conf` there",
                },
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
pub fn follow(asked: Asked, answer: Answer, tell: impl Fn(News) + 'static) -> Follower {
    let task = async move {
        let mut last = answer;
        let mut lost = false;
        // Each address leaves once: a name that answers with some of many at a time is no news for ever.
        let mut gone: BTreeSet<IpAddr> = BTreeSet::new();
        loop {
            let wait = if lost { last.again.min(RETRY) } else { last.again };
            tokio::time::sleep(wait).await;
            let (from, name) = asked.clone();
            let mut news = News { name, from, ..News::default() };
            match again(&asked, last.by).await {
                Ok(mut answer) => {
                    let untold = answer.untold.take();
                    // Whom nobody can tell of has not left.
                    let kept = last.addresses.iter().filter(|address| {
                        untold.as_ref().is_some_and(|untold| untold.v6 == address.is_ipv6())
                    });
                    answer.addresses.extend(kept);
                    let left = last.addresses.difference(&answer.addresses);
                    news.left = left.copied().filter(|address| gone.insert(*address)).collect();
                    news.addresses = answer.addresses.iter().copied().collect();
                    news.asking = match &untold {
                        None => lost.then(|| "it answers again".to_owned()),
                        Some(untold) => (!lost).then(|| {
                            let (family, why) = (untold.family(), &untold.why);
                            format!(
                                "its {family} addresses could not be asked again ({why}): those of its last answer stay"
                            )
                        }),
                    };
                    let changed = answer.addresses != last.addresses;
                    (last, lost) = (answer, untold.is_some());
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

async fn first(asked: &Asked) -> Result<Answer, String> {
    match again(asked, By::Names).await {
        // A fault that meets half of what a name stands for is not the one that was asked for.
        Ok(Answer { untold: Some(untold), .. }) => Err(format!(
            "nobody can tell whether it has {} addresses: {}; a fault would miss them (name the addresses instead, \
             if these are all)",
            untold.family(),
            untold.why
        )),
        Ok(answer) => Ok(answer),
        Err(why) if asked.0 != Viewpoint::Host => Err(why),
        Err(why) => again(asked, By::System).await.map_err(|_| why),
    }
}

async fn again((from, name): &Asked, by: By) -> Result<Answer, String> {
    let asked = async {
        match by {
            By::Names if *from == Viewpoint::Host => by_names(name, None).await,
            By::Names => elsewhere(from.clone(), name.clone()).await,
            By::System => {
                let found =
                    tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| error.to_string())?;
                Ok(Found::whole(found.map(|address| address.ip()).collect()))
            }
        }
    };
    let answered = tokio::time::timeout(PATIENCE, asked).await;
    let found = answered.map_err(|_| silence(PATIENCE))??;
    let addresses: BTreeSet<IpAddr> = found.addresses.iter().map(IpAddr::to_canonical).collect();
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(Answer { addresses, again: found.lives.clamp(SOONEST, LATEST), by, untold: found.untold })
}

fn silence(waited: Duration) -> String {
    format!("no answer within {} s", waited.as_secs())
}

/// Asks from another place, on a thread that goes there: sockets belong to the network in which they are made.
async fn elsewhere(from: Viewpoint, name: String) -> Result<Found, String> {
    let asked = tokio::task::spawn_blocking(move || {
        let view = View::from(&from)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        // Whoever waits has given up by then; nothing may stay inside for longer.
        let ask = async {
            let asked = tokio::time::timeout(PATIENCE, by_names(&name, view.as_ref())).await;
            asked.unwrap_or_else(|_| Err(silence(PATIENCE)))
        };
        match &view {
            Some(view) => view.inside(|| runtime.block_on(ask)).map_err(|error| error.to_string())?,
            None => runtime.block_on(ask),
        }
    });
    asked.await.map_err(|error| error.to_string())?
}

/// By the hosts file, then by DNS: as seen from elsewhere, or by the files of this host.
async fn by_names(name: &str, view: Option<&View>) -> Result<Found, String> {
    let hosts = match view {
        Some(view) => {
            let mut hosts = Hosts::default();
            hosts.read_hosts_conf(view.hosts.as_slice()).map(|()| hosts)
        }
        None => Hosts::from_system(),
    };
    match hosts.ok().and_then(|hosts| in_hosts_file(&hosts, name)) {
        Some(addresses) => Ok(Found::whole(addresses)),
        None => in_dns(name, view).await,
    }
}

/// What the hosts file says, which then is all that counts: DNS would be asked in vain for the other family, and may be
/// out of reach.
fn in_hosts_file(hosts: &Hosts, name: &str) -> Option<Vec<IpAddr>> {
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
async fn in_dns(name: &str, view: Option<&View>) -> Result<Found, String> {
    let configured = match view {
        Some(view) => system_conf::parse_resolv_conf(&view.servers),
        None => system_conf::read_system_conf(),
    };
    let (config, mut options) = configured.map_err(|error| error.to_string())?;
    options.use_hosts_file = ResolveHosts::Never;
    // A slow server leaves time for the next.
    options.timeout = options.timeout.min(PATIENCE / 3);
    let names = candidates(name, &config, options.ndots)?;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let until = tokio::time::Instant::now() + FAMILIES;
    let mut failed = None;
    for name in names {
        let ask = |kind| told(&resolver, name.clone(), kind, until);
        let (v4, v6) = tokio::join!(ask(RecordType::A), ask(RecordType::AAAA));
        let mut found = Found { addresses: Vec::new(), lives: LATEST, untold: None };
        for (told, is_v6) in [(v4, false), (v6, true)] {
            match told {
                Ok((addresses, lives)) => {
                    found.lives = if addresses.is_empty() { found.lives } else { found.lives.min(lives) };
                    found.addresses.extend(addresses);
                }
                Err(why) => {
                    failed = Some(why.clone());
                    found.untold = Some(Untold { v6: is_v6, why });
                }
            }
        }
        if !found.addresses.is_empty() {
            return Ok(found);
        }
    }
    Err(failed.unwrap_or_else(|| "there are no such records".to_owned()))
}

/// The addresses of one family, and how long they live; none where a server says that there are none.
async fn told(
    resolver: &TokioResolver,
    name: Name,
    kind: RecordType,
    until: tokio::time::Instant,
) -> Result<(Vec<IpAddr>, Duration), String> {
    match tokio::time::timeout_at(until, resolver.lookup(name, kind)).await {
        Err(_) => Err(silence(FAMILIES)),
        Ok(Err(error)) if error.is_no_records_found() => Ok((Vec::new(), LATEST)),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(found)) => {
            let addresses = found.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            Ok((addresses, found.valid_until().saturating_duration_since(Instant::now())))
        }
    }
}

/// What a name may stand for, in the order of `resolv.conf(5)`. The resolver's own list goes from one to the next behind
/// an error, too, and for each family by itself.
fn candidates(name: &str, config: &ResolverConfig, ndots: usize) -> Result<Vec<Name>, String> {
    let name = Name::from_utf8(name).map_err(|error| error.to_string())?;
    let mut whole = name.clone();
    whole.set_fqdn(true);
    if name.is_fqdn() {
        return Ok(vec![whole]);
    }
    let searched = config.domain().into_iter().chain(config.search());
    let mut names: Vec<Name> =
        searched.filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
    let at = if usize::from(name.num_labels()) > ndots { 0 } else { names.len() };
    names.insert(at, whole);
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_in_the_hosts_file_and_needs_no_server() {
        let hosts = Hosts::from_system().unwrap();
        let found = in_hosts_file(&hosts, "localhost").expect("every hosts file names it");
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(in_hosts_file(&hosts, "no-such-name.invalid").is_none());
    }
    #[test]
    fn names_are_tried_in_the_order_of_the_configuration() {
        let order = |name: &str, text: &str, ndots: usize| -> Vec<String> {
            let (config, _) = system_conf::parse_resolv_conf(text).unwrap();
            candidates(name, &config, ndots).unwrap().iter().map(ToString::to_string).collect()
        };
        let searching = "nameserver 192.0.2.1\nsearch a.test b.test\n";
        assert_eq!(order("db", searching, 1), ["db.a.test.", "db.b.test.", "db."]);
        assert_eq!(order("db.shop", searching, 1), ["db.shop.", "db.shop.a.test.", "db.shop.b.test."]);
        assert_eq!(order("db.shop", searching, 5), ["db.shop.a.test.", "db.shop.b.test.", "db.shop."]);
        assert_eq!(order("db.shop.", searching, 5), ["db.shop."]);
        assert_eq!(order("db", "nameserver 192.0.2.1\n", 1), ["db."]);
    }
}
