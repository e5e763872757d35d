//! Every experiment that is shipped, run as its first lines say. The demo runs those about a slow and a lossy supplier of its shop.

use std::path::Path;
use std::time::Duration;

use squall_tests::client::Steady;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::squall::{Finished, copy_binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{evidence, impaired};

/// Runs a shipped experiment with values for its variables.
fn shipped(host: &Host, name: &str, vars: &[&str]) -> Finished {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/shipped").join(name).display().to_string();
    let vars: Vec<&str> = vars.iter().flat_map(|var| ["--var", var]).collect();
    host.squall(&[&["run", &path, "--format", "json"][..], &vars].concat()).run()
}

#[test]
fn dependency_refused() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.nginx(0, 8080);
    let dependency = world.echo(1, 7);
    // Stands for the service's own calls: nginx answers without its dependency, as the experiment demands.
    let (netns, address) = (host.netns.clone(), (world.hosts[1].v4, dependency.port).into());
    let calls = Steady::start("calls of the dependency", Duration::from_millis(50), move || {
        squall_tests::client::connect(&netns, address, Duration::from_secs(1)).map(drop)
    });
    let finished = shipped(
        host,
        "dependency-refused.yaml",
        &["app=http://127.0.0.1:8080/", &format!("dependency={}:7", world.hosts[1].v4)],
    );
    finished.expect_exit(0);
    let refused = calls.finish().iter().filter(|glance| glance.outcome.is_err()).count();
    assert!(refused >= 20, "refused only {refused} times in 20 s: {}", finished.story());
}

/// The service is its own dependency here. A request on a new connection takes two round trips, and its caller waits for a second
/// and a half: with more than half of that as delay it is not answered in time.
#[test]
fn dependency_how_slow() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let host = &world.hosts[0];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/shipped/dependency-how-slow.yaml");
    let path = path.display().to_string();
    let vars =
        ["app=http://10.77.1.2/", "dependency=10.77.1.2:80", "patience=1500ms", "hold=3500ms", "factor=100x"];
    let with = |verb: &str, more: &[&str]| {
        let vars: Vec<&str> = vars.iter().flat_map(|var| ["--var", var]).collect();
        host.squall(&[&[verb, &path][..], &vars, more].concat()).run()
    };
    // Before anything is done the plan says all of it.
    let plan = with("plan", &[]);
    for told in ["while the hypothesis holds: 20ms, 2s, 3s", "at most 3 steps, 10s500ms of faults"] {
        plan.expect_exit(0).expect_told(told);
    }
    let directory = world.directory.join("steps").display().to_string();
    let report = with("run", &["--events", &directory, "--format", "json"]).expect_exit(5).json();
    let step = |at: usize, member: &str| report["steps"][at][member].as_str().unwrap_or_default().to_owned();
    let steps: Vec<(String, String)> = (0..3).map(|at| (step(at, "at"), step(at, "verdict"))).collect();
    let expected = [("20ms", "held"), ("2s", "deviated"), ("", "")];
    assert_eq!(steps, expected.map(|(at, came)| (at.to_owned(), came.to_owned())), "{report:#}");
    let sentence = report["sentence"].as_str().expect("a sentence");
    assert!(sentence.ends_with("gives way between 20ms and 2s"), "{sentence}");
    assert_eq!(report["steps"][1]["recovered"], true, "it was well again: {report:#}");
    // All of it follows from the events of the steps, and each step is a run of its own.
    let again = host.squall(&["verdict", &directory]).run();
    again.expect_exit(5).expect_told(sentence);
    let first = format!("{directory}/{}.ndjson", step(0, "run"));
    host.squall(&["verdict", &first]).run().expect_exit(0).expect_told("the run itself said the same");
    world.as_found();
}

#[test]
fn nginx_worker_killed() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(1);
    let nginx = world.nginx(0, 8080);
    let finished = shipped(&world.hosts[0], "nginx-worker-killed.yaml", &["url=http://127.0.0.1:8080/"]);
    let report = finished.expect_exit(0).json();
    let killed = report["parts"][0]["evidence"][0]["impaired"].as_u64().expect("a count");
    assert!((4..=6).contains(&killed), "{killed} workers killed in 15 s, one each 3 s: {report:#}");
    holds("two workers", PATIENCE, || nginx.workers().len() == 2);
}

#[test]
fn postgres_disconnect() {
    needs!(Root, Nftables, Nginx, Postgres);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let postgres = world.postgres(1, 5432);
    world.nginx(1, 8080);
    // Stands for the application's pool: it throws a broken connection away and takes a new one.
    let (netns, address) = (near.netns.clone(), (far.v4, 5432).into());
    let mut session = None;
    let pool = Steady::start("the pool", Duration::from_millis(20), move || {
        let mut open = match session.take() {
            Some(open) => open,
            None => squall_tests::client::connect(&netns, address, Duration::from_secs(1))
                .and_then(squall_tests::client::Postgres::over)?,
        };
        squall_tests::client::Talk::talk(&mut open)?;
        session = Some(open);
        Ok(())
    });
    let finished = shipped(far, "postgres-disconnect.yaml", &["app=http://127.0.0.1:8080/", "port=5432"]);
    let report = finished.expect_exit(0).json();
    let broken = pool.finish().iter().filter(|glance| glance.outcome.is_err()).count();
    assert!((3..=12).contains(&broken), "broken {broken} times in 10 s, once each 2 s: {report:#}");
    postgres.dial(near, far.v4).expect("reached after the fault").talk().expect("answers after the fault");
}

#[test]
fn process_paused() {
    needs!(Root, Nftables, Nginx, Redis);
    let world = World::new(1);
    let host = &world.hosts[0];
    let redis = world.redis(0, 6379);
    world.nginx(0, 8080);
    shipped(host, "process-paused.yaml", &["port=6379", "app=http://127.0.0.1:8080/"]).expect_exit(0);
    redis.dial(host, [127, 0, 0, 1].into()).expect("reached").talk().expect("answers after the fault");
}

#[test]
fn redis_killed() {
    needs!(Root, Nftables, Redis);
    let world = World::new(1);
    let host = &world.hosts[0];
    // Stands for systemd: whoever trusts nobody with the restart sees the run deviate.
    let supervisor = "while :; do redis-server --port 6379 --save '' --dir /tmp >/dev/null; sleep 1; done";
    world.program(0, None, &["bash", "-c", supervisor]);
    let up = || squall_tests::client::connect(&host.netns, ([127, 0, 0, 1], 6379).into(), PATIENCE).is_ok();
    holds("redis to listen", PATIENCE, up);
    shipped(host, "redis-killed.yaml", &["port=6379"]).expect_exit(0);
    assert!(up(), "redis must be back");
    world.hosts[0].squall(&["status"]).run().expect_exit(0);
}

#[test]
fn redis_killed_for_good() {
    needs!(Root, Nftables, Redis);
    let world = World::new(1);
    world.redis(0, 6379);
    shipped(&world.hosts[0], "redis-killed.yaml", &["port=6379"]).expect_exit(5);
}

/// The demo's shop without the demo, as processes of a host.
fn shop(world: &World, storefront: &[&str]) {
    // Under another name: a `squall` that is still there at the end is something that should have ended.
    let program = world.place("shop").join("shop");
    copy_binary("squall", &program);
    let program = program.display().to_string();
    let start = |arguments: &[&str]| {
        world.program(0, None, &[&[program.as_str(), "shop"], arguments].concat());
    };
    for (supplier, port) in [("catalogue", "7001"), ("stock", "7002"), ("payments", "7003")] {
        start(&[supplier, "--port", port]);
    }
    start(&[&["storefront", "--port", "7000"], storefront].concat());
    let host = &world.hosts[0];
    let open = |port| {
        let (netns, address) = (&host.netns, (std::net::Ipv4Addr::LOCALHOST, port).into());
        squall_tests::client::connect(netns, address, Duration::from_secs(1)).is_ok()
    };
    holds("the shop to open", PATIENCE, || (7000..=7003).all(open));
    start(&["customers", "--port", "7000"]);
}

#[test]
fn payments_silent() {
    needs!(Root, Nftables);
    let world = World::new(1);
    shop(&world, &[]);
    shipped(&world.hosts[0], "payments-silent.yaml", &[]).expect_exit(5);
}

#[test]
fn payments_silent_with_fallback() {
    needs!(Root, Nftables);
    let world = World::new(1);
    shop(&world, &["--payment-timeout", "200ms", "--fallback"]);
    shipped(&world.hosts[0], "payments-silent-with-fallback.yaml", &[]).expect_exit(0);
}

#[test]
fn payments_errors() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(1);
    shop(&world, &["--fallback"]);
    let report = shipped(&world.hosts[0], "payments-errors.yaml", &[]).expect_exit(0).json();
    let (all, failed) = (evidence(&report)["matched"].as_u64().unwrap_or(0), impaired(&report));
    // Half of them are to fail, by a draw for each: by four standard deviations it is missed once in fifteen thousand runs.
    // The customers alone make hundreds.
    assert!(
        failed >= 10 && (2 * failed).abs_diff(all).pow(2) <= 16 * all,
        "{failed} of {all} calls: {report:#}"
    );
}
