//! The wire between a controller and its agents: real agents, and the real controller, each on a host of its own.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use squall_controller::fleet::{Authority, Hub, Listener, Roll, Terms};
use squall_experiments::fleet::JoinToken;
use squall_experiments::protocol::Refusal;
use squall_tests::client::connect;
use squall_tests::host::Host;
use squall_tests::netns::Process;
use squall_tests::skip::has_filters;
use squall_tests::squall::Background;
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;
use squall_tests::{needs, skip};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::refusal::program_under_policy;
use crate::trial::{SHORT, SOON};

const PORT: u16 = 8417;

/// A controller in this process, on a host of the world: what `squall serve` is made of, with the hub in the test's hand.
struct Controller {
    hub: Hub,
    roll: Arc<Roll>,
    token: String,
    handle: tokio::runtime::Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Controller {
    fn start(world: &World, host: usize) -> Self {
        let authority = Arc::new(Authority::open(&world.place("authority")).expect("an authority is made"));
        let token = JoinToken::new([7; 32], authority.fingerprint());
        let (hub, roll) = (Hub::new(), Arc::new(Roll::default()));
        roll.allow(&token.hash(), 1);
        let (netns, address) = (world.hosts[host].netns.clone(), (world.hosts[host].v4, PORT));
        let (seats, registry) = (hub.clone(), roll.clone());
        let (end, over) = oneshot::channel::<()>();
        let (started, handle) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            netns.enter().expect("the host can be entered");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime starts");
            runtime.block_on(async {
                let terms = Terms { heartbeat: Duration::from_millis(500), ..Terms::default() };
                let agents = Listener::new(authority, registry, seats, terms).expect("TLS can be set up");
                let listener = TcpListener::bind(address).await.expect("its address is free");
                started.send(tokio::runtime::Handle::current()).expect("the test waits");
                tokio::select! {
                    () = agents.serve(listener) => {}
                    _ = over => {}
                }
            });
        });
        let handle = handle.recv().expect("the controller starts");
        Controller { hub, roll, token: token.to_string(), handle, end: Some(end), thread: Some(thread) }
    }

    /// Does something in the controller's runtime.
    fn with<T, F>(&self, work: impl FnOnce(Hub) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (tell, told) = std::sync::mpsc::channel();
        let work = work(self.hub.clone());
        self.handle.spawn(async move { tell.send(work.await) });
        told.recv_timeout(PATIENCE * 2).expect("the controller answers")
    }

    /// The controller is gone, with every connection.
    fn end(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the controller ends");
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.end.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// An agent that dials; its identity goes with it.
pub struct Linked {
    agent: Background,
    identity: Option<PathBuf>,
}

impl Linked {
    fn start(host: &Host, name: &str, controller: &Host, token: &str, more: &[&str]) -> Self {
        Linked::by(host, name, &format!("https://{}:{PORT}", controller.v4), token, more)
    }

    pub fn by(host: &Host, name: &str, url: &str, token: &str, more: &[&str]) -> Self {
        let file = host.directory.join(format!("token-{name}"));
        fs::write(&file, token).expect("the world's directory can be written");
        let file = file.display().to_string();
        let arguments =
            [&["run", "--controller", url, "--join-file", &file, "--name", name][..], more].concat();
        Linked { agent: host.agent(&arguments).start(), identity: Some(host.state.join("link")) }
    }

    /// Ends the agent, and leaves its host in the fleet: whoever starts another agent there needs no token, and takes
    /// away the identity, which is in this directory.
    pub fn stays(mut self) -> PathBuf {
        self.agent.signal(Signal::TERM);
        holds("the agent to end", PATIENCE, || self.agent.ended());
        self.identity.take().expect("it is taken away by its end alone")
    }

    /// What the agent has said so far.
    pub fn stderr(&self) -> String {
        self.agent.stderr()
    }

    /// Waits for the end of an agent that was killed.
    pub fn waits_for_its_end(mut self) {
        holds("the agent to be gone", PATIENCE, || self.agent.ended());
    }

    pub fn end(mut self) {
        self.agent.signal(Signal::TERM);
        holds("the agent to end", PATIENCE, || self.agent.ended());
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        if !self.agent.ended() {
            self.agent.signal(Signal::TERM);
            holds("the agent to end", PATIENCE, || self.agent.ended());
        }
        drop(self.identity.take().map(fs::remove_dir_all));
    }
}

/// A conversation with a host's agent or prober, through the controller.
struct Talk {
    stream: BufReader<DuplexStream>,
    number: u64,
}

impl Talk {
    fn over(stream: DuplexStream) -> Self {
        Talk { stream: BufReader::new(stream), number: 0 }
    }

    async fn say(&mut self, line: &Value) {
        self.stream.write_all(format!("{line}\n").as_bytes()).await.expect("the stream goes on");
    }

    /// The next line; `None` is the end.
    async fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("an answer, or the end");
        (read.unwrap_or(0) > 0).then(|| serde_json::from_str(&line).expect("a line is JSON"))
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.number += 1;
        let number = self.number;
        self.say(&json!({ "number": number, "request": request })).await;
        loop {
            let said = self.hear().await.expect("the stream goes on");
            if said["answer"]["number"] == number {
                return said["answer"]["reply"].clone();
            }
        }
    }
}

fn connected(hub: &Hub, name: &str) -> bool {
    hub.hosts().iter().any(|host| host.name == name && host.connected)
}

fn link_of(host: &Host) -> Process {
    until("the link to run", PATIENCE, || host.squalls().into_iter().find(|one| one.name == "squall-link"))
}

/// A partition from everybody, for longer than any test.
async fn cut_everything(hub: Hub) -> Result<Talk, Refusal> {
    let mut talk = Talk::over(hub.agent("web-1").await?);
    assert!(talk.ask(json!({ "hello": { "version": 1 } })).await["hello"]["worker"].is_u64());
    let begin = json!({ "begin": { "run": "r1", "title": "Cut", "plan": "", "seed": 1, "lease_ms": 60000, "deadline_ms": 80000 } });
    assert_eq!(talk.ask(begin).await, "done");
    let everybody = json!(["0.0.0.0/0", "::/0"]);
    let change = json!({ "block": { "flow": { "to": everybody, "from": everybody }, "direction": "both", "verdict": "drop" } });
    let apply = json!({ "apply": { "run": "r1", "part": 0, "changes": [change], "lasts_ms": 80000 } });
    let applied = talk.ask(apply).await;
    assert!(applied["applied"]["targets"].is_array(), "{applied}");
    Ok(talk)
}

#[test]
fn a_controller_speaks_to_a_host_that_it_has_cut_off_from_everybody_else_and_its_end_is_the_end_of_the_fault()
{
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.echo(1, 7);
    let mut controller = Controller::start(&world, 1);
    let more = ["--label", "role=web", "--zone", "a"];
    let linked = Linked::start(near, "web-1", far, &controller.token, &more);
    holds("the host to be connected", PATIENCE, || connected(&controller.hub, "web-1"));
    let host = controller.hub.hosts().remove(0);
    assert_eq!(host.labels, BTreeMap::from([("role".to_owned(), "web".to_owned())]));
    assert_eq!(host.zone.as_deref(), Some("a"));
    assert!(!host.kernel.is_empty() && host.preflight["faults"].is_array(), "{host:?}");
    let link = link_of(near);
    let status = fs::read_to_string(format!("/proc/{}/status", link.pid)).expect("it runs");
    assert!(link.uid != 0 && link.uid != 65534, "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(!has_filters() || status.contains("Seccomp:\t2"), "{status}");
    let key = fs::metadata(near.state.join("link/key.pem")).expect("the host has a key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    let talk = controller.with(cut_everything).expect("the host is cut off");
    let cut = connect(&near.netns, (far.v4, 7).into(), SHORT);
    assert!(cut.is_err(), "somebody else is still reached");
    // A stream that is opened now goes through all the same; and what is live is told.
    let status = controller.with(|hub| async move {
        let mut other = Talk::over(hub.agent("web-1").await?);
        other.ask(json!({ "hello": { "version": 1 } })).await;
        Ok::<_, Refusal>(other.ask(json!("status")).await)
    });
    assert_eq!(status.expect("the host is reached")["status"][0]["run"], "r1");
    holds("the controller to know what the host holds", PATIENCE, || {
        controller.hub.hosts()[0].holds.iter().any(|active| active.run.0 == "r1")
    });

    controller.end();
    drop(talk);
    holds("the fault to be over", PATIENCE, || connect(&near.netns, (far.v4, 7).into(), SHORT).is_ok());
    linked.end();
    world.restored(SOON);
}

#[test]
fn a_host_that_is_revoked_is_cut_off_and_clean_and_one_whose_link_dies_dials_again() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.echo(1, 7);
    let controller = Controller::start(&world, 1);
    let linked = Linked::start(near, "web-1", far, &controller.token, &[]);
    holds("the host to be connected", PATIENCE, || connected(&controller.hub, "web-1"));
    let talk = controller.with(cut_everything).expect("the host is cut off");
    // The link may die: what was begun through it is over, and another takes its place.
    let link = link_of(near);
    assert!(squall_tests::netns::signal(&link, Signal::KILL), "the link was there");
    holds("the fault to be over", PATIENCE, || connect(&near.netns, (far.v4, 7).into(), SHORT).is_ok());
    drop(talk);
    holds("another link to be connected", PATIENCE, || {
        link_of(near).pid != link.pid && connected(&controller.hub, "web-1")
    });
    let talk = until("a fault through it", PATIENCE, || controller.with(cut_everything).ok());
    let halted = controller.with(|hub| async move { hub.halt(None).await });
    assert!(halted["web-1"].as_ref().is_ok_and(|lifted| lifted.stuck.is_empty()), "{halted:?}");
    assert!(connect(&near.netns, (far.v4, 7).into(), PATIENCE).is_ok(), "a halt has lifted nothing");
    drop(talk);

    let talk = controller.with(cut_everything).expect("the host is cut off again");
    controller.roll.revoke("web-1");
    controller.hub.cut_off("web-1");
    holds("the fault to be over", PATIENCE, || connect(&near.netns, (far.v4, 7).into(), SHORT).is_ok());
    drop(talk);
    holds("the host to be told", PATIENCE, || linked.agent.story().contains("`web-1` was revoked"));
    assert!(!connected(&controller.hub, "web-1"));
    linked.end();
    world.restored(SOON);
}

#[test]
fn a_host_whose_policy_allows_no_fault_of_traffic_is_connected_all_the_same() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let controller = Controller::start(&world, 1);
    let (url, token) = (format!("https://{}:{PORT}", far.v4), world.file("token", &controller.token));
    let arguments = ["run", "--controller", &url, "--join-file", &token, "--name", "web-1"];
    let agent =
        program_under_policy(&world, "{ \"allow\": [\"pause\"] }", "squall-agent", &arguments).start();
    let mut linked = Linked { agent, identity: Some(near.state.join("link")) };
    let mut ended = false;
    holds("the host to be connected", PATIENCE, || {
        ended = linked.agent.ended();
        ended || connected(&controller.hub, "web-1")
    });
    if ended {
        skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
    }
    let given_up = json!(["CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_BPF"]);
    assert_eq!(controller.hub.hosts()[0].preflight["given-up"], given_up);
    linked.end();
    world.restored(SOON);
}

#[test]
fn a_controller_may_look_as_nobody_and_start_no_program() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.echo(0, 7);
    let controller = Controller::start(&world, 1);
    let linked = Linked::start(near, "web-1", far, &controller.token, &[]);
    holds("the host to be connected", PATIENCE, || connected(&controller.hub, "web-1"));
    let (good, program) = controller.with(|hub| async move {
        let mut prober = Talk::over(hub.prober("web-1", None).await.expect("as nobody"));
        let tcp = json!({ "tcp": { "address": "127.0.0.1:7" } });
        prober.say(&json!({ "load": { "probe": 0, "what": tcp, "expect": {} } })).await;
        prober.say(&json!({ "once": { "probe": 0 } })).await;
        let good = prober.hear().await;
        let program = json!({ "process": { "argv": ["true"] } });
        prober.say(&json!({ "load": { "probe": 1, "what": program, "expect": {} } })).await;
        (good, prober.hear().await)
    });
    assert_eq!(good.expect("a sample")["sample"]["good"], true);
    let program = program.expect("an answer").to_string();
    assert!(program.contains("unusable") && program.contains("controllers.programs"), "{program}");
    for user in ["root", "daemon"] {
        let refused =
            controller.with(move |hub| async move { hub.prober("web-1", Some(user)).await.map(drop) });
        let refused = refused.expect_err("only nobody may");
        assert!(refused.what.contains("policy") && refused.what.contains(user), "{refused}");
    }
    // Guards are looked at by the agent itself, and for a controller it starts nothing either.
    let refused = controller.with(|hub| async move {
        let mut talk = Talk::over(hub.agent("web-1").await.expect("the agent"));
        talk.ask(json!({ "hello": { "version": 1 } })).await;
        let claim = json!({ "name": "up", "process": { "argv": ["true"] } });
        let guard = json!({ "number": 0, "claim": claim, "so_far": { "good": 0, "bad": 0 } });
        let begin = json!({ "begin": { "run": "r1", "title": "", "plan": "", "seed": 1, "lease_ms": 9000, "deadline_ms": 9000, "guards": [guard] } });
        talk.ask(begin).await
    });
    assert!(refused.to_string().contains("start programs"), "{refused}");
    holds("every prober to have ended", PATIENCE, || {
        !near.squalls().iter().any(|process| process.name == "squall-prober")
    });
    linked.end();
}

#[test]
fn a_run_that_was_taken_over_is_not_begun_by_the_older_controller_nor_another_plan_than_the_approved_one() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let controller = Controller::start(&world, 1);
    let linked = Linked::start(near, "web-1", far, &controller.token, &[]);
    holds("the host to be connected", PATIENCE, || connected(&controller.hub, "web-1"));
    let answers = controller.with(|hub| async move {
        let mut talk = cut_everything(hub.clone()).await?;
        let run = squall_experiments::protocol::RunId("r1".to_owned());
        let fenced = hub.fence("web-1", &run, 3).await?;
        assert!(fenced.stuck.is_empty() && !fenced.undone.is_empty(), "{fenced:?}");
        let mut begin = async |mandate: Value| {
            let begin = json!({ "run": "r1", "title": "", "plan": "0", "seed": 1, "lease_ms": 9000, "deadline_ms": 9000, "mandate": mandate });
            talk.ask(json!({ "begin": begin })).await.to_string()
        };
        let approved = json!({ "plan": "1", "submitted_by": "ada", "by": "bob", "fleet": "{}", "host": "{}" });
        Ok::<_, Refusal>([
            begin(json!({ "epoch": 2 })).await,
            begin(json!({ "epoch": 3, "approved": approved })).await,
            begin(json!({ "epoch": 3 })).await,
        ])
    });
    let [older, other, newer] = answers.expect("the host is reached");
    assert!(older.contains("is at epoch 3, and this was asked in epoch 2"), "{older}");
    assert!(other.contains("is not what was approved"), "{other}");
    assert_eq!(newer, "\"done\"");
    // It is known beyond the worker's life.
    let kept = fs::read_to_string(near.state.join("link/fences")).expect("it is kept");
    assert!(kept.contains("[\"r1\",3]"), "{kept}");
    linked.end();
    world.restored(SOON);
}

#[test]
fn two_commands_bring_a_host_into_a_fleet_and_a_token_brings_no_second_one() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [middle, first, second] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (data, token) = (world.place("data"), world.directory.join("token"));
    let (data, token) = (data.display().to_string(), token.display().to_string());
    let listen = format!("0.0.0.0:{PORT}");
    let serve = [
        "serve",
        "--data",
        &data,
        "--listen-agents",
        &listen,
        "--heartbeat",
        "500ms",
        "--certificates",
        "9s",
    ];
    let with_token = [&serve[..], &["--join-file", &token]].concat();
    let mut controller = middle.squall(&with_token).start();
    holds("the controller to listen", PATIENCE, || controller.story().contains("serves agents at"));
    let secret = fs::read_to_string(&token).expect("the controller wrote a token");
    assert_eq!(fs::metadata(&token).expect("it is there").permissions().mode() & 0o777, 0o600);
    let log = || {
        let log = middle.squall(&["audit", "list"]).env("SQUALL_TOKEN_FILE", format!("{data}/admin-token"));
        log.env("SQUALL_CONTROLLER", "http://127.0.0.1:8416").run()
    };
    log().expect_exit(0).expect_told("made a join token");
    // One that dials from the far side of the first host's link, and so by an address of the controller of its own.
    let near = Host { v4: "10.77.1.1".parse().expect("an address"), ..copy(middle) };
    let linked = Linked::start(first, "web-1", &near, &secret, &[]);
    holds("the host to be connected", PATIENCE, || {
        controller.story().contains("a host is connected host=\"web-1\"")
    });
    log().expect_exit(0).expect_told("host web-1").expect_told("host-joined");
    let near = Host { v4: "10.77.2.1".parse().expect("an address"), ..copy(middle) };
    // The same token; and one that pins another authority.
    let used = Linked::start(second, "web-2", &near, &secret, &[]);
    holds("the second host to be refused", PATIENCE, || used.agent.story().contains("used up"));
    used.end();
    let (rest, last) = secret.trim().split_at(secret.trim().len() - 1);
    let other = format!("{rest}{}", if last == "0" { "1" } else { "0" });
    let wrong = Linked::start(second, "web-2", &near, &other, &[]);
    holds("a strange controller to be refused", PATIENCE, || {
        let story = wrong.agent.story();
        story.contains("UnknownIssuer") && !story.contains("joined")
    });
    wrong.end();
    let taken = second.agent(&["run", "--controller", "https://10.77.2.1", "--name", "web-2"]).run();
    taken.expect_exit(4).expect_told("does not belong to a fleet yet");

    // After two thirds of its life, over the connection that there is.
    holds("the certificate to be renewed", PATIENCE, || {
        controller.story().contains("a certificate was renewed host=\"web-1\"")
    });

    // The controller dies and comes back: the host dials again by itself, with its certificate.
    controller.signal(Signal::KILL);
    holds("the controller to be gone", PATIENCE, || controller.ended());
    fs::remove_file(&token).expect("the token is there");
    let mut controller = middle.squall(&serve).start();
    holds("the host to be back", PATIENCE, || {
        controller.story().contains("a host is connected host=\"web-1\"")
    });
    linked.end();
    controller.signal(Signal::TERM);
    controller.finish().expect_exit(0);
}

/// A host by another of its addresses.
fn copy(host: &Host) -> Host {
    Host {
        netns: host.netns.clone(),
        state: host.state.clone(),
        directory: host.directory.clone(),
        v4: host.v4,
        v6: host.v6,
    }
}
