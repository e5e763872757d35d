//! Figures of the packet engine: how exact, how fast, how costly, and what a crash costs.

pub mod crash;
pub mod delay;
pub mod shares;
pub mod stream;

use serde_json::{Value, json};
use squall_tests::host::Host;
use squall_tests::squall::{Background, Squall, binary};

use crate::agent::Agent;

/// An agent on a host with one run begun: faults come and go by its socket, without a conductor.
pub struct Engine {
    agent: Agent,
    part: u32,
    process: Background,
}

impl Engine {
    /// Starts it.
    pub fn on(host: &Host) -> Self {
        Engine::over(host, host.agent(&["run"]).start())
    }

    /// Starts it without the right to real-time priority.
    pub fn humble(host: &Host) -> Self {
        let mut command = host.netns.command("setpriv");
        command.args(["--bounding-set", "-sys_nice", "--inh-caps", "-all", "--"]);
        command.arg(binary("squall-agent")).arg("run").env("SQUALL_STATE_DIR", &host.state);
        Engine::over(
            host,
            Squall::with(command, "squall-agent without CAP_SYS_NICE", &host.directory).start(),
        )
    }

    fn over(host: &Host, process: Background) -> Self {
        let mut agent = Agent::of(host);
        let begin = json!({ "run": "figures", "title": "figures", "plan": "", "seed": 4711,
                            "lease_ms": 600_000, "deadline_ms": 600_000 });
        agent.ask(&json!({ "begin": begin }));
        Engine { agent, part: 0, process }
    }

    /// Makes a fault live: what is done, to which flow, which way.
    pub fn shape(&mut self, impairment: Value, flow: Value, direction: &str) {
        self.part += 1;
        let shape = json!({ "flow": flow, "direction": direction, "impairment": impairment, "limit": 65536 });
        let apply = json!({ "run": "figures", "part": self.part, "changes": [{ "shape": shape }], "lasts_ms": 600_000 });
        self.agent.ask(&json!({ "apply": apply }));
    }

    /// What the fault that was made last did so far: its evidence.
    pub fn evidence(&mut self) -> Value {
        let reply = self.agent.ask(&json!({ "observe": { "run": "figures", "part": self.part } }));
        reply["measured"][0].clone()
    }

    /// Ends the fault that was made last; gives its evidence.
    pub fn lift(&mut self) -> Value {
        let reply = self.agent.ask(&json!({ "lift": { "run": "figures", "part": self.part } }));
        reply["lifted"]["evidence"][0].clone()
    }

    /// Ends the run and the agent.
    pub fn end(mut self) {
        self.agent.ask(&json!({ "end": { "run": "figures" } }));
        self.process.signal(rustix::process::Signal::TERM);
        self.process.finish();
    }
}

/// What the figures shape: everything that enters a port of the second host.
pub fn entering(protocol: &str) -> Value {
    json!({ "from": ["any:9"], "protocol": protocol })
}

/// The same packets as they leave the first host.
pub fn leaving(protocol: &str) -> Value {
    json!({ "to": ["10.77.1.2:9"], "protocol": protocol })
}
