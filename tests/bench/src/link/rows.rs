//! Rows of figures.

use serde_json::json;

/// A figure, and its target where it has one.
pub(super) struct Row {
    case: String,
    metric: &'static str,
    value: f64,
    target: Option<(&'static str, f64, bool)>,
}

impl Row {
    pub(super) fn new(case: impl Into<String>, metric: &'static str, value: f64) -> Self {
        Self {
            case: case.into(),
            metric,
            value,
            target: None,
        }
    }

    pub(super) const fn at_least(mut self, target: f64) -> Self {
        self.target = Some(("at least", target, self.value >= target));
        self
    }

    pub(super) const fn at_most(mut self, target: f64) -> Self {
        self.target = Some(("at most", target, self.value <= target));
        self
    }

    pub(super) fn print(self) -> anyhow::Result<()> {
        let value = (self.value * 10_000.0).round() / 10_000.0;
        let mut row = json!({
            "bench": "link", "case": self.case, "metric": self.metric, "value": value,
        });
        if let Some((bound, target, ok)) = self.target {
            row["bound"] = bound.into();
            row["target"] = target.into();
            row["ok"] = ok.into();
        }
        crate::record(&row)
    }
}
