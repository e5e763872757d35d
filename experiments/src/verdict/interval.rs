//! How sure a share or a quantile is.

use statrs::function::beta::{beta_reg, ln_beta};

/// The shares that so many bad of all requests do not exclude, both ends included: with confidence 1 - `alpha` at
/// every moment of a run at once, so it may be looked at as often as one likes.
///
/// The inversion of a mixture over all shares with the weight of Jeffreys, Beta(1/2, 1/2) (Robbins, 1970; Howard and
/// Ramdas, 2022).
pub fn anytime_share(all: u64, bad: u64, alpha: f64) -> (f64, f64) {
    let (all, bad) = (all as f64, bad.min(all) as f64);
    if all == 0.0 {
        return (0.0, 1.0);
    }
    let mixture = ln_beta(bad + 0.5, all - bad + 0.5) - ln_beta(0.5, 0.5);
    let inside = |share: f64| mixture - ln_likelihood(bad, all - bad, share) < -alpha.ln();
    let seen = bad / all;
    let low = if bad == 0.0 { 0.0 } else { edge(seen, 0.0, inside) };
    let high = if bad == all { 1.0 } else { edge(seen, 1.0, inside) };
    (low, high)
}

/// The ranks, counted from 1, between which the order statistic of a quantile lies: with confidence 1 - `alpha` at every
/// moment of a run at once. The upper one may be one more than there are values: then nothing bounds the quantile from
/// above. `quantile` is between 0 and 1, both excluded.
pub fn anytime_ranks(all: u64, quantile: f64, alpha: f64) -> (u64, u64) {
    let (a, b) = (20.0 * quantile, 20.0 * (1.0 - quantile));
    let prior = ln_beta(a, b);
    let inside = |rank: u64| {
        let (below, above) = (rank as f64, (all - rank) as f64);
        let mixture = ln_beta(a + below, b + above) - prior;
        mixture - ln_likelihood(below, above, quantile) < -alpha.ln()
    };
    let middle = ((all as f64 * quantile).round() as u64).min(all);
    let low = last(middle, 0, inside);
    let high = last(middle, all, inside);
    (low, high)
}

/// The share that so many bad of all requests exclude from above with confidence 1 - `alpha`, looked at once (Clopper
/// and Pearson, 1934).
pub fn upper_share(all: u64, bad: u64, alpha: f64) -> f64 {
    if bad >= all { 1.0 } else { beta_quantile(1.0 - alpha, (bad + 1) as f64, (all - bad) as f64) }
}

/// The same from below.
pub fn lower_share(all: u64, bad: u64, alpha: f64) -> f64 {
    if bad == 0 || all == 0 { 0.0 } else { beta_quantile(alpha, bad as f64, (all - bad.min(all) + 1) as f64) }
}

/// The chance of so many bad requests or more, when each is bad with the chance `share`.
pub fn chance_of(all: u64, bad: u64, share: f64) -> f64 {
    match bad {
        0 => 1.0,
        bad if bad > all => 0.0,
        _ if share <= 0.0 => 0.0,
        _ if share >= 1.0 => 1.0,
        bad => beta_reg(bad as f64, (all - bad + 1) as f64, share),
    }
}

/// The value of a Beta distribution below which it lies with a chance. The regularised incomplete beta function
/// increases, so halving finds it to the last bit.
pub(super) fn beta_quantile(chance: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if beta_reg(a, b, middle) < chance { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

fn ln_likelihood(ones: f64, others: f64, share: f64) -> f64 {
    let term = |count: f64, chance: f64| if count > 0.0 { count * chance.ln() } else { 0.0 };
    term(ones, share) + term(others, 1.0 - share)
}

/// Where `inside` ends between a value inside and one that is not.
fn edge(inside_at: f64, outside: f64, inside: impl Fn(f64) -> bool) -> f64 {
    let (mut near, mut far) = (inside_at, outside);
    for _ in 0..100 {
        let middle = f64::midpoint(near, far);
        if inside(middle) { near = middle } else { far = middle }
    }
    near
}

/// The last rank that is inside, from one that is towards an end.
fn last(inside_at: u64, end: u64, inside: impl Fn(u64) -> bool) -> u64 {
    if inside(end) {
        return end;
    }
    let (mut near, mut far) = (inside_at, end);
    while near.abs_diff(far) > 1 {
        let middle = u64::midpoint(near, far);
        if inside(middle) { near = middle } else { far = middle }
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn bounds_of_a_share_are_exact() {
        // Closed forms: without a bad request 1 - α^(1/n), with one request the bound itself, and the rule of symmetry.
        close(upper_share(100, 0, 0.05), 1.0 - 0.05_f64.powf(0.01));
        close(upper_share(750, 0, 0.025), 1.0 - 0.025_f64.powf(1.0 / 750.0));
        close(lower_share(20, 20, 0.05), 0.05_f64.powf(0.05));
        close(upper_share(30, 7, 0.05), 1.0 - lower_share(30, 23, 0.05));
        close(upper_share(5, 5, 0.05), 1.0);
        close(lower_share(5, 0, 0.05), 0.0);
        // At its own bound a count is exactly as unlikely as was asked.
        close(chance_of(400, 13, lower_share(400, 13, 0.05)), 0.05);
        close(1.0 - chance_of(400, 14, upper_share(400, 13, 0.05)), 0.05);
    }

    #[test]
    fn the_chance_of_a_count_is_the_sum_of_its_terms() {
        let term = |bad: u64| {
            let ways: f64 = (0..bad).map(|k| (20 - k) as f64 / (k + 1) as f64).product();
            ways * 0.1_f64.powi(bad as i32) * 0.9_f64.powi(20 - bad as i32)
        };
        for bad in 0..=20 {
            close(chance_of(20, bad, 0.1), (bad..=20).map(term).sum());
        }
        close(chance_of(20, 21, 0.1), 0.0);
        close(chance_of(20, 1, 0.0), 0.0);
    }

    #[test]
    fn ranks_of_quantiles() {
        for (all, quantile, low, high) in [
            (1000, 0.99, 978, 997),
            (3000, 0.99, 2950, 2986),
            (10_000, 0.99, 9862, 9933),
            (1000, 0.5, 450, 550),
        ] {
            let (from, to) = anytime_ranks(all, quantile, 0.05);
            assert!(from.abs_diff(low) <= 1 && to.abs_diff(high) <= 1, "{all} {quantile}: {from} {to}");
        }
    }

    #[test]
    fn an_anytime_interval_holds_what_was_seen_and_shrinks() {
        let (low, high) = anytime_share(1000, 10, 0.05);
        assert!(low > 0.002 && low < 0.01 && high > 0.01 && high < 0.03, "{low} {high}");
        let (narrow, wide) = (anytime_share(100_000, 1000, 0.05), anytime_share(100, 1, 0.05));
        assert!(narrow.1 - narrow.0 < high - low && high - low < wide.1 - wide.0);
        assert_eq!(anytime_share(0, 0, 0.05), (0.0, 1.0));
        assert_eq!(anytime_share(50, 0, 0.05).0, 0.0);
        assert_eq!(anytime_share(50, 50, 0.05).1, 1.0);
    }
}
