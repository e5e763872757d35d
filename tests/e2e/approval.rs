//! Two people before something is done: over real processes, from the plan that one submits to the run that another has
//! approved; and a host whose owner asks for it.

use std::fs;

use serde_json::Value;
use squall_tests::needs;
use squall_tests::skip;
use squall_tests::squall::{Squall, binary};
use squall_tests::wait::{PATIENCE, holds};

use crate::serve::{Fleet, Manner, URL};

const SLOW: &str = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";

fn document(title: &str, lasts: &str) -> String {
    format!(
        "squall: 1\ntitle: {title}\non: {{ labels: {{ role: web }} }}\nhypothesis:\n  - name: the page is there\n    \
         http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\nmethod:\n  \
         - fault: {{ {SLOW} }}\n    for: {lasts}\n"
    )
}

/// Somebody with a token of his own.
struct Person<'a> {
    fleet: &'a Fleet,
    token: String,
}

impl<'a> Person<'a> {
    fn new(fleet: &'a Fleet, name: &str, number: u32) -> Self {
        let token = fleet.world.directory.join(format!("{name}-{number}.token")).display().to_string();
        fleet.asks(&["tokens", "new", name, "--role", "operator", "--out", &token]).run().expect_exit(0);
        Person { fleet, token }
    }

    fn asks(&self, arguments: &[&str]) -> Squall {
        self.fleet.asks(arguments).env("SQUALL_TOKEN_FILE", &self.token)
    }

    fn submits(&self, file: &str) -> String {
        let plan = self.asks(&["plan", "--submit", file, "--seed", "7", "--format", "json"]).run();
        plan.expect_exit(0).json()["hash"].as_str().expect("a hash").to_owned()
    }

    fn runs(&self, hash: &str) -> Squall {
        self.asks(&["run", "--controller", URL, "--approved", hash])
    }
}

#[test]
fn nobody_runs_what_another_person_has_not_approved_as_it_stands() {
    needs!(Root, Nftables, Queue, Nginx);
    let controller = vec!["--approvals".to_owned(), "required".to_owned()];
    let fleet = Fleet::like(2, Manner { controller, ..Manner::default() });
    let (ada, bob) = (Person::new(&fleet, "ada", 1), Person::new(&fleet, "bob", 1));
    let file = fleet.world.file("slow.yaml", document("Slow", "1s"));
    let untouched = || assert!(fleet.world.hosts[1..].iter().all(|host| host.tables().is_empty()));

    // Nobody goes around it, whatever he may do else.
    for who in [&ada, &bob] {
        let refused = who.asks(&["run", &file, "--controller", URL]).run();
        refused.expect_exit(4).expect_told("need an approved plan");
    }
    fleet
        .asks(&["run", &file, "--controller", URL])
        .run()
        .expect_exit(4)
        .expect_told("need an approved plan");
    let hash = ada.submits(&file);
    ada.runs(&hash).run().expect_exit(4).expect_told("not approved");

    // Her own word is none, nor is that of another token of hers.
    let again = Person::new(&fleet, "ada", 2);
    for own in [&ada, &again] {
        let refused = own.asks(&["approve", &hash, "--note", "I know what I do"]).run();
        refused.expect_exit(4).expect_told("`ada` has submitted this plan").expect_told("another person");
    }
    ada.runs(&hash).run().expect_exit(4).expect_told("not approved");
    let shown = bob.asks(&["approve", &hash, "--show"]).run();
    // By which engines each host could do it stands there too, by its own word.
    shown.expect_exit(0).expect_told("On web-2").expect_told("part 1: engine ");
    bob.asks(&["approve", &hash, "--note", "looked at it"]).run().expect_exit(0).expect_told("looked at it");

    // What she has changed since is another plan, which nobody has approved; so is what other hosts would make of it.
    fs::write(&file, document("Slow", "2s")).expect("it is hers");
    let other = ada.submits(&file);
    assert_ne!(other, hash);
    ada.runs(&other).run().expect_exit(4).expect_told("not approved");
    fleet.asks(&["hosts", "label", "web-2", "role=db"]).run().expect_exit(0);
    let refused = ada.runs(&hash).run();
    refused.expect_exit(4).expect_told("the hosts changed after this plan was approved");
    untouched();

    // A run that was refused has not used it up; one that took place has.
    fleet.asks(&["hosts", "label", "web-2", "role=web"]).run().expect_exit(0);
    ada.runs(&hash).run().expect_exit(0).expect_told("finished");
    ada.runs(&hash).run().expect_exit(4).expect_told("was used");
    let log =
        fleet.asks(&["audit", "list", "--limit", "1000", "--format", "json"]).run().expect_exit(0).json();
    let approved = |entry: &&Value| entry["what"]["approved"] == hash.as_str();
    let entries: Vec<&Value> = log["entries"].as_array().expect("entries").iter().filter(approved).collect();
    assert_eq!(entries.len(), 1, "{log}");
    let who = entries[0]["who"].as_str().expect("a name");
    assert!(who.starts_with("bob") && entries[0]["what"]["submitted-by"] == "ada", "{}", entries[0]);
    fleet.end();
}

#[test]
fn a_host_whose_owner_asks_for_an_approval_begins_nothing_without_one() {
    needs!(Root, Nftables, Queue, Nginx);
    let mut fleet = Fleet::new(2);
    // The second host again, under its owner's policy; it belongs to the fleet already.
    let (url, state) = ("https://10.77.2.1:8417", fleet.world.hosts[2].state.clone());
    let identity = fleet.linked.pop().expect("it was started").stays();
    let policy = "{ \"controllers\": { \"approval\": \"required\" }, \"max-duration\": \"10s\", \"windows\": [\"daily 00:00-24:00 UTC\"] }";
    let policy = fleet.world.file("policy.yaml", policy);
    let script = "mount -t tmpfs tmpfs $1 && mkdir -p $1/up/squall $1/work && cp $2 $1/up/squall/policy.yaml && \
                  mount -t overlay overlay -o lowerdir=/etc,upperdir=$1/up,workdir=$1/work /etc || exit 99\n\
                  exec \"$0\" run --controller \"$3\" --name web-2";
    let mut command = fleet.world.hosts[2].netns.command("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(binary("squall-agent"));
    command.arg(fleet.world.place("layers")).arg(&policy).arg(url).env("SQUALL_STATE_DIR", &state);
    let mut agent = Squall::with(command, "squall-agent run under a policy", &fleet.world.directory).start();
    let mut ended = false;
    holds("the host to be connected", PATIENCE, || {
        ended = agent.ended();
        ended || agent.story().contains("is connected to its controller")
    });
    if ended {
        assert!(agent.finish().status.code() == Some(99));
        skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
    }
    let file = fleet.world.file("slow.yaml", document("Slow", "1s"));
    let refused = fleet.asks(&["run", &file, "--controller", URL]).run();
    refused.expect_exit(4).expect_told("approv");
    fleet.are_clean();
    let plan = fleet.asks(&["plan", "--submit", &file, "--format", "json"]).run().expect_exit(0).json();
    let hash = plan["hash"].as_str().expect("a hash").to_owned();
    let shown = fleet.asks(&["approve", &hash]).run();
    shown.expect_exit(0).expect_told("web-2 allows faults only in");
    assert!(!shown.stdout.contains("would be refused"), "{}", shown.story());
    // What its owner forbids whenever it begins is said before anybody approves it, of that host alone.
    let long = fleet.world.file("long.yaml", document("Long", "30s"));
    let submitted = fleet.asks(&["plan", "--submit", &long]).run();
    submitted
        .expect_exit(0)
        .expect_told("part 1 would be refused on web-2: 30s is longer than this host's policy allows (10s)");
    assert!(!submitted.stdout.contains("refused on web-1"), "{}", submitted.story());
    fleet.asks(&["run", "--controller", URL, "--approved", &hash]).run().expect_exit(0);
    drop(agent);
    fs::remove_dir_all(identity).expect("it was kept");
    fleet.end();
}
