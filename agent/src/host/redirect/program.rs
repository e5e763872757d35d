//! The two BPF programs of a redirect, assembled here: one for connect(2), one for getpeername(2). For datagrams of sockets
//! that are not connected they stand at sendmsg(2) and recvmsg(2).
//!
//! Source: `include/uapi/linux/bpf.h` (`struct bpf_sock_addr`, `struct bpf_sock`), `net/core/filter.c`
//! (`sock_addr_func_proto`). Both always allow.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::host::bpf::word;

/// A family of addresses, as far as the programs differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `struct sockaddr_in`.
    V4,
    /// `struct sockaddr_in6`, IPv4-mapped addresses too.
    V6,
}

/// The maps that the programs look into.
#[derive(Clone, Copy, Debug)]
pub struct Maps<'a> {
    /// Until when the redirect holds: one number of nanoseconds on the boot clock.
    pub lease: BorrowedFd<'a>,
    /// Where to: see [`entry`](super::ways::entry).
    pub ways: BorrowedFd<'a>,
    /// The other way round, for those who ask whom they are connected to.
    pub back: BorrowedFd<'a>,
    /// Numbers of control groups.
    pub groups: BorrowedFd<'a>,
}

/// Whose connections are led elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callers {
    /// Those of sockets with this bit of the mark; 0 is none.
    pub bit: u32,
    /// Those of processes in a control group of the map, so many levels below the root.
    pub level: Option<u32>,
    /// Never those of this user: the proxy's own.
    pub except: u32,
}

// Helpers of the kernel, by their numbers.
const LOOK_UP: u32 = 1;
const USER: u32 = 15;
const COOKIE: u32 = 122;
const GROUP_ABOVE: u32 = 123;
const BOOT_TIME: u32 = 125;

// Where fields lie in `struct bpf_sock_addr` …
const ADDRESS_V4: i16 = 4;
const ADDRESS_V6: i16 = 8;
const PORT: i16 = 24;
const PROTOCOL: i16 = 36;
const SOCKET: i16 = 64;
// … and in `struct bpf_sock`.
const DEVICE: i16 = 0;
const MARK: i16 = 16;

/// Where the key begins on the stack: an address of 16 bytes and a port.
const KEY: i16 = -24;
const TCP: u32 = 6;
const UDP: u32 = 17;

/// Sockets of which protocols are led elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// TCP.
    Tcp,
    /// TCP and UDP.
    Both,
}

/// Instructions, some of which jump to the end.
struct Code {
    words: Vec<u64>,
    leaving: Vec<usize>,
}

impl Code {
    /// In the namespace with this cookie, and for these protocols. Register 6 is the context from here on.
    fn begin(cookie: u64, protocols: Protocols) -> Self {
        let mut code = Code { words: Vec::new(), leaving: Vec::new() };
        code.add(word(0xbf, 6, 1, 0, 0));
        code.call(COOKIE);
        code.long(2, 0, cookie);
        code.leave(word(0x5d, 0, 2, 0, 0));
        code.add(word(0x61, 1, 6, PROTOCOL, 0));
        if protocols == Protocols::Both {
            // One jump over the next.
            code.add(word(0x15, 1, 0, 1, UDP));
        }
        code.leave(word(0x55, 1, 0, 0, TCP));
        code
    }

    fn add(&mut self, word: u64) {
        self.words.push(word);
    }

    fn call(&mut self, helper: u32) {
        self.add(word(0x85, 0, 0, 0, helper));
    }

    /// Register = a number of 64 bits, or with source 1 the map behind a descriptor.
    fn long(&mut self, register: u8, source: u8, value: u64) {
        self.add(word(0x18, register, source, 0, value as u32));
        self.add(word(0x00, 0, 0, 0, (value >> 32) as u32));
    }

    /// A jump to the end, whose way is not known yet.
    fn leave(&mut self, jump: u64) {
        self.leaving.push(self.words.len());
        self.add(jump);
    }

    /// Register 0 = what a map has for the key that begins so far below the stack's end; where it has nothing: end.
    fn look_up(&mut self, map: BorrowedFd<'_>, key: i16) {
        self.add(word(0xbf, 2, 10, 0, 0));
        self.add(word(0x07, 2, 0, 0, i32::from(key) as u32));
        self.long(1, 1, map.as_raw_fd() as u64);
        self.call(LOOK_UP);
        self.leave(word(0x15, 0, 0, 0, 0));
    }

    /// The address and port of the context are the key on the stack.
    fn key(&mut self, family: Family) {
        match family {
            Family::V4 => {
                // ::ffff:a.b.c.d
                self.add(word(0x7a, 10, 0, KEY, 0));
                self.add(word(0x62, 10, 0, KEY + 8, 0xffff_0000));
                self.add(word(0x61, 1, 6, ADDRESS_V4, 0));
                self.add(word(0x63, 10, 1, KEY + 12, 0));
            }
            Family::V6 => {
                for part in [0, 4, 8, 12] {
                    self.add(word(0x61, 1, 6, ADDRESS_V6 + part, 0));
                    self.add(word(0x63, 10, 1, KEY + part, 0));
                }
            }
        }
        self.add(word(0x61, 1, 6, PORT, 0));
        self.add(word(0x63, 10, 1, KEY + 16, 0));
    }

    /// The address and port of the context become those behind register 0.
    fn become_those(&mut self, family: Family) {
        let parts: &[(i16, i16)] = match family {
            Family::V4 => &[(12, ADDRESS_V4)],
            Family::V6 => &[(0, ADDRESS_V6), (4, ADDRESS_V6 + 4), (8, ADDRESS_V6 + 8), (12, ADDRESS_V6 + 12)],
        };
        for (from, to) in parts.iter().copied().chain([(16, PORT)]) {
            self.add(word(0x61, 1, 0, from, 0));
            self.add(word(0x63, 6, 1, to, 0));
        }
    }

    fn end(mut self) -> Vec<u64> {
        let end = self.words.len();
        for at in std::mem::take(&mut self.leaving) {
            let way = (end - at - 1) as u64;
            self.words[at] |= (way & 0xffff) << 16;
        }
        self.add(word(0xb7, 0, 0, 0, 1));
        self.add(word(0x95, 0, 0, 0, 0));
        self.words
    }
}

/// For connect(2): while the lease holds, a new connection of the callers to an address of the map leads elsewhere, and
/// is counted. Sockets that are bound to a device are left alone: loopback is another one.
pub fn connecting(
    family: Family,
    callers: Callers,
    maps: Maps<'_>,
    cookie: u64,
    protocols: Protocols,
) -> Vec<u64> {
    let mut code = Code::begin(cookie, protocols);
    // r0 = user, the lower half.
    code.call(USER);
    code.add(word(0xbc, 0, 0, 0, 0));
    code.leave(word(0x15, 0, 0, 0, callers.except));
    code.add(word(0x79, 7, 6, SOCKET, 0));
    code.add(word(0x61, 1, 7, DEVICE, 0));
    code.leave(word(0x55, 1, 0, 0, 0));
    code.add(word(0x62, 10, 0, -4, 0));
    code.look_up(maps.lease, -4);
    code.add(word(0x79, 8, 0, 0, 0));
    code.call(BOOT_TIME);
    code.leave(word(0x2d, 0, 8, 0, 0));
    let marked = |code: &mut Code| {
        code.add(word(0x61, 1, 7, MARK, 0));
        code.add(word(0x57, 1, 0, 0, callers.bit));
    };
    match callers.level {
        Some(level) => {
            let mut of_group = Code { words: Vec::new(), leaving: Vec::new() };
            of_group.add(word(0xb7, 1, 0, 0, level));
            of_group.call(GROUP_ABOVE);
            of_group.add(word(0x7b, 10, 0, -8, 0));
            of_group.look_up(maps.groups, -8);
            if callers.bit != 0 {
                // One that is marked needs no group.
                marked(&mut code);
                code.add(word(0x55, 1, 0, of_group.words.len() as i16, 0));
            }
            let begin = code.words.len();
            code.leaving.extend(of_group.leaving.iter().map(|at| at + begin));
            code.words.extend(of_group.words);
        }
        None if callers.bit != 0 => {
            marked(&mut code);
            code.leave(word(0x15, 1, 0, 0, 0));
        }
        None => {}
    }
    code.key(family);
    code.look_up(maps.ways, KEY);
    code.add(word(0xb7, 1, 0, 0, 1));
    // An atomic addition of 64 bits.
    code.add(word(0xdb, 0, 1, 24, 0));
    code.become_those(family);
    code.end()
}

/// For getpeername(2): who was led elsewhere is connected to whom it asked for, as far as it can see.
pub fn asking(family: Family, maps: Maps<'_>, cookie: u64, protocols: Protocols) -> Vec<u64> {
    let mut code = Code::begin(cookie, protocols);
    code.key(family);
    code.look_up(maps.back, KEY);
    code.become_those(family);
    code.end()
}
