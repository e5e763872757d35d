//! The one BPF program that Squall loads, assembled here: a dozen instructions need no compiler.
//!
//! Instruction format: `Documentation/bpf/standardization/instruction-set.rst`; one 64-bit word each, low byte first:
//! code, destination and source register, offset, immediate.

use super::mark::Whose;

/// The program: in our network namespace, for TCP and UDP sockets of the chosen, mark |= bit. Always allows.
pub fn marking(whose: &Whose, bit: u32, cookie: u64) -> Vec<u64> {
    let word = |code: u8, dst: u8, src: u8, offset: i16, immediate: u32| {
        u64::from(code)
            | u64::from(dst | (src << 4)) << 8
            | u64::from(offset as u16) << 16
            | u64::from(immediate) << 32
    };
    let call = |helper: u32| word(0x85, 0, 0, 0, helper);
    let (helper, narrow, wanted) = match whose {
        // Of strangers nothing is made later; they have no program.
        Whose::Processes(targets) | Whose::Strangers(targets, _) => {
            (14, word(0x77, 0, 0, 0, 32), targets.iter().map(|target| target.pid as u32).collect::<Vec<_>>())
        }
        Whose::Probes => (14, word(0x77, 0, 0, 0, 32), Vec::new()),
        Whose::User(uid) => (15, word(0xbc, 0, 0, 0, 0), vec![*uid]),
    };
    // Behind the comparisons: jump to the end; set the mark (3 words); the end (2 words).
    let set_behind = |index: usize| i16::try_from(wanted.len() - index).expect("few processes");
    let end_behind = i16::try_from(wanted.len() + 9).expect("few processes");
    let mut code = vec![
        word(0xbf, 6, 1, 0, 0),                     // r6 = context
        call(122),                                  // r0 = cookie of the socket's namespace
        word(0x18, 2, 0, 0, cookie as u32),         // r2 = ours …
        word(0x00, 0, 0, 0, (cookie >> 32) as u32), // … all 64 bits
        word(0x5d, 0, 2, end_behind, 0),            // another namespace: end
        word(0x61, 1, 6, 12, 0),                    // r1 = protocol
        word(0x15, 1, 0, 1, 6),                     // TCP: go on
        word(0x55, 1, 0, end_behind - 3, 17),       // neither: end
        call(helper),                               // r0 = pid and thread, or group and user
        narrow,                                     // r0 = the part that is compared
    ];
    for (index, value) in wanted.iter().enumerate() {
        code.push(word(0x16, 0, 0, set_behind(index), *value)); // equal, as 32 bits: mark
    }
    code.extend([
        word(0x05, 0, 0, 3, 0),   // none: end
        word(0x61, 1, 6, 16, 0),  // r1 = mark
        word(0x47, 1, 0, 0, bit), // r1 |= bit
        word(0x63, 6, 1, 16, 0),  // mark = r1
        word(0xb7, 0, 0, 0, 1),   // r0 = allow
        word(0x95, 0, 0, 0, 0),   // end
    ]);
    code
}
