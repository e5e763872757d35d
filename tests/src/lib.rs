//! The harness of the end-to-end suites: hosts as network namespaces, real services in them, the real binaries.
//!
//! | module | what it holds |
//! |---|---|
//! | [`host`] | one machine of a world |
//! | [`world`] | hosts, services and their end; compares fingerprints when a test is over |
//! | [`netns`] | one network namespace, its processes, and the one function that runs `ip`, `nft`, `tc`, `ss` |
//! | [`fingerprint`] | what a host is, in lines that can be compared |
//! | [`dns`] | a name server with records that a test can change |
//! | [`cgroup`] | control groups that tests make, and how they go |
//! | [`service`] | nginx, Redis, PostgreSQL and an echo server, ready when they answer |
//! | [`container`], [`docker`], [`podman`], [`containerd`] | real containers: of a Docker daemon, of Podman, of containerd |
//! | [`chromium`] | a browser without a window, for pages |
//! | [`client`] | clients that talk to them, and a steady one that keeps watching |
//! | [`traffic`] | measured traffic: numbered datagrams, one fast TCP connection, ICMP echo, the kernel's counts |
//! | [`trial`] | one experiment under way, watched through its event file |
//! | [`odds`] | what chance allows |
//! | [`squall`] | runs the binaries under test |
//! | [`mod@skip`] | what a test needs, and a loud skip where it is missing |
//! | [`wait`] | waiting for conditions, and medians |
//!
//! A harness is told to stop by a panic: its functions panic with the full story where a test could not go on.

pub mod cgroup;
pub mod chromium;
pub mod client;
pub mod container;
pub mod containerd;
pub mod dns;
pub mod docker;
mod failure;
pub mod fingerprint;
pub mod host;
pub mod netns;
pub mod odds;
pub mod podman;
pub mod service;
pub mod skip;
pub mod squall;
mod sweep;
pub mod traffic;
pub mod trial;
pub mod wait;
pub mod world;
