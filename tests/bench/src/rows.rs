//! Rows of figures.

use serde_json::{Value, json};

/// A figure, and its target where it has one.
pub(crate) struct Row {
    bench: &'static str,
    case: String,
    metric: &'static str,
    value: f64,
    target: Option<(&'static str, f64, bool)>,
    more: Vec<(&'static str, Value)>,
}

impl Row {
    pub(crate) fn new(
        bench: &'static str,
        case: impl Into<String>,
        metric: &'static str,
        value: f64,
    ) -> Self {
        Self {
            bench,
            case: case.into(),
            metric,
            value,
            target: None,
            more: Vec::new(),
        }
    }

    pub(crate) const fn at_least(mut self, target: f64) -> Self {
        self.target = Some(("at least", target, self.value >= target));
        self
    }

    pub(crate) const fn at_most(mut self, target: f64) -> Self {
        self.target = Some(("at most", target, self.value <= target));
        self
    }

    /// A further field.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.more.push((name, value.into()));
        self
    }

    /// Why a target is missed, if it is.
    pub(crate) fn cause(self, cause: impl Into<Value>) -> Self {
        match self.target {
            Some((_, _, false)) => self.with("cause", cause),
            Some((_, _, true)) | None => self,
        }
    }

    pub(crate) fn print(self) -> anyhow::Result<()> {
        // Seconds to the nanosecond: some of them are few.
        let places = if self.metric == "seconds" { 1e9 } else { 1e4 };
        let value = (self.value * places).round() / places;
        let mut row = json!({
            "bench": self.bench, "case": self.case, "metric": self.metric, "value": value,
        });
        if let Some((bound, target, ok)) = self.target {
            row["bound"] = bound.into();
            row["target"] = target.into();
            row["ok"] = ok.into();
        }
        for (name, value) in self.more {
            row[name] = value;
        }
        crate::record(&row)
    }
}
