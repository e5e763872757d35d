//! What the proxy of an outage saw, written down for whoever asked for it.

use std::fs;
use std::path::Path;

use serde_json::Value;
use squall_tests::client::{Http, connect};
use squall_tests::needs;
use squall_tests::squall::lines;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::{LONG, step};
use crate::trial::{Trial, calm};

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
