//! What the interface asks of the rest of the controller: hosts that are connected, runs that are begun and halted.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squall_experiments::protocol::{Lifted, Refusal};

use super::problem::Problem;
use crate::budget::HostUse;
use crate::fleet::HostInfo;
use crate::sights::Page;
use crate::store::Minted;
use crate::traces::{Context, Traces};

/// An experiment that somebody wants run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The experiment file, as text (YAML or JSON).
    pub document: String,
    /// What the file is called in messages.
    #[serde(default)]
    pub name: Option<String>,
    /// Values of its variables.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// The seed of every choice; without it the document's own, else one chosen now.
    #[serde(default)]
    pub seed: Option<u64>,
    /// The version that is tested, as the history calls it: a commit, a release; at most 200 characters.
    #[serde(default)]
    pub build: Option<String>,
    /// Labels: a host that does not carry all of them is left out, whatever the experiment says.
    #[serde(default)]
    pub only: BTreeMap<String, String>,
    /// Why gates and budget do not count this time. Only an administrator may say so; it stands in the audit log.
    #[serde(default)]
    pub overrule: Option<String>,
    /// Whether it is kept what the proxies of its outages see of connections and requests.
    #[serde(default)]
    pub observe: bool,
    /// The request that wants it, where traces are sent.
    #[serde(skip)]
    pub(crate) trace: Option<Context>,
}

/// What a submission comes to, before anything is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// The experiment's title.
    pub title: String,
    /// The hash of its plan.
    pub hash: String,
    /// The seed of every choice, by which the same is planned again.
    pub seed: u64,
    /// How much the experiment counts in the score.
    pub weight: u32,
    /// What it does and claims, as a hash.
    pub content: String,
    /// The experiment's tags, without secrets.
    pub tags: Vec<String>,
    /// What is done on each host, to be shown; without secrets.
    pub shown: serde_json::Value,
    /// Whether it can be approved: what an approval says of all its hosts is told to each.
    pub approvable: bool,
    /// What would be done where, for who reads it before it is.
    pub preview: Preview,
    /// What is done with which hosts.
    pub uses: Vec<HostUse>,
    /// How long the run may go on: its baseline, its method until everything is undone, and its recovery, in seconds.
    pub seconds: u64,
}

/// A plan in words, without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// What is done, with the hosts on which just that is done.
    pub done: Vec<(Vec<String>, String)>,
    /// On which hosts hypotheses and guards are looked at.
    pub watching: Vec<String>,
    /// Hosts that match and are not connected: they were not chosen from.
    pub unconnected: Vec<String>,
    /// What is never hit, whatever the selectors say.
    pub never_hit: Vec<String>,
    /// What the reader should know before.
    pub warnings: Vec<String>,
    /// After how long, counted from the first injection, everything is reverted in any case.
    pub expires: String,
}

/// The rest of the controller. Handlers never reach around it.
pub trait Engine: Send + Sync + 'static {
    /// The hosts that are or were connected, with what they last said.
    fn hosts(&self) -> BoxFuture<'_, Vec<HostInfo>>;

    /// Reads and checks an experiment, whatever hosts there are now; nothing is done. What is refused here no run can be made
    /// of, at any time.
    fn check(&self, submission: &Submission) -> Result<(), Refusal>;

    /// Reads, checks and plans an experiment; nothing is done. The refusal's exit code tells an invalid document
    /// (3) from one that cannot be run now (4).
    fn plan<'a>(&'a self, submission: &'a Submission) -> BoxFuture<'a, Result<Planned, Refusal>>;

    /// Begins a run that is in the store by now, and returns. Its events and states go to the store. A halt of everything
    /// either finds the run, from this call on, or refuses it here.
    fn start<'a>(&'a self, run: &'a str, submission: Submission) -> BoxFuture<'a, Result<(), Problem>>;

    /// A page of what the proxies of a run's outages saw; `None` where nothing is kept of it here.
    fn observations(&self, run: &str, from: u64, most: u64) -> Option<Page>;

    /// Halts one run; a run that has ended is no error. Returns when that has begun, its end is in its events.
    fn halt_run<'a>(&'a self, run: &'a str) -> BoxFuture<'a, Result<(), Refusal>>;

    /// Halts all runs of this controller, and asks no host.
    fn halt_runs(&self);

    /// Undoes everything on these hosts, or on all; returns when every host has answered or will not.
    fn halt<'a>(
        &'a self,
        hosts: Option<&'a [String]>,
    ) -> BoxFuture<'a, BTreeMap<String, Result<Lifted, Refusal>>>;

    /// A new join token, in the form that hosts understand, and the hash by which they will be let in.
    fn join_token(&self) -> Minted;

    /// A host was revoked: its connection ends now.
    fn cut_off(&self, host: &str);

    /// Where traces are sent.
    fn traces(&self) -> Traces {
        Traces::default()
    }
}
