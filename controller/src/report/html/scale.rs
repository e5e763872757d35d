//! From figures to places on a chart, and where its axes have marks.

use squall_experiments::verdict::percent;

/// How wide a chart is, in units of its drawing; it is stretched to the width of the page.
pub(super) const WIDE: f64 = 1000.0;
/// How high one is.
pub(super) const HIGH: f64 = 200.0;

/// Marks of an axis: where each stands, from 0 to 1, and what it says.
pub(super) type Marks = Vec<(f64, String)>;

/// The time of a run, from its begin to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    took_ms: u64,
}

impl Time {
    pub(super) fn new(took_ms: u64) -> Time {
        Time { took_ms: took_ms.max(1) }
    }

    /// Where a moment lies, from 0 to 1.
    pub(super) fn share(self, at_ms: u64) -> f64 {
        (at_ms as f64 / self.took_ms as f64).min(1.0)
    }

    /// The same in units of a drawing.
    pub(super) fn x(self, at_ms: u64) -> f64 {
        self.share(at_ms) * WIDE
    }

    /// Four to six marks.
    pub(super) fn marks(self) -> Marks {
        let steps = [
            100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000,
            1_200_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 43_200_000,
        ];
        let fits = |step: &u64| self.took_ms / step <= 5;
        let step = steps.into_iter().find(fits).unwrap_or_else(|| self.took_ms.div_ceil(5));
        let marks = (0..=self.took_ms / step).map(|number| number * step);
        marks.map(|at_ms| (self.share(at_ms), clock(at_ms))).collect()
    }
}

/// A moment of a run: `500 ms`, `12 s`, `2 min`, `2:30 min`, `3 h`.
fn clock(ms: u64) -> String {
    match ms {
        0 => "0".to_owned(),
        ms if ms < 10_000 && !ms.is_multiple_of(1000) => format!("{:.1} s", ms as f64 / 1000.0),
        ms if ms <= 120_000 && !ms.is_multiple_of(60_000) => format!("{} s", ms / 1000),
        ms if ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        ms if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        ms => format!("{}:{:02} min", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// What lies how high.
#[derive(Clone, Copy, Debug)]
pub(super) enum Height {
    /// Shares, from nothing to a largest one.
    Share(f64),
    /// Times in seconds, on a logarithmic scale between two of them. Above them is a strip for what has no time, if that
    /// is so.
    Time { from: f64, to: f64, strip: bool },
}

/// How much of the height the strip for what has no time takes.
const STRIP: f64 = 0.12;

impl Height {
    /// A scale for shares up to this one.
    pub(super) fn of_shares(largest: f64) -> Height {
        let steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6];
        Height::Share(steps.into_iter().find(|step| largest <= *step).unwrap_or(1.0))
    }

    /// A scale for times in seconds; `None` without any.
    pub(super) fn of_times(times: impl Iterator<Item = f64>, strip: bool) -> Option<Height> {
        let positive = times.filter(|time| *time > 0.0);
        let (from, to) =
            positive.fold((f64::INFINITY, 0.0_f64), |(from, to), time| (from.min(time), to.max(time)));
        (to > 0.0).then(|| {
            let (from, to) = (round(from, false), round(to, true));
            Height::Time { from, to: if to > from { to } else { from * 2.0 }, strip }
        })
    }

    /// How high a figure lies, from 0 to 1.
    pub(super) fn share(self, value: f64) -> f64 {
        let share = match self {
            Height::Share(most) => value / most,
            Height::Time { from, to, strip } => {
                let room = if strip { 1.0 - STRIP } else { 1.0 };
                (value.max(1e-12) / from).ln() / (to / from).ln() * room
            }
        };
        share.clamp(0.0, 1.0)
    }

    /// The same in units of a drawing, counted from its upper edge.
    pub(super) fn y(self, value: f64) -> f64 {
        (1.0 - self.share(value)) * HIGH
    }

    /// Where what has no time is drawn.
    pub(super) fn never(self) -> f64 {
        STRIP / 3.0 * HIGH
    }

    /// Three to six marks.
    pub(super) fn marks(self) -> Marks {
        match self {
            Height::Share(most) => {
                // Steps that can be said with two digits.
                let steps = if [0.05, 0.005, 0.001].contains(&most) { 5 } else { 4 };
                let mark = |step: u32| most * f64::from(step) / f64::from(steps);
                (0..=steps).map(|step| (self.share(mark(step)), percent(mark(step)))).collect()
            }
            Height::Time { from, to, strip } => {
                let mut known: Vec<f64> = Vec::new();
                let mut next = from;
                while next <= to * 1.0001 {
                    known.push(next);
                    next = round(next * 1.5, true);
                }
                // Where all of them are too many, those that are powers of ten, and the ends.
                let decades = (to / from).log10();
                let shown = known.into_iter().filter(|time| {
                    let power = (time.log10() - time.log10().round()).abs() < 1e-6;
                    decades <= 1.4 || power
                });
                let word = |time: f64| squall_experiments::summary::in_words((time * 1e6).round() as u64);
                let mut marks: Marks = shown.map(|time| (self.share(time), short(&word(time)))).collect();
                if strip {
                    marks.push((1.0 - STRIP / 3.0, "none".to_owned()));
                }
                marks
            }
        }
    }
}

/// `1.0 ms` as `1 ms`.
fn short(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

/// The next of 1, 2, 5, 10, 20… that is not below (or not above) a figure.
fn round(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let slack = 1e-9 * value;
    let found = if up {
        steps.into_iter().find(|step| *step >= value - slack)
    } else {
        steps.into_iter().rev().find(|step| *step <= value + slack)
    };
    found.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(marks: Marks) -> Vec<String> {
        marks.into_iter().map(|(_, word)| word).collect()
    }

    #[test]
    fn time_has_a_handful_of_marks_in_steps_that_one_can_count() {
        assert_eq!(words(Time::new(3_221).marks()), ["0", "1 s", "2 s", "3 s"]);
        assert_eq!(words(Time::new(65_000).marks()), ["0", "20 s", "40 s", "1 min"]);
        assert_eq!(words(Time::new(9_000_000).marks()), ["0", "30 min", "1 h", "90 min", "2 h", "150 min"]);
        for took_ms in [0, 1, 99, 1_500, 44_000, 7_000_000, 90_000_000, 900_000_000] {
            let marks = Time::new(took_ms).marks();
            assert!((1..=6).contains(&marks.len()), "{took_ms}: {marks:?}");
            assert!(marks.iter().all(|(at, _)| (0.0..=1.0).contains(at)));
        }
    }

    #[test]
    fn shares_begin_at_nothing_and_end_above_the_largest() {
        assert_eq!(words(Height::of_shares(0.07).marks()), ["0 %", "2.5 %", "5 %", "7.5 %", "10 %"]);
        assert_eq!(words(Height::of_shares(0.9).marks()), ["0 %", "25 %", "50 %", "75 %", "100 %"]);
        assert_eq!(words(Height::of_shares(0.04).marks()), ["0 %", "1 %", "2 %", "3 %", "4 %", "5 %"]);
        assert_eq!(Height::of_shares(1.0).y(1.0), 0.0);
        assert_eq!(Height::of_shares(1.0).y(0.0), HIGH);
    }

    #[test]
    fn times_are_logarithmic_and_those_of_nobody_stand_apart() {
        let scale = Height::of_times([0.0012, 0.31].into_iter(), true).unwrap();
        assert_eq!(words(scale.marks()), ["1 ms", "10 ms", "100 ms", "none"]);
        assert!(scale.y(0.31) > scale.never());
        let narrow = Height::of_times([0.0012, 0.0019].into_iter(), false).unwrap();
        assert_eq!(words(narrow.marks()), ["1 ms", "2 ms"]);
        let one = Height::of_times(std::iter::once(0.002), false).unwrap();
        assert!(one.y(0.002).is_finite());
        assert!(Height::of_times([0.0].into_iter(), true).is_none());
    }
}
