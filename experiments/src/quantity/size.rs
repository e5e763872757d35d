//! How many bytes.

use std::fmt;
use std::str::FromStr;

use super::{QuantityError, as_text, number_and_unit};

/// How many bytes: `64kB`, `1MB`, `1500B`; `KiB` and `MiB` are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(u64);

const HELP: &str = "write it as `64kB`, `1MB` or `1500B`";

/// What one unit is, the largest first within its kind.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Size(bytes)
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = |what: String| QuantityError::new(what, HELP);
        let (number, unit) = number_and_unit(text, "a size", "kB", HELP)?;
        if number < 0.0 {
            return Err(wrong(format!("`{text}` is negative")));
        }
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let (_, factor) = known.ok_or_else(|| {
            wrong(format!("`{unit}` in `{text}` is not a unit of size (units: B, kB, MB, GB, KiB, MiB, GiB)"))
        })?;
        let bytes = number * *factor as f64;
        if bytes.fract() != 0.0 || bytes > (1u64 << 50) as f64 {
            return Err(wrong(format!("`{text}` is not a whole number of bytes that a machine holds")));
        }
        Ok(Size(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        // Decimal first: `64000` is `64kB`; what is only round in powers of two is shown in them.
        let decimal = UNITS[3..6].iter().find(whole);
        let (unit, factor) = decimal.or_else(|| UNITS[..3].iter().find(whole)).unwrap_or(&UNITS[6]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

as_text!(Size, "size", "string", ["64kB", "1MB", "1500B"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, shown) in [
            ("64kB", 64_000, "64kB"),
            ("64KiB", 65_536, "64KiB"),
            ("1.5MB", 1_500_000, "1500kB"),
            ("1500b", 1500, "1500B"),
            ("0B", 0, "0B"),
            ("2GB", 2_000_000_000, "2GB"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown), "{text}");
            assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_a_reason() {
        for (text, what) in [
            ("", "`` is not a size"),
            ("64", "`64` has no unit"),
            ("-1kB", "`-1kB` is negative"),
            ("1.0001kB", "`1.0001kB` is not a whole number of bytes that a machine holds"),
            ("3PB", "`PB` in `3PB` is not a unit of size (units: B, kB, MB, GB, KiB, MiB, GiB)"),
        ] {
            assert_eq!(text.parse::<Size>().unwrap_err().what, what, "{text}");
        }
    }
}
