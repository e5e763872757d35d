//! Everything of Squall that alters a host.
//!
//! An agent is two processes that die together. The *guardian* is the parent: one thread, no socket to the outside; it
//! owns lock, journal and deadline. The *worker* acts: it answers conductors and changes the host through [`host`].
//! Whichever loses the other kills it and undoes everything.
//!
//! | module | what it is for |
//! |---|---|
//! | [`host`] | the mechanisms: the only code that alters a machine |
//! | [`guardian`], [`pulse`], [`records`], [`line`](mod@line) | the parent process; how the two notice each other's end; what they say, and over what |
//! | [`journal`], [`ledger`], [`recover`] | what to undo, on disk; who writes it; undoing what a dead agent left |
//! | [`worker`], [`supervisor`], [`injection`], [`made`], [`link`] | the child process: live injections and their changes, their leases, its connections |
//! | [`guards`] | what stops a run, looked at without the command |
//! | [`books`] | what a change has had written, and the order in which it is taken back |
//! | [`fleet`] | the unprivileged process that holds the connection to a controller |
//! | [`resolve`] | names become addresses |
//! | [`veto`], [`policy`], [`rights`] | what is never hit; what the host's owner allows; what the worker does not need then |
//! | [`notify`] | what a service manager is told |
//! | [`say`], [`talk`] | where results go; what is said beside them |
//! | [`state`], [`join`] | where state lies; how a command finds or starts the agent |
//! | [`points`] | where tests can make all that die |
//! | [`preflight`], [`fingerprint`] | what works here; what the host is, before and after |
//! | [`selftest`] | faults and deaths on this host, in namespaces of their own |
//! | [`probe`] | the unprivileged prober |
//! | [`proxy`] | the dependency proxy: needs no privilege, alters no host |
//! | [`seccomp`] | the system calls that those without privileges give up |
//! | [`outage`] | the process without privileges in which it carries what an outage leads to it |

pub mod books;
pub mod cli;
#[cfg(test)]
mod decoding;
pub mod deputy;
pub mod fingerprint;
pub mod fleet;
pub mod guardian;
pub mod guards;
pub mod host;
pub mod injection;
pub mod join;
pub mod journal;
pub mod lease;
pub mod ledger;
pub mod line;
pub mod link;
pub mod made;
#[cfg(test)]
mod model;
pub mod notify;
pub mod outage;
pub mod points;
pub mod policy;
pub mod preflight;
pub mod probe;
pub mod proxy;
pub mod pulse;
pub mod records;
pub mod recover;
pub mod resolve;
pub mod rights;
pub mod say;
pub mod seccomp;
pub mod selftest;
pub mod state;
pub mod supervisor;
pub mod talk;
pub mod veto;
pub mod worker;
