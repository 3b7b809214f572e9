use proptest::prelude::*;

use super::*;

fn check(json: &str, data: u64) -> Result<Summary, Problem> {
    check_header(json.as_bytes(), data)
}

const TWO: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}   "#;

#[test]
fn a_header_that_tiles_its_data_is_accepted() {
    let summary = check(TWO, 28).unwrap();
    assert_eq!(summary.names.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    let elements = [("BF16".to_owned(), 2), ("F32".to_owned(), 6)];
    assert_eq!(summary.elements, elements.into());
    check("{}", 0).unwrap();
    check(
        r#"{"scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#,
        4,
    )
    .unwrap();
    check(r#"{"none":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1).unwrap();
    check(
        r#"{"half":{"dtype":"F4","shape":[3,2],"data_offsets":[0,3]}}"#,
        3,
    )
    .unwrap();
}

#[test]
fn each_lie_of_a_header_has_its_own_refusal() {
    let one = |fields: &str| format!(r#"{{"t":{{{fields}}}}}"#);
    macro_rules! refused {
        ($json:expr, $data:expr, $problem:pat) => {
            let outcome = check(&$json, $data);
            assert!(matches!(outcome, Err($problem)), "{}: {outcome:?}", $json);
        };
    }
    refused!(
        one(r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#),
        3,
        Problem::OutOfRange { .. }
    );
    refused!(
        one(r#""dtype":"F32","shape":[1],"data_offsets":[4,0]"#),
        4,
        Problem::OutOfRange { .. }
    );
    refused!(
        one(r#""dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]"#),
        4,
        Problem::OutOfRange { .. }
    );
    refused!(
        one(r#""dtype":"F32","shape":[2],"data_offsets":[0,4]"#),
        4,
        Problem::Length { .. }
    );
    refused!(
        one(
            r#""dtype":"F32","shape":[4294967296,4294967296,4294967296,4294967296],"data_offsets":[0,4]"#
        ),
        4,
        Problem::Shape { .. }
    );
    refused!(
        one(r#""dtype":"F4","shape":[3],"data_offsets":[0,1]"#),
        1,
        Problem::Shape { .. }
    );
    refused!(
        one(r#""dtype":"PICKLE","shape":[1],"data_offsets":[0,4]"#),
        4,
        Problem::Dtype { .. }
    );
    refused!(
        one(r#""dtype":"F32","shape":[-1],"data_offsets":[0,4]"#),
        4,
        Problem::Json(_)
    );
    refused!(
        one(r#""dtype":"F32","shape":[1],"data_offsets":[0,4],"code":"x""#),
        4,
        Problem::Json(_)
    );
    refused!(one(r#""dtype":"F32","shape":[1]"#), 4, Problem::Json(_));
    refused!(r#"{"__metadata__":{"a":1}}"#, 0, Problem::Json(_));
    refused!(
        r#"{"__metadata__":{},"__metadata__":{}}"#,
        0,
        Problem::Json(_)
    );
    refused!(" {}", 0, Problem::Start);
    refused!("", 0, Problem::Start);
    refused!("{}{}", 0, Problem::Json(_));
    refused!("{}", 5, Problem::Hole { bytes: 5, .. });
    let two = |first: &str, second: &str, names: [&str; 2]| {
        let [a, b] = names;
        format!(
            r#"{{"{a}":{{"dtype":"U8","shape":[4],"data_offsets":{first}}},"{b}":{{"dtype":"U8","shape":[4],"data_offsets":{second}}}}}"#
        )
    };
    check(&two("[0,4]", "[4,8]", ["a", "b"]), 8).unwrap();
    refused!(
        two("[0,4]", "[4,8]", ["a", "a"]),
        8,
        Problem::Duplicate { .. }
    );
    refused!(
        two("[0,4]", "[0,4]", ["a", "b"]),
        8,
        Problem::Overlap { .. }
    );
    refused!(
        two("[0,4]", "[3,7]", ["a", "b"]),
        8,
        Problem::Overlap { .. }
    );
    refused!(
        two("[0,4]", "[5,9]", ["a", "b"]),
        9,
        Problem::Hole { bytes: 1, .. }
    );
    refused!(
        two("[1,5]", "[5,9]", ["a", "b"]),
        9,
        Problem::Hole { bytes: 1, .. }
    );
    refused!(
        two("[0,4]", "[4,8]", ["a", "b"]),
        9,
        Problem::Hole { bytes: 1, .. }
    );
}

#[test]
fn a_header_longer_than_its_file_or_the_limit_is_refused() {
    assert_eq!(header_len(10u64.to_le_bytes(), 18).unwrap(), 10);
    assert!(matches!(
        header_len(11u64.to_le_bytes(), 18),
        Err(Problem::HeaderLength { claimed: 11 })
    ));
    assert!(matches!(
        header_len([0xff; 8], u64::MAX),
        Err(Problem::HeaderLength { .. })
    ));
    assert!(header_len((MAX_HEADER + 1).to_le_bytes(), u64::MAX).is_err());
    assert!(matches!(
        header_len([0; 8], 7),
        Err(Problem::TooShort { actual: 7 })
    ));
}

proptest! {
    #[test]
    fn no_input_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), data in any::<u64>()) {
        drop(check_header(&bytes, data));
    }

    #[test]
    fn no_mutation_of_a_header_makes_the_parser_panic(at in 0..TWO.len(), with in any::<u8>(), data in 0..64u64) {
        let mut bytes = TWO.as_bytes().to_vec();
        bytes[at] = with;
        drop(check_header(&bytes, data));
    }

    #[test]
    fn no_numbers_make_the_checks_overflow(begin in any::<u64>(), end in any::<u64>(), dims in proptest::collection::vec(any::<u64>(), 0..6), data in any::<u64>()) {
        let json = format!(r#"{{"t":{{"dtype":"F64","shape":{dims:?},"data_offsets":[{begin},{end}]}}}}"#);
        drop(check(&json, data));
    }
}
