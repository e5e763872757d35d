//! BPF programs, assembled here: some dozens of instructions need no compiler. This one marks new sockets.
//!
//! Instruction format: `Documentation/bpf/standardization/instruction-set.rst`; one 64-bit word each, low byte first:
//! code, destination and source register, offset, immediate.

use std::os::fd::{AsRawFd, BorrowedFd};

/// One instruction.
pub(super) fn word(code: u8, dst: u8, src: u8, offset: i16, immediate: u32) -> u64 {
    u64::from(code)
        | u64::from(dst | (src << 4)) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate) << 32
}

/// By what the program knows the chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The process.
    Process,
    /// The effective user.
    User,
}

/// The program: in our network namespace, for TCP and UDP sockets of those whose number is in the map, mark |= bit. Always
/// allows.
pub fn marking(by: By, chosen: BorrowedFd<'_>, bit: u32, cookie: u64) -> Vec<u64> {
    let call = |helper: u32| word(0x85, 0, 0, 0, helper);
    let (helper, narrow) = match by {
        By::Process => (14, word(0x77, 0, 0, 0, 32)),
        By::User => (15, word(0xbc, 0, 0, 0, 0)),
    };
    vec![
        word(0xbf, 6, 1, 0, 0),                         // r6 = context
        call(122),                                      // r0 = cookie of the socket's namespace
        word(0x18, 2, 0, 0, cookie as u32),             // r2 = ours …
        word(0x00, 0, 0, 0, (cookie >> 32) as u32),     // … all 64 bits
        word(0x5d, 0, 2, 15, 0),                        // another namespace: end
        word(0x61, 1, 6, 12, 0),                        // r1 = protocol
        word(0x15, 1, 0, 1, 6),                         // TCP: go on
        word(0x55, 1, 0, 12, 17),                       // neither: end
        call(helper),                                   // r0 = pid and thread, or group and user
        narrow,                                         // r0 = the part that is looked up
        word(0x63, 10, 0, -4, 0),                       // on the stack
        word(0xbf, 2, 10, 0, 0),                        // r2 = the stack's end …
        word(0x07, 2, 0, 0, (-4_i32) as u32),           // … less four: the key
        word(0x18, 1, 1, 0, chosen.as_raw_fd() as u32), // r1 = the map …
        word(0x00, 0, 0, 0, 0),                         // … by its descriptor
        call(1),                                        // r0 = what is there
        word(0x15, 0, 0, 3, 0),                         // nothing: end
        word(0x61, 1, 6, 16, 0),                        // r1 = mark
        word(0x47, 1, 0, 0, bit),                       // r1 |= bit
        word(0x63, 6, 1, 16, 0),                        // mark = r1
        word(0xb7, 0, 0, 0, 1),                         // r0 = allow
        word(0x95, 0, 0, 0, 0),                         // end
    ]
}
