//! Every family says what transformers says of the same random model: `tests/reference.py` makes both on the spot.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use tempfile::TempDir;

use super::{Config, Llama};
use crate::{
    DirFiles, ModelFiles,
    fields::Fields,
    fixtures::{Memory, Seat},
    ggml::GgufModel,
    weights::Weights,
};

/// Between two implementations in f32 that add in another order.
const TOLERANCE: f32 = 2e-4;

struct Case {
    tokens: Vec<u32>,
    /// After each token.
    logits: Vec<Vec<f32>>,
    greedy: Vec<u32>,
}

fn cases(directory: &Path) -> Vec<Case> {
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(directory.join("reference.safetensors"), &Device::Cpu)
            .unwrap();
    let ids = |name: String| {
        tensors[&name]
            .to_dtype(DType::U32)
            .unwrap()
            .to_vec1::<u32>()
            .unwrap()
    };
    let case = |index: usize| Case {
        tokens: ids(format!("tokens.{index}")),
        logits: tensors[&format!("logits.{index}")].to_vec2().unwrap(),
        greedy: ids(format!("greedy.{index}")),
    };
    (0..3).map(case).collect()
}

fn load(files: Arc<dyn ModelFiles>) -> Llama {
    match GgufModel::find(files.as_ref()).unwrap() {
        Some(model) => {
            let config = Config::read(&model.config().unwrap()).unwrap();
            let entries = model.entries(config.head_dim).unwrap();
            Llama::load(&Weights::of(files, entries), config).unwrap()
        }
        None => {
            let config =
                Config::read(&Fields::read(files.as_ref(), "config.json").unwrap()).unwrap();
            Llama::load(&Weights::open(files).unwrap(), config).unwrap()
        }
    }
}

fn assert_close(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.iter().zip(theirs);
    let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= TOLERANCE, "{what}: {off}");
}

fn check(what: &str, model: &Llama, cases: &[Case]) {
    let limit = |case: &Case| case.tokens.len() + case.greedy.len();
    for (number, case) in cases.iter().enumerate() {
        let what = format!("{what}, prompt {number}");
        let mut memory = Memory::new(model, 2 * limit(case));
        // One by one, and then on by what was likeliest.
        let mut seat = memory.seat(limit(case));
        let mut last = Vec::new();
        for (token, expected) in case.tokens.iter().zip(&case.logits) {
            last = memory.step(model, &mut seat, &[*token]);
            assert_close(&format!("{what}, step by step"), &last, expected);
        }
        for (place, expected) in case.greedy.iter().enumerate() {
            let best = (0..)
                .zip(&last)
                .max_by(|a, b| a.1.total_cmp(b.1))
                .unwrap()
                .0;
            assert_eq!(best, *expected, "{what}, token {place} of the answer");
            last = memory.step(model, &mut seat, &[best]);
        }
        // In chunks that end anywhere.
        let mut seat = memory.seat(limit(case));
        let mut read = 0;
        for chunk in case.tokens.chunks(7) {
            read += chunk.len();
            let found = memory.step(model, &mut seat, chunk);
            assert_close(
                &format!("{what}, in chunks"),
                &found,
                &case.logits[read - 1],
            );
        }
    }
    // Beginnings of every prompt in one pass: all at once, and each position as the last of a prompt.
    let beginnings: Vec<_> = cases
        .iter()
        .flat_map(|case| {
            (1..=case.tokens.len())
                .step_by(3)
                .map(move |len| (case, len))
        })
        .collect();
    let mut memory = Memory::new(
        model,
        beginnings.iter().map(|(case, _)| limit(case) + 16).sum(),
    );
    let mut seats: Vec<Seat> = beginnings
        .iter()
        .map(|(case, _)| memory.seat(limit(case)))
        .collect();
    let rows = beginnings.iter().zip(&mut seats);
    let mut rows: Vec<_> = rows
        .map(|((case, len), seat)| (seat, &case.tokens[..*len], true))
        .collect();
    let found = memory.pass(model, &mut rows).unwrap();
    for ((case, len), found) in beginnings.iter().zip(found) {
        assert_close(
            &format!("{what}, {len} tokens in a batch"),
            &found.unwrap(),
            &case.logits[len - 1],
        );
    }
}

/// transformers, torch and gguf, where `scripts/dev-tools` has put them.
pub(crate) fn python() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/tools/reference/bin/python3");
    if python.is_file() {
        return Some(python);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "transformers is missing: run scripts/dev-tools --all"
    );
    println!("skipped: transformers is missing (scripts/dev-tools --all brings it)");
    None
}

/// What a script of `engine/tests` writes into a folder of its own.
pub(crate) fn written_by(python: &Path, script: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(script);
    let run = Command::new(python)
        .arg(script)
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    directory
}

#[test]
fn every_family_says_what_transformers_says() {
    let Some(python) = python() else { return };
    let directory = written_by(&python, "reference.py");
    let mut seen = (0, 0);
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let cases = cases(&path);
        check(&name, &load(Arc::new(DirFiles::new(&path))), &cases);
        seen.0 += 1;
        if path.join("gguf").is_dir() {
            check(
                &format!("{name} in GGUF"),
                &load(Arc::new(DirFiles::new(path.join("gguf")))),
                &cases,
            );
            seen.1 += 1;
        }
    }
    assert_eq!(seen, (14, 8));
}
