//! The link, as a process: it gives up privileges, dials, and dials again.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rand::RngExt;
use squall_experiments::exit::Exit;
use squall_experiments::fleet::Inventory;
use squall_experiments::protocol::Refusal;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use super::dial;
use super::errand::{Ask, Errands, Told};
use super::identity::{Membership, Vault};
use super::options::Uplink;
use super::session::{self, Ending, Lasting, Streams};
use crate::line::Line;
use crate::policy::Policy;
use crate::preflight;
use crate::probe::privileges;
use crate::seccomp::Keeps;
use crate::talk::{self, LogFormat};

/// How the process is called: it begins as all of Squall's do, and is never hit.
const NAME: &std::ffi::CStr = c"squall-link";
/// From one attempt to the next, at first and at most. Each is drawn between half of it and all: hosts that have lost
/// their controller at the same moment do not come back at the same moment.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(30);
/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// How long names may take.
const RESOLVING: Duration = Duration::from_secs(10);

/// Options of the hidden verb.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// As which user; without it as whoever has started it.
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// As which group.
    #[arg(long)]
    gid: Option<u32>,
    /// As whoever has started it talks.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// Works until the end of its line, which is standard input.
pub fn run(arguments: &Arguments) -> Exit {
    talk::keep(arguments.log_format);
    match begin(arguments) {
        Ok(()) => Exit::Held,
        Err(refusal) => {
            talk::error(&refusal, None);
            Exit::Refused
        }
    }
}

fn begin(arguments: &Arguments) -> Result<(), Refusal> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        Refusal::bare(format!("the link to the controller cannot {what}: {error}"))
    };
    let _ = nix::sys::prctl::set_name(NAME);
    let line = io::stdin().as_fd().try_clone_to_owned().map(Line::new);
    let line = line.map_err(|error| cannot("hear its agent", &error))?;
    let begin = line.receive::<Told>().map_err(|error| cannot("hear its agent", &error))?;
    let Some((Told::Begin(uplink), _)) = begin else { return Ok(()) };
    // All of this needs what is given up below.
    let vault = Vault::open(&uplink.directory);
    let kept = vault.and_then(|vault| Ok((vault.key()?, vault.membership()?)));
    let (key, membership) =
        kept.map_err(|error| cannot(&format!("use `{}`", uplink.directory.display()), &error))?;
    let policy = Policy::of_this_host()?;
    let mut preflight = serde_json::to_value(preflight::Report::of(&policy)).unwrap_or_default();
    // What its owner allows goes along, so that a plan can say what would be refused here.
    preflight["policy"] = serde_json::to_value(policy.limits()).unwrap_or_default();
    // Capabilities belong to threads: before there is a second one.
    let dropped = match arguments.uid.zip(arguments.gid) {
        Some((uid, gid)) => privileges::become_number(uid, gid),
        None => privileges::drop(None, Keeps::ToItself),
    };
    dropped.map_err(|error| cannot("give up its privileges", &error))?;
    let inventory = Inventory {
        labels: uplink.labels.clone(),
        zone: uplink.zone.clone(),
        cell: uplink.cell.clone(),
        kernel: nix::sys::utsname::uname()
            .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        preflight,
        holds: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| cannot("start", &error))?;
    let done = runtime.block_on(async {
        let errands = Errands::new(line).map_err(|error| cannot("hear its agent", &error))?;
        work(
            &uplink,
            &mut Lasting {
                errands,
                errand: 0,
                key,
                membership,
                unkept: None,
                inventory,
                streams: Streams::default(),
            },
        )
        .await;
        Ok(())
    });
    // A name that is being looked up must not keep the process from ending.
    runtime.shutdown_background();
    done
}

async fn work(uplink: &Uplink, lasting: &mut Lasting) {
    let mut pause = *PAUSE.start();
    let mut said = String::new();
    let mut known = Vec::new();
    loop {
        let begun = Instant::now();
        let why = match connection(uplink, lasting, &mut known).await {
            Ending::Lost(why) | Ending::Refused(why) => why,
            Ending::Agent => return,
        };
        if begun.elapsed() > GOOD {
            pause = *PAUSE.start();
            said.clear();
        }
        if said != why.what {
            talk::warning(&why, why.help.as_deref());
            said.clone_from(&why.what);
        }
        if lasting.streams.wait() {
            // A lease goes on: it is over sooner than a controller can be overrun.
            pause = *PAUSE.start();
        }
        sleep(pause.mul_f64(rand::rng().random_range(0.5..=1.0))).await;
        pause = (pause * 2).min(*PAUSE.end());
    }
}

/// One connection, and joining before it where that is needed.
async fn connection(uplink: &Uplink, lasting: &mut Lasting, known: &mut Vec<SocketAddr>) -> Ending {
    let hurry = lasting.streams.wait();
    // Where no name is answered, because of a fault perhaps, the last answer stays; so it does where there is no time.
    let found = if hurry { Vec::new() } else { addresses(uplink).await };
    if !found.is_empty() {
        *known = found;
    }
    if lasting.errands.say(&Ask::Pin { addresses: known.clone() }, None).is_err() {
        return Ending::Agent;
    }
    let connected = async {
        let membership = match lasting.membership.clone().filter(Membership::is_good) {
            Some(membership) => membership,
            None => join(uplink, known, lasting).await?,
        };
        let connecting = if hurry { dial::HURRIED } else { dial::CONNECTING };
        let socket = dial::member(known, &membership, &lasting.key, connecting).await?;
        Ok(session::serve(socket, lasting).await)
    };
    connected.await.unwrap_or_else(Ending::Lost)
}

async fn join(
    uplink: &Uplink,
    addresses: &[SocketAddr],
    lasting: &mut Lasting,
) -> Result<Membership, Refusal> {
    let token = uplink.token.as_deref().and_then(|token| token.parse().ok());
    let token = token.ok_or_else(|| {
        let help = "let it join again with a new token: `--join-file FILE`";
        Refusal::new("this host's certificate is over", help)
    })?;
    let joined = dial::join(addresses, uplink, &token, &lasting.key).await?;
    let words = format!("squall-agent has joined the fleet as `{}`", joined.name);
    talk::notice(words, &[("host", &joined.name)]);
    let membership = Membership::new(joined).map_err(dial::unreached)?;
    lasting.keep(membership.clone())?;
    Ok(membership)
}

/// All addresses of all controllers, in their order.
async fn addresses(uplink: &Uplink) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for (host, port) in &uplink.controllers {
        match timeout(RESOLVING, lookup_host((host.as_str(), *port))).await {
            Ok(Ok(found)) => all.extend(found),
            Ok(Err(error)) => tracing::debug!(host, %error, "a controller's name is not answered"),
            Err(_) => tracing::debug!(host, "a controller's name is not answered in time"),
        }
    }
    all
}
