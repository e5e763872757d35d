//! The VM lane: the binaries of this build on stock Debian kernels, for what the kernel of the machine lacks (netem, fq, the
//! native `queue` expression, a host with control groups of version 2 only).
//!
//! Each kernel found in `target/vm/kernels` (`tests/run` fetches them; nothing is installed) is booted once by
//! qemu without hardware help. Its root is an initramfs that holds this very program as init, the binaries under test,
//! a few programs of this machine and the kernel's network modules. Init runs every case in a process of its own and
//! says on a serial port what came of it; here each becomes one line, as of Rust's own test harness:
//!
//! ```text
//! test 6.1.0-56::queue::latency_by_the_native_expression ... ok
//! ```
//!
//! **To add a case**: a function in a file below `cases/`, written like any end-to-end test (a `World`, a `Trial`,
//! `needs!`), and its name in that file's `cases!` list; a new file is named in `cases/mod.rs`. What a case needs of the
//! machine beside the list in `userland.rs` (a program, a kernel module's folder) is added there. Everything is some
//! ten times slower here, and the whole lane has three minutes: few and short cases, delays of 50 ms and more.
//!
//! Where there are several kernels they run at once, each its share: the first most cases, the others what depends on the kernel
//! most and what takes long. With a word, or one kernel alone, everything that is asked for runs.
//!
//! `cargo test -p squall-tests --test vm WORD` runs the cases that hold the word; `SQUALL_VM_KERNEL=6.12` only on kernels
//! whose version begins so; `SQUALL_BIN_DIR=$PWD/target/release` takes binaries that `cargo build --release --workspace --bins`
//! has made: in the emulator, cases that start many agents take less than half as long with them.
//!
//! A lane that cannot run is skipped loudly; with `CI` set it fails.

mod cases;
mod guest;
mod initramfs;
mod lane;
mod userland;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return guest::init();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [guest::CASE, name] => guest::case(name),
        _ => lane::run(&arguments),
    }
}
