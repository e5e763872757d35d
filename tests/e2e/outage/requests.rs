//! What a dependency says in HTTP, request by request.

use squall_tests::client::{Http, connect};
use squall_tests::needs;
use squall_tests::world::World;

use super::{LONG, outage};
use crate::trial::{evidence, impaired};

/// A client that has its connection for as long as it lasts.
fn client(world: &World) -> Http {
    let to = (world.hosts[1].v4, 80).into();
    Http::over(connect(&world.hosts[0].netns, to, LONG).expect("the proxy accepts"))
}

#[test]
fn requests_that_are_meant_are_answered_with_an_error_and_the_others_by_the_dependency() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let trial = outage(&world, 80, "errors, status: 502, body: out, path: \"/pay*\", method: GET", "");
    // All over one connection.
    let mut client = client(&world);
    for _ in 0..3 {
        assert_eq!(client.get("/").expect("an answer of the dependency").0, 200);
        let (status, body) = client.get("/pay/1").expect("an answer of the proxy");
        assert_eq!((status, body.as_str()), (502, "out"));
    }
    let report = trial.halted();
    let evidence = evidence(&report);
    assert_eq!(
        (evidence["unit"].as_str(), &evidence["matched"]),
        (Some("requests"), &6.into()),
        "{report:#}"
    );
    assert_eq!(impaired(&report), 3, "{report:#}");
}

#[test]
fn an_answer_breaks_off_in_its_body_although_more_was_promised() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let trial = outage(&world, 80, "truncate, after: 4B", "");
    let error = client(&world).get("/").expect_err("less came than was promised");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    assert_eq!(impaired(&trial.halted()), 1);
}
