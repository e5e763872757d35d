//! `connect_delay`: the dependency is connected to so much later. The client's own connection is there at once.

use super::values::Attribute;
use super::{Kind, Work};

/// `delay` in milliseconds, from when the client connected. Several add up.
pub const KIND: Kind =
    Kind { name: "connect_delay", attributes: &[("delay", Attribute::Whole(0))], work: Work::Connect };
