//! What was read of a plan, with the place of every word.

use std::collections::BTreeMap;

use super::mistake::Place;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// What a field holds, once it is of the right kind.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Texts(Vec<Placed<String>>),
    Number(u32),
    Flag(bool),
}

/// One `[section]` of a plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) fields: BTreeMap<&'static str, Placed<Value>>,
    /// Fields that are there, and mistakes by themselves.
    pub(super) wrong: Vec<&'static str>,
}

impl Entry {
    /// The words of a field, where they are there and of the right kind.
    pub(super) fn text(&self, name: &str) -> Option<Placed<&str>> {
        let found = self.fields.get(name)?;
        let Value::Text(value) = &found.value else {
            return None;
        };
        let place = found.place;
        Some(Placed { value, place })
    }

    /// The words of a field of several.
    pub(super) fn texts(&self, name: &str) -> Option<Placed<&[Placed<String>]>> {
        let found = self.fields.get(name)?;
        let Value::Texts(value) = &found.value else {
            return None;
        };
        let place = found.place;
        Some(Placed { value, place })
    }

    /// A number.
    pub(super) fn number(&self, name: &str) -> Option<Placed<u32>> {
        let found = self.fields.get(name)?;
        let Value::Number(value) = found.value else {
            return None;
        };
        let place = found.place;
        Some(Placed { value, place })
    }

    /// Whether a flag is set.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(
            self.fields.get(name),
            Some(Placed {
                value: Value::Flag(true),
                ..
            })
        )
    }

    /// What a name stands for that the tables have checked.
    pub(super) fn named<T: std::str::FromStr>(&self, name: &str) -> Option<Placed<T>> {
        let Placed { value, place } = self.text(name)?;
        let value = value.parse().ok()?;
        Some(Placed { value, place })
    }
}

/// All sections that were found, in the order of the text.
pub(super) type Entries = BTreeMap<&'static str, Vec<Entry>>;

/// Finds lines and columns.
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    /// Where lines begin.
    lines: Vec<usize>,
}

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        Self { text, lines }
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|begin| *begin <= offset).max(1);
        let begin = self.lines.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(begin..offset).unwrap_or("");
        Place {
            line,
            column: before.chars().count() + 1,
        }
    }
}
