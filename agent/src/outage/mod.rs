//! The process that carries what an outage leads to it: the dependency proxy, without any privilege.
//!
//! The worker starts it in the target's network namespace, as a user that nobody else is: by that number its own
//! connections are told from those that are led to it. It gives up everything before it hears anything, gets its listening
//! sockets handed over, and ends with the worker, by the end of its line and by a death signal.
//!
//! | file | what |
//! |---|---|
//! | [`order`] | what the worker says to it, and it answers |
//! | [`child`] | the process |
//! | `diary` | what it has seen, where the worker reads it |
//! | `lookups`, [`question`] | name servers, as those who ask for a name see them |
//! | `recipe` | with which toxics it does what |

pub mod child;
mod diary;
mod lookups;
pub mod order;
pub mod question;
mod recipe;
mod sighting;
