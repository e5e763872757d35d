//! Who is told of what a controller does: the real binaries, a receiver that takes notices, one that never answers, and one that is
//! not there.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::serve::{Fleet, URL};

const SLOW: &str = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request: its head, the names of headers in lower case, and its body.
type Heard = (String, String);

/// Somebody on a host who is told; he takes everything, or never answers.
struct Hearer {
    at: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Hearer {
    fn on(host: &Host, answers: bool) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (netns, theirs) = (host.netns.clone(), Arc::clone(&heard));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            netns.enter().expect("the host can be entered");
            let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
            tell.send(listener.local_addr().expect("an address")).expect("somebody waits");
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Some(request) = request(&mut stream) else { continue };
                theirs.lock().expect("nobody panics with it").push(request);
                match answers {
                    true => drop(stream.write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nthanks!",
                    )),
                    false => unanswered.push(stream),
                }
            }
        });
        Hearer { at: told.recv().expect("it listens"), heard }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("nobody panics with it").clone()
    }

    /// The first notice of a kind, with its head.
    fn of(&self, kind: &str) -> Option<(Heard, Value)> {
        let all = self.heard().into_iter();
        let mut read = all.map(|heard| (heard.clone(), serde_json::from_str(&heard.1).expect("JSON")));
        read.find(|(_, told): &(Heard, Value)| told["type"] == kind)
    }
}

fn request(stream: &mut TcpStream) -> Option<Heard> {
    let (mut read, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let some = stream.read(&mut bytes).ok().filter(|some| *some > 0)?;
        read.extend_from_slice(&bytes[..some]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some((names_in_lower_case(head), body.to_owned()));
        }
    }
}

fn names_in_lower_case(head: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_lowercase()),
        None => format!("{line}\n"),
    };
    head.lines().map(line).collect()
}

#[test]
fn a_receiver_that_never_answers_delays_no_halt_and_who_answers_is_told_of_everything() {
    needs!(Root, Nftables, Queue, Nginx, Python);
    let world = World::new(2);
    let (good, silent) = (Hearer::on(&world.hosts[0], true), Hearer::on(&world.hosts[0], false));
    world.file("key", KEY);
    let all = "[run-begun, run-ended, fault-injected, fault-reverted, halted, halt-lifted]";
    // Nobody listens at port 9.
    let config = format!(
        "controller: 1\naddress: https://squall.example:8416\nnotify:\n  \
         - {{ name: good, webhook: {{ url: \"http://{}/\", secret: {{ file: key }} }}, when: {all} }}\n  \
         - {{ name: silent, webhook: {{ url: \"http://{}/\", secret: {{ file: key }} }}, when: {all}, timeout: 1h }}\n  \
         - {{ name: gone, webhook: {{ url: \"http://127.0.0.1:9/\", secret: {{ file: key }} }}, when: {all} }}\n",
        good.at, silent.at
    );
    checked(&world, &config);
    let mut fleet = Fleet::under(world, &config);
    let tried = fleet.asks(&["notify", "test", "good"]).run();
    tried.expect_exit(0).expect_told("`good` has taken it: it answered 200: thanks!");
    fleet.asks(&["notify", "test", "gone"]).run().expect_exit(4).expect_told("has not taken it");
    fleet.asks(&["notify", "test", "nobody"]).run().expect_exit(2).expect_told("there is no receiver");

    let followed = fleet.runs(SLOW, "80s").start();
    let run = fleet.live();
    let injected = until("the fault to be told of", PATIENCE, || good.of("fault-injected"));
    assert_eq!(injected.1["data"]["run"], run.as_str(), "{injected:?}");
    holds("the silent one to be told", PATIENCE, || silent.heard().len() == 1);
    fleet.asks(&["halt", "--controller", URL, "--reason", "seen enough"]).run().expect_exit(0);
    fleet.are_clean();
    followed.finish().expect_exit(6);
    // The answer that the controller still waits for never comes: nothing of the above has waited for it.
    assert_eq!(silent.heard().len(), 1, "one attempt at a time, and its first is not over");
    let halted = until("the halt to be told of", PATIENCE, || good.of("halted"));
    assert_eq!(halted.1["data"]["reason"], "seen enough", "{halted:?}");
    until("the revert to be told of", PATIENCE, || good.of("fault-reverted"));
    let ended = until("the end to be told of", PATIENCE, || good.of("run-ended"));
    let data = &ended.1["data"];
    assert_eq!((&data["run"], &data["verdict"]), (&run.as_str().into(), &"interrupted".into()), "{ended:?}");
    assert_eq!(data["url"], format!("https://squall.example:8416/runs/{run}"));
    verifies(&ended.0);

    let told = fleet.asks(&["notify", "--format", "json"]).run().expect_exit(0).json();
    let waits = |name: &str| {
        let receivers = told["receivers"].as_array().expect("receivers");
        receivers.iter().find(|it| it["name"] == name).expect("it is there").clone()
    };
    assert!(waits("gone")["trouble"]["why"].as_str().is_some_and(|why| why.contains("no answer")), "{told}");
    assert!(
        waits("gone")["waiting"].as_u64() > Some(3) && waits("silent")["waiting"].as_u64() > Some(3),
        "{told}"
    );

    // What happens while no controller is there to tell it, and what it has not told, is told by the next one.
    fleet.asks(&["halt", "--controller", URL, "--lift"]).run().expect_exit(0);
    let followed = fleet.runs(SLOW, "80s").start();
    let second = fleet.live();
    let mut controller = fleet.controller.take().expect("it was started");
    controller.signal(Signal::KILL);
    holds("the controller to be gone", PATIENCE, || controller.ended());
    fleet.are_clean();
    fleet.serve();
    until("the end of a run whose controller was killed to be told of", PATIENCE, || {
        let all = good.heard();
        let ended = all.iter().filter(|(_, body)| body.contains("\"type\":\"run-ended\""));
        ended.clone().any(|(_, body)| body.contains(&second)).then_some(())
    });
    drop(followed.finish());
    for (head, body) in good.heard() {
        assert!(!body.contains(KEY) && !head.contains(KEY), "{head} {body}");
    }
    fleet.end();
}

/// `--check` says what is wrong with a configuration, and begins nothing.
fn checked(world: &World, config: &str) {
    let data = world.directory.join("none").display().to_string();
    let check = |config: String| {
        let file = world.file("checked.yaml", config);
        world.hosts[0].squall(&["serve", "--data", &data, "--config", &file, "--check"]).run()
    };
    check(config.to_owned()).expect_exit(0);
    let wrong =
        format!("{config}  - {{ name: a, slack: {{ url: {{ file: key }} }}, template: \"{{titel}}\" }}\n");
    check(wrong).expect_exit(3).expect_told("did you mean `{title}`?");
    check(config.replace("file: key", "file: nowhere")).expect_exit(3).expect_told("cannot be read");
    // A gate whose token is not there would refuse every run.
    let gate =
        "gates: [{ name: quiet, http: { url: \"http://127.0.0.1:9/\", token-file: gone, expect: {} } }]\n";
    let gone = check(format!("{config}{gate}"));
    gone.expect_exit(3)
        .expect_told("error: the gate `quiet`: the token in `")
        .expect_told("/gone` cannot be read");
    assert!(!world.directory.join("none").exists(), "nothing is begun");
}

/// Looks at a signature as docs/notifications.md says one does.
fn verifies((head, body): &Heard) {
    let page = include_str!("../../docs/notifications.md");
    let snippet =
        page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a snippet");
    let given = "import json, sys\nheard = json.load(sys.stdin)\n\
                 headers, body, secret = heard['headers'], heard['body'].encode(), heard['secret']\n";
    let script = format!("{given}{snippet}\nprint(valid)\n");
    let headers: serde_json::Map<String, Value> = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let said = |headers: &serde_json::Map<String, Value>, body: &str| {
        let mut python = Command::new("python3");
        python.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().expect("python3 begins");
        let heard = serde_json::json!({ "headers": headers, "body": body, "secret": KEY });
        let mut stdin = python.stdin.take().expect("a pipe");
        stdin.write_all(heard.to_string().as_bytes()).expect("it reads");
        drop(stdin);
        String::from_utf8_lossy(&python.wait_with_output().expect("it ends").stdout).trim().to_owned()
    };
    assert_eq!(said(&headers, body), "True");
    assert_eq!(said(&headers, &body.replace("interrupted", "held")), "False");
}

#[test]
fn of_two_controllers_on_one_database_one_tells_each_happening() {
    needs!(Root, Nftables, Postgres);
    let world = World::new(1);
    let host = &world.hosts[0];
    world.postgres(0, 5432);
    let database = world.directory.join("service-0");
    let database = format!("host={} port=5432 user=postgres dbname=postgres", database.display());
    let good = Hearer::on(host, true);
    world.file("key", KEY);
    let receiver = |name: &str, at: &str| {
        let hook = format!("webhook: {{ url: \"http://{at}/\", secret: {{ file: key }} }}");
        format!("  - {{ name: {name}, {hook}, when: [halted, halt-lifted] }}\n")
    };
    let config = format!(
        "controller: 1\nnotify:\n{}{}",
        receiver("good", &good.at.to_string()),
        receiver("gone", "127.0.0.1:9")
    );
    let config = world.file("controller.yaml", config);
    let (first, second) = (world.place("first"), world.directory.join("second"));
    let serve = |data: &Path, port: u16| {
        let (data, people, agents) =
            (data.display().to_string(), format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        let arguments =
            ["serve", "--data", &data, "--config", &config, "--listen", &people, "--listen-agents", &agents];
        let mut controller = host.squall(&arguments).env("SQUALL_DATABASE", &database).start();
        holds("the controller to listen", PATIENCE, || {
            assert!(!controller.ended(), "{}", controller.story());
            controller.story().contains("serves agents at")
        });
        controller
    };
    let one = serve(&first, 8416);
    std::fs::create_dir(&second).expect("a directory");
    for entry in std::fs::read_dir(&first).expect("a directory").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            std::fs::copy(entry.path(), second.join(entry.file_name())).expect("a copy");
        }
    }
    let other = serve(&second, 8426);
    let urls = [URL, "http://127.0.0.1:8426"];
    let asks = |url: &str, arguments: &[&str]| {
        let token = first.join("admin-token");
        let asked = host.squall(arguments).env("SQUALL_TOKEN_FILE", token).env("SQUALL_CONTROLLER", url);
        asked.run().expect_exit(0).stdout.clone()
    };
    for url in urls.iter().cycle().take(6) {
        asks(url, &["halt", "--controller", url, "--reason", "a trial"]);
        asks(url, &["halt", "--controller", url, "--lift"]);
    }
    let standing = |url: &str, name: &str, what: &str| {
        let told: Value = serde_json::from_str(&asks(url, &["notify", "--format", "json"])).expect("JSON");
        let receivers = told["receivers"].as_array().expect("receivers").clone();
        receivers.iter().find(|it| it["name"] == name).and_then(|it| it[what].as_u64()).expect("a number")
    };
    holds("all to be told", PATIENCE, || {
        urls.map(|url| standing(url, "good", "sent")).iter().sum::<u64>() == 12
    });
    let ids: BTreeSet<String> = good
        .heard()
        .iter()
        .filter_map(|(head, _)| {
            head.lines().find_map(|line| line.strip_prefix("webhook-id: ").map(str::to_owned))
        })
        .collect();
    assert_eq!((good.heard().len(), ids.len()), (12, 12));
    holds("what nobody takes to wait", PATIENCE, || standing(URL, "gone", "waiting") == 12);
    for mut controller in [one, other] {
        controller.signal(Signal::TERM);
        controller.finish().expect_exit(0);
    }
}
