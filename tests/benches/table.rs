//! Figures as text.

use std::time::Duration;

/// Sorted, in milliseconds: the p-th percentile.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p / 100.0).round() as usize]
}

/// Median, tail and number of times in milliseconds.
pub fn summary(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    let [p50, p99, most] = [50.0, 99.0, 100.0].map(|p| percentile(&figures, p));
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms, most {most:.2} ms, n {}", figures.len())
}

/// Times in milliseconds.
pub fn milliseconds(times: impl IntoIterator<Item = Duration>) -> Vec<f64> {
    times.into_iter().map(|time| time.as_secs_f64() * 1000.0).collect()
}

/// Begins a table: what it shows, and the names of its columns.
pub fn head(what: &str, columns: &[&str]) {
    println!("\n{what}");
    row(columns.iter().map(|column| (*column).to_owned()));
}

/// One line of a table: the first column is wide, the others are figures.
pub fn row(cells: impl IntoIterator<Item = String>) {
    let cells = cells.into_iter().enumerate();
    let line: Vec<String> =
        cells.map(|(at, cell)| if at == 0 { format!("{cell:<44}") } else { format!("{cell:>14}") }).collect();
    println!("{}", line.join(" ").trim_end());
}
