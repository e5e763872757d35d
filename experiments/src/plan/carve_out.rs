/// What no fault ever hits. The agent resolves each rule on the host when it prepares, and reports what it left out;
/// the texts are part of the plan's hash, so a plan that was approved under other rules is not accepted.
pub const CARVE_OUTS: [&str; 7] = [
    "sshd: the ports that it really listens on, and the peers of its sessions",
    "the agent's own sockets: to its conductor and to its controllers",
    "loopback (`lo`), unless a peer or a scope names it",
    "neighbour discovery, router advertisements and DHCP",
    "the ranges that the host's policy names",
    "processes: pid 1, kernel threads, the agent and its guardian, sshd and its sessions",
    "processes: squall itself and its ancestors",
];
