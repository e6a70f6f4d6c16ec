//! What goes into a database and comes out of it: whole numbers, text and bytes, each with a kind of its own for "nothing". Every SQL
//! database has these, and means the same by them.

use std::sync::Arc;

use super::Fault;

/// A value for a parameter, or from a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::station) enum Value {
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// What may be given to a statement.
pub(in crate::station) trait ToValue {
    fn to_value(&self) -> Value;
    /// Nothing, of this kind.
    fn nothing() -> Value;
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value {
        T::to_value(self)
    }

    fn nothing() -> Value {
        T::nothing()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or_else(T::nothing, ToValue::to_value)
    }

    fn nothing() -> Value {
        T::nothing()
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Value {
                Value::Number(Some(i64::from(*self)))
            }

            fn nothing() -> Value {
                Value::Number(None)
            }
        }
    )*};
}
number!(bool, u16, u32, i64);

macro_rules! text {
    ($($type:ty),*) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Value {
                Value::Text(Some(str::to_owned(self)))
            }

            fn nothing() -> Value {
                Value::Text(None)
            }
        }
    )*};
}
text!(str, String);

impl ToValue for [u8] {
    fn to_value(&self) -> Value {
        Value::Bytes(Some(self.to_vec()))
    }

    fn nothing() -> Value {
        Value::Bytes(None)
    }
}

impl ToValue for Vec<u8> {
    fn to_value(&self) -> Value {
        self.as_slice().to_value()
    }

    fn nothing() -> Value {
        <[u8]>::nothing()
    }
}

impl<const N: usize> ToValue for [u8; N] {
    fn to_value(&self) -> Value {
        self.as_slice().to_value()
    }

    fn nothing() -> Value {
        <[u8]>::nothing()
    }
}

/// The values of `?1`, `?2` and so on.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        &[$($crate::station::database::ToValue::to_value(&$value)),*]
    };
}

/// The values of `:name` and so on.
macro_rules! named {
    ($($name:literal: $value:expr),* $(,)?) => {
        &[$(($name, $crate::station::database::ToValue::to_value(&$value))),*]
    };
}

pub(in crate::station) use {named, values};

/// What may be taken from a column. What is there and is no such value is an error, never a default.
pub(in crate::station) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(None) | Value::Text(None) | Value::Bytes(None) => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

macro_rules! from_number {
    ($($type:ty),*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Number(Some(number)) => Self::try_from(*number).ok(),
                    Value::Number(None) | Value::Text(_) | Value::Bytes(_) => None,
                }
            }
        }
    )*};
}
from_number!(u16, u32, u64, i64);

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(Some(0)) => Some(false),
            Value::Number(Some(1)) => Some(true),
            Value::Number(_) | Value::Text(_) | Value::Bytes(_) => None,
        }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => text.clone(),
            Value::Number(_) | Value::Bytes(_) => None,
        }
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Number(_) | Value::Text(_) => None,
        }
    }
}

impl<const N: usize> FromValue for [u8; N] {
    fn from_value(value: &Value) -> Option<Self> {
        Vec::from_value(value)?.try_into().ok()
    }
}

/// A row of an answer.
#[derive(Clone, Debug)]
pub(in crate::station) struct Row {
    pub(super) columns: Arc<[String]>,
    pub(super) values: Vec<Value>,
}

impl Row {
    /// The value of a column.
    pub(in crate::station) fn get<T: FromValue>(&self, column: &str) -> Result<T, Fault> {
        let names = self.columns.iter().zip(&self.values);
        names
            .filter(|(name, _)| *name == column)
            .find_map(|(_, value)| T::from_value(value))
            .ok_or_else(|| Self::wrong(column))
    }

    /// The value of the only column.
    pub(in crate::station) fn only<T: FromValue>(&self) -> Result<T, Fault> {
        let value = self.values.first().and_then(T::from_value);
        value.ok_or_else(|| Self::wrong("1"))
    }

    pub(in crate::station) fn wrong(column: &str) -> Fault {
        Fault::Column(column.to_owned())
    }
}
