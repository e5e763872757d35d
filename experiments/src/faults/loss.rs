use super::shaping::{chance, shaping};
use super::{Describe, Wrong};
use crate::change::Change;
use crate::impairment::{GilbertElliott, Impairment, LossModel};
use crate::quantity::Percent;
use crate::scope::Scope;

shaping! {
    /// Packets are lost on their way, as over a bad line: neither sender nor receiver is told. Exactly one of `percent`
    /// and `gilbert-elliott` is given.
    Loss {
        /// The share of packets that are lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub percent: Option<Percent>,
        /// The correlation between one packet and the next; the share stays what it is.
        #[serde(default)]
        pub correlation: Percent,
        /// Lose that share in bursts of so many packets on average.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1000000))]
        pub burst: Option<f64>,
        /// A network that is well or bad for a while, in full.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub gilbert_elliott: Option<GilbertElliott>,
    }
}

impl Loss {
    /// The model that the parameters ask for, and what is wrong with them.
    fn model(&self, wrong: &mut Wrong) -> Option<LossModel> {
        if let Some(model) = self.gilbert_elliott {
            if self.percent.is_some() || self.burst.is_some() || self.correlation.get() > 0.0 {
                let help = "leave `percent`, `burst` and `correlation` out, or `gilbert-elliott`";
                wrong.with(
                    "gilbert-elliott",
                    "it says by itself how much is lost, and in which bursts",
                    help,
                );
            }
            let model = LossModel::GilbertElliott(model);
            if model.share() == 0.0 {
                let help =
                    "let it turn bad (`p` above zero), or lose something while it is good (`good-loss`)";
                wrong.with("gilbert-elliott", "this network never loses anything", help);
            }
            return Some(model);
        }
        let Some(percent) = self.percent else {
            let help = "write `percent: 5%`, or describe a bursty network with `gilbert-elliott`";
            wrong.overall("nothing says how much is lost", help);
            return None;
        };
        let random = chance(percent, self.correlation, wrong);
        let Some(burst) = self.burst else {
            return Some(LossModel::Random(random));
        };
        if self.correlation.get() > 0.0 {
            let help = "write `burst`, the mean length of a burst, or `correlation`, not both";
            wrong.with("correlation", "`burst` says already how losses follow each other", help);
        }
        // Simple Gilbert: bursts last 1/r packets, and the share p/(p+r) is lost.
        let share = percent.fraction();
        let leave = 1.0 / burst;
        // Rounded, so that the shortest possible burst is possible: 9 packets at 90%.
        let enter = (leave * share / (1.0 - share) * 1e12).round() / 1e12;
        let (Ok(p), Ok(r)) = (Percent::new(enter * 100.0), Percent::new(leave * 100.0)) else {
            let help =
                "bursts are at least 1 packet long, and longer the more is lost: at 90% at least 9 packets";
            wrong.with("burst", format!("{percent} cannot be lost in bursts of {burst} packets"), help);
            return None;
        };
        let model = GilbertElliott { p, r, bad_loss: Percent::ALL, good_loss: Percent::default() };
        Some(LossModel::GilbertElliott(model))
    }
}

impl Describe for Loss {
    const NAME: &'static str = "loss";
    const SUMMARY: &'static str = "packets are lost on their way, as over a bad line";
    const ENGINE: &'static str = "a packet queue in Squall's own nftables table";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str =
        "- fault: { loss: { percent: 5%, to: [\"catalogue.internal:8080\"] } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        self.check_traffic(scope, wrong);
        self.model(wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let loss = self.model(&mut Wrong::default());
        vec![self.shape(self.direction, Impairment { loss, ..Impairment::default() }, scope)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(percent: &str, burst: Option<f64>) -> Loss {
        Loss {
            percent: Some(percent.parse().unwrap()),
            burst,
            to: vec!["any".parse().unwrap()],
            ..Loss::default()
        }
    }

    #[test]
    fn bursts_keep_the_share() {
        for (percent, burst) in [("1%", 5.0), ("10%", 3.0), ("90%", 9.0), ("5%", 1.0)] {
            let model = loss(percent, Some(burst)).model(&mut Wrong::default()).unwrap();
            let wanted: Percent = percent.parse().unwrap();
            assert!(
                (model.share() - wanted.fraction()).abs() < 1e-12,
                "{percent} {burst}: {}",
                model.share()
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let findings = |loss: &Loss| {
            let mut wrong = Wrong::default();
            loss.check(None, &mut wrong);
            wrong.into_findings().into_iter().map(|finding| finding.parameter).collect::<Vec<_>>()
        };
        assert_eq!(findings(&loss("5%", None)), []);
        assert_eq!(findings(&loss("90%", Some(2.0))), [Some("burst")]);
        assert_eq!(findings(&loss("5%", Some(0.5))), [Some("burst")]);
        assert_eq!(findings(&loss("5%", Some(f64::NAN))), [Some("burst")]);
        assert_eq!(findings(&loss("0%", None)), [Some("percent")]);
        assert_eq!(findings(&Loss { percent: None, ..loss("5%", None) }), [None]);
        let model = GilbertElliott {
            p: Percent::ALL,
            r: Percent::ALL,
            bad_loss: Percent::ALL,
            good_loss: Percent::ALL,
        };
        assert_eq!(
            findings(&Loss { gilbert_elliott: Some(model), ..loss("5%", None) }),
            [Some("gilbert-elliott")]
        );
    }
}
