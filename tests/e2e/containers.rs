//! Containers as targets, with a real Docker daemon and a real Podman: `in: { container: … }`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::client::Talk;
use squall_tests::container::Container;
use squall_tests::containerd::Containerd;
use squall_tests::dns::Dns;
use squall_tests::docker::Docker;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::netns::{Process, signal};
use squall_tests::podman::Podman;
use squall_tests::traffic::ping::Ping;
use squall_tests::traffic::round_trips;
use squall_tests::wait::{PATIENCE, holds, median};
use squall_tests::world::World;

use crate::trial::{SHORT, SOON, Trial, calm, evidence, impaired, run};

/// What is added to every round trip.
const DELAY: Duration = Duration::from_millis(60);

fn step(container: &str, fault: &str, time: &str) -> String {
    calm(&[&format!("{{ fault: {{ {fault} }}, in: {{ container: \"{container}\" }}, for: {time} }}")])
}

fn late(container: &str) -> String {
    step(container, "latency: { delay: 60ms }", "60s")
}

/// A container with a network of its own, joined to the daemon's host.
fn joined(docker: &Docker<'_>, name: &str, number: u8) -> Container {
    let container = docker.run(name, &["--network", "none"]);
    join(docker.host, &container, number);
    container
}

fn join(host: &Host, container: &Container, number: u8) {
    container.join(host, &format!("guest{number}"), address(number, 1), address(number, 2));
}

fn address(number: u8, side: u8) -> IpAddr {
    IpAddr::from([10, 88, number, side])
}

fn ping(host: &Host, number: u8) -> Ping {
    Ping::to(&host.netns, address(number, 2), SHORT * 5).expect("a raw socket opens")
}

/// Whether round trips take as long as the fault says.
fn is_late(talk: &mut dyn Talk, control: Duration) {
    let seen = median(round_trips(talk, 9));
    let most = control + DELAY + (control + DELAY / 10 + Duration::from_millis(1)) * 3;
    assert!((DELAY..=most).contains(&seen), "{seen:?} with {DELAY:?} added to {control:?}");
}

fn table(container: &Container) -> String {
    container.inside(&["nft", "list", "tables"])
}

/// Whether a rule of a run stands in a container's network.
fn has_rules(container: &Container) -> bool {
    container.inside(&["nft", "list", "ruleset"]).contains("squall run ")
}

/// A container's name, which no other test's container has: containers are seen wherever the agent is.
fn named(world: &World, name: &str) -> String {
    let world = world.directory.file_name().expect("the directory has a name");
    format!("{name}-{}", world.to_string_lossy())
}

#[test]
fn a_container_is_late_its_pod_too_and_nobody_else() {
    needs!(Root, Nftables, Queue, Docker);
    let world = World::new(1);
    let host = &world.hosts[0];
    let docker = Docker::start(&world, host);
    let shop_name = &named(&world, "shop");
    let bank_name = &named(&world, "bank");
    let side_name = &named(&world, "side");
    let shop = joined(&docker, shop_name, 1);
    let bank = joined(&docker, bank_name, 2);
    docker.run(side_name, &["--network", &format!("container:{shop_name}")]);
    let (mut to_shop, mut to_bank) = (ping(host, 1), ping(host, 2));
    let control = median(round_trips(&mut to_shop, 9));
    for (name, pod) in
        [(shop_name.as_str(), side_name), (side_name.as_str(), shop_name), (&shop.id[..12], side_name)]
    {
        let mut trial = Trial::begin(&world, host, &late(name));
        let injected = trial.injected();
        is_late(&mut to_shop, control);
        let beside = median(round_trips(&mut to_bank, 9));
        assert!(beside < DELAY, "{beside:?} in a container that was not named");
        assert!(host.tables().is_empty() && table(&bank).is_empty());
        assert!(injected["applied"]["notes"].to_string().contains(&format!("{pod} (")), "{injected:#}");
        let report = trial.halted();
        assert_eq!(table(&shop), "", "{report:#}");
    }
    // What stands in the plan, before anything is done.
    let file = world.file("pod.yaml", late(shop_name));
    host.squall(&["plan", &file]).run().expect_exit(0).expect_told("as in a pod, are hit, too");
    let unknown = run(&world, host, &late("sho"));
    unknown.expect_exit(4).expect_told("no running container is called `sho`");
    unknown.expect_told(&format!("{bank_name} ({})", &bank.id[..12]));
}

#[test]
fn a_container_on_the_agents_own_network_is_told_apart() {
    needs!(Root, Nftables, Cgroup2, Bpf, Docker);
    let world = World::new(2);
    let [host, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let docker = Docker::start(&world, host);
    let shop_name = &named(&world, "shop");
    let bank_name = &named(&world, "bank");
    docker.run(shop_name, &["--network", "host"]);
    docker.run(bank_name, &["--network", "host"]);
    let far = far.v4.to_string();
    let reaches = |name: &str| {
        let said =
            docker.told(&["exec", name, "sh", "-c", &format!("ping -c 1 -W 1 {far} >/dev/null; echo $?")]);
        said == "0"
    };
    assert!(reaches(shop_name) && reaches(bank_name));
    let mut trial = Trial::begin(&world, host, &step(shop_name, "partition: {}", "60s"));
    trial.injected();
    for _ in 0..3 {
        assert!(!reaches(shop_name), "the container is cut off");
    }
    assert!(reaches(bank_name), "another container on the same network is not");
    Ping::to(&host.netns, world.hosts[1].v4, SHORT * 5)
        .and_then(|mut ping| ping.talk())
        .expect("nor is the host");
    docker.told(&["restart", "-t", "0", shop_name]);
    holds("the fault to follow", PATIENCE, || !reaches(shop_name));
    let report = trial.halted();
    assert!(evidence(&report)["incidents"].to_string().contains("came back after"), "{report:#}");
    assert!(reaches(shop_name));
}

#[test]
fn a_container_that_restarts_is_let_go_of_and_followed() {
    needs!(Root, Nftables, Queue, Docker);
    let world = World::new(1);
    let host = &world.hosts[0];
    let docker = Docker::start(&world, host);
    let shop_name = &named(&world, "shop");
    let shop = joined(&docker, shop_name, 1);
    let mut talk = ping(host, 1);
    let control = median(round_trips(&mut talk, 9));
    let mut trial = Trial::begin(&world, host, &late(shop_name));
    trial.injected();
    is_late(&mut talk, control);
    let links = || host.look(&["ip", "-o", "link", "show"]);
    assert!(links().contains("guest1"));
    // Not through Docker, which takes its time.
    let init = Process::of(shop.init).expect("the container runs");
    assert!(signal(&init, Signal::KILL));
    holds("the container to end", PATIENCE, || !init.lives());
    let ended = Instant::now();
    // Its device goes with its network, unless somebody holds that: on a kernel that is busy, a little later.
    holds("its device to go", PATIENCE, || !links().contains("guest1"));
    let went = ended.elapsed();
    assert!(!trial.has("lifted"), "the fault is still live");
    assert!(went < Duration::from_secs(3), "its device was there for another {went:?}");

    holds("Docker to know", PATIENCE, || {
        docker.told(&["inspect", "-f", "{{.State.Running}}", shop_name]) == "false"
    });
    docker.told(&["start", shop_name]);
    let again = docker.container(shop_name);
    assert_ne!(again.init, shop.init);
    join(host, &again, 1);
    holds("the fault to be there again", PATIENCE, || has_rules(&again));
    // A neighbour entry of the old device may have to be made anew first.
    holds("an answer", PATIENCE, || talk.talk().is_ok());
    is_late(&mut talk, control);

    // The same name, another container.
    docker.told(&["rm", "-f", shop_name]);
    let other = joined(&docker, shop_name, 1);
    holds("the fault to be there again", PATIENCE, || has_rules(&other));
    holds("an answer", PATIENCE, || talk.talk().is_ok());
    is_late(&mut talk, control);

    let report = trial.halted();
    let told = evidence(&report)["incidents"].as_array().expect("incidents").clone();
    let told: Vec<&str> = told.iter().filter_map(|incident| incident["what"].as_str()).collect();
    let count = |words: &str| told.iter().filter(|what| what.contains(words)).count();
    assert_eq!((count(" ended"), count("came back after")), (2, 2), "{told:?}");
    assert!(told[0].contains(&format!("container {shop_name} ({}) ended", &shop.id[..12])), "{told:?}");
    assert!(evidence(&report)["engine"]["delayed"].as_u64() >= Some(27), "{report:#}");
    assert_eq!(table(&other), "");
    assert!(host.tables().is_empty());
}

#[test]
fn a_container_that_does_not_come_back_is_reported_as_ended() {
    needs!(Root, Nftables, Docker);
    let world = World::new(1);
    let host = &world.hosts[0];
    let docker = Docker::start(&world, host);
    let shop_name = &named(&world, "shop");
    let shop = joined(&docker, shop_name, 1);
    let cut = step(&shop.id[..12], "partition: {}", "4s");
    let mut trial = Trial::begin(&world, host, &cut);
    trial.injected();
    for _ in 0..4 {
        assert!(Ping::to(&host.netns, address(1, 2), SHORT / 4).and_then(|mut ping| ping.talk()).is_err());
    }
    docker.told(&["rm", "-f", shop_name]);
    let report: Value = trial.finish().expect_exit(0).json();
    let told = evidence(&report)["incidents"].to_string();
    assert!(told.contains("ended") && told.contains("did not come back before the fault ended"), "{told}");
}

#[test]
fn processes_of_a_container_are_paused_and_killed_the_first_one_included() {
    needs!(Root, Nftables, Docker);
    let world = World::new(1);
    let host = &world.hosts[0];
    let docker = Docker::start(&world, host);
    let shop_name = &named(&world, "shop");
    let bank_name = &named(&world, "bank");
    let shop = docker.run(shop_name, &["--network", "none"]);
    let bank = docker.run(bank_name, &["--network", "host"]);
    let stopped = |container: &Container| Process::of(container.init).and_then(|process| process.halted());
    let mut trial = Trial::begin(&world, host, &step(shop_name, "pause: {}", "60s"));
    trial.injected();
    assert!(stopped(&shop).is_some() && stopped(&bank).is_none());
    trial.halted();
    holds("the container to run again", PATIENCE, || stopped(&shop).is_none());
    run(&world, host, &step(shop_name, "kill: {}", "1s")).expect_exit(0);
    holds("the container to end", PATIENCE, || {
        docker.told(&["inspect", "-f", "{{.State.Running}}", shop_name]) == "false"
    });
    assert_eq!(docker.container(bank_name), bank, "another container runs on");
}

/// Who dies while packets are held in a container's network.
#[test]
fn whoever_is_killed_the_container_is_as_before() {
    needs!(Root, Nftables, Queue, Docker);
    let world = World::new(1);
    let host = &world.hosts[0];
    let docker = Docker::start(&world, host);
    let shop_name = &named(&world, "shop");
    let shop = joined(&docker, shop_name, 1);
    let mut talk = ping(host, 1);
    let control = median(round_trips(&mut talk, 9));
    for victims in [&[0][..], &[1], &[0, 1]] {
        let mut trial = Trial::begin(&world, host, &late(shop_name));
        trial.injected();
        is_late(&mut talk, control);
        let (guardian, worker) = host.agents();
        let pair = [&worker, &guardian];
        if victims.len() > 1 {
            for victim in victims {
                signal(pair[*victim], Signal::STOP);
            }
        }
        for victim in victims {
            assert!(signal(pair[*victim], Signal::KILL), "it is gone already");
        }
        holds("the container to be as before", SOON, || {
            table(&shop).is_empty() && !guardian.lives() && !worker.lives()
        });
        holds("the command to end", PATIENCE, || trial.run.ended());
        trial.finish().expect_exit(6);
        host.agent(&["recover"]).run().expect_exit(0);
        let after = median(round_trips(&mut talk, 9));
        assert!(after < DELAY, "{after:?} after {victims:?} was killed");
    }
}

#[test]
fn names_are_those_of_the_container() {
    needs!(Root, Nftables, Docker);
    let world = World::new(1);
    let host = &world.hosts[0];
    let docker = Docker::start(&world, host);
    let name = &named(&world, "shop");
    let shop = joined(&docker, name, 1);
    let dns = Dns::start(&host.netns, address(1, 1));
    dns.set("db.shop.test", 60, &[address(1, 1)]);
    // What Docker gives it, in the container's own words.
    let files = "echo '10.88.1.77 bank' >>/etc/hosts; printf 'nameserver 10.88.1.1\\nsearch shop.test\\n' >/etc/resolv.conf";
    docker.told(&["exec", &shop.id, "sh", "-c", files]);
    let mut talk = ping(host, 1);
    round_trips(&mut talk, 3);
    let mut trial = Trial::begin(&world, host, &step(name, "partition: { to: [db, bank] }", "60s"));
    let injected = trial.injected();
    let targets = injected["applied"]["targets"].to_string();
    for target in ["10.88.1.1 (db)", "10.88.1.77 (bank)"] {
        assert!(targets.contains(target), "{injected:#}");
    }
    for _ in 0..4 {
        talk.talk().expect_err("the container no longer answers its name server");
    }
    trial.halted();
    // Without its search domain the name is nobody's.
    docker.told(&["exec", &shop.id, "sh", "-c", "echo 'nameserver 10.88.1.1' >/etc/resolv.conf"]);
    let refused = run(&world, host, &step(name, "partition: { to: [db] }", "60s"));
    refused.expect_exit(4).expect_told(&format!("does not resolve in container {name}"));
}

#[test]
fn a_container_of_podman_is_found_by_its_name_and_another_is_left_alone() {
    needs!(Root, Nftables, Podman);
    let world = World::new(1);
    let host = &world.hosts[0];
    let podman = Podman::of(&world, host);
    let shop_name = &named(&world, "shop");
    let shop = podman.run(shop_name);
    let bank = podman.run(&named(&world, "bank"));
    join(host, &shop, 1);
    join(host, &bank, 2);
    let answers = |number| ping(host, number).talk().is_ok();
    assert!(answers(1) && answers(2));
    let mut trial = Trial::begin(&world, host, &step(shop_name, "partition: {}", "60s"));
    trial.injected();
    let cut = |_| Ping::to(&host.netns, address(1, 2), SHORT / 4).and_then(|mut ping| ping.talk()).is_err();
    assert!((0..4).all(cut));
    assert!(answers(2), "another container is left alone");
    assert!(host.tables().is_empty() && table(&bank).is_empty());
    let report = trial.halted();
    // Whatever else its new device says meanwhile (reports of multicast groups, RFC 3810) is met, too.
    let (matched, impaired) = (&evidence(&report)["matched"], impaired(&report));
    assert!(impaired >= 4 && *matched == impaired, "{report:#}");
    assert!(answers(1));
    assert_eq!(table(&shop), "");
}

#[test]
fn a_container_of_containerd_is_found_by_the_names_of_its_pod_and_another_is_left_alone() {
    needs!(Root, Nftables, Containerd);
    let world = World::new(1);
    let host = &world.hosts[0];
    let containerd = Containerd::start(&world, host);
    // Ids and pods of this world's own: every agent of the machine sees them.
    let digits = |seed: &str| {
        let pid = std::process::id();
        let text: String = format!("{pid:08x}{seed}").chars().cycle().take(64).collect();
        text
    };
    let (pod, other) = (named(&world, "shop"), named(&world, "bank"));
    let shop = containerd.run(&digits("a1"), &pod, "app");
    let bank = containerd.run(&digits("b2"), &other, "ledger");
    join(host, &shop, 1);
    join(host, &bank, 2);
    // One with an id that somebody chose, whose control group is named after it.
    let chosen = named(&world, "web");
    let web = containerd.run_alone(&chosen);
    join(host, &web, 3);
    let answers = |number| ping(host, number).talk().is_ok();
    let is_cut = |number| {
        let asked = || Ping::to(&host.netns, address(number, 2), SHORT / 4).and_then(|mut ping| ping.talk());
        (0..4).all(|_| asked().is_err())
    };
    assert!(answers(1) && answers(2));
    for name in [format!("{pod}/app"), format!("shop/{pod}/app"), shop.id[..12].to_owned()] {
        let mut trial = Trial::begin(&world, host, &step(&name, "partition: {}", "60s"));
        trial.injected();
        assert!(is_cut(1), "`{name}` is not cut");
        assert!(answers(2), "another container is left alone");
        assert!(host.tables().is_empty() && table(&bank).is_empty());
        assert!(impaired(&trial.halted()) >= 4);
        assert!(answers(1));
        assert_eq!(table(&shop), "");
    }
    for name in [chosen.clone(), format!("k8s.io/{chosen}")] {
        let mut trial = Trial::begin(&world, host, &step(&name, "partition: {}", "60s"));
        trial.injected();
        assert!(is_cut(3), "`{name}` is not cut");
        assert!(answers(1) && answers(2), "other containers are left alone");
        trial.halted();
        assert!(answers(3));
    }
}
