//! Several measurements of one thing.

use serde::Serialize;

/// The one in the middle, and between what they lie.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Series {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Series {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self {
            median: percentile(&values, 50),
            least: percentile(&values, 0),
            most: percentile(&values, 100),
        }
    }
}

/// Of sorted values; zero of none.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent).div_ceil(100).min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let series = Series::of([3.0, 1.0, 2.0]);
        assert_eq!((series.median, series.least, series.most), (2.0, 1.0, 3.0));
        assert_eq!(percentile(&[], 50), 0.0);
        let hundred: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 99), 99.0);
    }
}
