//! Dates as C's `strftime` writes them, in UTC and English. The caller passes in the time.

/// `seconds` since 1970 as C's `strftime` writes them, in UTC and with English names. `None` for a directive other than
/// `%a %A %b %B %d %H %I %j %m %M %p %S %y %Y %%`, each also without padding (`%-d`).
pub(crate) fn strftime(seconds: u64, format: &str) -> Option<String> {
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
    // Years begin in March here, so that the leap day is the last day of its year. 400 such years always have 146,097
    // days.
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
