//! Pages of lists, and the places where they end.

use super::StoreError;
use super::sql::Value;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// `after` of the next page; `None`: this was the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The first `limit` of what was found, of which one more was asked for than fits.
    pub(super) fn of(mut items: Vec<T>, limit: u64, place: impl Fn(&T) -> String) -> Self {
        let more = items.len() as u64 > limit;
        items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next = items.last().filter(|_| more).map(place);
        Page { items, next }
    }
}

/// Where a page ended that goes by time and id: `TIME.ID`.
pub(super) fn place(cursor: &str) -> Result<(u64, String), StoreError> {
    let read = || {
        let (at, id) = cursor.split_once('.')?;
        let at = at.parse().ok().filter(|at| i64::try_from(*at).is_ok())?;
        Some((at, id.to_owned()))
    };
    read().ok_or_else(|| StoreError::Missing(format!("page `{cursor}`")))
}

/// The values of `made_at > $1 OR (made_at = $1 AND id > $2)` and of a limit `$3`, for what follows a page.
pub(super) fn following(after: Option<&str>, limit: u64) -> Result<[Value; 3], StoreError> {
    let (at, id) = after.map_or(Ok((0, String::new())), place)?;
    Ok([at.into(), Value::Text(id), (limit + 1).into()])
}
