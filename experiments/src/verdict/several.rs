//! Several claims at once, with the error of all of them together kept.

/// The evidence against each of several hypotheses that is left when all of them are asked at once: where it reaches
/// 1/α, the chance that even one of those found wrong is right is at most α, however they depend on each other (the
/// method of Holm for e-values, Vovk and Wang, 2021).
///
/// It is the smallest mean of an evidence with any of the smaller ones.
pub fn e_holm(evidence: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = evidence.to_vec();
    sorted.sort_by(f64::total_cmp);
    let corrected = |own: &f64| {
        let (mut sum, mut smallest, mut left_out) = (*own, *own, false);
        for (others, other) in (2u32..).zip(sorted.iter().filter(|other| {
            // One of those that equal it is itself.
            let itself = !left_out && other.total_cmp(own).is_eq();
            left_out |= itself;
            !itself
        })) {
            sum += other;
            smallest = smallest.min(sum / f64::from(others));
        }
        smallest
    };
    evidence.iter().map(corrected).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_claim_is_not_corrected() {
        assert_eq!(e_holm(&[25.0]), [25.0]);
        assert_eq!(e_holm(&[]), [0.0; 0]);
    }

    #[test]
    fn small_evidence_of_others_is_paid_for() {
        assert_eq!(e_holm(&[30.0, 0.0]), [15.0, 0.0]);
        assert_eq!(e_holm(&[0.0, 30.0, 60.0]), [0.0, 15.0, 30.0]);
        // Two that are both strong do not weaken each other.
        assert_eq!(e_holm(&[100.0, 100.0]), [100.0, 100.0]);
    }

    #[test]
    fn it_is_never_worse_than_dividing_the_error() {
        for evidence in [[200.0, 0.2, 0.3, 0.9], [45.0, 44.0, 0.1, 0.1], [1.0, 2.0, 3.0, 400.0]] {
            for (own, corrected) in evidence.iter().zip(e_holm(&evidence)) {
                assert!(corrected >= own / 4.0 && corrected <= *own, "{own} {corrected}");
            }
        }
    }
}
