//! What is installed: the unit that runs the agent, the capabilities that it needs, and the Debian package.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_agent::state::Place;
use squall_tests::client::{Steady, TIMEOUT, connect};
use squall_tests::host::Host;
use squall_tests::netns;
use squall_tests::squall::{Background, Squall, binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;
use squall_tests::{needs, skip};

use crate::trial::{CALM, LONG, SOON, Trial, calm, run};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the workspace").to_owned()
}

fn unit() -> String {
    read("agent/systemd/squall-agent.service")
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).expect("it stands in the repository")
}

/// Runs a program of the system to its end; gives whether it succeeded, and all that it said.
fn tool(world: &World, argv: &[&str]) -> (bool, String) {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]);
    let finished = Squall::with(command, argv.join(" "), &world.directory).run();
    (finished.status.success(), finished.story())
}

#[test]
fn systemd_finds_no_fault_with_the_units_and_scores_them_as_the_document_says() {
    needs!(SystemdAnalyze);
    let world = World::new(0);
    let document = read("docs/operating.md");
    for (folder, service, program) in [
        ("agent", "squall-agent.service", "squall-agent"),
        ("controller", "squall-controller.service", "squall"),
    ] {
        // The programs need not be installed to be looked for.
        let unit = read(&format!("{folder}/systemd/{service}"));
        let started = format!("=/usr/bin/{program} ");
        assert!(unit.contains(&started), "{service} starts something else");
        let placed = unit.replace(&started, &format!("={} ", binary(program).display()));
        let file = world.file(service, placed);
        let (fine, said) = tool(&world, &["systemd-analyze", "verify", "--man=no", &file]);
        assert!(fine && !said.contains(&format!("{service}:")), "{said}");
        let score = ["systemd-analyze", "security", "--offline=true", "--no-pager", &file];
        let (_, said) = tool(&world, &score);
        let level = said.split(&format!("exposure level for {service}: ")).nth(1);
        let Some(level) = level.and_then(|rest| rest.split(' ').next()) else {
            // Before version 250 it needs a systemd that runs.
            skip!("this systemd cannot judge a unit that is not loaded");
        };
        let recorded = document.split(&format!("the exposure level of `{service}` is ")).nth(1);
        let recorded = recorded.and_then(|rest| rest.split([' ', '\n']).next());
        let number =
            |text: &str| text.trim_end_matches(['.', ',', ';', ':']).parse::<f64>().expect("a number");
        let recorded = number(recorded.expect("the document records the exposure level"));
        // Versions differ in what they count.
        assert!(
            number(level) <= recorded + 0.5,
            "{service}: the level is {level}, the document says {recorded}"
        );
    }
}

/// What a service manager hears. It reads whatever comes at once, as one does: its socket holds few messages, and one that
/// finds no room is lost.
struct Manager {
    messages: Receiver<String>,
}

impl Manager {
    fn listening(at: &Path) -> Self {
        let socket = UnixDatagram::bind(at).expect("a socket can be bound");
        let (heard, messages) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut message = [0; 64];
            while let Ok(length) = socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if heard.send(text).is_err() {
                    return;
                }
            }
        });
        Manager { messages }
    }

    /// Waits for a message, past all others.
    #[track_caller]
    fn until(&self, wanted: &str) {
        let began = Instant::now();
        loop {
            match self.messages.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(message) if message == wanted => return,
                Ok(_) => {}
                Err(error) => panic!("`{wanted}` is not told: {error}"),
            }
        }
    }
}

/// The agent as the unit runs it, as far as that can be had without systemd: with its capabilities and no more, without
/// new privileges, told to give signs of life.
fn as_the_unit_does(host: &Host, notify: &Path) -> Background {
    let unit = unit();
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("it has one");
    let set: String =
        set.split(' ').map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    let mut command = host.netns.command("setpriv");
    command.args(["--bounding-set", &format!("-all{set}"), "--inh-caps", "-all", "--no-new-privs", "--"]);
    command.arg(binary("squall-agent")).arg("run").env("SQUALL_STATE_DIR", &host.state);
    command.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", "400000");
    Squall::with(command, "squall-agent run as the unit does", &host.directory).start()
}

#[test]
fn the_capabilities_of_the_unit_are_enough_for_every_fault_and_the_manager_is_told() {
    needs!(Root, Nftables, Queue, Htb, Bpf);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.echo(1, 7);
    let heard = Manager::listening(&world.directory.join("notify"));
    let mut agent = as_the_unit_does(near, &world.directory.join("notify"));
    heard.until("READY=1");
    // One that was due before it served, and one that was waited for.
    heard.until("WATCHDOG=1");
    heard.until("WATCHDOG=1");
    // Somebody else's processes and traffic: they need rights that root alone does not give.
    let talk = "while :; do head -c 1000 /dev/zero >/dev/udp/10.77.1.2/7; sleep 0.03; done";
    world.program(0, Some(65533), &["bash", "-c", talk]);
    let ask = "while :; do { exec 3<>/dev/tcp/10.77.1.2/7 && echo hello >&3 && read -t 1 line <&3; } 2>/dev/null; \
               exec 3>&-; sleep 0.05; done";
    world.program(0, Some(65533), &["bash", "-c", ask]);
    world.program(0, Some(65534), &["bash", "-c", "trap '' USR1; exec sleep 600"]);
    holds("the sleeper", PATIENCE, || {
        near.netns.processes().iter().any(|process| process.name == "sleep" && process.uid == 65534)
    });
    let (netns, to) = (std::sync::Arc::clone(&near.netns), std::net::SocketAddr::new(far.v4, 7));
    let traffic = Steady::start("connections", Duration::from_millis(20), move || {
        let stream = connect(&netns, to, TIMEOUT.min(Duration::from_millis(100)));
        // Longer than the time between two looks of `disconnect`.
        std::thread::sleep(Duration::from_millis(150));
        stream.map(drop)
    });
    let peer = "to: [\"10.77.1.2:7\"]";
    let sleeper = "in: { process: { name: sleep, exe: /usr/bin/sleep } }";
    let steps = [
        format!("{{ fault: {{ partition: {{ {peer} }} }}, for: 500ms }}"),
        format!("{{ fault: {{ refuse: {{ {peer} }} }}, in: {{ user: \"65533\" }}, for: 500ms }}"),
        format!("{{ fault: {{ latency: {{ delay: 20ms, engine: queue, {peer} }} }}, for: 500ms }}"),
        format!(
            "{{ fault: {{ latency: {{ delay: 20ms, engine: queue, direction: egress, {peer} }} }}, for: 500ms }}"
        ),
        format!(
            "{{ fault: {{ bandwidth: {{ rate: 20kbit/s, burst: 1500B, engine: netem, direction: egress, {peer} }} }}, for: 500ms }}"
        ),
        "{ fault: { outage: { of: \"10.77.1.2:7\", how: latency, delay: 5ms } }, for: 1s }".to_owned(),
        format!("{{ fault: {{ disconnect: {{ every: 100ms, {peer} }} }}, for: 1s }}"),
        format!(
            "{{ fault: {{ loss: {{ percent: 50%, engine: queue }} }}, in: {{ netns: \"{}\" }}, for: 500ms }}",
            far.netns.name()
        ),
        format!("{{ fault: {{ pause: {{}} }}, {sleeper}, for: 300ms }}"),
        format!("{{ fault: {{ kill: {{ signal: USR1 }} }}, {sleeper}, for: 300ms }}"),
    ];
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    // The agent looks at it with a prober of its own.
    let guard = format!("stop-when:\n{}", CALM.replace("programs run", "programs go on"));
    let report = run(&world, near, &format!("{}{guard}", calm(&steps))).expect_exit(0).json();
    assert!(report["guards"][0]["samples"]["good"].as_u64() > Some(3), "{report:#}");
    let parts = report["parts"].as_array().expect("it has parts");
    assert_eq!(parts.len(), steps.len(), "{report:#}");
    for part in parts {
        assert_eq!(part["measured"], true, "{part:#}");
        assert!(part["evidence"][0]["impaired"].as_u64() > Some(0), "{part:#}");
    }
    drop(traffic);
    agent.signal(Signal::TERM);
    heard.until("STOPPING=1");
    agent.finish().expect_exit(0);
    world.restored(SOON);
}

/// A package that has been built from the programs under test and installed below another root.
struct Installed {
    root: PathBuf,
}

impl Installed {
    fn new(world: &World) -> Self {
        let repository = repository();
        let script = repository.join("agent/package/deb").display().to_string();
        let programs = binary("squall").parent().expect("it stands in a directory").display().to_string();
        let output = world.place("packages").display().to_string();
        // Not for long, so hardly packed.
        let (fine, said) = tool(world, &[&script, &programs, &output, "-Zgzip", "-z1"]);
        assert!(fine, "{said}");
        let root = world.place("root");
        for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
            fs::create_dir_all(root.join(directory)).expect("the root can be filled");
        }
        fs::write(root.join("var/lib/dpkg/status"), "").expect("the root can be filled");
        let installed = Installed { root };
        let packages: Vec<_> = fs::read_dir(&output).expect("it is there").flatten().collect();
        assert_eq!(packages.len(), 1, "{said}");
        let package = packages[0].path().display().to_string();
        let (fine, said) = installed.dpkg(world, &["--install", &package]);
        assert!(fine, "{said}");
        installed
    }

    /// `dpkg` below that root, in the network namespace of the first host.
    fn dpkg(&self, world: &World, arguments: &[&str]) -> (bool, String) {
        let mut command = world.hosts[0].netns.command("dpkg");
        let root = format!("--root={}", self.root.display());
        command
            .args([&root, "--force-script-chrootless", "--force-depends", "--log=/dev/null"])
            .args(arguments);
        let finished = Squall::with(command, format!("dpkg {}", arguments.join(" ")), &world.directory).run();
        (finished.status.success(), finished.story())
    }

    fn state(&self) -> PathBuf {
        self.root.join("var/lib/squall")
    }
}

#[test]
fn the_package_is_removed_only_when_everything_is_undone() {
    needs!(Root, Nftables, Dpkg);
    let mut world = World::new(2);
    let installed = Installed::new(&world);
    for file in [
        "usr/bin/squall",
        "usr/bin/squall-agent",
        "usr/lib/systemd/system/squall-agent.service",
        "usr/lib/systemd/system/squall-controller.service",
        "usr/share/man/man1/squall.1.gz",
        "usr/share/man/man1/squall-agent-recover.1.gz",
        "usr/share/bash-completion/completions/squall-agent",
        "usr/share/zsh/vendor-completions/_squall",
        "usr/share/fish/vendor_completions.d/squall.fish",
        "etc/squall/policy.yaml",
        "usr/share/doc/squall/safety.md",
        "usr/share/doc/squall/copyright",
        "usr/share/doc/squall/examples/payments-slow.yaml",
    ] {
        assert!(installed.root.join(file).exists(), "`{file}` is not in the package");
    }
    // Both processes of an agent die with a fault live; what they leave lies where the installed programs look.
    world.hosts[0].state = installed.state();
    let host = &world.hosts[0];
    let mut trial = Trial::begin(&world, host, &calm(&[LONG]));
    trial.injected();
    for signal in [Signal::STOP, Signal::KILL] {
        for process in host.squalls() {
            netns::signal(&process, signal);
        }
    }
    holds("the command to be dead", PATIENCE, || trial.run.ended());
    let journal = || {
        let places = fs::read_dir(installed.state()).into_iter().flatten().flatten();
        places.map(|place| place.path().join("journal")).find(|journal| journal.exists())
    };
    let left = journal().expect("a killed pair leaves its journal");
    let whole = fs::read(&left).expect("root may read it");
    let mut damaged = whole.clone();
    damaged[3] ^= 0x01;
    fs::write(&left, &damaged).expect("root may write it");
    let (removed, said) = installed.dpkg(&world, &["--remove", "squall"]);
    assert!(!removed && said.contains("still modified"), "{said}");
    assert!(installed.root.join("usr/bin/squall-agent").exists(), "{said}");
    fs::write(&left, &whole).expect("root may write it");
    // Another command has begun to undo it, and takes long.
    let place = Place::all(&installed.state()).pop().expect("the journal lies in it");
    let other = place.starting().expect("root may lock it").expect("nobody else recovers it");
    let (removed, said) = installed.dpkg(&world, &["--remove", "squall"]);
    assert!(!removed && said.contains("or is being undone"), "{said}");
    assert!(installed.root.join("usr/bin/squall-agent").exists(), "{said}");
    drop(other);
    let (removed, said) = installed.dpkg(&world, &["--remove", "squall"]);
    assert!(removed && said.contains("undone: "), "{said}");
    assert_eq!(journal(), None, "{said}");
    assert!(!installed.root.join("usr/bin/squall").exists(), "{said}");
    assert!(
        installed.root.join("etc/squall/policy.yaml").exists(),
        "the host's policy stays until it is purged"
    );
    let (purged, said) = installed.dpkg(&world, &["--purge", "squall"]);
    assert!(purged && !installed.root.join("etc/squall").exists(), "{said}");
    world.restored(SOON);
}
