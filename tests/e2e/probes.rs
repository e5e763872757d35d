//! Every kind of probe against the real thing that it asks.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use squall_tests::dns::Dns;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::skip::JOURNALD;
use squall_tests::squall::binary;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::run;

/// One sample of each of these claims, by one prober in a host's namespace: how it was, and what was seen.
fn sampled(host: &Host, claims: &[(Value, Value)]) -> Vec<(String, String)> {
    sampled_by(host, &["prober"], claims)
}

/// The same by a prober that is started so.
fn sampled_by(host: &Host, arguments: &[&str], claims: &[(Value, Value)]) -> Vec<(String, String)> {
    let mut command = host.netns.command(binary("squall"));
    command.args(arguments);
    asked(command, claims)
}

/// The same by a prober that is started by a command.
fn asked(mut command: Command, claims: &[(Value, Value)]) -> Vec<(String, String)> {
    let mut prober = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut told = prober.stdin.take().expect("it was asked for");
    for (number, (what, expect)) in claims.iter().enumerate() {
        let load = json!({ "load": { "probe": number, "what": what, "expect": expect } });
        writeln!(told, "{load}\n{}", json!({ "once": { "probe": number } })).expect("it reads");
    }
    let mut seen = vec![(String::new(), String::new()); claims.len()];
    let mut replies = BufReader::new(prober.stdout.take().expect("it was asked for")).lines();
    for _ in claims {
        let reply: Value =
            serde_json::from_str(&replies.next().expect("a reply").expect("a line")).expect("JSON");
        let (probe, how) = match reply.get("sample") {
            Some(sample) if sample["good"] == true => (&sample["probe"], "good"),
            Some(sample) if sample["unclear"] == true => (&sample["probe"], "unclear"),
            Some(sample) => (&sample["probe"], "bad"),
            None => (&reply["unusable"]["probe"], "unusable"),
        };
        let number = usize::try_from(probe.as_u64().expect("a number")).expect("a place");
        let text = reply["sample"]["seen"].as_str().or_else(|| reply["unusable"]["why"].as_str());
        seen[number] = (how.to_owned(), text.unwrap_or_default().to_owned());
    }
    drop(told);
    prober.wait().expect("it ends");
    seen
}

/// Claims with what they come to: `good`, `bad` or `unclear`, and the beginning of what is seen.
type Cases<'a> = &'a [(Value, Value, &'a str, &'a str)];

#[track_caller]
fn check(host: &Host, cases: Cases<'_>) {
    let claims: Vec<(Value, Value)> =
        cases.iter().map(|(what, expect, ..)| (what.clone(), expect.clone())).collect();
    for ((what, expect, how, text), (is, seen)) in cases.iter().zip(sampled(host, &claims)) {
        assert!(
            is == *how && seen.starts_with(text),
            "{what} {expect}: {is}: {seen} (expected {how}: {text})"
        );
    }
}

#[test]
fn redis_is_asked() {
    needs!(Root, Redis);
    let world = World::new(1);
    let server = world.redis(0, 6379);
    let ask = |command: &[&str]| json!({ "redis": { "address": "127.0.0.1:6379", "command": command } });
    let near = &world.hosts[0];
    check(
        near,
        &[
            (json!({ "redis": { "address": "127.0.0.1:6379" } }), json!({}), "good", "`PONG` in "),
            (ask(&["SET", "state", "{\"n\": 7}"]), json!({ "value": "OK" }), "good", "`OK` in "),
        ],
    );
    check(
        near,
        &[
            (ask(&["GET", "state"]), json!({ "json": { "$.n": "<= 7" } }), "good", ""),
            (ask(&["GET", "state"]), json!({ "json": { "$.n": "< 7" } }), "bad", "`$.n` is 7 (expected < 7)"),
            (ask(&["GET", "state"]), json!({ "value": "< 7" }), "unclear", "`{\"n\": 7}` is not a number"),
            (ask(&["GET", "nothing"]), json!({ "value": { "present": false } }), "good", "nothing in "),
            (ask(&["GET", "nothing"]), json!({ "value": "x" }), "bad", "nothing (expected \"x\")"),
            (ask(&["DBSIZE"]), json!({ "value": 1 }), "good", "1 in "),
            (
                ask(&["KEYS", "*"]),
                json!({ "value": { "contains": "state", "count": 1 } }),
                "good",
                "[\"state\"] in ",
            ),
            (ask(&["INFO", "replication"]), json!({ "value": { "contains": "role:master" } }), "good", ""),
            (ask(&["LPUSH", "state", "x"]), json!({}), "unclear", "WRONGTYPE"),
            (ask(&["NOSUCH"]), json!({}), "unclear", "ERR unknown command"),
        ],
    );
    check(near, &[(ask(&["CONFIG", "SET", "requirepass", "hunter22"]), json!({}), "good", "`OK` in ")]);
    let with = |password: &str| json!({ "redis": { "address": "127.0.0.1:6379", "password": password, "database": 3 } });
    check(
        near,
        &[
            (ask(&["GET", "state"]), json!({}), "unclear", "NOAUTH"),
            (with("hunter22"), json!({}), "good", "`PONG` in "),
            (with("wrong"), json!({}), "unclear", "WRONGPASS"),
        ],
    );
    assert!(server.pid > 0);
}

#[test]
fn postgres_is_asked_and_never_changed() {
    needs!(Root, Postgres);
    let world = World::new(1);
    world.postgres(0, 5432);
    let timed = |query: &str, timeout: &str| json!({ "sql": { "address": "127.0.0.1:5432", "user": "postgres", "query": query, "timeout": timeout } });
    let ask = |query: &str| timed(query, "5s");
    check(
        &world.hosts[0],
        &[
            (ask("SELECT 1"), json!({}), "good", "`1` in "),
            (ask("SELECT count(*) FROM pg_database"), json!({ "value": ">= 1" }), "good", ""),
            (ask("SELECT 12345678901234567890.5"), json!({ "value": "> 1e19" }), "good", ""),
            (
                ask("SELECT 'ready'"),
                json!({ "value": { "one-of": ["ready", "idle"] } }),
                "good",
                "`ready` in ",
            ),
            (ask("SELECT 'ready'"), json!({ "value": "<= 5" }), "unclear", "`ready` is not a number"),
            (ask("SELECT true"), json!({ "value": true }), "good", "true in "),
            (
                ask("SELECT '{\"n\": [1, 2]}'::jsonb"),
                json!({ "json": { "$.n[*]": { "count": 2 } } }),
                "good",
                "",
            ),
            (ask("SELECT NULL"), json!({ "value": { "present": false } }), "good", "nothing in "),
            (ask("SELECT 'NaN'::float8"), json!({ "value": "> 0" }), "unclear", "`NaN` is not a number"),
            (ask("SELECT generate_series(1, 3)"), json!({}), "unclear", "3 rows, and one is compared"),
            (ask("SELECT 1 WHERE false"), json!({ "value": 1 }), "bad", "nothing (expected 1)"),
            (ask("SELECT 1 / 0"), json!({}), "unclear", "division by zero"),
            (ask("SELECT * FROM nowhere"), json!({}), "unclear", "relation \"nowhere\" does not exist"),
            (ask("CREATE TABLE x (a int)"), json!({}), "unclear", ""),
            (ask("COMMIT; CREATE TABLE x (a int)"), json!({}), "unclear", "cannot insert multiple commands"),
            (ask("SELECT repeat('x', 10000000)"), json!({}), "bad", ""),
            (timed("SELECT pg_sleep(20)", "300ms"), json!({}), "bad", ""),
        ],
    );
    let count = "SELECT count(*) FROM pg_tables WHERE tablename = 'x'";
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
    check(&world.hosts[0], &[(ask(count), json!({ "value": 0 }), "good", "")]);
    holds("the server to have ended the query", PATIENCE, || {
        sampled(&world.hosts[0], &[(ask(running), json!({ "value": 0 }))])[0].0 == "good"
    });
}

#[test]
fn processes_are_found_by_the_port_on_which_they_listen() {
    needs!(Root, Nginx);
    let world = World::new(2);
    let server = world.nginx(0, 8080);
    let near = &world.hosts[0];
    let what = |port: u16| json!({ "processes": { "name": "nginx", "listening": port } });
    let exe = std::fs::read_link(format!("/proc/{}/exe", server.pid)).expect("it runs");
    let main = json!({ "processes": { "exe": exe, "pid": server.pid } });
    let claims = [
        (what(8080), json!({ "count": ">= 2", "open-files": "< 1000", "memory-mib": "< 512" })),
        (what(8081), json!({ "count": 0 })),
        (main.clone(), json!({ "count": 1, "restarts": 0 })),
    ];
    for (how, seen) in sampled_by(near, &["prober", "--user", "root"], &claims) {
        assert_eq!(how, "good", "{seen}");
    }
    // Nobody is not shown whose socket it is, nor what a process runs; in another namespace there is no such socket.
    let hidden = sampled(near, &[(what(8080), json!({})), (main, json!({}))]);
    assert!(hidden.iter().all(|(how, seen)| how == "unclear" && seen.contains("`user:`")), "{hidden:?}");
    let elsewhere = sampled(&world.hosts[1], &[(what(8080), json!({}))]);
    assert!(elsewhere[0].0 == "bad" && elsewhere[0].1.starts_with("count: 0"), "{elsewhere:?}");
}

/// A journal of its own, in namespaces that end with the prober: what `docs/probes.md` says of it.
const JOURNAL: &str = "mount --make-rprivate / && mount -t tmpfs none /run && \
    mkdir -p /run/systemd/journal /run/systemd/journald.conf.d && mkdir -p /run/log/journal/$(cat /etc/machine-id) && \
    printf '[Journal]\\nAudit=no\\nReadKMsg=no\\nStorage=volatile\\n' > /run/systemd/journald.conf.d/test.conf && \
    { \"$1\" & } && for try in $(seq 200); do \
        systemd-cat --identifier=squall-test echo 'error: too slow' 2>/dev/null; \
        journalctl --quiet --identifier=squall-test | grep -q slow && break; sleep 0.1; done; \
    exec \"$0\" prober --user root";

#[test]
fn the_journal_is_asked_as_somebody_who_may() {
    needs!(Root, Journald);
    let world = World::new(1);
    let mut command = world.hosts[0].netns.command("unshare");
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", JOURNAL]);
    command.arg(binary("squall")).arg(JOURNALD);
    let ask = |what: &str| {
        let argv = ["journalctl", "--quiet", "--identifier=squall-test", "--since=-1h", what, "--output=cat"];
        json!({ "process": { "argv": argv, "user": "root" } })
    };
    let none = json!({ "value": "", "exit": { "one-of": [0, 1] } });
    let seen = asked(command, &[(ask("--grep=^panic"), none.clone()), (ask("--grep=^error"), none)]);
    assert_eq!(seen[0].0, "good", "{seen:?}");
    assert!(seen[1].0 == "bad" && seen[1].1.contains("error: too slow"), "{seen:?}");
}

#[test]
fn prometheus_is_asked() {
    needs!(Root, Prometheus);
    let world = World::new(1);
    let config = world.file(
        "prometheus.yaml",
        "global: { scrape_interval: 1s }\nscrape_configs:\n  - job_name: itself\n    \
         static_configs: [{ targets: [\"127.0.0.1:9090\"] }]\n",
    );
    let data = format!("--storage.tsdb.path={}", world.place("prometheus").display());
    let config = format!("--config.file={config}");
    let arguments =
        ["prometheus", &config, &data, "--web.listen-address=127.0.0.1:9090", "--log.level=error"];
    world.program(0, None, &arguments);
    let ask = |query: &str| json!({ "prometheus": { "url": "http://127.0.0.1:9090", "query": query } });
    let near = &world.hosts[0];
    holds("Prometheus to have scraped itself twice", PATIENCE, || {
        let scraped = json!({ "value": ">= 2" });
        sampled(near, &[(ask("count_over_time(up[1m])"), scraped)])[0].0 == "good"
    });
    let range = |query: &str, take: &str| {
        let url = "http://127.0.0.1:9090";
        json!({ "prometheus": { "url": url, "query": query, "range": "2s", "step": "1s", "take": take } })
    };
    check(
        near,
        &[
            (ask("up"), json!({ "value": 1 }), "good", "`1` in "),
            (ask("up"), json!({ "value": 0 }), "bad", "`1` (expected 0)"),
            (ask("1 + 1"), json!({ "value": 2 }), "good", "`2` in "),
            (ask("vector(0) / 0"), json!({ "value": "<= 1" }), "unclear", "`NaN` is not a number"),
            (ask("1 / vector(0)"), json!({ "value": "<= 1" }), "bad", "`+Inf` (expected <= 1)"),
            (ask("nothing_like_it"), json!({ "value": "<= 1" }), "unclear", "no data"),
            (ask("up == 0"), json!({ "value": { "present": false } }), "good", "no data in "),
            (ask("sum("), json!({ "value": 1 }), "unclear", "invalid parameter"),
            (range("vector(3)", "all"), json!({ "value": 3 }), "good", "3 values in "),
            (range("time()", "min"), json!({ "value": "> 1e9" }), "good", ""),
            (range("vector(3)", "sum"), json!({ "value": 9 }), "good", "`9` in "),
            (
                json!({ "metrics": { "url": "http://127.0.0.1:9090/metrics", "metric": "prometheus_build_info" } }),
                json!({ "value": { "count": 1 } }),
                "good",
                "",
            ),
            (
                json!({ "metrics": {
                "url": "http://127.0.0.1:9090/metrics", "metric": "prometheus_http_requests_total",
                "labels": { "handler": "/metrics", "code": "200" }, "rate": "500ms",
            } }),
                json!({ "value": "> 0" }),
                "good",
                "",
            ),
        ],
    );
}

#[test]
fn a_run_compares_values_with_attempts_and_when_it_is_asked_to() {
    needs!(Root, Redis);
    let world = World::new(2);
    let server = world.redis(0, 6379);
    let near = &world.hosts[0];
    let dns = Dns::start(&near.netns, near.v4);
    dns.set("shop.test", 5, &["10.9.8.7".parse().expect("an address")]);
    let log = world.file("shop.log", "error: long ago\n");
    let claims = format!(
        "  - name: the cache knows its place\n    \
             redis: {{ address: \"127.0.0.1:6379\", command: [DBSIZE] }}\n    \
             expect: {{ value: {{ between: [0, 5] }} }}\n    \
             sample: {{ at-least: 1 of 2, pause: 50ms }}\n    every: 200ms\n\
         \x20 - name: the shop has its address\n    \
             dns: {{ name: shop.test, server: \"{}\" }}\n    \
             expect: {{ value: {{ contains: \"10.9.8.7\", count: 1 }} }}\n    \
             every: 200ms\n    when: [before, after]\n\
         \x20 - name: nobody complains\n    \
             log: {{ file: {log}, pattern: \"^error\" }}\n    every: 200ms\n\
         \x20 - name: the cache is the one it was\n    \
             processes: {{ name: redis-server, pid: {} }}\n    \
             expect: {{ restarts: 0, memory-mib: \"< 512\", age-seconds: \">= 0\" }}\n    every: 200ms\n",
        near.v4, server.pid
    );
    let document = |last: &str| {
        format!(
            "squall: 1\ntitle: Values\nhypothesis:\n{claims}{last}method: [{{ wait: 1s }}]\nrecovery: 5s\n"
        )
    };
    let report = run(&world, near, &document("")).expect_exit(0).json();
    let during = |report: &Value, place: usize| report["hypotheses"][place]["during"]["good"].as_u64();
    assert!(during(&report, 0) > Some(0), "{report:#}");
    assert_eq!(during(&report, 1), Some(0), "{report:#}");
    assert!(report["hypotheses"][1]["before"]["good"].as_u64() > Some(0), "{report:#}");

    // What cannot be compared is no baseline.
    let unclear =
        "  - name: a number\n    redis: { address: \"127.0.0.1:6379\" }\n    expect: { value: \"<= 3\" }\n";
    let refused = run(&world, near, &document(unclear));
    refused.expect_exit(4).expect_told("`PONG` is not a number (expected <= 3)");
}

/// What was asked and not answered when the asking ends is no gap in the figures: it is bad.
#[test]
fn requests_in_flight_at_the_end_count_as_bad() {
    needs!(Root);
    let world = World::new(1);
    let near = &world.hosts[0];
    // The kernel answers for it, and nobody ever accepts.
    let silent = near.netns.inside(|| TcpListener::bind("127.0.0.1:80")).expect("the port is free");
    let mut command = near.netns.command(binary("squall"));
    let mut prober =
        command.arg("prober").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut told = prober.stdin.take().expect("it was asked for");
    let load = json!({ "url": "http://127.0.0.1:80/", "rate": "50/s", "timeout": "1s" });
    let what = json!({ "load": { "load": load, "tick": "10s" } });
    let begin = json!({ "load": { "probe": 0, "what": what, "expect": { "errors": "<= 1%" } } });
    let every = json!({ "every": { "probe": 0, "period": "10s" } });
    writeln!(told, "{begin}\n{every}").expect("it reads");
    std::thread::sleep(Duration::from_millis(400));
    writeln!(told, "{}", json!({ "stop": { "probe": 0 } })).expect("it reads");
    let replies = BufReader::new(prober.stdout.take().expect("it was asked for")).lines();
    let (mut requests, mut failed) = (0, 0);
    for reply in replies {
        let reply: Value = serde_json::from_str(&reply.expect("a line")).expect("JSON");
        if reply.get("rested").is_some() {
            break;
        }
        let load = &reply["sample"]["load"];
        requests += load["requests"].as_u64().expect("a count");
        let kinds = load["errors"].as_array().into_iter().flatten();
        failed += kinds.filter_map(|kind| kind["times"].as_u64()).sum::<u64>();
    }
    assert!(requests > 0 && failed == requests, "{failed} of {requests}");
    drop((told, silent));
    prober.wait().expect("it ends");
}
