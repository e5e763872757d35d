//! The dependency proxy: TCP connections between clients and a dependency, and what can be done to their bytes.
//!
//! It needs no privilege. `squall proxy serve` puts the interface of Toxiproxy in front of [`control::Control`].
//!
//! | file | what |
//! |---|---|
//! | [`control`] | proxies and toxics, as their owner asks for them |
//! | [`dependency`], [`toxic`] | one proxied dependency, and one thing that is done to it |
//! | `shard`, `slab`, `timers` | the threads that carry connections, and when they wake up |
//! | `connection`, `peer`, `pipe` | two sockets, and reading and writing them |
//! | `gate` | what is decided before the dependency is connected to |
//! | [`matcher`] | which connections and requests a toxic concerns |
//! | `link`, `queue` | one direction: what was read, through the toxics, to what may be written |
//! | [`toxics`] | what each kind of toxic does |
//! | [`http`], [`tls`] | requests and answers, and what is encrypted, where they are understood |
//! | `authority` | certificates for the names that clients ask for |
//! | [`observations`], `observed`, [`caller`] | what was seen of each connection and request, and whose it was |
//! | `address`, `names`, `routes` | addresses; names of dependencies; no way back into the proxy |

pub mod address;
mod authority;
pub mod caller;
mod connection;
pub mod control;
pub mod dependency;
mod gate;
pub mod http;
pub mod link;
pub mod matcher;
mod names;
pub mod observations;
mod observed;
mod peer;
mod pipe;
pub mod queue;
mod routes;
mod shard;
mod slab;
mod timers;
pub mod tls;
pub mod toxic;
pub mod toxics;
