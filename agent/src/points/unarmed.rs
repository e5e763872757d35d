//! What users run: nothing is asked, nothing stops.

use std::fs::File;
use std::io::{self, Write};

use super::{Point, Role};

/// Nothing.
#[inline(always)]
pub fn pass(_: Point) {}

/// Nothing.
#[inline(always)]
pub fn play(_: Role, _other: i32) {}

/// Appends to the journal.
#[inline(always)]
pub fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}

/// Brings the journal to the disk.
#[inline(always)]
pub fn sync(file: &File) -> io::Result<()> {
    file.sync_data()
}
