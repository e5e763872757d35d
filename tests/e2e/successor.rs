//! Two controllers on one database: what one of them is told holds at the other, and what one leaves behind the other closes.

use squall_tests::needs;
use squall_tests::squall::Background;
use squall_tests::wait::{PATIENCE, holds, until};

use crate::twins::Twins;

impl Twins {
    /// Gives one of them an experiment with a fault on its hosts, and follows it.
    fn injects(&self, at: usize, lasts: &str) -> Background {
        let document = format!(
            "squall: 1\ntitle: A page that is late\non: {{ labels: {{ role: web }} }}\n\
             hypothesis:\n  - name: the page is there\n    http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\n\
             method:\n  - fault: {{ latency: {{ delay: 20ms, to: [\"127.0.0.1:8080\"] }} }}\n    for: {lasts}\n"
        );
        let file = self.world.file("late.yaml", document);
        self.asks(at, &["run", &file, "--controller", &Twins::url(at)]).start()
    }

    /// Waits for the fault on a host.
    fn is_injected(&self, host: usize) {
        holds("the fault", PATIENCE, || self.world.hosts[host].tables() == ["table inet squall"]);
    }

    fn is_clean(&self, host: usize) {
        holds("the host to be as before", PATIENCE, || self.world.hosts[host].tables().is_empty());
    }

    /// The newest run, as one of them shows it.
    fn newest(&self, at: usize) -> serde_json::Value {
        let runs = self.asks(at, &["runs", "--format", "json"]).run().expect_exit(0).json();
        runs["runs"][0].clone()
    }

    fn story(&self, at: usize) -> String {
        self.controllers[at].as_ref().expect("it was started").story()
    }
}

#[test]
fn a_live_run_of_a_controller_that_dies_is_closed_by_the_other_and_a_revoked_host_is_cut_off_by_both() {
    needs!(Root, Nftables, Queue, Nginx, Postgres);
    let mut twins = Twins::new();
    // Its run is for the host that is connected to it.
    let followed = twins.injects(0, "80s");
    twins.is_injected(1);
    let run = twins.newest(1)["id"].as_str().expect("a run").to_owned();
    twins.dies(0);
    drop(followed);
    twins.is_clean(1);
    let closed = until("the run to be closed", PATIENCE * 2, || {
        let newest = twins.newest(1);
        (newest["state"] != "running").then_some(newest)
    });
    assert_eq!((&closed["id"], &closed["state"]), (&run.clone().into(), &"interrupted".into()), "{closed}");
    // The host goes to the other one, which tells it that its run is over: nothing of it begins there any more.
    holds("both hosts at the other", PATIENCE, || twins.has(1) == 2);
    let fences = twins.world.hosts[1].state.join("link").join("fences");
    holds("the host to know", PATIENCE * 2, || {
        std::fs::read_to_string(&fences).is_ok_and(|fences| fences.contains(&run))
    });
    twins.is_clean(1);

    // Both carry a fault of the one, and the other is told that one of them does not belong to them any more.
    twins.serves(0);
    let followed = twins.injects(1, "80s");
    twins.is_injected(1);
    twins.is_injected(2);
    assert_eq!(twins.has(0), 0, "both hosts are with the other");
    twins.asks(0, &["hosts", "revoke", "web-1"]).run().expect_exit(0);
    holds("the host to be cut off where it is", PATIENCE, || {
        twins.story(1).contains("as another controller was told to revoke it")
    });
    twins.is_clean(1);
    holds("it not to come back", PATIENCE, || twins.hosts[0].stderr().contains("was revoked"));
    assert_eq!(twins.has(1), 1, "only the other host is connected");
    // A host is missing: by default the others revert too, and the run says so.
    twins.is_clean(2);
    followed.finish();
    assert_ne!(twins.newest(1)["state"], "held");
    twins.asks(1, &["audit", "verify"]).run().expect_exit(0);

    twins.end();
}
