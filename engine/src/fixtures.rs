//! Models made up on the spot: random weights, a tokenizer of single bytes, and a decoder that follows a script.
#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use half::{bf16, f16};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rayon::ThreadPoolBuilder;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    ChatEvent, ChatRequest, Engine, EngineError, EngineOptions, FinishReason, Message, ModelFiles,
    Role, Text, Usage,
    chat::{ChatSettings, ChatTemplate, TOKENIZER_CONFIG},
    decoder::{Decoder, Row},
    fields::Fields,
    kv::{BLOCK, Held, KvPool, KvShape},
    load,
    vocabulary::Vocabulary,
};

/// A model in memory; a test changes a file before it loads it.
#[derive(Clone, Default)]
pub(crate) struct MemoryFiles(pub(crate) HashMap<String, Vec<u8>>);

impl MemoryFiles {
    pub(crate) fn set(&mut self, name: &str, contents: impl Into<Vec<u8>>) {
        self.0.insert(name.into(), contents.into());
    }

    pub(crate) fn with(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.set(name, contents);
        self
    }

    /// Changes one field of config.json.
    pub(crate) fn configured(mut self, field: &str, value: Value) -> Self {
        let mut config: Value = serde_json::from_slice(&self.0["config.json"]).unwrap();
        config[field] = value;
        self.set("config.json", config.to_string());
        self
    }

    pub(crate) fn load(self, options: EngineOptions) -> Result<Engine, crate::LoadError> {
        Engine::load(Arc::new(self), options)
    }
}

impl ModelFiles for MemoryFiles {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn len(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|bytes| bytes.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.get(name).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap();
        buf.copy_from_slice(
            bytes
                .get(start..start + buf.len())
                .ok_or(io::ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    }
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        threads: 2,
        ..EngineOptions::default()
    }
}

pub(crate) const VOCABULARY: usize = 264;
pub(crate) const END: u32 = 257;

/// Byte-level BPE without merges: token 104 is "h", and every character beyond ASCII is split.
pub(crate) fn byte_tokenizer() -> Value {
    let mut vocab = serde_json::Map::new();
    let mut extra = 256;
    for byte in 0..=255u32 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let shown = if printable { byte } else { extra };
        extra += u32::from(!printable);
        vocab.insert(char::from_u32(shown).unwrap().to_string(), json!(byte));
    }
    let specials = [
        "<|bos|>",
        "<|end|>",
        "<|user|>",
        "<|assistant|>",
        "<|system|>",
    ];
    let added = specials.iter().enumerate().map(|(index, content)| {
        json!({"id": 256 + index, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    })
}

pub(crate) const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\
    {{ message.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

pub(crate) fn vocabulary_files() -> MemoryFiles {
    let config = json!({"bos_token": "<|bos|>", "eos_token": {"content": "<|end|>"}, "chat_template": TEMPLATE});
    MemoryFiles::default()
        .with("tokenizer.json", byte_tokenizer().to_string())
        .with("tokenizer_config.json", config.to_string())
}

/// Shapes of a model, and what they are filled with.
pub(crate) struct Random {
    random: StdRng,
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            tensors: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &str, shape: &[usize], around: f32) {
        let count = shape.iter().product();
        let values = (0..count)
            .map(|_| around + self.random.random_range(-0.2..0.2))
            .collect();
        self.tensors.push((name.into(), shape.into(), values));
    }

    /// Without the tensor of this name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|(each, ..)| each != name);
        self
    }

    pub(crate) fn prefixed(mut self, prefix: &str) -> Self {
        for (name, ..) in &mut self.tensors {
            name.insert_str(0, prefix);
        }
        self
    }

    pub(crate) fn safetensors(&self, dtype: Dtype) -> Vec<u8> {
        let bytes = |values: &[f32]| -> Vec<u8> {
            match dtype {
                Dtype::F16 => values
                    .iter()
                    .flat_map(|value| f16::from_f32(*value).to_le_bytes())
                    .collect(),
                Dtype::BF16 => values
                    .iter()
                    .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
                    .collect(),
                _ => values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            }
        };
        let data: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, shape, values)| (name, shape.clone(), bytes(values)))
            .collect();
        let views = data.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }
}

pub(crate) fn llama_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": VOCABULARY, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "rope_scaling": null, "tie_word_embeddings": true, "eos_token_id": END,
    })
}

pub(crate) fn llama_weights(seed: u64) -> Random {
    llama_weights_of(seed, 64, 32, 96)
}

/// For three layers and a head of its own.
pub(crate) fn llama_weights_of(seed: u64, hidden: usize, narrow: usize, inner: usize) -> Random {
    let mut random = Random::new(seed);
    random.add("model.embed_tokens.weight", &[VOCABULARY, hidden], 0.0);
    random.add("model.norm.weight", &[hidden], 1.0);
    random.add("lm_head.weight", &[VOCABULARY, hidden], 0.0);
    for layer in 0..3 {
        let mut add = |name: &str, shape: &[usize], around| {
            random.add(
                &format!("model.layers.{layer}.{name}.weight"),
                shape,
                around,
            );
        };
        add("input_layernorm", &[hidden], 1.0);
        add("post_attention_layernorm", &[hidden], 1.0);
        add("self_attn.q_proj", &[hidden, hidden], 0.0);
        add("self_attn.k_proj", &[narrow, hidden], 0.0);
        add("self_attn.v_proj", &[narrow, hidden], 0.0);
        add("self_attn.o_proj", &[hidden, hidden], 0.0);
        add("mlp.gate_proj", &[inner, hidden], 0.0);
        add("mlp.up_proj", &[inner, hidden], 0.0);
        add("mlp.down_proj", &[hidden, inner], 0.0);
    }
    random
}

pub(crate) fn llama_files() -> MemoryFiles {
    vocabulary_files()
        .with("config.json", llama_config().to_string())
        .with(
            "model.safetensors",
            llama_weights(1).safetensors(Dtype::F32),
        )
}

/// The same model as one GGUF file without a tokenizer in it: its matrices in `format`, the rest in f32, written by candle.
pub(crate) fn llama_gguf(config: &Value, weights: &Random, format: GgmlDType) -> Vec<u8> {
    let head_dim =
        config["hidden_size"].as_u64().unwrap() / config["num_attention_heads"].as_u64().unwrap();
    gguf_bytes(
        &gguf_settings(config),
        &weights.gguf_tensors_in(head_dim as usize, format, format),
    )
}

impl Random {
    pub(crate) fn gguf_tensors(&self, head_dim: usize) -> Vec<(String, QTensor)> {
        self.gguf_tensors_in(head_dim, GgmlDType::F32, GgmlDType::F32)
    }

    /// Matrices in `format`, those of the vocabulary in `vocabulary`.
    pub(crate) fn gguf_tensors_in(
        &self,
        head_dim: usize,
        format: GgmlDType,
        vocabulary: GgmlDType,
    ) -> Vec<(String, QTensor)> {
        let tensors = self.tensors.iter().map(|(name, shape, values)| {
            let mut values = values.clone();
            if name.contains("q_proj") || name.contains("k_proj") {
                values = interleaved(&values, shape.get(1).copied().unwrap_or(1), head_dim);
            }
            let tensor = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
            let format = match shape.as_slice() {
                [VOCABULARY, _] => vocabulary,
                [_, _] => format,
                _ => GgmlDType::F32,
            };
            (gguf_name(name), QTensor::quantize(&tensor, format).unwrap())
        });
        tensors.collect()
    }

    /// What the matrices stand for once they are in `format`.
    pub(crate) fn quantized(&self, format: GgmlDType) -> Self {
        let mut tensors = self.tensors.clone();
        for (_, shape, values) in tensors.iter_mut().filter(|(_, shape, _)| shape.len() == 2) {
            let tensor = Tensor::from_slice(values, shape.as_slice(), &Device::Cpu).unwrap();
            let stored = QTensor::quantize(&tensor, format).unwrap();
            let tensor = stored.dequantize(&Device::Cpu).unwrap();
            *values = tensor.flatten_all().unwrap().to_vec1().unwrap();
        }
        Self {
            random: StdRng::seed_from_u64(0),
            tensors,
        }
    }
}

pub(crate) type Metadata = Vec<(String, gguf_file::Value)>;

pub(crate) fn gguf_settings(config: &Value) -> Metadata {
    let count = |field: &str| gguf_file::Value::U32(config[field].as_u64().unwrap() as u32);
    let float = |field: &str| gguf_file::Value::F32(config[field].as_f64().unwrap() as f32);
    let mut metadata = vec![
        (
            "general.architecture".to_owned(),
            gguf_file::Value::String("llama".into()),
        ),
        ("llama.vocab_size".into(), count("vocab_size")),
        ("llama.embedding_length".into(), count("hidden_size")),
        (
            "llama.feed_forward_length".into(),
            count("intermediate_size"),
        ),
        ("llama.block_count".into(), count("num_hidden_layers")),
        (
            "llama.attention.head_count".into(),
            count("num_attention_heads"),
        ),
        (
            "llama.attention.head_count_kv".into(),
            count("num_key_value_heads"),
        ),
        (
            "llama.attention.layer_norm_rms_epsilon".into(),
            float("rms_norm_eps"),
        ),
        ("llama.rope.freq_base".into(), float("rope_theta")),
        (
            "llama.context_length".into(),
            count("max_position_embeddings"),
        ),
        ("tokenizer.ggml.eos_token_id".into(), count("eos_token_id")),
    ];
    let head_dim =
        config["hidden_size"].as_u64().unwrap() / config["num_attention_heads"].as_u64().unwrap();
    metadata.push((
        "llama.rope.dimension_count".into(),
        gguf_file::Value::U32(head_dim as u32),
    ));
    metadata
}

pub(crate) fn gguf_bytes(metadata: &Metadata, tensors: &[(String, QTensor)]) -> Vec<u8> {
    let metadata: Vec<_> = metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut file = io::Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    file.into_inner()
}

/// As llama.cpp's converter lays out queries and keys.
fn interleaved(values: &[f32], width: usize, head_dim: usize) -> Vec<f32> {
    let row = |head: usize, row: usize| &values[(head * head_dim + row) * width..][..width];
    let heads = values.len() / width / head_dim;
    let pairs = (0..heads).flat_map(|head| (0..head_dim / 2).map(move |pair| (head, pair)));
    pairs
        .flat_map(|(head, pair)| [row(head, pair), row(head, pair + head_dim / 2)].concat())
        .collect()
}

fn gguf_name(name: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (theirs, ours)| {
        name.replace(theirs, ours)
    })
}

pub(crate) fn bert_config() -> Value {
    json!({
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY,
        "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    })
}

pub(crate) fn bert_weights() -> Random {
    let mut random = Random::new(2);
    random.add("embeddings.word_embeddings.weight", &[VOCABULARY, 32], 0.0);
    random.add("embeddings.position_embeddings.weight", &[64, 32], 0.0);
    random.add("embeddings.token_type_embeddings.weight", &[2, 32], 0.0);
    let norm = |random: &mut Random, name: &str| {
        random.add(&format!("{name}.weight"), &[32], 1.0);
        random.add(&format!("{name}.bias"), &[32], 0.0);
    };
    norm(&mut random, "embeddings.LayerNorm");
    for layer in 0..2 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let linear = |random: &mut Random, part: &str, outputs: usize, inputs: usize| {
            random.add(&format!("{}.weight", name(part)), &[outputs, inputs], 0.0);
            random.add(&format!("{}.bias", name(part)), &[outputs], 0.0);
        };
        for part in [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ] {
            linear(&mut random, part, 32, 32);
        }
        linear(&mut random, "intermediate.dense", 48, 32);
        linear(&mut random, "output.dense", 32, 48);
        norm(&mut random, &name("attention.output.LayerNorm"));
        norm(&mut random, &name("output.LayerNorm"));
    }
    random
}

pub(crate) fn bert_files() -> MemoryFiles {
    vocabulary_files()
        .with("config.json", bert_config().to_string())
        .with("model.safetensors", bert_weights().safetensors(Dtype::F32))
}

/// Answers every prompt with the same tokens, then ends the turn.
pub(crate) struct Script {
    pub(crate) answer: Vec<u32>,
    pub(crate) delay: Duration,
    pub(crate) panic_at: Option<usize>,
    pub(crate) steps: Arc<AtomicUsize>,
    /// The most rows of one step.
    pub(crate) widest: Arc<AtomicUsize>,
    pub(crate) template: &'static str,
}

impl Script {
    pub(crate) fn new(answer: &str) -> Self {
        let answer = answer.bytes().map(u32::from).collect();
        Self {
            answer,
            delay: Duration::ZERO,
            panic_at: None,
            steps: Arc::default(),
            widest: Arc::default(),
            template: TEMPLATE,
        }
    }

    pub(crate) fn engine(self, options: EngineOptions) -> Engine {
        let files = vocabulary_files().with("chat_template.jinja", self.template);
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .build()
            .unwrap();
        let affordable = options.kv_cache_bytes / self.shape().block_bytes();
        let blocks = affordable.min(4096) as usize;
        let settings = ChatSettings {
            context: 4096.min(blocks * BLOCK),
            vocabulary: VOCABULARY,
            end: BTreeSet::from([END]),
            prefill_chunk: options.prefill_chunk,
            max_sequences: options.max_sequences,
            blocks,
        };
        let template = ChatTemplate::read(
            &files,
            Some(&Fields::read(&files, TOKENIZER_CONFIG).unwrap()),
            None,
        )
        .unwrap();
        load::start_chat(
            self,
            Vocabulary::read(&files, None, VOCABULARY).unwrap(),
            settings,
            template,
            options,
            pool,
        )
        .unwrap()
    }
}

impl Decoder for Script {
    fn shape(&self) -> KvShape {
        KvShape {
            layers: 1,
            kv_heads: 1,
            head_dim: 2,
        }
    }

    /// Its memory of a sequence is what a model has: one number behind each token, how many came since the answer began.
    fn forward(
        &self,
        kv: &mut KvPool,
        rows: &[Row<'_>],
    ) -> candle_core::Result<Vec<Option<Vec<f32>>>> {
        const ANSWER: u32 = END + 2;
        std::thread::sleep(self.delay);
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        assert_ne!(Some(step), self.panic_at, "as scripted");
        self.widest.fetch_max(rows.len(), Ordering::SeqCst);
        let layer = kv.layer(0)?;
        let logits = rows.iter().map(|row| {
            let mut made = match row.held.tokens {
                0 => 0.0,
                _ => layer.gather(row.held)?.0[2 * (row.held.tokens - 1)],
            };
            let mut keys = Vec::new();
            for token in row.tokens {
                made = if *token == ANSWER {
                    1.0
                } else if made > 0.0 {
                    made + 1.0
                } else {
                    0.0
                };
                keys.extend([made, 0.0]);
            }
            layer.write(row.held, &keys, &keys)?;
            Ok(row.wants_logits.then(|| {
                let token = self.answer.get(made as usize - 1).copied().unwrap_or(END);
                (0..VOCABULARY as u32)
                    .map(|id| if id == token { 10.0 } else { -10.0 })
                    .collect()
            }))
        });
        logits.collect()
    }
}

/// Memory for some sequences, whose blocks lie in no order.
pub(crate) struct Memory {
    kv: KvPool,
    free: Vec<u32>,
}

/// One sequence in it.
pub(crate) struct Seat {
    blocks: Vec<u32>,
    tokens: usize,
    limit: usize,
}

impl Memory {
    pub(crate) fn new(model: &impl Decoder, tokens: usize) -> Self {
        let blocks = tokens.div_ceil(BLOCK) as u32 + 64;
        Self {
            kv: KvPool::new(model.shape(), blocks as usize),
            free: (0..blocks).collect(),
        }
    }

    pub(crate) fn seat(&mut self, limit: usize) -> Seat {
        let count = limit.div_ceil(BLOCK);
        // From both ends in turn.
        let mut blocks = Vec::new();
        for index in 0..count {
            let at = if index % 2 == 0 {
                self.free.len() - 1
            } else {
                0
            };
            blocks.push(self.free.remove(at));
        }
        Seat {
            blocks,
            tokens: 0,
            limit,
        }
    }

    pub(crate) fn step(
        &mut self,
        model: &impl Decoder,
        seat: &mut Seat,
        tokens: &[u32],
    ) -> Vec<f32> {
        self.pass(model, &mut [(seat, tokens, true)])
            .unwrap()
            .remove(0)
            .unwrap()
    }

    pub(crate) fn pass(
        &mut self,
        model: &impl Decoder,
        rows: &mut [(&mut Seat, &[u32], bool)],
    ) -> candle_core::Result<Vec<Option<Vec<f32>>>> {
        let packed: Vec<_> = rows
            .iter()
            .map(|(seat, tokens, wants_logits)| Row {
                tokens,
                held: Held {
                    blocks: &seat.blocks,
                    tokens: seat.tokens,
                },
                limit: seat.limit,
                wants_logits: *wants_logits,
            })
            .collect();
        let logits = model.forward(&mut self.kv, &packed)?;
        for (seat, tokens, _) in rows {
            seat.tokens += tokens.len();
        }
        Ok(logits)
    }
}

pub(crate) fn ask(text: &str) -> ChatRequest {
    let message = Message::new(Role::User, Text::new(text.into()));
    ChatRequest {
        temperature: 0.0,
        ..ChatRequest::new(vec![message])
    }
}

pub(crate) struct Answer {
    pub(crate) pieces: Vec<String>,
    pub(crate) end: Result<(FinishReason, Usage), EngineError>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        self.pieces.concat()
    }
}

/// The one choice of a request that asks for one.
pub(crate) fn answer(engine: &Engine, request: ChatRequest) -> Answer {
    assert_eq!(request.choices, 1);
    let mut whole = choices(engine, request);
    let choice = whole.choices.remove(0);
    Answer {
        end: whole.end.map(|usage| (choice.reason.unwrap(), usage)),
        pieces: choice.pieces,
    }
}

#[derive(Default)]
pub(crate) struct Choice {
    pub(crate) pieces: Vec<String>,
    pub(crate) logprobs: Vec<crate::TokenLogprob>,
    pub(crate) calls: Vec<(String, String)>,
    pub(crate) reason: Option<FinishReason>,
}

impl Choice {
    pub(crate) fn text(&self) -> String {
        self.pieces.concat()
    }
}

pub(crate) struct Choices {
    pub(crate) choices: Vec<Choice>,
    pub(crate) end: Result<Usage, EngineError>,
}

/// All choices of a request; each ends once, before the request does.
pub(crate) fn choices(engine: &Engine, request: ChatRequest) -> Choices {
    let mut choices: Vec<Choice> = Vec::new();
    choices.resize_with(request.choices as usize, Choice::default);
    let mut events = engine.chat(request).unwrap();
    while let Some(event) = events.blocking_recv() {
        match event {
            ChatEvent::Delta(piece) => {
                let choice = &mut choices[piece.choice as usize];
                assert!(choice.reason.is_none(), "nothing follows the end");
                choice.pieces.push(piece.text.expose().to_owned());
                choice.logprobs.extend(piece.logprobs);
            }
            ChatEvent::ToolCall { choice, call } => {
                let arguments = call.arguments.expose().to_owned();
                choices[choice as usize].calls.push((call.name, arguments));
            }
            ChatEvent::Ended {
                choice,
                finish_reason,
            } => {
                let before = choices[choice as usize].reason.replace(finish_reason);
                assert!(before.is_none(), "a choice ends once");
            }
            ChatEvent::Done { usage } => {
                assert!(choices.iter().all(|choice| choice.reason.is_some()));
                return Choices {
                    choices,
                    end: Ok(usage),
                };
            }
            ChatEvent::Failed(error) => {
                return Choices {
                    choices,
                    end: Err(error),
                };
            }
        }
    }
    panic!("the answer has no end");
}

/// Waits for what follows an answer, in the engine's own time.
pub(crate) fn eventually(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}
