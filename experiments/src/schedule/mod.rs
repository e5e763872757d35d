//! When experiments run by themselves: by cron, once, or at random within bounds; and when they do not.
//!
//! Pure: a schedule, its seed, the moment since which it is there, what bars it and the groups of hosts give its entries
//! ([`Outlook`]), the same every time. Whoever carries them out asks for the entries of a stretch of time and needs to remember
//! nothing but how far it came.
//!
//! | file | what it is for |
//! |---|---|
//! | [`document`] | the file that a user writes |
//! | [`clock`] | zones, days, times of a day |
//! | [`cron`] | cron expressions |
//! | [`random`] | coins and times, from a seed |
//! | [`bars`] | when nothing runs, and why |
//! | [`icalendar`] | holidays and freezes from calendar files (RFC 5545) |
//! | [`outlook`] | all of it together: the entries of a stretch of time |

pub mod bars;
pub mod clock;
pub mod cron;
pub mod document;
pub mod icalendar;
pub mod outlook;
pub mod random;

#[cfg(test)]
mod tests;

pub use bars::{Bar, Bars};
pub use clock::{Day, Moment, TimeOfDay, Weekday, Zone};
pub use cron::Cron;
pub use document::{Exception, Name, Schedule, Timing, read, schema};
pub use icalendar::{Calendar, CalendarError};
pub use outlook::{Entry, Outlook};
pub use random::Random;
