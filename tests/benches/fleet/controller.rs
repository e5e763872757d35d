//! The controller under measurement: the release's program, in a directory of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::Method;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::Value;
use squall_agent::fleet::identity::Membership;
use squall_controller::api::client::Remote;
use squall_controller::fleet::Authority;
use squall_controller::store::{NewHost, NewJoinToken, Store, Where};
use squall_experiments::fleet::{Joined, hex};
use squall_tests::squall::binary;
use squall_tests::wait::holds;

/// How long nobody asks between two questions.
const EVERY: Duration = Duration::from_millis(50);

/// A controller that knows some hosts, and what those hosts have of it. Dropped, it is killed and forgotten.
pub struct Controller {
    pub agents: SocketAddr,
    /// All hosts have one key: who they are stands in their certificates.
    pub key: KeyPair,
    pub members: Vec<Membership>,
    people: SocketAddr,
    directory: PathBuf,
    child: Option<Child>,
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Controller {
    /// Makes a data directory in which so many hosts belong to the fleet already: one at a time they would have to ask.
    pub fn prepare(hosts: usize) -> Self {
        let directory =
            std::env::temp_dir().join(format!("squall-figures-fleet-{}-{hosts}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let authority = Authority::open(&directory).unwrap();
        let store = Store::open(&Where::Sqlite(directory.clone())).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let week = Duration::from_secs(7 * 86_400);
        let members = (0..hosts).map(|number| {
            let name = format!("host-{number:05}");
            let issued = authority.issue(&name, key.der_bytes(), week).unwrap();
            let new = NewHost {
                name: name.clone(),
                serial: issued.serial,
                key: hex(key.der_bytes()),
                ..NewHost::default()
            };
            let authority = authority.pem().to_owned();
            (new, Membership::new(Joined { name, certificate: issued.certificate, authority }).unwrap())
        });
        let (new, members): (Vec<_>, Vec<_>) = members.unzip();
        runtime.block_on(async {
            let token = NewJoinToken {
                id: "figures".to_owned(),
                hash: "figures".to_owned(),
                made_by: "figures".to_owned(),
                expires_at: i64::MAX.unsigned_abs(),
                uses: hosts as u64,
            };
            store.new_join_token(token).await.unwrap();
            let enrolled = new.into_iter().map(|new| store.enrol("figures", new));
            futures_util::future::try_join_all(enrolled).await.unwrap();
        });
        let (agents, people) = (free(), free());
        Controller { agents, key, members, people, directory, child: None }
    }

    /// Starts it, and waits until it listens.
    pub fn start(&mut self) {
        let log = self.directory.join("log");
        let mut command = Command::new(binary("squall"));
        command.args([
            "serve",
            "--listen",
            &self.people.to_string(),
            "--listen-agents",
            &self.agents.to_string(),
        ]);
        command.arg("--data").arg(&self.directory).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        self.child = Some(child);
        let listens = || fs::read_to_string(&log).is_ok_and(|log| log.contains("serves agents at"));
        holds("the controller to listen", Duration::from_secs(20), listens);
    }

    /// Kills it, as the kernel does when memory is out.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn proc(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.child.as_ref().unwrap().id()))
    }

    /// What it has in memory, in bytes.
    pub fn resident(&self) -> f64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    }

    /// Time on a processor of all its threads so far.
    pub fn on_cpu(&self) -> Duration {
        let tasks = fs::read_dir(self.proc("task")).unwrap().flatten();
        let nanos = tasks.filter_map(|task| {
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Asks whether a halt goes on, again and again while something is done; gives what that gave, and the longest that anyone
    /// waited for an answer meanwhile.
    pub fn asking<T: Send>(&self, work: impl FnOnce() -> T + Send) -> (T, Duration) {
        thread::scope(|scope| {
            let mut longest = Duration::ZERO;
            let work = scope.spawn(work);
            while !work.is_finished() {
                let began = Instant::now();
                self.ask("GET", "/v1/halt", None);
                longest = longest.max(began.elapsed());
                thread::sleep(EVERY);
            }
            (work.join().unwrap(), longest)
        })
    }

    /// Asks as an administrator; what is refused is said.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let token = fs::read_to_string(self.directory.join("admin-token")).unwrap();
        let remote = Remote::new(&format!("http://{}", self.people), token.trim(), None).unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, answer) = runtime.block_on(remote.call(method, path, body, None)).unwrap();
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
