//! End to end: the real binaries against real services on real kernels.

mod crash;
mod demo;
mod harness;
mod lifecycle;
mod network;
mod process;
mod refusal;
mod scope;
mod trial;
