//! What is tried on every kernel of the lane.

mod basics;
mod borrow;
mod control_group;
mod lease;
mod netem;
mod queue;

use squall_tests::trial::document;
use squall_tests::world::World;

/// How a line begins that is shown whoever asks, also of a case that passed.
pub const FIGURE: &str = "figure: ";

/// One case: it fails by a panic.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The path of its function below this module.
    pub name: &'static str,
    /// The case itself.
    pub run: fn(),
}

/// An experiment of one step whose hypothesis costs next to nothing, as opposed to starting a program every so often: an
/// echo server on the host itself answers.
fn quiet(world: &World, host: usize, step: &str) -> String {
    quiet_by(world.echo(host, 7007).port, step)
}

/// The same, where the server is there already.
fn quiet_by(port: u16, step: &str) -> String {
    let hypothesis =
        format!("  - name: something answers\n    tcp: {{ address: \"127.0.0.1:{port}\" }}\n    every: 1s\n");
    document(&hypothesis, &[step])
}

/// The cases of a file, by the names of their functions.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub(super) const CASES: &[super::Case] = &[$(super::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            run: $name,
        }),+];
    };
}
use cases;

/// Whether a case runs on every kernel, where there are several: what depends on the kernel most.
pub fn on_all(name: &str) -> bool {
    ["basics::", "borrow::every", "queue::what_enters", "netem::a_delay"]
        .iter()
        .any(|begin| name.starts_with(begin))
}

/// Whether a case runs on all kernels but the first: a minute is spent once, on the kernels that are newer.
pub fn on_later_kernels(name: &str) -> bool {
    name.starts_with("lease::")
}

/// Every case, in the order in which they run: those of later kernels that mostly wait come first, beside the work of the first
/// kernel, and their work when that is done.
pub fn all() -> Vec<Case> {
    let below = |case: &Case| {
        let name = case.name.strip_prefix(concat!(module_path!(), "::")).unwrap_or(case.name);
        Case { name, ..*case }
    };
    [lease::CASES, basics::CASES, queue::CASES, control_group::CASES, netem::CASES, borrow::CASES]
        .concat()
        .iter()
        .map(below)
        .collect()
}
