use http::{HeaderMap, header};

/// What a request asks of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Whole,
    /// Inside the file; `length` is at least 1.
    Part {
        first: u64,
        length: u64,
    },
    /// Outside the file, malformed, or more than one range: 416.
    Unsatisfiable,
}

/// Reads `Range` (RFC 9110 §14.1.2). Another unit than bytes is ignored, as the RFC asks; several ranges are refused, as it
/// allows: multipart answers would be code that nobody needs.
pub(super) fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let mut given = headers.get_all(header::RANGE).iter();
    let Some(value) = given.next() else {
        return Wanted::Whole;
    };
    if given.next().is_some() {
        return Wanted::Unsatisfiable;
    }
    let Ok(text) = value.to_str() else {
        return Wanted::Unsatisfiable;
    };
    let Some((unit, range)) = text.split_once('=') else {
        return Wanted::Unsatisfiable;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    part(range.trim(), size).unwrap_or(Wanted::Unsatisfiable)
}

/// `first-last`, `first-` or `-suffix`.
fn part(range: &str, size: u64) -> Option<Wanted> {
    let (first, last) = range.split_once('-')?;
    let end = size.checked_sub(1)?;
    let (first, last) = match (first, last) {
        ("", suffix) => {
            let length = number(suffix)?.min(size);
            if length == 0 {
                return None;
            }
            (size - length, end)
        }
        (first, "") => (number(first)?, end),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            (first, last.min(end))
        }
    };
    if first > end {
        return None;
    }
    Some(Wanted::Part {
        first,
        length: last - first + 1,
    })
}

/// Digits only: `parse` would take a sign. A number over 64 bits lies outside every file.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(value: &str, size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(value).unwrap());
        wanted(&headers, size)
    }

    fn part(first: u64, length: u64) -> Wanted {
        Wanted::Part { first, length }
    }

    #[test]
    fn takes_one_range_inside_the_file() {
        assert_eq!(of("bytes=0-0", 10), part(0, 1));
        assert_eq!(of("bytes=0-9", 10), part(0, 10));
        assert_eq!(of("bytes=3-", 10), part(3, 7));
        assert_eq!(of("bytes=9-", 10), part(9, 1));
        assert_eq!(of("bytes=-3", 10), part(7, 3));
        assert_eq!(of("BYTES= 2-4 ", 10), part(2, 3));
    }

    #[test]
    fn cuts_what_reaches_over_the_end() {
        assert_eq!(of("bytes=5-99", 10), part(5, 5));
        assert_eq!(of("bytes=5-18446744073709551615", 10), part(5, 5));
        assert_eq!(of("bytes=-99", 10), part(0, 10));
    }

    #[test]
    fn refuses_what_lies_outside_or_makes_no_sense() {
        for value in [
            "bytes=10-",
            "bytes=10-12",
            "bytes=-0",
            "bytes=5-4",
            "bytes=",
            "bytes=-",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=a-b",
            "bytes=1",
            "bytes=1 - 2",
            "bytes=0x1-2",
            "bytes 0-1",
            "bytes",
            "bytes=18446744073709551616-",
            "bytes=-18446744073709551616",
        ] {
            assert_eq!(of(value, 10), Wanted::Unsatisfiable, "{value}");
        }
        assert_eq!(of("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(of("bytes=-1", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn refuses_several_ranges() {
        assert_eq!(of("bytes=0-1,3-4", 10), Wanted::Unsatisfiable);
        assert_eq!(of("bytes=0-1,", 10), Wanted::Unsatisfiable);
        let mut headers = HeaderMap::new();
        headers.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.append(header::RANGE, HeaderValue::from_static("bytes=3-4"));
        assert_eq!(wanted(&headers, 10), Wanted::Unsatisfiable);
    }

    #[test]
    fn ignores_other_units() {
        assert_eq!(of("tensors=0-1", 10), Wanted::Whole);
        assert_eq!(wanted(&HeaderMap::new(), 10), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_inside_the_file(range in "bytes=[0-9]{0,21}-[0-9]{0,21}", size in any::<u64>()) {
            if let Wanted::Part { first, length } = of(&range, size) {
                prop_assert!(length >= 1);
                prop_assert!(first.checked_add(length).is_some_and(|end| end <= size));
            }
        }

        #[test]
        fn never_panics(value in "[ -~]{0,40}", size in any::<u64>()) {
            of(&value, size);
            of(&format!("bytes={value}"), size);
        }
    }
}
