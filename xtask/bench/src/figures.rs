//! What many measurements come to.

/// Measured values of one thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// All of them, as they came.
    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    /// The value that `percent` of 100 values do not exceed (nearest rank); 0 of nothing.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sample: Sample = (1..=200).map(f64::from).collect();
        assert_eq!(sample.percentile(50.0), 100.0);
        assert_eq!(sample.percentile(99.0), 198.0);
        assert_eq!(sample.percentile(100.0), 200.0);
        assert_eq!(Sample::default().percentile(99.0), 0.0);
        assert_eq!(Sample::from_iter([7.0]).percentile(1.0), 7.0);
    }
}
