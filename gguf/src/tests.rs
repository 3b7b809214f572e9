use proptest::prelude::*;

use super::*;

/// Written by the `gguf` package of llama.cpp: `sealed-model/tests/data/README.md`.
const TINY: &[u8] = include_bytes!("../../sealed-model/tests/data/tiny.gguf");

fn of(bytes: &[u8]) -> Result<Summary, Problem> {
    check(bytes, bytes.len() as u64)
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(name.as_bytes()), &kind.to_le_bytes()[..], value].concat()
}

fn tensor(name: &str, shape: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name.as_bytes());
    bytes.extend(u32::try_from(shape.len()).unwrap().to_le_bytes());
    bytes.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn file(keys: &[Vec<u8>], tensors: &[Vec<u8>], data: usize, alignment: usize) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    bytes.extend(keys.concat());
    bytes.extend(tensors.concat());
    bytes.resize(bytes.len().next_multiple_of(alignment) + data, 7);
    bytes
}

fn with_tensors(tensors: &[Vec<u8>], data: usize) -> Result<Summary, Problem> {
    of(&file(&[], tensors, data, 32))
}

fn with_key(bytes: Vec<u8>) -> Result<Summary, Problem> {
    of(&file(&[bytes], &[tensor("t", &[1], 0, 0)], 4, 32))
}

#[test]
fn a_file_of_llama_cpps_writer_is_accepted_and_described() {
    let summary = of(TINY).unwrap();
    let expected = [("F16", 3), ("F32", 96), ("Q8_0", 256)];
    assert_eq!(summary.elements, expected.into());
    assert_eq!((summary.tensors, summary.file_type), (3, Some(7)));
    assert_eq!(file_type_name(7), Some("Q8_0"));
    assert_eq!(summary.strings["general.architecture"], "llama");
    assert_eq!(summary.strings["general.license"], "apache-2.0");
    assert_eq!(summary.strings["general.base_model.0.organization"], "org");
    assert!(!summary.strings.contains_key("tokenizer.chat_template"));
}

#[test]
fn a_file_cut_anywhere_or_with_more_at_its_end_is_refused() {
    for len in 0..TINY.len() {
        // The last tensor's padding is not of the tensor; ggml's reader does not ask for it either.
        if TINY.len() - len > 26 {
            assert!(of(&TINY[..len]).is_err(), "{len}");
        }
    }
    let longer = [TINY, &[0; 32]].concat();
    assert!(matches!(of(&longer), Err(Problem::Hole { before, .. }) if before == "the end"));
}

#[test]
fn heads_that_are_not_of_this_format_are_refused() {
    let head = |version: u32, tensors: u64, keys: u64| {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        of(&bytes)
    };
    assert!(matches!(of(b"GGML\x03\0\0\0"), Err(Problem::Magic)));
    for version in [0, 1, 4, 3u32.swap_bytes()] {
        assert!(matches!(head(version, 0, 0), Err(Problem::Version { found }) if found == version));
    }
    assert!(matches!(
        head(3, u64::MAX, 0),
        Err(Problem::Count {
            what: "tensors",
            ..
        })
    ));
    assert!(matches!(
        head(3, 0, 1 << 32),
        Err(Problem::Count { what: "keys", .. })
    ));
    assert!(matches!(
        head(2, 0, 0),
        Err(Problem::Short | Problem::Empty)
    ));
    assert!(matches!(head(3, 1, 0), Err(Problem::Short)));
    assert!(matches!(with_tensors(&[], 0), Err(Problem::Empty)));
}

#[test]
fn metadata_that_lies_is_refused() {
    let one = 1u32.to_le_bytes();
    with_key(key("a", types::U32, &one)).unwrap();
    with_key(key("a", types::BOOL, &[1])).unwrap();
    let long = (1u64 << 40).to_le_bytes();
    assert!(matches!(
        with_key(key("a", types::STRING, &long)),
        Err(Problem::StringLength { .. })
    ));
    assert!(matches!(
        with_key(key("", types::BOOL, &[1])),
        Err(Problem::Text { what: "key" })
    ));
    assert!(matches!(
        with_key(key("\u{1b}[2J", types::BOOL, &[1])),
        Err(Problem::Text { .. })
    ));
    assert!(matches!(
        with_key(key("a", types::BOOL, &[2])),
        Err(Problem::Bool { .. })
    ));
    assert!(matches!(
        with_key(key("a", 13, &[0; 8])),
        Err(Problem::ValueType { found: 13, .. })
    ));
    let array = |kind: u32, len: u64| [&kind.to_le_bytes()[..], &len.to_le_bytes()].concat();
    with_key(key("a", types::ARRAY, &array(types::U32, 0))).unwrap();
    for (kind, len) in [
        (types::U32, u64::MAX),
        (types::U32, 1 << 20),
        (types::STRING, u64::MAX),
        (12, 1 << 61),
    ] {
        let outcome = with_key(key("a", types::ARRAY, &array(kind, len)));
        assert!(
            matches!(
                outcome,
                Err(Problem::Short | Problem::HeaderLength | Problem::StringLength { .. })
            ),
            "{kind} {len}: {outcome:?}"
        );
    }
    assert!(matches!(
        with_key(key("a", types::ARRAY, &array(types::ARRAY, 1))),
        Err(Problem::ValueType {
            found: types::ARRAY,
            ..
        })
    ));
    let twice = [key("a", types::BOOL, &[1]), key("a", types::U32, &one)];
    assert!(matches!(
        of(&file(&twice, &[tensor("t", &[1], 0, 0)], 4, 32)),
        Err(Problem::DuplicateKey { key }) if key == "a"
    ));
}

#[test]
fn the_alignment_counts_and_has_bounds() {
    let aligned = |alignment: u32, offset: u64| {
        let key = key("general.alignment", types::U32, &alignment.to_le_bytes());
        let tensors = [tensor("a", &[1], 0, 0), tensor("b", &[1], 0, offset)];
        let data = usize::try_from(offset).unwrap() + 4;
        of(&file(
            &[key],
            &tensors,
            data,
            usize::try_from(alignment.max(1)).unwrap(),
        ))
    };
    aligned(64, 64).unwrap();
    aligned(8, 8).unwrap();
    assert!(matches!(aligned(64, 32), Err(Problem::Misaligned { .. })));
    for alignment in [0, 1, 4, 48, (1 << 20) + 1, 1 << 21] {
        assert!(
            matches!(aligned(alignment, 64), Err(Problem::Alignment)),
            "{alignment}"
        );
    }
    assert!(matches!(
        with_key(key("general.alignment", types::STRING, &string(b"32"))),
        Err(Problem::Alignment)
    ));
}

#[test]
fn each_lie_about_a_tensor_has_its_own_refusal() {
    let a = || tensor("a", &[8], 0, 0);
    with_tensors(&[a(), tensor("b", &[2, 2], 1, 32)], 40).unwrap();
    // Listed in another order than they lie in: still each at its place.
    with_tensors(&[tensor("b", &[2, 2], 1, 32), a()], 40).unwrap();
    macro_rules! refused {
        ($tensors:expr, $data:expr, $problem:pat) => {
            let outcome = with_tensors(&$tensors, $data);
            assert!(matches!(outcome, Err($problem)), "{outcome:?}");
        };
    }
    refused!([a(), a()], 32, Problem::DuplicateTensor { .. });
    refused!([tensor("", &[8], 0, 0)], 32, Problem::Text { .. });
    refused!(
        [tensor(&"x".repeat(65), &[8], 0, 0)],
        32,
        Problem::StringLength { .. }
    );
    refused!(
        [tensor("a", &[1, 1, 1, 1, 1], 0, 0)],
        4,
        Problem::Dimensions { dimensions: 5, .. }
    );
    refused!([tensor("a", &[], 0, 0)], 4, Problem::Dimensions { .. });
    for unknown in [4, 5, 9, 31, 36, 42, u32::MAX] {
        refused!(
            [tensor("a", &[8], unknown, 0)],
            32,
            Problem::TensorType { .. }
        );
    }
    refused!([tensor("a", &[0], 0, 0)], 32, Problem::Shape { .. });
    refused!(
        [tensor("a", &[1 << 33, 1 << 33], 0, 0)],
        32,
        Problem::Shape { .. }
    );
    refused!([tensor("a", &[1 << 62], 0, 0)], 32, Problem::Shape { .. });
    refused!([tensor("a", &[33], 8, 0)], 34, Problem::Shape { .. });
    refused!([tensor("a", &[8], 0, 8)], 40, Problem::Misaligned { .. });
    refused!([a()], 31, Problem::OutOfRange { .. });
    refused!(
        [tensor("a", &[8], 0, u64::MAX - 31)],
        32,
        Problem::OutOfRange { .. }
    );
    refused!(
        [tensor("a", &[9], 0, 0), tensor("b", &[1], 0, 32)],
        36,
        Problem::Overlap { .. }
    );
    refused!([a(), tensor("b", &[8], 0, 0)], 32, Problem::Overlap { .. });
    refused!(
        [a(), tensor("b", &[8], 0, 64)],
        96,
        Problem::Hole { bytes: 32, .. }
    );
    refused!([tensor("a", &[8], 0, 32)], 64, Problem::Hole { .. });
    refused!([a()], 65, Problem::Hole { .. });
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    assert!(matches!(check(Broken, 100), Err(Problem::Read(_))));
    // One that is shorter than it was said to be is not read beyond.
    assert!(check(&TINY[..100], TINY.len() as u64).is_err());
}

proptest! {
    #[test]
    fn no_input_makes_the_checks_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        drop(of(&bytes));
        drop(of(&[b"GGUF\x03\0\0\0", bytes.as_slice()].concat()));
    }

    #[test]
    fn no_change_of_a_true_file_makes_the_checks_panic(at in any::<prop::sample::Index>(), with in any::<u8>(), more in 0..64usize) {
        let mut bytes = TINY.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        bytes.truncate(TINY.len() - more);
        drop(of(&bytes));
    }
}

#[test]
fn metadata_that_is_asked_for_is_kept_and_no_other() {
    let header = read(TINY, TINY.len() as u64, &|key| match key {
        "general.architecture" | "tokenizer.ggml.tokens" | "tokenizer.ggml.token_type" => Keep::All,
        _ => Keep::Nothing,
    })
    .unwrap();
    assert_eq!(
        header.values["general.architecture"],
        Value::Text("llama".into())
    );
    assert!(header.values.len() <= 3, "{:?}", header.values.keys());
    for tensor in &header.tensors {
        let end = tensor.offset + tensor.len;
        assert!(tensor.offset % 32 == 0 && end <= TINY.len() as u64);
        assert_eq!(tensor.elements, tensor.shape.iter().product::<u64>());
    }
}

#[test]
fn values_arrive_as_they_were_written() {
    let array = |kind: u32, len: u64, values: &[u8]| {
        [&kind.to_le_bytes()[..], &len.to_le_bytes(), values].concat()
    };
    let strings = [string("a".as_bytes()), string("ü".as_bytes())].concat();
    let cases = [
        (types::U8, vec![200], Value::Unsigned(200)),
        (types::I8, vec![0xff], Value::Signed(-1)),
        (types::I16, vec![0, 0x80], Value::Signed(-32768)),
        (
            types::I64,
            i64::MIN.to_le_bytes().to_vec(),
            Value::Signed(i64::MIN),
        ),
        (
            types::U64,
            u64::MAX.to_le_bytes().to_vec(),
            Value::Unsigned(u64::MAX),
        ),
        (types::F32, 0.5f32.to_le_bytes().to_vec(), Value::Float(0.5)),
        (types::F64, 0.1f64.to_le_bytes().to_vec(), Value::Float(0.1)),
        (types::BOOL, vec![1], Value::Bool(true)),
        (
            types::STRING,
            string("ß".as_bytes()),
            Value::Text("ß".into()),
        ),
        (
            types::ARRAY,
            array(types::BOOL, 2, &[1, 0]),
            Value::Bools(vec![true, false]),
        ),
        (
            types::ARRAY,
            array(types::I32, 1, &(-7i32).to_le_bytes()),
            Value::Integers(vec![-7]),
        ),
        (
            types::ARRAY,
            array(types::F32, 1, &2f32.to_le_bytes()),
            Value::Floats(vec![2.0]),
        ),
        (
            types::ARRAY,
            array(types::STRING, 2, &strings),
            Value::Texts(vec!["a".into(), "ü".into()]),
        ),
    ];
    for (kind, bytes, expected) in cases {
        let bytes = file(&[key("a", kind, &bytes)], &[tensor("t", &[1], 0, 0)], 4, 32);
        let header = read(bytes.as_slice(), bytes.len() as u64, &|_| Keep::All).unwrap();
        assert_eq!(header.values["a"], expected);
    }
    let refused = |kind: u32, bytes: &[u8]| {
        let bytes = file(&[key("a", kind, bytes)], &[tensor("t", &[1], 0, 0)], 4, 32);
        read(bytes.as_slice(), bytes.len() as u64, &|_| Keep::All).unwrap_err()
    };
    assert!(matches!(
        refused(types::STRING, &string(&[0xff])),
        Problem::NotUtf8 { key } if key == "a"
    ));
    assert!(matches!(
        refused(types::ARRAY, &array(types::U64, 1, &u64::MAX.to_le_bytes())),
        Problem::Number { .. }
    ));
    assert!(matches!(
        refused(types::ARRAY, &array(types::STRING, 1 << 22, &[])),
        Problem::Count {
            what: "values of an array",
            ..
        }
    ));
    assert!(matches!(
        refused(types::ARRAY, &array(13, 1, &[0; 8])),
        Problem::ValueType { .. }
    ));
    assert!(matches!(
        refused(types::ARRAY, &array(13, 0, &[])),
        Problem::ValueType { .. }
    ));
}

proptest! {
    #[test]
    fn keeping_everything_refuses_no_more_than_it_must(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = TINY.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let kept = read(bytes.as_slice(), bytes.len() as u64, &|_| Keep::All);
        if let Ok(header) = kept {
            prop_assert_eq!(of(&bytes).unwrap().tensors, header.tensors.len());
        }
    }
}
