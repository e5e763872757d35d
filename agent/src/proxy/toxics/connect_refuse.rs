//! `connect_refuse`: the dependency is not connected to, and the client sees a reset before the first byte.
//!
//! The kernel has answered the client's SYN by then: a refusal of the SYN itself is for all clients of a listener alike,
//! and that is what a proxy that is turned off gives.

use super::{Kind, Work};

/// No attributes.
pub const KIND: Kind = Kind { name: "connect_refuse", attributes: &[], work: Work::Connect };
