//! The way from this host to its controller.
//!
//! The agent dials out; nothing listens. A process of its own, the *link*, holds the connection: a child of the worker
//! without any privilege and with a user of its own, since it reads what comes from another machine. It can reach the
//! agent only by asking the worker, which hands it one end of a socket: for a conductor that speaks to the agent as it
//! would on this host, or for a prober, within what the host's policy lets a controller do. When the connection, the link
//! or the worker ends, those sockets close, and what was begun over them is reverted.
//!
//! | file | what it is for |
//! |---|---|
//! | [`options`] | what the command line says of controllers |
//! | [`steward`], [`errand`] | the worker's side: starts the link, gives it what it may have; what they say to each other |
//! | [`process`](mod@process) | the link: gives up privileges, dials, and dials again |
//! | [`identity`], [`dial`] | key and certificate of this host; joining and connecting |
//! | [`session`], `carry` | one connection; one stream |

mod carry;
pub mod dial;
pub mod errand;
pub mod identity;
pub mod options;
pub mod process;
pub mod session;
pub mod steward;
