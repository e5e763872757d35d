//! The hosts of the fleet, as the controller has them: who may join, who is connected, and streams to them.
//!
//! Hosts dial in. Everything but joining needs a certificate of the fleet's own authority, and who a host is stands in
//! that certificate alone. Nothing here decides what is done on a host: [`Hub`] carries what a conductor says, unchanged,
//! and the host's own agent and policy answer for it.
//!
//! | file | what it is for |
//! |---|---|
//! | [`authority`] | the fleet's own certificates |
//! | [`registry`] | who may join and who belongs to it: kept elsewhere, asked from here |
//! | [`join`](mod@join) | what a host must prove to join |
//! | [`listener`] | connections as they come in, until it is known whose they are |
//! | [`hub`] | all hosts, and streams to them |
//! | [`prospect`] | by which engines a host could do what a plan asks of it |
//! | [`room`] | how many of them, and of what is done with them, there is room for |
//! | `kept` | the store as that registry |
//! | `connection`, `session`, `carry` | one host's connection, the streams that outlive it, one stream |

pub mod authority;
mod carry;
mod connection;
pub mod hub;
pub mod join;
mod kept;
pub mod listener;
pub mod prospect;
pub mod registry;
pub mod room;
mod session;
#[cfg(test)]
mod tests;

pub use authority::{Authority, AuthorityError};
pub(crate) use hub::unreached;
pub use hub::{HostInfo, Hub};
pub use listener::{Listener, Terms, listen};
pub use registry::{Answer, Member, Registry, Roll};
pub use room::Room;
