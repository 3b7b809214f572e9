#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]

use std::{collections::HashMap, path::PathBuf, process::Command, sync::Arc};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file::Value as Raw},
};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::GgufModel;
use crate::{
    DirFiles, EngineOptions, LoadError, ModelFiles, Quantize,
    fields::Fields,
    fixtures::{
        END, Memory, MemoryFiles, Metadata, TEMPLATE, VOCABULARY, answer, ask, bert_files,
        byte_tokenizer, gguf_bytes, gguf_settings, llama_config, llama_files, llama_gguf,
        llama_weights, llama_weights_of, options, vocabulary_files,
    },
    llama::{Config, Llama, reference::written_by},
    vocabulary::Vocabulary,
    weights::Weights,
};

type Tensors = Vec<(String, QTensor)>;

const TOKENS: [u32; 12] = [256, 1, 72, 200, 5, 5, 5, 9, 31, 255, 0, 17];

fn config() -> Value {
    let mut config = llama_config();
    config["tie_word_embeddings"] = json!(false);
    config
}

fn with_gguf(bytes: Vec<u8>) -> MemoryFiles {
    vocabulary_files().with("model.gguf", bytes)
}

fn load(files: Arc<dyn ModelFiles>) -> Result<Llama, LoadError> {
    match GgufModel::find(files.as_ref())? {
        Some(model) => {
            let config = Config::read(&model.config()?)?;
            let entries = model.entries(config.head_dim)?;
            Llama::load(&Weights::of(files, entries), config)
        }
        None => {
            let config = Config::read(&Fields::read(files.as_ref(), "config.json")?)?;
            Llama::load(&*Weights::open(files)?, config)
        }
    }
}

/// Logits after the tokens, and after one more.
fn logits(model: &Llama) -> Vec<Vec<f32>> {
    let mut memory = Memory::new(model, TOKENS.len() + 1);
    let mut seat = memory.seat(TOKENS.len() + 1);
    vec![
        memory.step(model, &mut seat, &TOKENS),
        memory.step(model, &mut seat, &[3]),
    ]
}

fn difference(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> f32 {
    let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The root of the mean square of what differs, of that of what is expected.
fn relative(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> f32 {
    let square =
        |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>();
    let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
    let off = square(&mut pairs.map(|(a, b)| a - b));
    (off / square(&mut theirs.iter().flatten().copied())).sqrt()
}

fn from_safetensors(config: &Value, weights: Vec<u8>) -> Vec<Vec<f32>> {
    let files = llama_files()
        .with("config.json", config.to_string())
        .with("model.safetensors", weights);
    logits(&load(Arc::new(files)).unwrap())
}

#[test]
fn gives_the_logits_of_the_same_model_from_safetensors() {
    let (config, weights) = (config(), llama_weights(3));
    for (gguf, safetensors) in [
        (GgmlDType::F32, Dtype::F32),
        (GgmlDType::F16, Dtype::F16),
        (GgmlDType::BF16, Dtype::BF16),
    ] {
        let expected = from_safetensors(&config, weights.safetensors(safetensors));
        let files = with_gguf(llama_gguf(&config, &weights, gguf));
        let found = logits(&load(Arc::new(files)).unwrap());
        // Norms stay f32 in GGUF, and are rounded in the other file.
        let allowed = if safetensors == Dtype::F32 { 2e-4 } else { 0.2 };
        let difference = difference(&found, &expected);
        assert!(difference <= allowed, "{gguf:?}: {difference}");
    }
}

#[test]
fn a_table_without_a_head_serves_as_both() {
    let weights = llama_weights(3).without("lm_head.weight");
    let expected = from_safetensors(&llama_config(), weights.safetensors(Dtype::F32));
    let files = with_gguf(llama_gguf(&llama_config(), &weights, GgmlDType::F32));
    let found = logits(&load(Arc::new(files)).unwrap());
    assert!(difference(&found, &expected) <= 2e-4);
}

/// Rows of 256, so that every block format fits.
fn wide() -> (Value, crate::fixtures::Random) {
    let mut config = config();
    for (field, value) in [("hidden_size", 256), ("intermediate_size", 512)] {
        config[field] = json!(value);
    }
    (config, llama_weights_of(4, 256, 128, 512))
}

#[test]
fn quantized_weights_give_nearly_the_logits_of_what_they_stand_for() {
    let (config, weights) = wide();
    for format in [GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::Q6K] {
        let files: Arc<dyn ModelFiles> = Arc::new(with_gguf(llama_gguf(&config, &weights, format)));
        let found = logits(&load(files).unwrap());
        let stand_in = weights.quantized(format);
        let expected = from_safetensors(&config, stand_in.safetensors(Dtype::F32));
        // The kernels round what is multiplied to eight bits, too.
        let off = relative(&found, &expected);
        assert!(off < 0.05, "{format:?}: {off}");
    }
}

#[test]
fn weights_that_are_quantized_while_they_are_read_are_those_of_the_file_that_has_them_so() {
    let (config, weights) = wide();
    let files: Arc<dyn ModelFiles> = Arc::new(
        llama_files()
            .with("config.json", config.to_string())
            .with("model.safetensors", weights.safetensors(Dtype::F32)),
    );
    let read = |to: Option<Quantize>| {
        let config = Config::read(&Fields::read(files.as_ref(), "config.json").unwrap()).unwrap();
        let weights = Weights::open(Arc::clone(&files)).unwrap();
        if let Some(to) = to {
            weights.quantize(to);
        }
        let planned = weights.resident_bytes();
        (logits(&Llama::load(&weights, config).unwrap()), planned)
    };
    let (_, whole) = read(None);
    for (to, format, vocabulary) in [
        (Quantize::Q8_0, GgmlDType::Q8_0, GgmlDType::Q8_0),
        (Quantize::Q4K, GgmlDType::Q4K, GgmlDType::Q6K),
    ] {
        let tensors = weights.gguf_tensors_in(64, format, vocabulary);
        let stored = with_gguf(gguf_bytes(&gguf_settings(&config), &tensors));
        let expected = logits(&load(Arc::new(stored)).unwrap());
        let (found, planned) = read(Some(to));
        assert_eq!(difference(&found, &expected), 0.0, "{to:?}");
        assert!(planned < whole, "{planned} of {whole}");
    }
}

#[test]
fn formats_have_names_and_are_for_every_model() {
    assert_eq!(Quantize::named("q4_k"), Some(Quantize::Q4K));
    assert_eq!(Quantize::named("Q4_K_M"), None);
    let options = EngineOptions {
        quantize: Some(Quantize::Q8_0),
        ..options()
    };
    assert!(llama_files().load(options.clone()).is_ok());
    assert!(bert_files().load(options).is_ok());
}

#[test]
fn rows_that_are_read_in_parts_are_all_there() {
    // 16 heads of 256 rows of 8 KiB in q8_0: more than one part each.
    let (heads, head_dim, width) = (16, 64, 8192);
    let rows = heads * head_dim * 8;
    let values = Tensor::rand(-1f32, 1f32, (rows, width), &Device::Cpu).unwrap();
    let stored = QTensor::quantize(&values, GgmlDType::Q8_0).unwrap();
    let expected = stored.dequantize(&Device::Cpu).unwrap();
    let mut settings = gguf_settings(&llama_config());
    settings.retain(|(key, _)| key == "general.architecture");
    let bytes = gguf_bytes(
        &settings,
        &[
            (
                "token_embd.weight".into(),
                QTensor::quantize(&values, GgmlDType::Q8_0).unwrap(),
            ),
            ("blk.0.attn_q.weight".into(), stored),
        ],
    );
    let files: Arc<dyn ModelFiles> = Arc::new(MemoryFiles::default().with("a.gguf", bytes));
    let model = GgufModel::find(files.as_ref()).unwrap().unwrap();
    let weights = Weights::of(files, model.entries(head_dim).unwrap());
    let all: Vec<u32> = (0..rows as u32).collect();
    let read = |name: &str| {
        weights
            .matrix(name, rows, width)
            .unwrap()
            .rows(&all)
            .unwrap()
    };
    let same = |a: &Tensor, b: &Tensor| {
        let off = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() == 0.0);
    };
    same(&read("model.embed_tokens.weight"), &expected);
    // Neighbours have become halves.
    let by_head = expected
        .reshape((rows / head_dim, head_dim / 2, 2, width))
        .unwrap();
    let halves = by_head.transpose(1, 2).unwrap().contiguous().unwrap();
    same(
        &read("model.layers.0.self_attn.q_proj.weight"),
        &halves.reshape((rows, width)).unwrap(),
    );
}

/// The tokenizer of the other fixtures, as metadata.
fn byte_level() -> Metadata {
    let tokenizer = byte_tokenizer();
    let mut tokens = vec![String::new(); VOCABULARY];
    let mut kinds = vec![1; VOCABULARY];
    for (token, id) in tokenizer["model"]["vocab"].as_object().unwrap() {
        tokens[id.as_u64().unwrap() as usize].clone_from(token);
    }
    for added in tokenizer["added_tokens"].as_array().unwrap() {
        let id = added["id"].as_u64().unwrap() as usize;
        tokens[id] = added["content"].as_str().unwrap().into();
        kinds[id] = 3;
    }
    for (id, token) in tokens
        .iter_mut()
        .enumerate()
        .filter(|(_, token)| token.is_empty())
    {
        *token = format!("[unused {id}]");
    }
    let list = |texts: Vec<String>| Raw::Array(texts.into_iter().map(Raw::String).collect());
    vec![
        ("tokenizer.ggml.model".into(), Raw::String("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Raw::String("gpt-2".into())),
        ("tokenizer.ggml.tokens".into(), list(tokens)),
        (
            "tokenizer.ggml.token_type".into(),
            Raw::Array(kinds.into_iter().map(Raw::I32).collect()),
        ),
        ("tokenizer.ggml.merges".into(), list(vec!["h e".into()])),
        ("tokenizer.ggml.bos_token_id".into(), Raw::U32(256)),
        (
            "tokenizer.chat_template".into(),
            Raw::String(TEMPLATE.into()),
        ),
    ]
}

fn metadata() -> Metadata {
    let mut metadata = gguf_settings(&config());
    metadata.extend(byte_level());
    let Raw::Array(tokens) = &mut metadata
        .iter_mut()
        .find(|(key, _)| key == "tokenizer.ggml.tokens")
        .unwrap()
        .1
    else {
        unreachable!()
    };
    // The last place is free for what the one merge makes.
    tokens[VOCABULARY - 1] = Raw::String("he".into());
    metadata
}

fn whole(change: impl Fn(&mut Metadata)) -> MemoryFiles {
    let mut metadata = metadata();
    change(&mut metadata);
    let weights = llama_weights(3);
    let tensors = weights.gguf_tensors(16);
    MemoryFiles::default().with("model.gguf", gguf_bytes(&metadata, &tensors))
}

fn set(key: &str, value: Raw) -> impl Fn(&mut Metadata) {
    move |metadata| {
        metadata.retain(|(each, _)| each != key);
        metadata.push((key.into(), value.clone()));
    }
}

#[test]
fn one_file_is_a_whole_chat_model() {
    let alone = whole(|_| {}).load(options()).unwrap();
    assert_eq!(alone.context_length(), 512);
    let mut request = ask("hello");
    request.max_tokens = Some(5);
    let said = answer(&alone, request);
    let (_, usage) = said.end.unwrap();
    // <|bos|><|user|>, "he" as one, three letters, <|end|><|assistant|>.
    assert_eq!(usage.prompt_tokens, 8);

    // Files beside it win: without the merge "he" is two tokens.
    let files = whole(|_| {}).with("tokenizer.json", byte_tokenizer().to_string());
    let mut request = ask("hello");
    request.max_tokens = Some(5);
    let (_, usage) = answer(&files.load(options()).unwrap(), request)
        .end
        .unwrap();
    assert_eq!(usage.prompt_tokens, 9);

    let files = whole(|_| {}).with(
        "tokenizer_config.json",
        json!({"chat_template": "a"}).to_string(),
    );
    let mut request = ask("hello");
    request.max_tokens = Some(5);
    let (_, usage) = answer(&files.load(options()).unwrap(), request)
        .end
        .unwrap();
    assert_eq!(usage.prompt_tokens, 1);
}

#[test]
fn sentence_pieces_merge_by_their_scores() {
    let pieces = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("<0x41>", 0.0, 6),
        ("▁", -10.0, 1),
        ("a", -11.0, 1),
        ("b", -12.0, 1),
        ("c", -13.0, 1),
        ("ab", -2.0, 1),
        ("bc", -1.0, 1),
        ("▁a", -3.0, 1),
        ("abc", -0.5, 1),
        ("▁abc", -0.2, 1),
    ];
    let texts = pieces
        .iter()
        .map(|(text, ..)| Raw::String((*text).into()))
        .collect();
    let scores: Vec<Raw> = pieces
        .iter()
        .map(|(_, score, _)| Raw::F32(*score))
        .collect();
    let kinds = pieces.iter().map(|(.., kind)| Raw::I32(*kind)).collect();
    let files = |scores: Vec<Raw>| {
        let metadata: Metadata = vec![
            ("general.architecture".into(), Raw::String("llama".into())),
            ("tokenizer.ggml.model".into(), Raw::String("llama".into())),
            (
                "tokenizer.ggml.tokens".into(),
                Raw::Array(Vec::clone(&texts)),
            ),
            ("tokenizer.ggml.scores".into(), Raw::Array(scores)),
            (
                "tokenizer.ggml.token_type".into(),
                Raw::Array(Vec::clone(&kinds)),
            ),
        ];
        let table = Tensor::zeros((12, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let table = QTensor::quantize(&table, GgmlDType::F32).unwrap();
        MemoryFiles::default().with(
            "a.gguf",
            gguf_bytes(&metadata, &[("token_embd.weight".into(), table)]),
        )
    };
    let read = |files: MemoryFiles| {
        let model = GgufModel::find(&files).unwrap().unwrap();
        Vocabulary::read(&files, Some(&model), pieces.len())
    };
    let vocabulary = read(files(scores.clone())).unwrap();
    let ids = |text: &str| vocabulary.encode(text, false).unwrap().to_vec();
    // "bc", then "abc", then all; but "ab" is better than "▁a".
    assert_eq!(ids("abc"), [11]);
    assert_eq!(ids("ab"), [3, 7]);
    assert_eq!(ids("A"), [3, 2], "by its byte");
    assert_eq!(
        ids("<s>c"),
        [1, 3, 6],
        "a control token is one whatever is around it"
    );
    assert_eq!(vocabulary.decode(&[11, 3, 2]).unwrap().as_str(), "abc A");
    let mut short = scores;
    short.pop();
    let error = read(files(short)).err().unwrap().to_string();
    assert_eq!(
        error,
        "a.gguf: field tokenizer.ggml.scores: expected 12 finite numbers"
    );
}

fn refusal(files: MemoryFiles) -> String {
    files.load(options()).err().unwrap().to_string()
}

#[test]
fn refuses_metadata_by_its_own_key() {
    for (key, value) in [
        ("general.architecture", Raw::String("mamba".into())),
        ("llama.embedding_length", Raw::U32(0)),
        ("llama.embedding_length", Raw::U64(1 << 40)),
        ("llama.embedding_length", Raw::String("64".into())),
        ("llama.block_count", Raw::U32(1 << 20)),
        ("llama.attention.head_count_kv", Raw::U32(3)),
        (
            "llama.attention.head_count_kv",
            Raw::Array(vec![Raw::U32(2), Raw::U32(2)]),
        ),
        ("llama.attention.layer_norm_rms_epsilon", Raw::F32(f32::NAN)),
        ("llama.attention.layer_norm_rms_epsilon", Raw::F32(-1.0)),
        ("llama.rope.freq_base", Raw::F32(f32::INFINITY)),
        ("llama.rope.dimension_count", Raw::U32(8)),
        ("llama.attention.value_length", Raw::U32(8)),
        ("llama.attention.sliding_window", Raw::U32(64)),
        ("llama.context_length", Raw::I32(-1)),
        ("llama.context_length", Raw::U32(1)),
        ("llama.expert_count", Raw::U32(8)),
        ("split.count", Raw::U16(2)),
        ("tokenizer.ggml.model", Raw::String("rwkv".into())),
        ("tokenizer.ggml.pre", Raw::String("made-up".into())),
        (
            "tokenizer.ggml.merges",
            Raw::Array(vec![Raw::String("he".into())]),
        ),
        ("tokenizer.ggml.token_type", Raw::Array(vec![Raw::I32(1)])),
        ("tokenizer.ggml.tokens", Raw::String("a".into())),
        ("tokenizer.ggml.bos_token_id", Raw::U32(100_000)),
        ("tokenizer.ggml.eos_token_id", Raw::U32(100_000)),
        ("tokenizer.chat_template", Raw::U32(1)),
    ] {
        let error = refusal(whole(set(key, value.clone())));
        assert!(
            error.starts_with(&format!("model.gguf: field {key}: ")),
            "{key} = {value:?}: {error}"
        );
    }
    for key in [
        "general.architecture",
        "llama.block_count",
        "tokenizer.ggml.tokens",
        "tokenizer.chat_template",
    ] {
        let error = refusal(whole(|metadata| metadata.retain(|(each, _)| each != key)));
        let named = error.contains(key)
            || error.contains("num_hidden_layers")
            || error.contains("chat_template");
        assert!(named && error.contains("missing"), "{key}: {error}");
    }
    let yarn = refusal(whole(set(
        "llama.rope.scaling.type",
        Raw::String("yarn".into()),
    )));
    assert!(
        yarn.starts_with("model.gguf: field llama.rope.scaling.rope_type: "),
        "{yarn}"
    );
}

#[test]
fn refuses_tensors_by_their_own_name() {
    let files = |change: &dyn Fn(&mut Tensors)| {
        let metadata = metadata();
        let mut tensors = llama_weights(3).gguf_tensors(16);
        change(&mut tensors);
        MemoryFiles::default().with("model.gguf", gguf_bytes(&metadata, &tensors))
    };
    let put = |name: &'static str, shape: &[usize], format: GgmlDType| {
        let tensor = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&tensor, format).unwrap();
        let tensor = std::cell::Cell::new(Some((name.to_owned(), tensor)));
        move |tensors: &mut Tensors| {
            tensors.retain(|(each, _)| each != name);
            tensors.push(tensor.take().unwrap());
        }
    };
    let name = "blk.1.ffn_gate.weight";
    for (change, problem) in [
        (
            put(name, &[96, 64], GgmlDType::Q5_0),
            "is Q5_0, not F32, F16, BF16, Q8_0, Q4_K or Q6_K",
        ),
        (
            put(name, &[64, 96], GgmlDType::F32),
            "shape is [64, 96], the configuration asks for [96, 64]",
        ),
        (
            put("blk.0.ffn_gate_exps.weight", &[2, 2], GgmlDType::F32),
            "not known of llama models",
        ),
        (
            put("blk.00.ffn_gate.weight", &[2, 2], GgmlDType::F32),
            "not known of llama models",
        ),
        (
            put("output_norm.weight", &[64], GgmlDType::Q8_0),
            "is quantized, and no matrix",
        ),
    ] {
        let error = refusal(files(&change));
        assert!(error.starts_with("model.gguf: tensor "), "{error}");
        assert!(error.ends_with(problem), "{error}");
    }
    let error = refusal(files(&|tensors| tensors.retain(|(each, _)| each != name)));
    assert_eq!(
        error,
        "tensor model.layers.1.mlp.gate_proj.weight: missing from the weights"
    );
}

#[test]
fn refuses_files_that_leave_open_what_the_model_is() {
    let bytes = whole(|_| {}).0["model.gguf"].clone();
    let two = whole(|_| {}).with("other.gguf", bytes.clone());
    assert!(refusal(two).contains("a second GGUF file beside"));
    let both = llama_files().with("model.gguf", bytes.clone());
    assert!(refusal(both).contains("model.safetensors: weights in two formats"));
    let cut = whole(|_| {}).with("model.gguf", &bytes[..bytes.len() - 100]);
    assert!(refusal(cut).starts_with("model.gguf: tensor "));
    let head = whole(|_| {}).with("model.gguf", "GGUF");
    assert_eq!(refusal(head), "model.gguf: the file ends within its header");
}

#[test]
fn what_it_takes_is_known_before_it_is_read() {
    let (config, weights) = wide();
    let quantized = llama_gguf(&config, &weights, GgmlDType::Q4K);
    let mut small = options();
    small.max_weight_bytes = 1 << 20;
    let error = with_gguf(quantized).load(small).err().unwrap();
    let LoadError::Memory { needed, available } = error else {
        panic!("{error}")
    };
    assert_eq!(available, 1 << 20);
    // Two layers of the table's size in matrices, and candle's tiles beside the blocks.
    let matrices = 3 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 512) + VOCABULARY as u64 * 256;
    let table = VOCABULARY as u64 * 144;
    let norms = 7 * 256 * 4;
    // And keys and values: three layers, both, of 128 numbers for each of 16 times 512 positions.
    let kv = 3 * 2 * 128 * 4 * 16 * 512;
    assert_eq!(needed, matrices / 256 * 336 + table + norms + kv);
}

/// llama.cpp's own Python package writes the file: its layout, its quantization, its idea of what the blocks stand for.
#[test]
fn a_file_of_llama_cpps_writer_gives_its_weights_and_their_logits() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = root.join("target/tools/py/bin/python3");
    let has = |module: &str| {
        let run = Command::new(&python)
            .args(["-c", &format!("import {module}")])
            .output();
        run.is_ok_and(|run| run.status.success())
    };
    if !has("gguf") {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "the gguf package is missing: run scripts/dev-tools"
        );
        println!("skipped: the gguf package is missing (scripts/dev-tools brings it)");
        return;
    }
    let directory = written_by(&python, "write_gguf.py");
    for format in ["f32", "f16", "bf16", "q8_0", "q4_k", "q6_k"] {
        let at = |side: &str| Arc::new(DirFiles::new(directory.path().join(format).join(side)));
        let (theirs, plain) = (at("gguf"), at("plain"));
        let found = logits(&load(theirs.clone()).unwrap());
        let expected = logits(&load(plain.clone()).unwrap());
        match format.starts_with('q') {
            true => {
                let off = relative(&found, &expected);
                assert!(off < 0.05, "{format}: {off}");
            }
            false => {
                let off = difference(&found, &expected);
                assert!(off <= 2e-4, "{format}: {off}");
            }
        }

        let model = GgufModel::find(theirs.as_ref()).unwrap().unwrap();
        let entries = model.entries(64).unwrap();
        let shapes: HashMap<_, _> = entries
            .iter()
            .map(|(name, entry)| (name.clone(), entry.shape.clone()))
            .collect();
        let (theirs, plain) = (Weights::of(theirs, entries), Weights::open(plain).unwrap());
        for (name, shape) in shapes {
            let &[rows, width] = shape.as_slice() else {
                continue;
            };
            let all: Vec<u32> = (0..rows as u32).collect();
            let values = |weights: &Weights| {
                let table = weights
                    .matrix(&name, rows, width)
                    .unwrap()
                    .rows(&all)
                    .unwrap();
                table.to_vec2::<f32>().unwrap()
            };
            let (ours, expected) = (values(&theirs), values(&plain));
            let largest = expected.iter().flatten().fold(0f32, |a, b| a.max(b.abs()));
            let off = difference(&ours, &expected);
            assert!(off <= largest * 1e-6, "{format} {name}: {off} of {largest}");
        }
    }
    // The tokenizer and the template are in the file.
    let files = Arc::new(DirFiles::new(directory.path().join("q8_0/gguf")));
    let engine = crate::Engine::load(files, options()).unwrap();
    let mut request = ask("hi");
    request.max_tokens = Some(3);
    let (_, usage) = answer(&engine, request).end.unwrap();
    assert_eq!(usage.prompt_tokens, 6);
    assert_eq!(END, 257);
}
