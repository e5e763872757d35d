//! What the proxy of an outage saw, written down for whoever asked for it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use squall_tests::client::{Http, Postgres, Redis, connect};
use squall_tests::needs;
use squall_tests::squall::lines;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::{LONG, step};
use crate::serve::{Fleet, URL};
use crate::trial::{SHORT, Trial, calm, evidence, impaired};

/// Those of a kind.
fn of_kind(seen: &Path, kind: &str) -> Vec<Value> {
    lines(seen).into_iter().filter(|line| line["kind"] == kind).collect()
}

#[test]
fn requests_and_connections_are_told_with_their_callers_and_without_their_secrets() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let seen = world.directory.join("seen.ndjson");
    let step = step(world.hosts[1].v4, 80, "errors, status: 502, path: \"/pay*\"", "");
    let more = ["--observations", &seen.display().to_string()];
    let mut trial = Trial::with(&world, &world.hosts[0], &calm(&[&step]), &more);
    trial.injected();
    let to = (world.hosts[1].v4, 80).into();
    let mut client = Http::over(connect(&world.hosts[0].netns, to, LONG).expect("the proxy accepts"));
    assert_eq!(client.get("/").expect("an answer of the dependency").0, 200);
    // While the fault lasts; the caller is looked for meanwhile, by who may look at other processes.
    let pid = u64::from(std::process::id());
    holds("a request with its caller", PATIENCE, || {
        assert_eq!(client.get("/pay/1?card=4711-0815").expect("an answer of the proxy").0, 502);
        of_kind(&seen, "request").iter().any(|request| request["caller"]["pid"] == pid)
    });
    drop(client);
    let report = trial.halted();
    let requests = of_kind(&seen, "request");
    let (spared, harmed) = (&requests[0], &requests[1]);
    assert_eq!(
        (&spared["target"], &spared["status"], &spared["faults"][0]),
        (&"/".into(), &200.into(), &Value::Null)
    );
    assert_eq!((&harmed["target"], &harmed["status"]), (&"/pay/1".into(), &502.into()), "{harmed:#}");
    assert_eq!((&harmed["run"], &harmed["part"]), (&report["run"], &1.into()), "{harmed:#}");
    assert_eq!(harmed["faults"][0], "http_status_downstream", "{harmed:#}");
    assert!(requests.iter().any(|request| request["caller"]["cgroup"].is_string()), "{harmed:#}");
    // All of it, also what was over only with the fault.
    assert_eq!(report["parts"][0]["evidence"][0]["matched"], requests.len(), "{report:#}");
    let connections = of_kind(&seen, "connection");
    assert_eq!(connections.len(), 1, "{connections:#?}");
    assert_eq!(connections[0]["closed_by"], "client", "{connections:#?}");
    let text = fs::read_to_string(&seen).expect("it was written");
    assert!(!text.contains("4711-0815"), "{text}");
}

/// So many answers of a keep-alive connection, as they came.
fn answers(stream: &mut TcpStream, count: usize) -> Vec<String> {
    let (mut came, mut buffer) = (String::new(), [0; 4096]);
    let mut all = Vec::new();
    while all.len() < count {
        if let Some((head, rest)) = came.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.expect("its length").parse().expect("a number");
            if rest.len() >= length {
                let (answer, rest) = came.split_at(head.len() + 4 + length);
                all.push(answer.to_owned());
                came = rest.to_owned();
                continue;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => panic!("it ended after {came}"),
            Ok(length) => came += std::str::from_utf8(&buffer[..length]).expect("text"),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {came}"),
        }
    }
    assert_eq!(came, "", "nobody has asked for more");
    all
}

/// What of an answer is the same each time.
fn without_date(answer: &str) -> String {
    answer.lines().filter(|line| !line.starts_with("Date:")).collect::<Vec<_>>().join("\n")
}

#[test]
fn requests_are_told_in_every_way_where_they_can_be_read_and_answers_are_what_they_were() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let to: std::net::SocketAddr = (world.hosts[1].v4, 80).into();
    let near = &world.hosts[0].netns;
    // One after the other on one connection, and two before any is answered.
    let ask = || {
        let mut stream = connect(near, to, LONG).expect("reached");
        let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: test\r\n{more}\r\n");
        let mut all = Vec::new();
        for head in [
            get("/?card=4711-0815", "X-Request-Id: r-1\r\n"),
            get("/?card=4711-0815", "X-Request-Id: r-1\r\n"),
        ] {
            stream.write_all(head.as_bytes()).expect("taken");
            all.extend(answers(&mut stream, 1));
        }
        stream.write_all((get("/", "") + &get("/nothing", "")).as_bytes()).expect("taken");
        all.extend(answers(&mut stream, 2));
        all
    };
    let bare: Vec<String> = ask().iter().map(|answer| without_date(answer)).collect();
    for (at, how) in [
        "latency, delay: 5ms",
        "brownout, share: 100%, delay: 5ms",
        "slow, rate: 100kB/s",
        "hang, after: 1MB",
        "reset, after: 1MB",
        "close-early, after: 1MB",
    ]
    .iter()
    .enumerate()
    {
        let seen = world.directory.join(format!("seen-{at}.ndjson"));
        let more = ["--observations", &seen.display().to_string()];
        let step = step(world.hosts[1].v4, 80, how, "");
        let mut trial = Trial::with(&world, &world.hosts[0], &calm(&[&step]), &more);
        trial.injected();
        let came: Vec<String> = ask().iter().map(|answer| without_date(answer)).collect();
        assert_eq!(came, bare, "{how}");
        assert!(!trial.has("lifted"), "the fault was over before it was looked at");
        trial.run.signal(rustix::process::Signal::INT);
        trial.finish().expect_exit(6);
        let requests = of_kind(&seen, "request");
        let told: Vec<_> =
            requests.iter().map(|one| (one["target"].as_str(), one["status"].as_u64())).collect();
        let expected = [("/", 200), ("/", 200), ("/", 200), ("/nothing", 404)];
        assert_eq!(
            told,
            expected.map(|(target, status)| (Some(target), Some(status))),
            "{how}: {requests:#?}"
        );
        // What is sent again is known by its fingerprint, and by what its caller calls it.
        assert_eq!(requests[0]["fingerprint"], requests[1]["fingerprint"], "{how}");
        assert_ne!(requests[1]["fingerprint"], requests[2]["fingerprint"], "{how}");
        assert_eq!(requests[0]["correlation"].to_string(), "[[\"x-request-id\",\"r-1\"]]", "{how}");
        let connections = of_kind(&seen, "connection");
        let [one] = &connections[..] else { panic!("{how}: {connections:#?}") };
        assert_eq!((&one["closed_by"], &one["how"]), (&"client".into(), &"fin".into()), "{how}: {one:#}");
        let text = fs::read_to_string(&seen).expect("it was written");
        assert!(!text.contains("4711-0815"), "{text}");
    }
}

#[test]
fn what_a_fault_cuts_off_is_told_with_its_request() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let to = (world.hosts[1].v4, 80).into();
    for (at, (how, toxic)) in [
        ("reset", "reset_data_downstream"),
        ("close-early, after: 12B", "limit_data_downstream"),
        ("hang", "hang_data_downstream"),
    ]
    .into_iter()
    .enumerate()
    {
        let seen = world.directory.join(format!("cut-{at}.ndjson"));
        let more = ["--observations", &seen.display().to_string()];
        let step = step(world.hosts[1].v4, 80, how, "");
        let mut trial = Trial::with(&world, &world.hosts[0], &calm(&[&step]), &more);
        trial.injected();
        let stream = connect(&world.hosts[0].netns, to, SHORT).expect("the proxy accepts");
        Http::over(stream).get("/pay").expect_err("no whole answer comes");
        let report = trial.halted();
        assert_eq!(
            (evidence(&report)["unit"].as_str(), impaired(&report)),
            (Some("connections"), 1),
            "{report:#}"
        );
        let (requests, connections) = (of_kind(&seen, "request"), of_kind(&seen, "connection"));
        assert_eq!((requests.len(), connections.len()), (1, 1), "{how}: {requests:#?} {connections:#?}");
        assert_eq!(requests[0]["target"], "/pay", "{how}: {requests:#?}");
        assert_eq!(requests[0]["connection"], connections[0]["connection"], "{how}");
        assert_eq!(connections[0]["faults"][0], toxic, "{how}: {connections:#?}");
    }
}

#[test]
fn what_is_not_http_passes_untouched_while_requests_are_told() {
    needs!(Root, Cgroup2, Bpf, Redis, Postgres);
    let world = World::new(2);
    world.redis(1, 6379);
    world.postgres(1, 5432);
    world.echo(1, 7);
    let far = world.hosts[1].v4;
    let near = &world.hosts[0].netns;
    let observed = |port: u16, talk: &dyn Fn(TcpStream)| {
        let seen = world.directory.join(format!("other-{port}.ndjson"));
        let more = ["--observations", &seen.display().to_string()];
        let step = step(far, port, "latency, delay: 1ms", "");
        let mut trial = Trial::with(&world, &world.hosts[0], &calm(&[&step]), &more);
        trial.injected();
        talk(connect(near, (far, port).into(), LONG).expect("the proxy accepts"));
        trial.halted();
        assert_eq!(of_kind(&seen, "request"), [Value::Null; 0], "port {port}");
        let connections = of_kind(&seen, "connection");
        let [one] = &connections[..] else { panic!("port {port}: {connections:#?}") };
        assert!(
            one["upstream_bytes"].as_u64() > Some(0) && one["downstream_bytes"].as_u64() > Some(0),
            "{one:#}"
        );
    };
    observed(6379, &|stream| {
        // As programs speak it, and as people do: a line that is not unlike a request.
        let mut typed = stream.try_clone().expect("a descriptor");
        typed.write_all(b"SET key HTTP/1.1\r\n").expect("taken");
        let mut said = [0; 5];
        typed.read_exact(&mut said).expect("answered");
        assert_eq!(&said, b"+OK\r\n");
        let mut redis = Redis::over(stream);
        assert_eq!(redis.call(&["GET", "key"]).expect("answered"), "HTTP/1.1");
        let long = "x".repeat(300_000);
        assert_eq!(redis.call(&["SET", "long", &long]).expect("answered"), "OK");
        assert_eq!(redis.call(&["GET", "long"]).expect("answered"), long);
    });
    observed(5432, &|stream| {
        let mut session = Postgres::over(stream).expect("a session");
        assert_eq!(session.query("select 40 + 2").expect("answered"), "42");
        assert_eq!(session.query("select length(repeat('x', 300000))").expect("answered"), "300000");
    });
    // TLS, as far as a proxy can see it: the echo must be what was sent, also from half a connection.
    observed(7, &|mut stream| {
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n";
        stream.write_all(hello).expect("taken");
        let mut came = vec![0; hello.len()];
        stream.read_exact(&mut came).expect("answered");
        assert_eq!(came, hello);
    });
}

#[test]
fn a_run_over_the_hosts_of_a_controller_tells_them_too_and_only_whoever_asked() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let fleet = Fleet::new(1);
    // The dependency is beside the controller.
    let far = fleet.world.hosts[0].v4;
    fleet.world.nginx(0, 80);
    let fault = step(far, 80, "errors, status: 502, path: \"/pay*\"", "");
    let document = format!(
        "squall: 1\ntitle: A test\non: {{ labels: {{ role: web }} }}\n\
         hypothesis:\n  - name: the page is there\n    http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 200ms\n\
         method:\n  - {fault}\n"
    );
    let file = fleet.world.file("observed.yaml", document);
    let seen = fleet.world.directory.join("seen.ndjson");
    let shown = seen.display().to_string();
    let runs = || fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let asked = |more: &[&str]| {
        let before = runs()["runs"][0]["id"].clone();
        let arguments = [&["run", &file, "--controller", URL][..], more].concat();
        let run = fleet.asks(&arguments).start();
        let near = &fleet.world.hosts[1].netns;
        let is_out = || {
            let stream = connect(near, (far, 80).into(), LONG).expect("reached");
            Http::over(stream).get("/pay/1?card=4711-0815").is_ok_and(|(status, _)| status == 502)
        };
        let begun = Instant::now();
        while !is_out() {
            assert!(begun.elapsed() < PATIENCE, "it is not out: {}", run.story());
            std::thread::sleep(Duration::from_millis(20));
        }
        let id = runs()["runs"][0]["id"].clone();
        assert_ne!(id, before);
        let id = id.as_str().expect("a run").to_owned();
        fleet.asks(&["halt", "--controller", URL, "--run", &id]).run().expect_exit(0);
        run.finish().expect_exit(6);
        id
    };
    let id = asked(&["--observations", &shown]);
    let requests = of_kind(&seen, "request");
    let harmed: Vec<_> = requests.iter().filter(|one| one["status"] == 502).collect();
    assert!(!harmed.is_empty(), "{requests:#?}");
    for one in harmed {
        assert_eq!((&one["target"], &one["host"]), (&"/pay/1".into(), &"web-1".into()), "{one:#}");
        assert_eq!((&one["run"], &one["part"]), (&id.as_str().into(), &1.into()), "{one:#}");
        assert_eq!(one["faults"][0], "http_status_downstream", "{one:#}");
    }
    assert!(!of_kind(&seen, "connection").is_empty(), "{:#?}", lines(&seen));
    assert!(!fs::read_to_string(&seen).expect("it was written").contains("4711-0815"));
    // Nobody asked for those of the next one, and nothing is kept of them.
    let id = asked(&[]);
    let token = fs::read_to_string(fleet.data.join("admin-token")).expect("a token");
    let place = URL.strip_prefix("http://").expect("a URL").parse().expect("an address");
    let mut stream = connect(&fleet.controller().netns, place, LONG).expect("it listens");
    let request = format!(
        "GET /v1/runs/{id}/observations HTTP/1.1\r\nHost: {place}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        token.trim()
    );
    stream.write_all(request.as_bytes()).expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("nothing is kept here of what proxies saw"), "{answer}");
    fleet.end();
}
