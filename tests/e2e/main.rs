//! End to end: the real binaries against real services on real kernels.

mod harness;
mod lifecycle;
mod network;
mod process;
mod scope;
mod trial;
