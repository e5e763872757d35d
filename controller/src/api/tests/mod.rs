//! The interface over a real socket and a real store. The engine is a double at the one seam that [`Engine`] is: it runs
//! nothing and writes down what it was asked.

mod access;
mod halts;
mod hostile;
mod notify;
mod plans;
mod runs;
mod schedules;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::http::Method;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Lifted, Refusal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::Remote;
use super::engine::{Planned, Submission};
use super::server::Listening;
use super::*;
use crate::api::problem::Problem;
use crate::fleet::HostInfo;
use crate::sights::Page;
use crate::store::tests::Scratch;
use crate::store::{NewJoinToken, Where};

/// How long the host takes that is called `slow`.
pub(crate) const SLOWLY: std::time::Duration = std::time::Duration::from_millis(500);

/// The test double of the engine's seam.
#[derive(Default)]
pub(crate) struct Recorder {
    asked: Mutex<Vec<String>>,
}

impl Recorder {
    fn note(&self, what: String) {
        self.asked.lock().expect("nobody panics while noting").push(what);
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics while noting").clone()
    }
}

impl Engine for Recorder {
    fn hosts(&self) -> BoxFuture<'_, Vec<HostInfo>> {
        let live = HostInfo {
            name: "web".to_owned(),
            kernel: "6.1.0".to_owned(),
            version: "0.1.0".to_owned(),
            connected: true,
            last_contact_ms: 7,
            preflight: json!({ "nft": true }).into(),
            labels: BTreeMap::from([("says".to_owned(), "itself".to_owned())]),
            ..HostInfo::default()
        };
        Box::pin(async move { vec![live] })
    }

    fn check(&self, submission: &Submission) -> Result<(), Refusal> {
        match submission.document.as_str() {
            "wrong" => Err(Refusal { exit: Exit::Invalid as u8, ..Refusal::bare("line 1: it is wrong") }),
            "several" => Err(Refusal::new("it is a sequence of runs", "name one of them")),
            _ => Ok(()),
        }
    }

    fn plan<'a>(&'a self, submission: &'a Submission) -> BoxFuture<'a, Result<Planned, Refusal>> {
        Box::pin(async move {
            self.check(submission)?;
            match submission.document.as_str() {
                "forbidden" => Err(Refusal::new("no host allows it", "ask its owner")),
                _ => Ok(Planned {
                    title: "A title".to_owned(),
                    hash: "abc".to_owned(),
                    seed: 7,
                    weight: 1,
                    content: String::new(),
                    shown: json!({ "hosts": [] }),
                    approvable: submission.document != "everywhere",
                    ..Planned::default()
                }),
            }
        })
    }

    fn start<'a>(&'a self, run: &'a str, submission: Submission) -> BoxFuture<'a, Result<(), Problem>> {
        self.note(format!("start {run}"));
        Box::pin(async move {
            match submission.document.as_str() {
                "starts never" => Err(Refusal::bare("no host is there any more").into()),
                _ => Ok(()),
            }
        })
    }

    fn observations(&self, _: &str, _: u64, _: u64) -> Option<Page> {
        None
    }

    fn halt_run<'a>(&'a self, run: &'a str) -> BoxFuture<'a, Result<(), Refusal>> {
        self.note(format!("halt {run}"));
        Box::pin(async { Ok(()) })
    }

    fn halt_runs(&self) {
        self.note("halt all runs".to_owned());
    }

    fn halt<'a>(
        &'a self,
        hosts: Option<&'a [String]>,
    ) -> BoxFuture<'a, BTreeMap<String, Result<Lifted, Refusal>>> {
        self.note(format!("halt {hosts:?}"));
        let lifted = Lifted { undone: vec!["the rule is gone".to_owned()], ..Lifted::default() };
        let gone = Err(Refusal::bare("`db` is not connected"));
        let slow = hosts.is_some_and(|hosts| hosts == ["slow"]);
        Box::pin(async move {
            if slow {
                tokio::time::sleep(SLOWLY).await;
                self.note("the slow host has answered".to_owned());
            }
            BTreeMap::from([("web".to_owned(), Ok(lifted)), ("db".to_owned(), gone)])
        })
    }

    fn join_token(&self) -> Minted {
        Minted { token: "a token that hosts understand".to_owned(), hash: "its hash".to_owned() }
    }

    fn cut_off(&self, host: &str) {
        self.note(format!("cut off {host}"));
    }
}

/// A controller's interface that listens on loopback, with a token of each role.
pub(crate) struct Served {
    pub(crate) store: Store,
    pub(crate) engine: Arc<Recorder>,
    pub(crate) at: SocketAddr,
    api: Arc<Api>,
    tokens: BTreeMap<&'static str, String>,
    secrets: Secrets,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    scratch: Scratch,
}

impl Served {
    pub(crate) async fn new() -> Self {
        Served::with(Approvals::Optional).await
    }

    pub(crate) async fn with(approvals: Approvals) -> Self {
        Served::under(Config::default(), approvals).await
    }

    pub(crate) async fn under(config: Config, approvals: Approvals) -> Self {
        let scratch = Scratch::new("api");
        let store = Store::open(&Where::Sqlite(scratch.path())).expect("a store");
        let secrets = Secrets::open(&scratch.path()).expect("secrets");
        let mut tokens = BTreeMap::new();
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            let minted = secrets.mint("token");
            let new = NewToken {
                id: role.name().to_owned(),
                hash: minted.hash,
                name: "ada".to_owned(),
                role,
                made_by: "the test".to_owned(),
                expires_at: None,
            };
            store.new_token(new).await.expect("a token");
            tokens.insert(role.name(), minted.token);
        }
        let engine = Arc::new(Recorder::default());
        let names = BTreeSet::from(["Squall.Example".to_owned()]);
        let api = Api::under(
            config,
            store.clone(),
            secrets.clone(),
            Arc::clone(&engine) as Arc<dyn Engine>,
            names,
            approvals,
        );
        let listening = Listening::on(([127, 0, 0, 1], 0).into(), None).await.expect("it listens");
        let at = listening.address().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn({
            let api = Arc::clone(&api);
            async move { listening.serve(&api, async { drop(stopped.await) }).await }
        });
        Served { api, store, engine, at, tokens, secrets, stop, serving, scratch }
    }

    pub(crate) fn token(&self, role: &str) -> &str {
        self.tokens.get(role).map_or("squall_token_00", String::as_str)
    }

    pub(crate) fn remote(&self, role: &str) -> Remote {
        Remote::new(&format!("http://{}", self.at), self.token(role), None).expect("an address")
    }

    /// Asks as a role; gives the status and the answer.
    pub(crate) async fn ask(
        &self,
        role: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        self.remote(role).call(method, path, body.as_ref(), None).await.expect("an answer")
    }

    pub(crate) async fn get(&self, role: &str, path: &str) -> (u16, Value) {
        self.ask(role, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, role: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask(role, Method::POST, path, Some(body)).await
    }

    /// A token of somebody else, an operator.
    pub(super) async fn somebody(&mut self, name: &'static str) {
        let minted = self.secrets.mint("token");
        let new = NewToken {
            id: name.to_owned(),
            hash: minted.hash,
            name: name.to_owned(),
            role: Role::Operator,
            made_by: "the test".to_owned(),
            expires_at: None,
        };
        self.store.new_token(new).await.expect("a token");
        self.tokens.insert(name, minted.token);
    }

    /// Refused tokens are not counted so far.
    pub(crate) fn forget_failures(&self) {
        self.api.failures.forget();
    }

    /// A host that has enrolled.
    pub(crate) async fn enrolled(&self, name: &str) {
        let new = NewJoinToken {
            id: name.to_owned(),
            hash: format!("hash for {name}"),
            made_by: "the test".to_owned(),
            expires_at: u64::MAX >> 1,
            uses: 1,
        };
        self.store.new_join_token(new).await.expect("a join token");
        let host =
            crate::store::NewHost { name: name.to_owned(), serial: "1".to_owned(), ..Default::default() };
        self.store.enrol(&format!("hash for {name}"), host).await.expect("it enrols");
    }

    /// Every byte of the data directory.
    pub(crate) fn files(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.scratch.path()).expect("a directory").flatten();
        files.filter_map(|file| std::fs::read(file.path()).ok()).flatten().collect()
    }

    /// Closes it, as a signal does.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.serving.await.expect("it ends");
    }
}
