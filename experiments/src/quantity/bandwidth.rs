//! How much a line carries.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{QuantityError, as_text, number_and_unit};

/// How much a line carries, in bits a second: `10Mbit/s`, `512kbit/s`, `1.5MB/s`. Prefixes are powers of ten; `tc`'s
/// spelling without `/s` is read too. At least [`Bandwidth::LEAST`], at most [`Bandwidth::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bandwidth(u64);

const HELP: &str = "write it as `10Mbit/s`, `512kbit/s` or `1.5MB/s`";

impl Bandwidth {
    /// The least, in bits a second: below it a full-sized packet takes longer than ten seconds.
    pub const LEAST: u64 = 1_000;
    /// The most, in bits a second.
    pub const MOST: u64 = 100_000_000_000;

    /// In bits a second.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// In bytes a second, rounded down.
    pub fn bytes(self) -> u64 {
        self.0 / 8
    }

    /// How long the line is busy with so many bytes.
    ///
    /// ```
    /// # use squall_experiments::quantity::Bandwidth;
    /// let line: Bandwidth = "1Mbit/s".parse().unwrap();
    /// assert_eq!(line.takes(1250).as_millis(), 10);
    /// ```
    pub fn takes(self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many bytes the line carries in a time, rounded down.
    pub fn within(self, time: Duration) -> u64 {
        let bytes = time.as_nanos() * u128::from(self.0) / 8 / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl FromStr for Bandwidth {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = |what: String| QuantityError::new(what, HELP);
        let nothing = || wrong(format!("`{text}` carries nothing; for that there is `partition`"));
        if text.trim().parse() == Ok(0.0) {
            return Err(nothing());
        }
        let (number, unit) = number_and_unit(text, "a bandwidth", "Mbit/s", HELP)?;
        let known = unit.strip_suffix("/s").unwrap_or(unit);
        let prefixed = |base: &str| known.strip_suffix(base).and_then(power);
        let factor = prefixed("bit").or_else(|| prefixed("B").map(|power| power * 8.0)).ok_or_else(|| {
            wrong(format!(
                "`{unit}` in `{text}` is not a unit of bandwidth (units: bit/s, kbit/s, Mbit/s, Gbit/s, kB/s, MB/s, GB/s)"
            ))
        })?;
        let bits = number * factor;
        if bits <= 0.0 {
            return Err(nothing());
        }
        if bits < Bandwidth::LEAST as f64 {
            let least = Bandwidth(Bandwidth::LEAST);
            return Err(wrong(format!("`{text}` is less than {least}: one packet would take seconds")));
        }
        if bits > Bandwidth::MOST as f64 {
            let most = Bandwidth(Bandwidth::MOST);
            return Err(wrong(format!("`{text}` is more than {most}, which limits nothing")));
        }
        Ok(Bandwidth(bits.round() as u64))
    }
}

/// The power of ten that a prefix stands for; `tc` writes them small, too.
fn power(prefix: &str) -> Option<f64> {
    match prefix {
        "" => Some(1.0),
        "k" | "K" => Some(1e3),
        "M" | "m" => Some(1e6),
        "G" | "g" => Some(1e9),
        _ => None,
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (factor, unit) in [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")] {
            if self.0 >= factor && self.0.is_multiple_of(factor / 1000) {
                return write!(f, "{}{unit}", self.0 as f64 / factor as f64);
            }
        }
        write!(f, "{}bit/s", self.0)
    }
}

as_text!(Bandwidth, "bandwidth", "string", ["10Mbit/s", "512kbit/s", "1.5MB/s"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_read_and_print() {
        for (text, bits, shown) in [
            ("10Mbit/s", 10_000_000, "10Mbit/s"),
            ("10mbit", 10_000_000, "10Mbit/s"),
            ("512kbit/s", 512_000, "512kbit/s"),
            ("1.5MB/s", 12_000_000, "12Mbit/s"),
            (" 2.5 Gbit/s", 2_500_000_000, "2.5Gbit/s"),
            ("1001bit/s", 1_001, "1.001kbit/s"),
        ] {
            let read: Bandwidth = text.parse().unwrap();
            assert_eq!((read.bits(), read.to_string().as_str()), (bits, shown), "{text}");
            assert_eq!(read.to_string().parse::<Bandwidth>().unwrap(), read);
        }
    }

    #[test]
    fn what_is_no_bandwidth_is_refused_with_a_reason() {
        for (text, what) in [
            ("", "`` is not a bandwidth"),
            ("10", "`10` has no unit"),
            ("0", "`0` carries nothing; for that there is `partition`"),
            ("0Mbit/s", "`0Mbit/s` carries nothing; for that there is `partition`"),
            ("-1Mbit/s", "`-1Mbit/s` carries nothing; for that there is `partition`"),
            ("NaN", "`NaN` is not a bandwidth"),
            ("infMbit/s", "`infMbit/s` is not a bandwidth"),
            ("10bit/s", "`10bit/s` is less than 1kbit/s: one packet would take seconds"),
            ("1000Gbit/s", "`1000Gbit/s` is more than 100Gbit/s, which limits nothing"),
            (
                "10Mib/s",
                "`Mib/s` in `10Mib/s` is not a unit of bandwidth (units: bit/s, kbit/s, Mbit/s, Gbit/s, kB/s, MB/s, GB/s)",
            ),
        ] {
            assert_eq!(text.parse::<Bandwidth>().unwrap_err().what, what, "{text}");
        }
    }

    #[test]
    fn time_and_bytes_agree() {
        let line: Bandwidth = "8Mbit/s".parse().unwrap();
        assert_eq!(line.takes(1_000_000), Duration::from_secs(1));
        assert_eq!(line.within(Duration::from_millis(1)), 1000);
        assert_eq!(line.bytes(), 1_000_000);
    }
}
