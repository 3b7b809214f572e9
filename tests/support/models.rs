//! Tiny models with random weights, in the layout of a Hugging Face directory: real files through real code, no download.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sim::stack::Model;

const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const INNER: usize = 64;
const LAYERS: usize = 2;
const POSITIONS: usize = 512;

/// Names of the two models of [`both`].
pub const CHAT: &str = "tiny-llama";
/// See [`CHAT`].
pub const EMBED: &str = "tiny-bert";

/// A chat model and an embedding model below `dir`.
pub fn both(dir: &Path) -> Vec<Model> {
    vec![
        Model {
            name: CHAT.to_owned(),
            dir: llama(&dir.join(CHAT)),
        },
        Model {
            name: EMBED.to_owned(),
            dir: bert(&dir.join(EMBED)),
        },
    ]
}

/// The trained demonstration model of this project.
pub fn demo() -> Model {
    Model {
        name: "cloister-demo".to_owned(),
        dir: crate::root().join("demo-model"),
    }
}

/// all-MiniLM-L6-v2, where `scripts/fetch-minilm` has put it.
pub fn minilm() -> Option<Model> {
    let dir = crate::root().join("target/models/all-MiniLM-L6-v2");
    dir.is_dir().then(|| Model {
        name: "all-MiniLM-L6-v2".to_owned(),
        dir,
    })
}

/// Reproducible small numbers (SplitMix64); these are weights, not secrets.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32;
        (unit - 0.5) * 0.4
    }
}

struct Weights {
    numbers: Numbers,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl Weights {
    fn new(seed: u64) -> Self {
        Self {
            numbers: Numbers(seed),
            tensors: Vec::new(),
        }
    }

    fn random(&mut self, name: impl Into<String>, shape: &[usize]) {
        let count = shape.iter().product();
        let bytes = (0..count)
            .flat_map(|_| self.numbers.next().to_le_bytes())
            .collect();
        self.tensors.push((name.into(), shape.to_vec(), bytes));
    }

    fn constant(&mut self, name: impl Into<String>, len: usize, value: f32) {
        let bytes = (0..len).flat_map(|_| value.to_le_bytes()).collect();
        self.tensors.push((name.into(), vec![len], bytes));
    }

    fn save(self, path: &Path) {
        let views: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, shape, bytes)| {
                let view = safetensors::tensor::TensorView::new(
                    safetensors::Dtype::F32,
                    shape.clone(),
                    bytes,
                )
                .unwrap();
                (name.clone(), view)
            })
            .collect();
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        safetensors::serialize_to_file(views, Some(metadata), path).unwrap();
    }
}

const WORDS: &str = "a all and answer before bit broker can caller chain check cipher code correct dark day deny each early \
    enclave end epoch evidence false far fast file first for gate good green hand hash high host image in is it key late \
    light line list long loud low mail many mark mean meal model moon name near never night node none of old once one open \
    order pass path peer plain port prompt proof quick quiet read red relay right ring root run safe sea seal see send short \
    sign sky slow small someone stone sun that the thing three time token tree true trust two under user verify vow wall \
    water what when white who why wide wind with word write yes you zero man eating food eats . , ? !";

fn tokenizer(specials: &[&str], unknown: &str) -> (Value, usize) {
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    for token in specials.iter().copied().chain(WORDS.split_whitespace()) {
        let id = vocab.len();
        vocab.insert(token.to_owned(), json!(id));
        if specials.contains(&token) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            }));
        }
    }
    let size = vocab.len();
    let value = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": unknown},
    });
    (value, size)
}

fn put(dir: &Path, name: &str, value: &Value) {
    fs::write(dir.join(name), serde_json::to_string_pretty(value).unwrap()).unwrap();
}

/// What a Llama is made of.
#[derive(Clone, Copy)]
struct Size {
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    inner: usize,
    layers: usize,
}

/// A Llama of two layers.
pub fn llama(dir: &Path) -> PathBuf {
    let size = Size {
        hidden: HIDDEN,
        heads: HEADS,
        kv_heads: KV_HEADS,
        inner: INNER,
        layers: LAYERS,
    };
    llama_sized(dir, size)
}

/// A Llama of about `bytes`, with matrices as large as those of models of a billion parameters.
pub fn llama_of(dir: &Path, bytes: u64) -> PathBuf {
    let (hidden, inner) = (2048, 5632);
    let layer = 4 * (2 * hidden * hidden + 2 * hidden * hidden / 4 + 3 * hidden * inner);
    let nearest = |layer: usize| (usize::try_from(bytes).unwrap() + layer / 2) / layer;
    let layers = nearest(layer);
    let mut size = Size {
        hidden,
        heads: 32,
        kv_heads: 8,
        inner,
        layers,
    };
    if bytes < layer as u64 {
        // Too small for one such layer: six narrower ones, as a small sentence encoder has.
        size = Size {
            hidden: 512,
            heads: 8,
            kv_heads: 8,
            inner: 1792,
            layers: nearest(4 * (4 * 512 * 512 + 3 * 512 * 1792)),
        };
    }
    llama_sized(dir, size)
}

fn llama_sized(dir: &Path, size: Size) -> PathBuf {
    let Size {
        hidden,
        heads,
        kv_heads,
        inner,
        layers,
    } = size;
    fs::create_dir_all(dir).unwrap();
    let (tokenizer, vocab) = tokenizer(
        &["<unk>", "<s>", "<|end|>", "<|user|>", "<|assistant|>"],
        "<unk>",
    );
    put(dir, "tokenizer.json", &tokenizer);
    put(
        dir,
        "tokenizer_config.json",
        &json!({
            "bos_token": "<s>",
            "eos_token": "<|end|>",
            "chat_template": "{{ bos_token }}{% for m in messages %}{{ '<|user|> ' if m.role != 'assistant' else '<|assistant|> ' }}{{ m.content }} <|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        }),
    );
    put(
        dir,
        "generation_config.json",
        &json!({"bos_token_id": 1, "eos_token_id": 2}),
    );
    put(
        dir,
        "config.json",
        &json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
            "max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
        }),
    );
    let mut w = Weights::new(1);
    let kv = hidden / heads * kv_heads;
    w.random("model.embed_tokens.weight", &[vocab, hidden]);
    for layer in 0..layers {
        let p = format!("model.layers.{layer}");
        w.random(format!("{p}.self_attn.q_proj.weight"), &[hidden, hidden]);
        w.random(format!("{p}.self_attn.k_proj.weight"), &[kv, hidden]);
        w.random(format!("{p}.self_attn.v_proj.weight"), &[kv, hidden]);
        w.random(format!("{p}.self_attn.o_proj.weight"), &[hidden, hidden]);
        w.random(format!("{p}.mlp.gate_proj.weight"), &[inner, hidden]);
        w.random(format!("{p}.mlp.up_proj.weight"), &[inner, hidden]);
        w.random(format!("{p}.mlp.down_proj.weight"), &[hidden, inner]);
        w.constant(format!("{p}.input_layernorm.weight"), hidden, 1.0);
        w.constant(format!("{p}.post_attention_layernorm.weight"), hidden, 1.0);
    }
    w.constant("model.norm.weight", hidden, 1.0);
    w.save(&dir.join("model.safetensors"));
    dir.to_owned()
}

/// A BERT of two layers.
pub fn bert(dir: &Path) -> PathBuf {
    bert_with(dir, "BertModel", |_| {})
}

/// The same with a head that ranks.
pub fn cross_encoder(dir: &Path) -> PathBuf {
    bert_with(dir, "BertForSequenceClassification", |w| {
        for (name, ..) in &mut w.tensors {
            name.insert_str(0, "bert.");
        }
        w.random("bert.pooler.dense.weight", &[HIDDEN, HIDDEN]);
        w.constant("bert.pooler.dense.bias", HIDDEN, 0.0);
        w.random("classifier.weight", &[1, HIDDEN]);
        w.constant("classifier.bias", 1, 0.0);
    })
}

fn bert_with(dir: &Path, architecture: &str, head: impl FnOnce(&mut Weights)) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let (tokenizer, vocab) = tokenizer(&["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[UNK]");
    put(dir, "tokenizer.json", &tokenizer);
    put(
        dir,
        "config.json",
        &json!({
            "architectures": [architecture], "id2label": {"0": "relevant"}, "model_type": "bert", "hidden_act": "gelu",
            "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS, "vocab_size": vocab, "max_position_embeddings": POSITIONS,
            "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.0,
            "initializer_range": 0.02, "pad_token_id": 0, "position_embedding_type": "absolute",
            "use_cache": true,
        }),
    );
    let mut w = Weights::new(2);
    w.random("embeddings.word_embeddings.weight", &[vocab, HIDDEN]);
    w.random(
        "embeddings.position_embeddings.weight",
        &[POSITIONS, HIDDEN],
    );
    w.random("embeddings.token_type_embeddings.weight", &[2, HIDDEN]);
    w.constant("embeddings.LayerNorm.weight", HIDDEN, 1.0);
    w.constant("embeddings.LayerNorm.bias", HIDDEN, 0.0);
    for layer in 0..LAYERS {
        let p = format!("encoder.layer.{layer}");
        for part in [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ] {
            w.random(format!("{p}.{part}.weight"), &[HIDDEN, HIDDEN]);
            w.constant(format!("{p}.{part}.bias"), HIDDEN, 0.0);
        }
        w.random(format!("{p}.intermediate.dense.weight"), &[INNER, HIDDEN]);
        w.constant(format!("{p}.intermediate.dense.bias"), INNER, 0.0);
        w.random(format!("{p}.output.dense.weight"), &[HIDDEN, INNER]);
        w.constant(format!("{p}.output.dense.bias"), HIDDEN, 0.0);
        for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
            w.constant(format!("{p}.{norm}.weight"), HIDDEN, 1.0);
            w.constant(format!("{p}.{norm}.bias"), HIDDEN, 0.0);
        }
    }
    head(&mut w);
    w.save(&dir.join("model.safetensors"));
    dir.to_owned()
}
