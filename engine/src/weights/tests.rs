use std::sync::Arc;

use half::{bf16, f16};
use safetensors::tensor::Dtype as Format;
use serde_json::json;

use super::{Weights, widen};
use crate::{
    LoadError,
    fixtures::{MemoryFiles, Random},
};

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn open(bytes: Vec<u8>) -> Result<Arc<Weights>, LoadError> {
    Weights::open(Arc::new(
        MemoryFiles::default().with("model.safetensors", bytes),
    ))
}

fn refusal(bytes: Vec<u8>) -> String {
    open(bytes).err().unwrap().to_string()
}

#[test]
fn every_half_widens_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let mut values = vec![0f32; 1 << 16];
    widen::f16(&all, &mut values);
    for (bits, value) in (0..=u16::MAX).zip(&values) {
        let expected = f16::from_bits(bits).to_f32();
        assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
    }
    widen::bf16(&all, &mut values);
    for (bits, value) in (0..=u16::MAX).zip(&values) {
        let expected = bf16::from_bits(bits).to_f32();
        assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
    }
}

/// Checked sums: a sum that wrapped would be a panic, and the boot a bug instead of a refusal.
#[test]
fn a_byte_range_beyond_all_numbers_is_refused_not_a_panic() {
    let end = u64::MAX - 3;
    let header = format!(
        r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{end}]}}}}"#,
        end / 4
    );
    assert!(refusal(file(&header, 8)).contains("too far"));
}

/// More than one thread widens at a time, and odd.
const LONG: usize = (1 << 19) + 17;

#[test]
fn long_tensors_are_what_candle_reads() {
    for dtype in [Format::F32, Format::F16, Format::BF16] {
        let mut random = Random::new(3);
        random.add("first", &[3], 0.0);
        random.add("long", &[LONG, 1], 0.0);
        let bytes = random.safetensors(dtype);
        let theirs =
            candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap();
        let ours = open(bytes).unwrap().get("long", &[LONG, 1]).unwrap();
        let theirs = theirs["long"].to_dtype(candle_core::DType::F32).unwrap();
        assert_eq!(
            ours.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            theirs.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_with_the_numbers_before_they_are_read() {
    let mut random = Random::new(5);
    random.add("a", &[10], 0.0);
    random.add("b", &[6], 0.0);
    let weights = open(random.safetensors(Format::BF16)).unwrap();
    assert!(weights.fit(6, 70).is_ok());
    let error = weights.fit(6, 69).unwrap_err().to_string();
    assert_eq!(
        error,
        "the model takes 70 bytes of memory, 69 are available"
    );
}

#[test]
fn shards_are_found_through_the_index() {
    let (mut one, mut two) = (Random::new(1), Random::new(2));
    one.add("a", &[2], 0.0);
    two.add("b", &[3], 0.0);
    let index = json!({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}});
    let files = MemoryFiles::default()
        .with("one.safetensors", one.safetensors(Format::F32))
        .with("two.safetensors", two.safetensors(Format::BF16))
        .with("model.safetensors.index.json", index.to_string());
    let weights = Weights::open(Arc::new(files.clone())).unwrap();
    assert!(weights.get("a", &[2]).is_ok() && weights.get("b", &[3]).is_ok());

    let index = json!({"weight_map": {"a": "one.safetensors", "c": "two.safetensors"}});
    let missing = Weights::open(Arc::new(
        files
            .clone()
            .with("model.safetensors.index.json", index.to_string()),
    ));
    assert_eq!(
        missing.err().unwrap().to_string(),
        "tensor c: missing from the weights"
    );

    let index = json!({"weight_map": {"a": "../one.safetensors"}});
    let outside = Weights::open(Arc::new(
        files
            .clone()
            .with("model.safetensors.index.json", index.to_string()),
    ));
    assert!(
        outside
            .err()
            .unwrap()
            .to_string()
            .contains("not a .safetensors file beside it")
    );

    let index = json!({"weight_map": {"a": "three.safetensors"}});
    let absent = Weights::open(Arc::new(
        files.with("model.safetensors.index.json", index.to_string()),
    ));
    assert_eq!(
        absent.err().unwrap().to_string(),
        "three.safetensors: missing from the model"
    );
}

#[test]
fn refuses_hostile_headers() {
    assert!(refusal(vec![0; 7]).contains("too short"));
    assert!(
        refusal(u64::MAX.to_le_bytes().to_vec()).contains("header of 18446744073709551615 bytes")
    );
    assert!(refusal(file("{", 0)).contains("not valid JSON"));
    assert!(
        refusal(file(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            8
        ))
        .contains("reversed")
    );
    assert!(
        refusal(file(
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            8
        ))
        .contains("does not fit its shape")
    );
    let huge =
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#;
    assert!(refusal(file(huge, 8)).contains("does not fit its shape"));
    assert!(
        refusal(file(
            r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#,
            8
        ))
        .contains("dtype is unknown")
    );
    assert!(
        refusal(file(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
            4
        ))
        .contains("tensors end at")
    );
    assert!(
        refusal(file(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12
        ))
        .contains("do not follow")
    );
    let twice = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert!(refusal(file(twice, 8)).contains("do not follow"));
    let far = r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[18446744073709551615,18446744073709551615]}}"#;
    assert!(refusal(file(far, 0)).contains("too far"));
    assert!(
        refusal(file(
            r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#,
            4
        ))
        .contains("dimensions")
    );
}

#[test]
fn refuses_another_shape_or_dtype() {
    let weights = open(file(
        r#"{"__metadata__":{"format":"pt"},"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#,
        16,
    ))
    .unwrap();
    assert!(weights.get("w", &[2]).is_ok());
    let error = weights.get("w", &[1, 2]).err().unwrap().to_string();
    assert_eq!(
        error,
        "model.safetensors: tensor w: shape is [2], the configuration asks for [1, 2]"
    );
    assert!(
        weights
            .get("ids", &[1])
            .err()
            .unwrap()
            .to_string()
            .contains("is a wide number, not F32, F16, BF16")
    );
    assert_eq!(
        weights.get("x", &[1]).err().unwrap().to_string(),
        "tensor x: missing from the weights"
    );
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    struct Short(MemoryFiles);
    impl crate::ModelFiles for Short {
        fn names(&self) -> Vec<String> {
            self.0.names()
        }
        fn len(&self, name: &str) -> Option<u64> {
            self.0.len(name).map(|len| len + 8)
        }
        fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
            self.0.read_at(name, offset, buf)
        }
    }
    let bytes = file(
        r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#,
        8,
    );
    let weights = Weights::open(Arc::new(Short(
        MemoryFiles::default().with("model.safetensors", bytes),
    )))
    .unwrap();
    assert!(matches!(
        weights.get("w", &[4]),
        Err(LoadError::Read { .. })
    ));
}
