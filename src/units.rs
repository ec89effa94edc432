//! Durations, sizes, rates and moments as they are written everywhere.

use std::fmt::Display;
use std::time::Duration;

use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// `30s`, `30m`, `1h30m`, `2d`, `500ms`: more than nothing, each unit at most once, largest first.
pub fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = text;
    let mut next = 0;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let at = UNITS.iter().position(|(name, _)| *name == unit)?;
        if at < next {
            return None;
        }
        let (_, millis) = UNITS.get(at)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        next = at + 1;
        rest = tail;
    }
    (total > 0).then(|| Duration::from_millis(total))
}

/// A day, as in `2027-03-01`.
pub fn date(text: &str) -> Option<Date> {
    Date::parse(text, format_description!("[year]-[month]-[day]")).ok()
}

/// `4MiB`, `64KiB`, `1GiB`, `512B`.
pub fn bytes(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// `50/s`, `10/1m`, `100/30s`: how many in how long.
pub fn rate(text: &str) -> Option<(u32, Duration)> {
    let (count, period) = text.split_once('/')?;
    let period = duration(period).or_else(|| duration(&format!("1{period}")))?;
    let count: u32 = count.parse().ok()?;
    (count > 0 && !period.is_zero()).then_some((count, period))
}

/// A moment in UTC as RFC 3339 writes it, with so many digits of a second (at most nine).
pub fn moment(at: OffsetDateTime, digits: u32) -> impl Display {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, nano) = at.to_hms_nano();
    let (month, part) = (u8::from(month), nano / 10_u32.pow(9_u32.saturating_sub(digits)));
    let width = digits as usize;
    std::fmt::from_fn(move |f| {
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{part:0width$}Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_as_many_digits_as_asked() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_795_000_000_007_080_900).unwrap();
        assert_eq!(moment(at, 3).to_string(), "2026-11-18T11:06:40.007Z");
        assert_eq!(moment(at, 6).to_string(), "2026-11-18T11:06:40.007080Z");
        assert_eq!(moment(at, 9).to_string(), "2026-11-18T11:06:40.007080900Z");
    }

    #[test]
    fn units_are_read_as_written() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        for wrong in
            ["", "0m", "30", "m", "30m1h", "1h1h", "-1m", "1.5h", "PT30M", "30 m", "99999999999999999999s"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        assert_eq!(bytes("4MiB"), Some(4 << 20));
        assert_eq!(bytes("4MB"), None);
        assert_eq!(rate("50/s"), Some((50, Duration::from_secs(1))));
        assert_eq!(rate("10/1m"), Some((10, Duration::from_secs(60))));
        assert_eq!(rate("0/s"), None);
        assert_eq!(rate("5"), None);
    }
}
