//! `netem`, the kernel's network emulator, as the leaf of a class: an impairment in its terms.
//!
//! Source: `net/sched/sch_netem.c`, `include/uapi/linux/pkt_sched.h`. A leaf is always made anew, never changed: a change
//! keeps the old value of everything that it does not name.

use squall_experiments::impairment::{Chance, Distribution, Impairment, LossModel};

use super::super::netlink::Message;

/// The kind's name.
pub const KIND: &str = "netem";

/// What stands for one standard deviation in a table (`NETEM_DIST_SCALE`).
const SCALE: f64 = 8192.0;
/// Tables hold what is within four times the jitter. The heavy tails reach three times as far: they are told a jitter
/// that much larger, and deviations that much smaller.
const FAR: u32 = 3;
/// Entries of a table: each is equally likely.
const ENTRIES: u32 = 4096;

/// A share as netem wants it: all of 32 bits is always.
fn share(fraction: f64) -> [u8; 4] {
    ((fraction.clamp(0.0, 1.0) * f64::from(u32::MAX)).round() as u32).to_ne_bytes()
}

fn pair(chance: Chance) -> Vec<u8> {
    [share(chance.percent.fraction()), share(chance.correlation.fraction())].concat()
}

/// The options of a leaf that holds at most `limit` packets. Not for what [`refused`] names.
pub fn options(impairment: &Impairment, limit: u32) -> Vec<u8> {
    let Impairment { loss, duplicate, corrupt, delay, reorder, bottleneck: _ } = impairment;
    let none = Chance::default();
    let random = match loss {
        Some(LossModel::Random(chance)) => *chance,
        _ => none,
    };
    // Who reorders lets some be later than the others: netem lets the others go at once, and these wait.
    let gap = u32::from(reorder.is_some());
    let zero = [0; 4];
    let qopt = [
        zero,
        limit.to_ne_bytes(),
        share(random.percent.fraction()),
        gap.to_ne_bytes(),
        share(duplicate.unwrap_or(none).percent.fraction()),
        zero,
    ];
    let correlations = [
        share(delay.map_or(0.0, |delay| delay.correlation.fraction())),
        share(random.correlation.fraction()),
        share(duplicate.unwrap_or(none).correlation.fraction()),
    ];
    let mut message = Message::new(0, 0).raw(&qopt.concat()).attr(1, &correlations.concat());
    if let Some(reorder) = reorder {
        let at_once = share(1.0 - reorder.chance.percent.fraction());
        message = message.attr(3, &[at_once, share(reorder.chance.correlation.fraction())].concat());
    }
    if let Some(corrupt) = corrupt {
        message = message.attr(4, &pair(*corrupt));
    }
    if let Some(LossModel::GilbertElliott(model)) = loss {
        // On the wire: the chances to turn, the share that is *not* lost while bad, the share that is lost while good.
        let states = [
            share(model.p.fraction()),
            share(model.r.fraction()),
            share(1.0 - model.bad_loss.fraction()),
            share(model.good_loss.fraction()),
        ];
        message = message.nest(5, |m| m.attr(2, &states.concat()));
    }
    let nanos = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let held = delay.map(|delay| delay.delay).or(reorder.map(|reorder| reorder.late));
    message = message.attr(10, &held.map_or(0, |held| nanos(held.get())).to_ne_bytes());
    if let Some(delay) = delay.filter(|delay| !delay.jitter.is_zero()) {
        let jitter = delay.jitter.get() * stretch(delay.distribution);
        message = message.attr(11, &nanos(jitter).to_ne_bytes());
        if delay.distribution != Distribution::Uniform {
            message = message.attr(2, &table(delay.distribution));
        }
    }
    message.inside().to_vec()
}

/// By how much a table's deviations are smaller than they should be, and the jitter larger.
fn stretch(distribution: Distribution) -> u32 {
    match distribution {
        Distribution::Uniform | Distribution::Normal => 1,
        Distribution::Pareto | Distribution::ParetoNormal => FAR,
    }
}

/// Equally likely deviations, in units of the jitter that goes with them.
fn table(distribution: Distribution) -> Vec<u8> {
    let even = |count: u32| (0..count).map(move |index| (f64::from(index) + 0.5) / f64::from(count));
    // A table knows no two independent draws: each of some goes with each of some others.
    let side = ENTRIES.isqrt();
    let both = even(side).flat_map(|one| even(side).map(move |other| (one, other)));
    let values: Vec<f64> = match distribution {
        Distribution::Uniform => even(ENTRIES).map(|share| 2.0 * share - 1.0).collect(),
        Distribution::Normal => even(ENTRIES).map(normal).collect(),
        Distribution::Pareto => even(ENTRIES).map(pareto).collect(),
        Distribution::ParetoNormal => both
            .map(|(one, other)| (0.25 * normal(one) + 0.75 * pareto(other)) / 0.25f64.hypot(0.75))
            .collect(),
    };
    let stretch = f64::from(stretch(distribution));
    let entries = values.into_iter().flat_map(|value| {
        let scaled = (value / stretch * SCALE).round().clamp(f64::from(i16::MIN), f64::from(i16::MAX));
        (scaled as i16).to_ne_bytes()
    });
    entries.collect()
}

/// The deviation below which so large a share of a normal distribution lies.
fn normal(share: f64) -> f64 {
    // Halving an interval needs no coefficients, and a table is made once.
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if below(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The share of a normal distribution below a deviation, by its series. Source: Marsaglia, "Evaluating the normal
/// distribution", 2004.
fn below(deviation: f64) -> f64 {
    let (mut sum, mut term, mut odd) = (deviation, deviation, 3.0);
    while term.abs() > 1e-17 * sum.abs().max(1e-300) && odd < 600.0 {
        term *= deviation * deviation / odd;
        sum += term;
        odd += 2.0;
    }
    (0.5 + sum * (-0.5 * deviation * deviation).exp() / std::f64::consts::TAU.sqrt()).clamp(0.0, 1.0)
}

/// As the packet engine has it: see `queue::dice`.
fn pareto(share: f64) -> f64 {
    super::super::queue::pareto(share)
}

/// Why netem cannot do this; `None` where it can.
pub fn refused(impairment: &Impairment) -> Option<&'static str> {
    let jitters = impairment.delay.is_some_and(|delay| !delay.jitter.is_zero() && !delay.reordering);
    if jitters {
        return Some(
            "it lets packets with different delays overtake each other: `reordering: true` allows that",
        );
    }
    (impairment.delay.is_some() && impairment.reorder.is_some())
        .then_some("it lets what is reordered go at once, without the delay")
}

/// What netem does and tells nobody (`netem_dump` has its options and nothing else): the report must not count it. A fault
/// that asks for nothing else has no measured effect.
pub fn unmeasured(impairment: &Impairment) -> Vec<String> {
    let shares =
        [("corrupts", impairment.corrupt), ("reorders", impairment.reorder.map(|reorder| reorder.chance))];
    let asked = shares.into_iter().filter_map(|(does, chance)| Some((does, chance?.percent)));
    let note = |(does, share)| {
        format!(
            "`netem` does not count what it {does}: {share} was asked for, and nothing of it was measured (`engine: queue` counts)"
        )
    };
    asked.map(note).collect()
}

/// Where netem does not do quite what Squall's own engine does; empty where there is no difference to be seen.
pub fn differences(impairment: &Impairment) -> Vec<&'static str> {
    let Impairment { loss, duplicate, corrupt, delay, reorder, bottleneck } = impairment;
    let random = match loss {
        Some(LossModel::Random(chance)) => Some(*chance),
        _ => None,
    };
    let chances = [random, *duplicate, *corrupt, reorder.map(|reorder| reorder.chance)];
    let correlated = chances.into_iter().flatten().any(|chance| chance.correlation.get() > 0.0)
        || delay.is_some_and(|delay| delay.correlation.get() > 0.0);
    let mut found = Vec::new();
    if correlated {
        found.push("its correlation changes how many packets are hit, not only which");
    }
    if loss.is_some() || duplicate.is_some() || reorder.is_some() {
        found.push("it decides once for each large packet that the interface cuts up later");
    }
    if corrupt.is_some() {
        found.push("it corrupts headers, too, and does not count what it corrupts");
    }
    if bottleneck.is_some() && (delay.is_some() || reorder.is_some() || loss.is_some()) {
        found.push(
            "packets wait for their delay before they wait for the line, in one queue, which is as long as packets of \
             full size need: of many small ones the rest is lost",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use squall_experiments::impairment::Delay;
    use squall_experiments::quantity::Period;

    use super::*;

    fn delay(distribution: Distribution) -> Delay {
        serde_json::from_value(
            serde_json::json!({ "delay": "20ms", "jitter": "5ms", "distribution": distribution, "reordering": true }),
        )
        .unwrap()
    }

    #[test]
    fn a_table_has_the_spread_that_it_says() {
        for (distribution, cut) in
            [(Distribution::Normal, 0.01), (Distribution::Pareto, 0.05), (Distribution::ParetoNormal, 0.12)]
        {
            let bytes = table(distribution);
            let values: Vec<f64> = bytes
                .chunks(2)
                .map(|pair| {
                    f64::from(i16::from_ne_bytes([pair[0], pair[1]])) / SCALE
                        * f64::from(stretch(distribution))
                })
                .collect();
            assert_eq!(values.len(), ENTRIES as usize);
            let mean = values.iter().sum::<f64>() / f64::from(ENTRIES);
            let spread =
                (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / f64::from(ENTRIES)).sqrt();
            assert!(
                mean.abs() < cut && (spread - 1.0).abs() < cut,
                "{distribution}: mean {mean}, spread {spread}"
            );
        }
    }

    #[test]
    fn quantiles_of_the_bell_curve_are_those_of_the_books() {
        for (share, deviation) in [(0.5, 0.0), (0.975, 1.959_964), (0.001, -3.090_232), (0.999_9, 3.719_016)]
        {
            assert!((normal(share) - deviation).abs() < 1e-5, "{share}: {}", normal(share));
        }
    }

    #[test]
    fn a_burst_is_told_by_what_is_not_lost() {
        use super::super::super::netlink::find;
        let loss = serde_json::json!({ "gilbert-elliott": { "p": "1%", "r": "25%", "bad-loss": "100%", "good-loss": "0%" } });
        let loss = Some(serde_json::from_value(loss).unwrap());
        let bytes = options(&Impairment { loss, ..Impairment::default() }, 1000);
        let states = find(find(&bytes[24..], 5).unwrap(), 2).unwrap();
        let words: Vec<u32> =
            states.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [42_949_673, 1_073_741_824, 0, 0]);
    }

    #[test]
    fn order_is_kept_or_the_kernel_is_not_asked() {
        let strict = Delay { reordering: false, ..delay(Distribution::Uniform) };
        let with = |delay| Impairment { delay: Some(delay), ..Impairment::default() };
        assert!(refused(&with(strict)).is_some());
        assert!(refused(&with(Delay { jitter: Period::ZERO, ..strict })).is_none());
        assert!(refused(&with(delay(Distribution::Uniform))).is_none());
        assert!(differences(&with(Delay { jitter: Period::ZERO, ..strict })).is_empty());
    }
}
