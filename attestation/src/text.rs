//! How public values and times are written.

use std::time::{Duration, SystemTime};

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Public bytes of any length: lower-case hex in `Display` and `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.is_empty() {
            true => f.write_str("empty"),
            false => f.write_str(&hex::encode(&self.0)),
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// RFC 3339, UTC.
pub fn rfc3339(time: SystemTime) -> String {
    calendar(time)
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| "beyond the calendar".to_owned())
}

/// `OffsetDateTime`'s own conversion panics outside of its years.
fn calendar(time: SystemTime) -> Option<OffsetDateTime> {
    let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i128::try_from(since.as_nanos()).ok()?,
        Err(before) => i128::try_from(before.duration().as_nanos())
            .ok()?
            .checked_neg()?,
    };
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
}

/// RFC 3339 with any offset, not before 1970.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let date = OffsetDateTime::parse(text, &Rfc3339)
        .ok()?
        .to_offset(UtcOffset::UTC);
    let seconds = u64::try_from(date.unix_timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, date.nanosecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_in_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        assert_eq!(rfc3339(time), "2030-03-17T17:46:40Z");
        assert_eq!(parse_rfc3339("2030-03-17T17:46:40Z"), Some(time));
        assert_eq!(parse_rfc3339("2030-03-17T19:46:40+02:00"), Some(time));
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        assert_eq!(parse_rfc3339("9999-12-31T23:59:59Z"), Some(last));
    }

    #[test]
    fn what_is_no_time_is_refused_and_what_is_beyond_the_calendar_is_said() {
        for text in [
            "",
            "2030-03-17",
            "2030-03-17T17:46:40",
            "1969-12-31T23:59:59Z",
            "now",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
        let beyond = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::MAX);
        assert_eq!(rfc3339(beyond), "beyond the calendar");
    }
}
