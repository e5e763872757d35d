//! Whose trace a request belongs to: the header `traceparent` of W3C Trace Context (w3.org/TR/trace-context, level 1).

/// A span somewhere, and the trace that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(super) trace: u128,
    pub(super) span: u64,
    /// Whether whoever began the trace keeps it; of one that is not kept nothing is sent.
    pub(super) kept: bool,
}

impl Context {
    /// What a header says; `None` for one that the standard says to ignore.
    pub(super) fn read(header: &str) -> Option<Context> {
        let mut parts = header.trim().split('-');
        let version = hex(parts.next()?, 2)?;
        let (trace, span) = (hex(parts.next()?, 32)?, hex(parts.next()?, 16)?);
        let flags = hex(parts.next()?, 2)?;
        // A later version may say more; this one says no more.
        if version == 0xff || (version == 0 && parts.next().is_some()) || trace == 0 || span == 0 {
            return None;
        }
        Some(Context { trace, span: u64::try_from(span).ok()?, kept: flags & 1 == 1 })
    }
}

/// A number of so many digits, small letters alone.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let right = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    right.then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the recommendation, and what it says is invalid.
    #[test]
    fn a_traceparent_is_read_as_the_recommendation_says() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let meant = Context {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span: 0x00f0_67aa_0ba9_02b7,
            kept: true,
        };
        assert_eq!(Context::read(&format!("00-{trace}-{span}-01")), Some(meant));
        let dropped = Context { kept: false, ..meant };
        assert_eq!(Context::read(&format!("00-{trace}-{span}-00")), Some(dropped));
        assert_eq!(Context::read(&format!("cc-{trace}-{span}-01-what-will-be")), Some(meant));
        let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
        for wrong in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{no_trace}-{span}-01"),
            format!("00-{trace}-{no_span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{}-01", &span[1..]),
            format!("00-{trace}-+{}-01", &span[1..]),
        ] {
            assert_eq!(Context::read(&wrong), None, "{wrong}");
        }
    }
}
