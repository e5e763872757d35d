//! The run beside an earlier one.

use squall_experiments::summary::{Regression, Trend};

use super::markup::Markup;

/// Writes the section.
pub(super) fn earlier(page: &mut Markup, regression: &Regression) {
    page.element("section", &[], |page| {
        page.text("h2", &[], "Compared with an earlier run");
        let sentence = regression.sentence.as_deref().unwrap_or("it was cut off before its end");
        page.prosaic(
            "p",
            &[],
            &format!(
                "Run {} of {} (squall {}): {sentence}.",
                regression.run, regression.date, regression.version
            ),
        );
        let rows: Vec<Vec<String>> = regression
            .comparisons
            .iter()
            .map(|compared| {
                let sign = match compared.trend {
                    Trend::Worse => "✗ ",
                    Trend::NoWorse => "✓ ",
                    Trend::Noise | Trend::NoData => "",
                };
                vec![
                    format!("{}: {}", compared.claim, compared.aspect.word()),
                    format!("{sign}{}", compared.trend.word()),
                    compared.earlier.clone(),
                    compared.now.clone(),
                    compared.why.clone(),
                ]
            })
            .collect();
        let heads = ["what", "verdict", "earlier", "now", "why"];
        page.table("What was seen while the fault was live, in both runs", &heads, &rows);
    });
}
