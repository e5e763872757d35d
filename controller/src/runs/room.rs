//! Whether this process may open what a run over many hosts needs: better refused before it begins than in its middle.

use nix::sys::resource::{Resource, getrlimit};
use squall_experiments::protocol::Refusal;

/// Descriptors of a stream to a host: both its ends are in this process.
const STREAM: u64 = 2;

/// Whether so many streams to hosts can be opened now.
pub(super) fn for_streams(streams: usize) -> Result<(), Refusal> {
    let (Ok((most, _)), Ok(open)) = (getrlimit(Resource::RLIMIT_NOFILE), std::fs::read_dir("/proc/self/fd"))
    else {
        return Ok(());
    };
    fits(streams as u64, open.count() as u64, most)
}

fn fits(streams: u64, open: u64, most: u64) -> Result<(), Refusal> {
    let (needed, left) = (streams * STREAM, most.saturating_sub(open));
    if needed <= left {
        return Ok(());
    }
    Err(Refusal::new(
        format!("this run needs {needed} descriptors, and this controller may open {left} more"),
        format!(
            "raise its limit, which is {most} (`LimitNOFILE=` of its unit, `ulimit -Hn`), or choose fewer hosts"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_would_run_out_of_descriptors_is_refused_with_the_limit() {
        fits(5_000, 10_000, 20_000).unwrap();
        let refused = fits(10_000, 10_050, 20_000).unwrap_err();
        assert_eq!(refused.what, "this run needs 20000 descriptors, and this controller may open 9950 more");
        assert!(refused.help.unwrap().contains("which is 20000"));
        // This process may open some.
        for_streams(1).unwrap();
        assert!(for_streams(usize::MAX / 4).is_err());
    }
}
