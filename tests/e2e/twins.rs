//! Two controllers on one database.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use squall_tests::client::{Postgres, connect};
use squall_tests::service::Service;
use squall_tests::squall::{Background, Squall};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::link::Linked;
use crate::trial::SOON;

/// The ports of each controller: for people, and for agents.
const PORTS: [(u16, u16); 2] = [(8416, 8417), (8426, 8427)];

/// Two controllers on the first host of a world; each has one of the other hosts, which goes to the other one when its own is gone.
pub struct Twins {
    pub hosts: Vec<Linked>,
    pub controllers: [Option<Background>; 2],
    data: [PathBuf; 2],
    database: String,
    service: Service,
    pub world: World,
}

impl Twins {
    pub fn new() -> Self {
        let world = World::new(3);
        let service = world.postgres(0, 5432);
        (1..=2).for_each(|host| drop(world.nginx(host, 8080)));
        let database = world.directory.join("service-0");
        let database = format!("host={} port=5432 user=postgres dbname=fleet", database.display());
        let data = [world.place("one"), world.place("other")];
        let mut twins =
            Twins { hosts: Vec::new(), controllers: [None, None], data, database, service, world };
        twins.query("CREATE DATABASE fleet");
        twins.serves(0);
        // What controllers share beside the database: keys.
        for entry in fs::read_dir(&twins.data[0]).expect("a directory").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::copy(entry.path(), twins.data[1].join(entry.file_name())).expect("a copy");
            }
        }
        twins.serves(1);
        for number in [1, 2] {
            let token = twins.asks(0, &["tokens", "join", "--format", "json"]).run().expect_exit(0).json();
            let token = token["token"].as_str().expect("a token").to_owned();
            let url = |at: usize| format!("https://10.77.{number}.1:{}", PORTS[at].1);
            let other = url(2 - number);
            let more = ["--controller", &other, "--label", "role=web"];
            let host = &twins.world.hosts[number];
            twins.hosts.push(Linked::by(host, &format!("web-{number}"), &url(number - 1), &token, &more));
        }
        twins.hold_a_host_each();
        twins
    }

    pub fn serves(&mut self, at: usize) {
        let (people, agents) = PORTS[at];
        let (data, people) = (self.data[at].display().to_string(), format!("127.0.0.1:{people}"));
        let agents = format!("0.0.0.0:{agents}");
        let serve = [
            "serve",
            "--data",
            &data,
            "--listen",
            &people,
            "--listen-agents",
            &agents,
            "--heartbeat",
            "500ms",
        ];
        let serve = self.world.hosts[0].squall(&serve).env("SQUALL_DATABASE", &self.database);
        let mut controller = serve.start();
        holds("the controller to listen", PATIENCE, || {
            assert!(!controller.ended(), "{}", controller.story());
            controller.story().contains("serves agents at")
        });
        self.controllers[at] = Some(controller);
    }

    pub fn dies(&mut self, at: usize) {
        let mut controller = self.controllers[at].take().expect("it was started");
        controller.signal(Signal::KILL);
        holds("the controller to be gone", PATIENCE, || controller.ended());
    }

    /// A command of whoever administers one of them.
    pub fn asks(&self, at: usize, arguments: &[&str]) -> Squall {
        let asks =
            self.world.hosts[0].squall(arguments).env("SQUALL_TOKEN_FILE", self.data[0].join("admin-token"));
        asks.env("SQUALL_CONTROLLER", Twins::url(at))
    }

    /// How many hosts one of them is connected to.
    pub fn has(&self, at: usize) -> usize {
        let hosts = self.asks(at, &["hosts", "--format", "json"]).run().expect_exit(0).json();
        let hosts = hosts["hosts"].as_array().expect("hosts");
        hosts.iter().filter(|host| host["connected"] == true).count()
    }

    pub fn hold_a_host_each(&self) {
        holds("a host for each of them", PATIENCE, || self.has(0) == 1 && self.has(1) == 1);
    }

    /// The address of one of them, for people.
    pub fn url(at: usize) -> String {
        format!("http://127.0.0.1:{}", PORTS[at].0)
    }

    /// Asks the database itself, as its administrator; gives the first value.
    pub fn query(&self, sql: &str) -> String {
        let (host, at) =
            (&self.world.hosts[0], std::net::SocketAddr::from(([127, 0, 0, 1], self.service.port)));
        let asked = connect(&host.netns, at, PATIENCE).and_then(|stream| Postgres::over(stream)?.query(sql));
        asked.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Ends both, and everything that they have.
    pub fn end(mut self) {
        self.hosts.drain(..).for_each(Linked::end);
        for mut last in self.controllers.iter_mut().filter_map(Option::take) {
            last.signal(Signal::TERM);
            last.finish().expect_exit(0);
        }
        self.world.restored(SOON);
    }
}
