//! What both databases are asked by: one text of SQL, with whole numbers and text as the only kinds of value.

use super::StoreError;

/// One value of a row, or of a question. Everything else (yes and no, labels, events) is written as one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Value::Text(text.clone())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        // What is counted or timed here stays far below 2^63; a number that does not would sort as the greatest.
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A row of an answer, its values in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Row(pub Vec<Value>);

impl Row {
    /// The text at a place.
    pub(super) fn text(&self, at: usize) -> Result<String, StoreError> {
        match self.0.get(at) {
            Some(Value::Text(text)) => Ok(text.clone()),
            other => Err(StoreError::Strange(format!("text was expected at {at}, and there is {other:?}"))),
        }
    }

    /// The text at a place, or nothing.
    pub(super) fn some_text(&self, at: usize) -> Result<Option<String>, StoreError> {
        match self.0.get(at) {
            Some(Value::Null) => Ok(None),
            _ => self.text(at).map(Some),
        }
    }

    /// The number at a place.
    pub(super) fn number(&self, at: usize) -> Result<u64, StoreError> {
        match self.0.get(at) {
            Some(Value::Int(number)) if *number >= 0 => Ok(number.unsigned_abs()),
            other => {
                Err(StoreError::Strange(format!("a number was expected at {at}, and there is {other:?}")))
            }
        }
    }

    /// The number at a place, or nothing.
    pub(super) fn some_number(&self, at: usize) -> Result<Option<u64>, StoreError> {
        match self.0.get(at) {
            Some(Value::Null) => Ok(None),
            _ => self.number(at).map(Some),
        }
    }

    /// The JSON at a place.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, at: usize) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(at)?).map_err(|error| StoreError::Strange(error.to_string()))
    }
}

/// What controllers that share a database tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A run or a game day got events, or another state.
    Changed,
    /// Something is there, or gone, on which each of them acts: a halt.
    Ordered,
}

impl Said {
    /// In a word, for the wire.
    pub(super) fn word(self) -> &'static str {
        match self {
            Said::Changed => "changed",
            Said::Ordered => "ordered",
        }
    }
}

/// One connection to a database, used by one thread.
///
/// Places for values are written `$1`, `$2`, …; the text itself never holds a `$` otherwise, nor a value. Rows that another
/// controller has locked are passed by with `FOR UPDATE SKIP LOCKED`, in just these words.
pub(super) trait Sql {
    /// Does something; gives the number of rows that it concerned.
    fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError>;

    /// Asks for rows.
    fn query(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, StoreError>;

    /// Runs several statements without values, divided by `;`.
    fn batch(&mut self, sql: &str) -> Result<(), StoreError>;

    /// Waits until nobody else migrates this database, to the end of the transaction.
    fn migrates_alone(&mut self) -> Result<(), StoreError>;

    /// Sees to it that there is a connection: makes it anew where it is known to be gone. Cheap when it is there.
    fn ready(&mut self) -> Result<(), StoreError>;

    /// Tells the others on this database, once the transaction is committed; where there are none it does nothing.
    fn say(&mut self, said: Said) -> Result<(), StoreError>;

    /// Asks for the one row that there is, or none.
    fn one(&mut self, sql: &'static str, values: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, values)?.into_iter().next())
    }
}
