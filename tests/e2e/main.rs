//! End to end: the real binaries against real services on real kernels.

mod composition;
mod containers;
mod control_path;
mod crash;
mod demo;
mod disciplines;
mod fingerprint;
mod firewall;
mod flows;
mod harness;
mod held;
mod interface;
mod journal;
mod lifecycle;
mod load;
mod method;
mod nets;
mod network;
mod package;
mod peers;
mod probes;
mod process;
mod proxy;
mod refusal;
mod report;
mod scope;
mod self_test;
mod shaping;
mod sharing;
mod shipped;
mod targets;
mod traffic;
mod unit;
mod witness;

use squall_tests::trial;
