//! How a failed test is told.

use std::io::Write;

/// Where output is captured, a failure is told only after the last test: too late for whoever sees a part of the output.
pub(crate) fn report_at_once() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let words: String = panic.to_string().chars().take(4000).collect();
        let told = format!("in `{}`: {words}\n", thread.name().unwrap_or("a thread"));
        let _ = std::io::stderr().write_all(told.as_bytes());
        usual(panic);
    }));
}
