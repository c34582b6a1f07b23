//! What chat templates expect beyond Jinja itself: the functions and filters transformers gives them.
//!
//! `tojson` writes what Python's `json.dumps(…, ensure_ascii=False)` writes, not HTML-safe JSON; `raise_exception` ends
//! a rendering with the template's own words; `strftime_now` gives the date, in UTC, of the moment it is handed.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// The name under which a rendering's moment, in seconds since 1970, is handed in.
pub(super) const NOW: &str = "__now";

/// Deepest nesting `tojson` writes: its recursion is bounded by it, and tool schemas stay under twenty.
const JSON_DEPTH_MAX: usize = 64;

/// `raise_exception(message)`.
pub(super) fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(invalid(message.to_owned()))
}

/// `strftime_now(format)`.
pub(super) fn strftime_now(state: &State, format: &str) -> Result<String, Error> {
    let now = state.lookup(NOW).and_then(|now| u64::try_from(now).ok()).unwrap_or(0);
    strftime(now, format).ok_or_else(|| {
        invalid(format!("strftime_now: expected %a %A %b %B %d %H %I %j %m %M %p %S %y %Y, found {format:?}"))
    })
}

/// `value | tojson(indent=…, separators=…, sort_keys=…, ensure_ascii=…)`.
pub(super) fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent = kwargs.get::<Option<usize>>("indent")?;
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let style = Style {
        indent,
        item: separators.as_ref().and_then(|both| both.first().cloned()),
        key: separators.as_ref().and_then(|both| both.get(1).cloned()),
        sort: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut json = String::new();
    style.write(value, 0, &mut json)?;
    Ok(json)
}

/// How `json.dumps` was asked to write.
struct Style {
    indent: Option<usize>,
    item: Option<String>,
    key: Option<String>,
    sort: bool,
    ascii: bool,
}

// === impl Style ===

impl Style {
    fn write(&self, value: &Value, depth: usize, json: &mut String) -> Result<(), Error> {
        if depth > JSON_DEPTH_MAX {
            return Err(invalid(format!("tojson: expected at most {JSON_DEPTH_MAX} levels")));
        }
        match value.kind() {
            ValueKind::None => json.push_str("null"),
            ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => json.push_str(&value.to_string()),
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), json),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item)).collect();
                self.write_all('[', items, ']', depth, json)?;
            }
            ValueKind::Map => {
                let entry = |key: Value| Ok((Some(key.to_string()), value.get_item(&key)?));
                let mut items = value.try_iter()?.map(entry).collect::<Result<Vec<_>, Error>>()?;
                if self.sort {
                    items.sort_by(|(one, _), (other, _)| one.cmp(other));
                }
                self.write_all('{', items, '}', depth, json)?;
            }
            other => return Err(invalid(format!("tojson: expected a JSON value, found {other}"))),
        }
        Ok(())
    }

    /// Writes an array's items, or an object's with their keys.
    fn write_all(
        &self,
        open: char,
        items: Vec<(Option<String>, Value)>,
        close: char,
        depth: usize,
        json: &mut String,
    ) -> Result<(), Error> {
        // Python leaves the space after a comma out where a line ends.
        let comma = self.item.as_deref().unwrap_or(if self.indent.is_some() { "," } else { ", " });
        let empty = items.is_empty();
        json.push(open);
        for (place, (key, item)) in items.into_iter().enumerate() {
            if place > 0 {
                json.push_str(comma);
            }
            self.new_line(depth + 1, json);
            if let Some(key) = key {
                self.write_text(&key, json);
                json.push_str(self.key.as_deref().unwrap_or(": "));
            }
            self.write(&item, depth + 1, json)?;
        }
        if !empty {
            self.new_line(depth, json);
        }
        json.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, json: &mut String) {
        if let Some(indent) = self.indent {
            json.push('\n');
            json.extend(std::iter::repeat_n(' ', indent.min(16) * depth));
        }
    }

    fn write_text(&self, text: &str, json: &mut String) {
        // Python escapes in strings what serde_json escapes, and in the same way.
        for character in serde_json::Value::from(text).to_string().chars() {
            if self.ascii && !matches!(character, ' '..='~') {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                json.push(character);
            }
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// `seconds` since 1970, in UTC, by C's `strftime` with English names; `None` for a directive not listed above.
fn strftime(seconds: u64, format: &str) -> Option<String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let days = seconds / 86_400;
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let month_name = MONTHS[month as usize - 1];
    let weekday = WEEKDAYS[(days % 7) as usize];
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        let mut directive = characters.next()?;
        let padded = directive != '-';
        if !padded {
            directive = characters.next()?;
        }
        let two = |number: u64| if padded { format!("{number:02}") } else { number.to_string() };
        text.push_str(&match directive {
            'Y' => year.to_string(),
            'y' => two(year % 100),
            'm' => two(month),
            'd' => two(day),
            'H' => two(hour),
            'I' => two((hour + 11) % 12 + 1),
            'M' => two(minute),
            'S' => two(second),
            'j' => format!("{:03}", days - days_until(year) + 1),
            'B' => month_name.to_owned(),
            'b' => month_name[..3].to_owned(),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        });
    }
    Some(text)
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is the last one: 400 of them are 146,097 days, always.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to the first of January of `year`.
fn days_until(year: u64) -> u64 {
    let before = year - 1;
    before * 365 + before / 4 - before / 100 + before / 400 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29, a Thursday, 15:04:05.
    const LEAP_DAY: u64 = 1_709_219_045;

    #[test]
    fn dates_are_written_as_strftime_writes_them() {
        assert_eq!(strftime(LEAP_DAY, "%d %b %Y").unwrap(), "29 Feb 2024");
        assert_eq!(strftime(LEAP_DAY, "%A, %B %-d, %y; %j").unwrap(), "Thursday, February 29, 24; 060");
        assert_eq!(strftime(LEAP_DAY, "%H:%M:%S %I %p %a %m 100%%").unwrap(), "15:04:05 03 PM Thu 02 100%");
        assert_eq!(strftime(0, "%Y-%m-%d %A %j").unwrap(), "1970-01-01 Thursday 001");
        assert_eq!(strftime(951_782_400 - 1, "%Y-%m-%d %j").unwrap(), "2000-02-28 059");
        assert_eq!(strftime(4_102_444_800 - 1, "%Y-%m-%d %j").unwrap(), "2099-12-31 365");
    }

    #[test]
    fn unknown_or_cut_off_directives_are_refused() {
        for format in ["%q", "%", "%-", "a %E"] {
            assert_eq!(strftime(0, format), None, "{format}");
        }
    }
}
