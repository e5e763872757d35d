//! End to end: the real binaries against real services on real kernels.

mod harness;
mod network;
mod trial;
