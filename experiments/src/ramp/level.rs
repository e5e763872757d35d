//! How hard a fault is: a number with its unit, of whatever kind a parameter takes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::quantity::{Bandwidth, Percent, Period, QuantityError, Size, as_text};

/// A value of a parameter that can be more or less: a time, a percentage, a size, a bandwidth or a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level {
    /// In the smallest steps of its kind.
    amount: u64,
    kind: Kind,
}

/// What a level is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Microseconds.
    Period,
    /// Thousandths of a percent.
    Percent,
    /// Bytes.
    Size,
    /// Bits a second.
    Bandwidth,
    /// Things.
    Count,
}

const HELP: &str = "write it as the parameter is written: `200ms`, `5%`, `64kB`, `10Mbit/s`, `3`";

/// Computed levels are told in so many digits, where that changes them by less than a hundredth or so.
const DIGITS: u32 = 3;

impl Level {
    /// Whether another level is of the same kind: only those can be compared.
    pub fn is_like(self, other: Level) -> bool {
        self.kind == other.kind
    }

    /// Whether it stands for nothing at all.
    pub fn is_zero(self) -> bool {
        self.amount == 0
    }

    /// Whether it is more than another one that is alike.
    pub fn exceeds(self, other: Level) -> bool {
        self.amount > other.amount
    }

    /// Its number in the smallest steps of its kind, to compare levels that are alike.
    pub(super) fn amount(self) -> u64 {
        self.amount
    }

    /// So many times this level, to about three digits.
    pub(super) fn times(self, factor: f64) -> Level {
        let exact = (self.amount as f64 * factor).round() as u64;
        Level { amount: rounded(exact), ..self }
    }

    /// How far apart two levels that are alike are.
    pub(super) fn apart(self, other: Level) -> u64 {
        self.amount.abs_diff(other.amount)
    }

    /// The level in the middle of two others, told in as many digits as this distance needs; `None` where they are no further
    /// apart than that.
    pub(super) fn middle(self, other: Level, within: Level) -> Option<Level> {
        let (low, high) = (self.amount.min(other.amount), self.amount.max(other.amount));
        if high - low <= within.amount.max(1) {
            return None;
        }
        let step = within.step();
        let amount = (low + (high - low) / 2 + step / 2) / step * step;
        Some(Level { amount, ..self })
    }

    /// How often what lies between two levels so far apart is halved at most, until they are as close as this.
    pub(super) fn halvings(self, mut apart: u64) -> usize {
        let mut count = 0;
        while apart > self.amount.max(1) {
            // A middle that is rounded lies beside the middle by half a step at most.
            apart = apart.div_ceil(2) + self.step() / 2;
            count += 1;
        }
        count
    }

    /// The largest power of ten that is no more than a quarter of this: rounded to it, a middle lies well between.
    fn step(self) -> u64 {
        (self.amount / 4).checked_ilog10().map_or(1, |digits| 10u64.saturating_pow(digits))
    }
}

fn rounded(amount: u64) -> u64 {
    let digits = amount.checked_ilog10().unwrap_or(0) + 1;
    let step = 10u64.saturating_pow(digits.saturating_sub(DIGITS));
    amount.saturating_add(step / 2) / step * step
}

impl FromStr for Level {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let level = |amount, kind| Ok(Level { amount, kind });
        let text = text.trim();
        if let Ok(count) = text.parse::<u64>() {
            return level(count, Kind::Count);
        }
        if text.ends_with('%') {
            let percent: Percent = text.parse()?;
            return level((percent.get() * 1000.0).round() as u64, Kind::Percent);
        }
        if let Ok(period) = text.parse::<Period>() {
            let micros = u64::try_from(period.get().as_micros()).unwrap_or(u64::MAX);
            return level(micros, Kind::Period);
        }
        // A size before a bandwidth: what is written without `/s` is read as either.
        if let Ok(size) = text.parse::<Size>() {
            return level(size.bytes(), Kind::Size);
        }
        match text.parse::<Bandwidth>() {
            Ok(bandwidth) => level(bandwidth.bits(), Kind::Bandwidth),
            Err(_) => Err(QuantityError::new(format!("`{text}` is no number with a unit"), HELP)),
        }
    }
}

impl fmt::Display for Level {
    /// As it is written in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Period => Period::from(Duration::from_micros(self.amount)).fmt(f),
            Kind::Percent => write!(f, "{}%", self.amount as f64 / 1000.0),
            Kind::Size => Size::from_bytes(self.amount).fmt(f),
            Kind::Count => self.amount.fmt(f),
            Kind::Bandwidth => {
                let scale = [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")];
                match scale.iter().find(|(factor, _)| self.amount >= *factor) {
                    Some((factor, unit)) => write!(f, "{}{unit}", self.amount as f64 / *factor as f64),
                    None => write!(f, "{}bit/s", self.amount),
                }
            }
        }
    }
}

as_text!(Level, "level", ["string", "integer"], ["200ms", "5%", "10Mbit/s"]);

#[cfg(test)]
mod tests {
    use super::*;

    fn level(text: &str) -> Level {
        text.parse().unwrap()
    }

    #[test]
    fn levels_read_and_print_as_parameters_are_written() {
        for (text, shown) in [
            ("200ms", "200ms"),
            ("0.5%", "0.5%"),
            ("12.5%", "12.5%"),
            ("64kB", "64kB"),
            ("10Mbit/s", "10Mbit/s"),
            ("1.5MB/s", "12Mbit/s"),
            ("7", "7"),
        ] {
            assert_eq!(level(text).to_string(), shown);
            assert_eq!(level(shown), level(text));
        }
        assert!("fast".parse::<Level>().is_err() && "".parse::<Level>().is_err());
        assert!(!level("1s").is_like(level("1%")));
    }

    #[test]
    fn computed_levels_have_few_digits() {
        assert_eq!(level("50ms").times(1.5).times(1.5).to_string(), "113ms");
        let middle = |low, high, within| level(low).middle(level(high), level(within));
        assert_eq!(middle("50ms", "2s", "100ms"), Some(level("1s30ms")));
        assert_eq!(middle("3", "6", "1"), Some(level("4")));
        assert_eq!(middle("3", "4", "1"), None);
        assert_eq!(middle("1s", "1100ms", "100ms"), None);
        assert_eq!((level("100ms").halvings(1_950_000), level("1").halvings(2)), (5, 1));
    }
}
