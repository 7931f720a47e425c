//! The one place that reads the clock.

use time::OffsetDateTime;

/// The present time in UTC, RFC 3339 to the second: `2026-11-23T08:00:00Z`.
#[must_use]
pub fn utc_now() -> String {
    rfc3339(now())
}

/// The present time in UTC.
#[must_use]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_written_in_full() {
        let at = |seconds| rfc3339(OffsetDateTime::from_unix_timestamp(seconds).unwrap());
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_420_799), "2026-11-23T07:59:59Z");
    }

    #[test]
    fn now_is_later_than_this_test_was_written() {
        assert!(utc_now().as_str() > "2026-11-01T00:00:00Z");
    }
}
