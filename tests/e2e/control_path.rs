//! The way back in stays open: a partition from everybody leaves remote logins and the command itself reachable.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use squall_tests::client::connect;
use squall_tests::needs;
use squall_tests::netns::look;
use squall_tests::squall::{Squall, binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{SHORT, Trial, calm, peer, timed_out};

const SSHD: &str = "/usr/sbin/sshd";

/// An OpenSSH server on the first host where root may log in with a key, and a client on the second.
struct Login {
    world: World,
    key: String,
}

impl Login {
    /// The server is started as `program`.
    fn new(program: &str) -> Self {
        let world = World::new(2);
        let place = world.place("login");
        let [host, key] = ["host", "key"].map(|name| place.join(name).display().to_string());
        for key in [&host, &key] {
            look(None, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]).expect("a key is made");
        }
        // sshd insists on this directory, which Debian makes when it starts the service.
        fs::create_dir_all("/run/sshd").expect("root may make it");
        let config = world.file(
            "login/config",
            format!(
                "Port 2222\nHostKey {host}\nPidFile none\nUsePAM no\nStrictModes no\nUseDNS no\nPermitRootLogin \
                 prohibit-password\nAuthorizedKeysFile {key}.pub\n"
            ),
        );
        let program = match program {
            SSHD => program.to_owned(),
            name => {
                let link = world.place("login").join(name);
                std::os::unix::fs::symlink(SSHD, &link).expect("the world's directory can be written");
                link.display().to_string()
            }
        };
        world.program(0, None, &[&program, "-D", "-e", "-f", &config]);
        let login = Login { world, key };
        holds("sshd to let somebody in", PATIENCE, || login.enters(false));
        login
    }

    fn ssh(&self, v6: bool, command: &str) -> Command {
        let host = &self.world.hosts[0];
        let address = if v6 { host.v6 } else { host.v4 }.to_string();
        let mut ssh = self.world.hosts[1].netns.command("ssh");
        ssh.args(["-F", "none", "-i", &self.key, "-p", "2222", "-l", "root", "-o", "BatchMode=yes"]);
        ssh.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "ConnectTimeout=5",
        ]);
        ssh.args(["-o", "LogLevel=ERROR", &address, command]);
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ssh
    }

    /// Whether somebody who comes now gets in.
    fn enters(&self, v6: bool) -> bool {
        self.ssh(v6, "true").status().is_ok_and(|status| status.success())
    }
}

/// A session that is open, in which every line comes back.
struct Session {
    ssh: Child,
    answers: mpsc::Receiver<String>,
}

impl Session {
    fn open(login: &Login) -> Self {
        let mut ssh = login.ssh(false, "cat");
        let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh runs");
        let (tell, answers) = mpsc::channel();
        let said = BufReader::new(ssh.stdout.take().expect("it was piped"));
        thread::spawn(move || said.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
        Session { ssh, answers }
    }

    /// Whether a word comes back.
    fn answers(&mut self, word: &str) -> bool {
        let input = self.ssh.stdin.as_mut().expect("it was piped");
        writeln!(input, "{word}").and_then(|()| input.flush()).is_ok()
            && self.answers.recv_timeout(Duration::from_secs(10)).is_ok_and(|line| line == word)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.ssh.kill());
        drop(self.ssh.wait());
    }
}

/// A session that is open goes on, and who comes meanwhile gets in, over both families.
fn stays_reachable(program: &str, fault: &str) {
    let login = Login::new(program);
    let [near, far] = &login.world.hosts[..] else { panic!("two hosts were asked for") };
    login.world.echo(0, 7);
    let mut session = Session::open(&login);
    assert!(session.answers("before"), "the session answers before the fault");
    let mut trial =
        Trial::begin(&login.world, near, &calm(&[&format!("{{ fault: {{ {fault} }}, for: 80s }}")]));
    trial.injected();
    for address in [near.v4, near.v6] {
        let cut = connect(&far.netns, (address, 7).into(), SHORT).expect_err("everything else is cut");
        assert!(timed_out(&cut), "{cut}");
    }
    assert!(session.answers("during"), "the session that was open is cut");
    assert!(login.enters(false), "nobody gets in over IPv4");
    assert!(login.enters(true), "nobody gets in over IPv6");
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");
    // Nothing here calls out, so one half of the fault has no effect to measure.
    trial.run.signal(Signal::INT);
    let report = trial.finish().expect_exit(6).expect_told("SIGINT").json();
    let notes = report["parts"][0]["notes"].to_string();
    assert!(
        notes.contains("left out on this host: neighbour discovery, DHCP, remote logins (TCP port 2222)"),
        "{notes}"
    );
    assert!(session.answers("after"), "the session is gone after the fault");
}

#[test]
fn a_partition_from_every_address_leaves_remote_logins_open() {
    needs!(Root, Nftables, Sshd);
    stays_reachable(SSHD, "partition: { to: [\"0.0.0.0/0\", \"::/0\"], from: [\"0.0.0.0/0\", \"::/0\"] }");
}

#[test]
fn a_server_for_logins_is_known_by_its_program_whatever_it_is_called() {
    needs!(Root, Nftables, Sshd);
    stays_reachable("way-in", "partition: { to: [any], from: [any] }");
}

#[test]
fn the_ways_to_controllers_stay_open() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let [of_command, of_agent, nobodys] = [7, 8, 9].map(|port| world.echo(1, port));
    let mut agent = near.agent(&["run", "--controller", &peer(far.v4, 8)]).start();
    near.agents();
    // The table is there already when a command comes that is itself connected to somebody.
    let harmless = "{ fault: { latency: { delay: 5ms, to: [\"192.0.2.1\"] } }, for: 80s }";
    let mut first = Trial::begin(&world, near, &calm(&[harmless]));
    first.injected();
    let everybody = "{ fault: { partition: { to: [any], from: [any] } }, for: 80s }";
    let file = world.file("led.yaml", calm(&[everybody]));
    let events = world.directory.join("led.ndjson");
    let script = format!("exec 9<>/dev/tcp/{}/7; exec \"$0\" \"$@\"", far.v4);
    let mut command = near.netns.command("bash");
    command.args(["-c", &script]).arg(binary("squall")).args(["run", &file, "--format", "json", "--events"]);
    command.arg(&events).env("SQUALL_STATE_DIR", &near.state);
    let run = Squall::with(command, "a command that is connected", &world.directory).start();
    let mut second = Trial { run, events };
    let notes = second.injected()["applied"]["notes"].to_string();
    for (service, told) in [(&of_command, true), (&of_agent, true), (&nobodys, false)] {
        assert_eq!(service.dial_within(near, far.v4, SHORT).is_ok(), told, "port {}", service.port);
        let link = format!("the connection to a controller at {}", peer(far.v4, service.port));
        assert_eq!(notes.contains(&link), told, "{notes}");
    }
    assert!(!second.has("lifted"), "the fault was over before it was looked at");
    for mut trial in [second, first] {
        trial.run.signal(Signal::INT);
        trial.finish().expect_exit(6).expect_told("SIGINT");
    }
    agent.signal(Signal::TERM);
    agent.finish().expect_exit(0);
}
