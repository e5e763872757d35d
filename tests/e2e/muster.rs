//! One run over several hosts: real agents in namespaces of their own, each reached over its own socket alone.

use std::future::ready;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use squall_agent::state::Place;
use squall_controller::conductor::{Answer, run_id};
use squall_controller::muster::{Machines, Order, run};
use squall_controller::report::{self, Paint};
use squall_controller::stream::Stream;
use squall_experiments::document::{Document, Sources, read};
use squall_experiments::exit::Exit;
use squall_experiments::muster::{FleetEvent, Line, Muster, What};
use squall_experiments::protocol::Refusal;
use squall_experiments::run::Event;
use squall_experiments::targets::{Candidate, Targets};
use squall_tests::host::Host;
use squall_tests::squall::{Background, MARK, Squall, binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;
use squall_tests::{needs, skip};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The hosts of a world, each with nginx and an agent that stays.
struct Fleet {
    agents: Mutex<Vec<Background>>,
    world: World,
}

const NAMES: [&str; 3] = ["front", "shop", "stock"];

impl Fleet {
    fn new() -> Fleet {
        let world = World::new(NAMES.len());
        (0..NAMES.len()).for_each(|number| drop(world.nginx(number, 8080)));
        Fleet { agents: Mutex::default(), world }
    }

    /// An agent as a service manager starts it.
    fn start(&self, name: &str) {
        let agent = self.host(name).agent(&["run"]).start();
        assert!(self.listens(name, agent));
    }

    /// An agent on a host whose policy this is; not where no policy can be put over the machine's own.
    fn start_under(&self, name: &str, policy: &str) -> bool {
        let host = self.host(name);
        let policy = self.world.file("policy.yaml", policy);
        let layers = self.world.place("layers");
        let script = "mount -t tmpfs tmpfs $1 && mkdir -p $1/up/squall $1/work && \
                      cp $2 $1/up/squall/policy.yaml && \
                      mount -t overlay overlay -o lowerdir=/etc,upperdir=$1/up,workdir=$1/work /etc || exit 99\n\
                      exec \"$0\" run";
        let mut command = host.netns.command("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(binary("squall-agent"));
        command.arg(layers).arg(policy).env("SQUALL_STATE_DIR", &host.state);
        self.listens(
            name,
            Squall::with(command, "squall-agent run under a policy", &self.world.directory).start(),
        )
    }

    fn listens(&self, name: &str, mut agent: Background) -> bool {
        let mut ended = false;
        holds("an agent to listen", PATIENCE, || {
            ended = agent.ended();
            ended || connect(self.host(name)).is_ok()
        });
        self.agents.lock().expect("no test panics while it holds this").push(agent);
        !ended
    }

    fn host(&self, name: &str) -> &Host {
        let number = NAMES.iter().position(|known| *known == name).expect("a host of the fleet");
        &self.world.hosts[number]
    }
}

fn connect(host: &Host) -> Result<UnixStream, Refusal> {
    let place = host.netns.inside(|| Place::here(&host.state))?;
    UnixStream::connect(place.socket()).map_err(|error| Refusal::bare(format!("not connected: {error}")))
}

impl Fleet {
    fn hosts(&self) -> Vec<Candidate> {
        let host =
            |name: &&str| Candidate { name: (*name).to_owned(), connected: true, ..Candidate::default() };
        NAMES.iter().map(host).collect()
    }
}

impl Machines for Fleet {
    fn agent(&self, host: &str) -> Answer<Stream> {
        Box::pin(ready(connect(self.host(host)).map(Stream::Socket)))
    }

    fn prober(&self, host: &str, user: Option<&str>) -> Answer<Stream> {
        Box::pin(ready(self.begin_prober(host, user).map(Stream::Socket)))
    }
}

impl Fleet {
    fn begin_prober(&self, host: &str, user: Option<&str>) -> Result<UnixStream, Refusal> {
        let failed = |error: std::io::Error| Refusal::bare(error.to_string());
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = self.host(host).netns.command(binary("squall-agent"));
        command.arg("prober").args(user.iter().flat_map(|user| ["--user", user]));
        command.env(MARK, &self.world.directory);
        command.stdin(OwnedFd::from(theirs.try_clone().map_err(failed)?));
        let mut child = command.stdout(Stdio::from(OwnedFd::from(theirs))).spawn().map_err(failed)?;
        std::thread::spawn(move || child.wait());
        Ok(ours)
    }
}

/// Each host asks its own nginx, whose answers come late for a while.
fn slow(lasts: &str) -> String {
    format!(
        "squall: 1\ntitle: A slow page on every host\non: {{ pick: all }}\nhypothesis:\n  - name: the page is there\n    \
         http: {{ url: \"http://127.0.0.1:8080/\", timeout: 5s }}\n    expect: {{ status: 200 }}\n    every: 200ms\n\
         method:\n  - name: the page is slow\n    fault: {{ latency: {{ delay: 20ms, to: [\"127.0.0.1:8080\"] }} }}\n    \
         for: {lasts}\nrecovery: 15s\n"
    )
}

/// Runs it; `seen` sees each line as it comes.
fn muster(
    fleet: &Arc<Fleet>,
    text: &str,
    seen: impl FnMut(&Line, &UnboundedSender<String>) + Send,
) -> (Muster, Vec<Line>) {
    muster_by(1, fleet, text, seen)
}

fn document(text: &str) -> Document {
    read("muster.yaml", text.as_bytes(), &Sources::default())
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

fn targets(fleet: &Arc<Fleet>, text: &str, seed: u64) -> Targets {
    Targets::of(&document(text).experiment, &fleet.hosts(), seed).expect("every host is connected")
}

fn muster_by(
    seed: u64,
    fleet: &Arc<Fleet>,
    text: &str,
    mut seen: impl FnMut(&Line, &UnboundedSender<String>) + Send,
) -> (Muster, Vec<Line>) {
    let document = document(text);
    let targets = targets(fleet, text, seed);
    let order = Order {
        run: run_id(),
        experiment: document.experiment,
        targets,
        seed,
        version: "test".to_owned(),
        origin: None,
        lease: Duration::from_secs(10),
        redactor: document.redactor,
        epoch: 0,
        sights: None,
        approved: None,
    };
    let (interrupt, interruptions) = unbounded_channel();
    let mut log = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let muster = runtime.block_on(run(
        order,
        Arc::clone(fleet) as _,
        Box::new(|line| {
            seen(line, &interrupt);
            log.push(line.clone());
        }),
        interruptions,
    ));
    (muster, log)
}

fn exits(muster: &Muster) -> Vec<(&str, Exit)> {
    muster.hosts.iter().map(|on| (on.host.as_str(), on.exit)).collect()
}

fn place(log: &[Line], host: &str, wanted: fn(&Event) -> bool) -> usize {
    let found = log.iter().position(|line| match &line.what {
        What::OnHost { host: own, record } => own == host && wanted(&record.event),
        What::Fleet { .. } => false,
    });
    found.unwrap_or_else(|| panic!("no such event of {host}"))
}

/// Those hosts were compared by their agents, which are still there, and are as they were.
fn reverted(muster: &Muster, hosts: &[&str]) {
    for on in muster.hosts.iter().filter(|on| hosts.contains(&on.host.as_str())) {
        let summary = on.summary.as_ref().expect("a summary of each host");
        let ours = summary.host.as_ref().map(|host| host.ours);
        assert!(ours == Some(0) && summary.stuck.is_empty(), "{}: {summary:#?}", on.host);
    }
}

#[test]
fn three_hosts_begin_together_and_all_hold() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Arc::new(Fleet::new());
    NAMES.iter().for_each(|name| fleet.start(name));
    let (muster, log) = muster(&fleet, &slow("2s"), |_, _| {});
    let shown = report::fleet(&muster, Paint::OFF);
    assert_eq!(muster.exit, Exit::Held, "{shown}");
    let asked = NAMES.map(|name| place(&log, name, |event| matches!(event, Event::Injecting { .. })));
    for name in NAMES {
        let met = place(&log, name, |event| matches!(event, Event::BaselineMet));
        assert!(asked.iter().all(|asked| *asked > met), "nobody injects before {name} is ready");
        let summary = muster.hosts.iter().find(|on| on.host == name).and_then(|on| on.summary.as_ref());
        let summary = summary.expect("a summary of each host");
        assert!(summary.parts[0].measured && summary.hypotheses[0].during.tally.good > 0, "{shown}");
        assert_eq!(summary.host.as_ref().map(|host| host.ours), Some(0), "{shown}");
    }
    assert_eq!((muster.starts.len(), muster.starts[0].hosts), (1, 3));
    let start = &muster.starts[0];
    assert!(start.began_us.is_some() && start.within_us.is_some(), "every agent tells its clock: {start:?}");
    assert!(shown.contains("`the page is slow` on 3 hosts: in force within "), "{shown}");
    assert!(shown.contains("held on all 3 hosts"), "{shown}");
    println!("{shown}");
    let cases = report::junit(&muster.as_suite()).expect("it is written to memory");
    assert!(
        NAMES.iter().all(|name| cases.contains(&format!("A slow page on every host on {name}"))),
        "{cases}"
    );
    assert!(report::markdown(&muster.as_suite()).contains("on stock"));
    // The lines of one host, alone, are the event file of its run.
    let own = log.iter().filter(|line| matches!(&line.what, What::OnHost { host, .. } if host == "shop"));
    let lines: String = own.map(|line| serde_json::to_string(line).expect("a line") + "\n").collect();
    let file = fleet.world.file("shop.ndjson", lines);
    fleet.host("shop").squall(&["verdict", &file]).run().expect_exit(0).expect_told("held");
    // All lines are the report of all again, word by word, and that of one host by its name.
    let lines: String = log.iter().map(|line| serde_json::to_string(line).expect("a line") + "\n").collect();
    let file = fleet.world.file("all.ndjson", lines);
    let page = fleet.world.directory.join("shop.html");
    let verdict = |more: &[&str]| fleet.host("shop").squall(&[&["verdict", &file], more].concat()).run();
    let again = verdict(&[]);
    again.expect_exit(0).expect_told("the run itself said the same");
    assert_eq!(again.stdout, shown);
    let one = verdict(&["--host", "shop", "--html", &page.display().to_string()]);
    one.expect_exit(0).expect_told("the run itself said the same");
    assert!(one.stdout.contains("the page is there"), "{}", one.stdout);
    assert!(page.is_file());
    verdict(&["--host", "nobody"]).expect_exit(2).expect_told("holds no run on `nobody`");
    verdict(&["--baseline", &file]).expect_exit(2).expect_told("`--host NAME`");
}

/// The first host asks the others for the page, and one of them must answer. From stage to stage one more host refuses
/// everybody.
fn one_of_two(stages: &str) -> String {
    let ask = "(exec 3<>/dev/tcp/10.77.1.2/8080) || (exec 3<>/dev/tcp/10.77.2.2/8080)";
    format!(
        "squall: 1\ntitle: One of two hosts answers\non: {{ name: [front] }}\nhypothesis:\n  - name: one of two answers\n    \
         process: {{ argv: [bash, -c, \"{ask}\"], timeout: 5s }}\n    every: 150ms\nmethod:\n  - name: refused\n    \
         fault: {{ refuse: {{ from: [\"any:8080\"] }} }}\n    on: {{ pick: all }}\n    for: 2s\nstages: {stages}\n\
         recovery: 15s\n"
    )
}

#[test]
fn a_fault_that_grows_over_the_hosts_stops_where_the_system_gives_way() {
    needs!(Root, Nftables, Nginx);
    let fleet = Arc::new(Fleet::new());
    NAMES.iter().for_each(|name| fleet.start(name));
    let text = one_of_two("{ sizes: [1, 2, all], bake: 1500ms }");
    // Which host comes first is the seed's choice: one is taken by which those that are asked come before the one that asks.
    let order = |seed: &u64| {
        let stages = targets(&fleet, &text, *seed).stages;
        stages.len() == 3 && !stages[1].contains("front")
    };
    let seed = (1..1000).find(order).expect("a seed of three");
    let (muster, log) = muster_by(seed, &fleet, &text, |_, _| {});
    let shown = report::fleet(&muster, Paint::OFF);
    println!("{shown}");
    assert_eq!(muster.exit, Exit::Deviated, "{shown}");
    let grown = muster.grown.as_ref().expect("it ran in stages");
    assert_eq!((grown.sizes.as_slice(), grown.gave_way), (&[1, 2, 3][..], true), "{shown}");
    assert_eq!(grown.reached, 2, "{shown}");
    assert!(muster.sentence.ends_with("gave way in stage 2 of 3: not yet with 1 host, but with 2 hosts"));
    // The first host kept its fault until all were reverted together; the third never had it.
    let times = |wanted: fn(&Event) -> bool| {
        log.iter()
            .filter(|line| matches!(&line.what, What::OnHost { record, .. } if wanted(&record.event)))
            .count()
    };
    assert_eq!(times(|event| matches!(event, Event::Injected { .. })), 2, "{shown}");
    let at = |wanted: fn(&Event) -> bool| {
        log.iter().position(|line| matches!(&line.what, What::OnHost { record, .. } if wanted(&record.event)))
    };
    let (gave_way, lifted) = (
        at(|event| matches!(event, Event::GaveWay { stage: 2, .. })),
        at(|event| matches!(event, Event::Lifted { .. })),
    );
    assert!(gave_way.is_some() && lifted > gave_way, "nothing is lifted between the stages: {shown}");
    reverted(&muster, &NAMES);
    let lines: String = log.iter().map(|line| serde_json::to_string(line).expect("a line") + "\n").collect();
    let file = fleet.world.file("all.ndjson", lines);
    let again = fleet.host("shop").squall(&["verdict", &file]).run();
    again.expect_exit(5).expect_told("the run itself said the same");
    assert_eq!(again.stdout, shown);
}

#[test]
fn a_host_whose_policy_refuses_reverts_the_others() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Arc::new(Fleet::new());
    if !fleet.start_under("front", "{ \"allow\": [\"block\"] }") {
        skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
    }
    NAMES[1..].iter().for_each(|name| fleet.start(name));
    let (muster, _) = muster(&fleet, &slow("60s"), |_, _| {});
    let shown = report::fleet(&muster, Paint::OFF);
    assert_eq!(
        exits(&muster),
        [("front", Exit::Refused), ("shop", Exit::Held), ("stock", Exit::Held)],
        "{shown}"
    );
    assert_eq!(muster.exit, Exit::Refused, "{shown}");
    assert!(shown.contains("reverted because of another host"), "{shown}");
    assert!(muster.stopped.as_deref().is_some_and(|why| why.contains("does not allow `shape`")), "{shown}");
    assert!(muster.took_ms < 50_000, "nobody waited for the end of the fault: {shown}");
    reverted(&muster, &["shop", "stock"]);
}

#[test]
fn an_agent_that_dies_in_the_middle_reverts_the_others_and_its_host_says_what_became_of_it() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Arc::new(Fleet::new());
    NAMES.iter().for_each(|name| fleet.start(name));
    let there = Arc::clone(&fleet);
    let mut injected = 0;
    let (muster, log) = muster(&fleet, &slow("60s"), |line, _| {
        let made = matches!(&line.what, What::OnHost { record, .. } if matches!(record.event, Event::Injected { .. }));
        injected += u32::from(made);
        if made && injected == 3 {
            let (guardian, worker) = there.host("stock").agents();
            there.host("stock").kill_agents();
            // As a service manager does: when the one before is gone.
            holds("the killed agent to be gone", PATIENCE, || !guardian.lives() && !worker.lives());
            there.start("stock");
        }
    });
    let shown = report::fleet(&muster, Paint::OFF);
    let expected = [("front", Exit::Held), ("shop", Exit::Held), ("stock", Exit::Interrupted)];
    assert_eq!(exits(&muster), expected, "{shown}");
    assert_eq!(muster.exit, Exit::Interrupted, "{shown}");
    let called_off = log.iter().any(|line| {
        matches!(&line.what, What::Fleet { event: FleetEvent::CalledOff { host, .. }, .. } if host == "stock")
    });
    assert!(called_off && muster.took_ms < 50_000, "{shown}");
    reverted(&muster, &["front", "shop"]);
}
