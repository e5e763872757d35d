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
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{SHORT, Trial, calm, timed_out};

/// An OpenSSH server on the first host where root may log in with a key, and a client on the second.
struct Login {
    world: World,
    key: String,
}

impl Login {
    fn new() -> Self {
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
        world.program(0, None, &["/usr/sbin/sshd", "-D", "-e", "-f", &config]);
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
fn stays_reachable(fault: &str) {
    let login = Login::new();
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
    trial.finish().expect_exit(6).expect_told("SIGINT");
    assert!(session.answers("after"), "the session is gone after the fault");
}

#[test]
fn a_partition_from_every_address_leaves_remote_logins_open() {
    needs!(Root, Nftables, Sshd);
    stays_reachable("partition: { to: [\"0.0.0.0/0\", \"::/0\"], from: [\"0.0.0.0/0\", \"::/0\"] }");
}

#[test]
fn a_partition_from_anybody_leaves_remote_logins_open() {
    needs!(Root, Nftables, Sshd);
    stays_reachable("partition: { to: [any], from: [any] }");
}
