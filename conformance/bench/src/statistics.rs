//! The little statistics that the tables need. Medians, because other work of the machine only ever
//! makes a run slower; geometric means, because what is averaged are ratios.

use serde_json::{Value, json};

/// What several runs of the same thing gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Nothing when there are no values. The median of an even number is between the middle two.
pub(crate) fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(Spread { median: f64::midpoint(lower, upper), min, max })
}

/// All values and their spread, for a file of results.
pub(crate) fn values_json(values: &[f64]) -> Value {
    match spread(values) {
        Some(spread) => json!({
            "median": spread.median, "min": spread.min, "max": spread.max, "all": values,
        }),
        None => Value::Null,
    }
}

/// The median alone.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    spread(values).map(|spread| spread.median)
}

/// Nothing when there are no values, or one that isn't above zero.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|value| *value <= 0.0 || !value.is_finite()) {
        return None;
    }
    let sum: f64 = values.iter().map(|value| value.ln()).sum();
    Some((sum / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_number_is_the_middle_one() {
        assert_eq!(spread(&[9.0, 1.0, 4.0]), Some(Spread { median: 4.0, min: 1.0, max: 9.0 }));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(spread(&[8.0, 1.0, 2.0, 4.0]), Some(Spread { median: 3.0, min: 1.0, max: 8.0 }));
    }

    #[test]
    fn nothing_has_no_spread_and_no_mean() {
        assert_eq!((spread(&[]), geometric_mean(&[])), (None, None));
    }

    #[test]
    fn a_geometric_mean_is_the_root_of_the_product() {
        let mean = geometric_mean(&[2.0, 8.0, 4.0]).unwrap();

        assert!((mean - 4.0).abs() < 1e-9, "{mean}");
    }

    #[test]
    fn a_ratio_of_zero_has_no_geometric_mean() {
        assert_eq!(geometric_mean(&[2.0, 0.0]), None);
    }
}
