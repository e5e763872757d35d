//! Several commands on one host: status, halt, two runs at once, and the agent that they share.

use rustix::process::Signal;
use squall_tests::client::{TIMEOUT, connect};
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{CUT, ECHO, LONG, SHORT, SOON, Trial, calm, document, run};

#[test]
fn status_shows_what_is_active_and_halt_ends_it() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    host.squall(&["status"]).run().expect_exit(0);
    let mut trial = Trial::begin(&world, host, &document(ECHO, &[LONG]));
    let run = trial.event("started")["run"].as_str().expect("a run has a name").to_owned();
    trial.injected();
    let status = host.squall(&["status"]).run();
    status.expect_exit(0);
    assert!(status.stdout.contains(&run) && status.stdout.contains("10.77.1.2:7"), "{}", status.story());
    let json = host.squall(&["status", "--format", "json"]).run();
    assert!(json.expect_exit(0).json().to_string().contains(&run), "{}", json.story());
    // Another host has nothing to do with it.
    let other = world.hosts[1].squall(&["status"]).run();
    assert!(!other.expect_exit(0).stdout.contains(&run), "{}", other.story());

    let halt = host.squall(&["halt"]).run();
    halt.expect_exit(0);
    holds("the run to end", PATIENCE, || trial.run.ended());
    trial.finish().expect_exit(6);
    world.restored(SOON);
}

#[test]
fn halt_with_nothing_active_says_so() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let halt = world.hosts[0].squall(&["halt"]).run();
    halt.expect_exit(0);
    assert!(format!("{}{}", halt.stdout, halt.stderr).contains("nothing"), "{}", halt.story());
}

#[test]
fn a_second_run_with_the_same_claim_is_refused_and_told_who_holds_it() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    let mut first = Trial::begin(&world, host, &document(ECHO, &[LONG]));
    let run_id = first.event("started")["run"].as_str().expect("a run has a name").to_owned();
    first.injected();
    let second = run(&world, host, &calm(&["{ fault: { refuse: { to: [\"10.77.1.2\"] } }, for: 2s }"]));
    second.expect_exit(4);
    assert!(second.story().contains(&run_id), "the run that holds it is not named: {}", second.story());
    assert!(!first.has("lifted"), "the first run must not be touched");
    first.run.signal(Signal::INT);
    first.finish().expect_exit(6);
}

#[test]
fn an_agent_with_another_state_directory_is_refused_the_host_and_the_first_goes_on() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let echo = world.echo(1, 7);
    let mut first = Trial::begin(&world, host, &calm(&[LONG]));
    first.injected();
    let other = world.place("other-state").display().to_string();
    let cut = calm(&["{ fault: { refuse: { to: [\"10.77.1.2:9\"] } }, for: 2s }"]);
    let file = world.file("other.yaml", cut);
    let second = host.squall(&["--state-dir", &other, "run", &file]).run();
    second.expect_exit(4).expect_told("inet squall").expect_told("help:");
    for _ in 0..4 {
        echo.dial_within(host, world.hosts[1].v4, SHORT).err().expect("the first fault goes on");
    }
    assert!(!first.has("lifted"), "the first run must not be touched");
    first.halted();
}

#[test]
fn two_runs_with_different_claims_share_one_agent() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let (one, two) = (world.echo(1, 7), world.echo(1, 8));
    let refuse = |port, time| {
        calm(&[&format!("{{ fault: {{ refuse: {{ to: [\"10.77.1.2:{port}\"] }} }}, for: {time} }}")])
    };
    let far = world.hosts[1].v4;
    let mut first = Trial::begin(&world, host, &refuse(7, "3s"));
    first.injected();
    let mut second = Trial::begin(&world, host, &refuse(8, "6s"));
    second.injected();
    host.agents();
    let knock = |port| connect(&host.netns, (far, port).into(), TIMEOUT).is_ok();
    for _ in 0..4 {
        assert!(!knock(7) && !knock(8), "both must be refused");
    }
    // The first started the agent; its end must not end the second's fault.
    first.finish().expect_exit(0);
    one.dial(host, far).expect("the first fault is over");
    assert!(!knock(8), "the second fault must live on");
    second.finish().expect_exit(0);
    two.dial(host, far).expect("the second fault is over");
}

#[test]
fn a_resident_agent_is_joined_and_stays() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    let mut agent = host.agent(&["run"]).start();
    let (guardian, worker) = host.agents();
    assert_eq!(guardian.pid, agent.pid(), "the guardian is the parent, and the process that was started");
    run(&world, host, &document(ECHO, &[&CUT.replace("for: 3s", "for: 1s")])).expect_exit(5);
    assert!(guardian.lives() && worker.lives(), "a resident agent stays when a run is over");
    let status = host.agent(&["status"]).run();
    status.expect_exit(0);
    agent.signal(Signal::TERM);
    agent.finish().expect_exit(0);
}

#[test]
fn the_last_of_two_runs_leaves_no_table_on_a_resident_agent() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    let mut agent = host.agent(&["run"]).start();
    host.agents();
    let partition = |address, time| {
        calm(&[&format!("{{ fault: {{ partition: {{ to: [\"{address}\"] }} }}, for: {time} }}")])
    };
    // Thin faults, as nothing uses those addresses: what matters here is who made the table and who is last.
    let mut first = Trial::begin(&world, host, &partition("192.0.2.1", "2s"));
    first.injected();
    let mut second = Trial::begin(&world, host, &partition("192.0.2.2", "4s"));
    second.injected();
    first.finish().expect_exit(8);
    assert!(!host.tables().is_empty(), "the second fault still needs the table");
    second.finish().expect_exit(8);
    assert!(host.tables().is_empty(), "left by a living agent: {:?}", host.tables());
    agent.signal(Signal::TERM);
    agent.finish().expect_exit(0);
}

#[test]
fn commands_that_start_at_the_same_moment_share_one_agent() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    for _ in 0..5 {
        let begin = |number: u32| {
            let to = format!("192.0.2.{number}");
            host.squall(&["inject", "partition", "--to", &to, "--for", "100ms"]).start()
        };
        // Nothing uses those addresses: inconclusive, and neither is refused because of the other.
        for begun in [1, 2, 3].map(begin) {
            begun.finish().expect_exit(8);
        }
    }
}
