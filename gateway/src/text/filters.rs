//! Functions and filters that chat templates expect beyond Jinja itself, as the `transformers` library provides them.
//!
//! `raise_exception` ends a rendering with the template's own message. `strftime_now` gives the date, in UTC, of the
//! time that is passed in. `is iterable` follows Python. `tojson` has a file of its own.

use minijinja::{Error, ErrorKind, State, Value};

use super::calendar::strftime;

/// Name of the template variable with the rendering's time, in seconds since 1970.
pub(super) const NOW: &str = "__now";

/// `raise_exception(message)`.
pub(super) fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(invalid(message.to_owned()))
}

/// `value is iterable`. As in Python, `none` is not iterable, although the engine iterates over it as over an empty
/// list.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// `strftime_now(format)`.
pub(super) fn strftime_now(state: &State, format: &str) -> Result<String, Error> {
    let now = state.lookup(NOW).and_then(|now| u64::try_from(now).ok()).unwrap_or(0);
    strftime(now, format).ok_or_else(|| {
        invalid(format!("strftime_now: expected %a %A %b %B %d %H %I %j %m %M %p %S %y %Y, found {format:?}"))
    })
}

/// An error of the engine with `message`.
pub(super) fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
