//! From files to a running engine.

use std::sync::Arc;

use rayon::ThreadPool;

use crate::{
    EngineOptions, LoadError, ModelFiles,
    bert::{Bert, Family},
    chat::{Chat, ChatSettings, ChatTemplate, TOKENIZER_CONFIG},
    decoder::{Decoder, Row},
    embedding::{Batch, EmbedWorker, Embedding, Encoder, Input},
    engine::{Engine, Side},
    fields::Fields,
    gate,
    ggml::GgufModel,
    kv::{Held, KvPool},
    llama::{self, Llama},
    scheduler::Scheduler,
    shared::Shared,
    threads,
    turns::Turns,
    vocabulary::Vocabulary,
    weights::Weights,
    worker,
};

const CONFIG: &str = "config.json";

pub(crate) fn load(
    files: Arc<dyn ModelFiles>,
    options: EngineOptions,
) -> Result<Engine, LoadError> {
    options.check()?;
    let pool = threads::pool(&options)?;
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // candle asks for the number of processors before each matrix product and keeps no answer.
        tracing::warn!("RAYON_NUM_THREADS is not set: every step rereads /proc/cpuinfo");
    }
    if let Some(model) = GgufModel::find(files.as_ref())? {
        let config = model.config()?;
        return load_llama(files, &config, Some(&model), options, pool);
    }
    let config = Fields::read(files.as_ref(), CONFIG)?;
    match config.text("model_type")? {
        Some(model_type) => match Family::of(model_type) {
            Some(family) => load_bert(family, files, &config, options, pool),
            None => load_llama(files, &config, None, options, pool),
        },
        None => Err(config.error("model_type", "missing")),
    }
}

fn load_llama(
    files: Arc<dyn ModelFiles>,
    fields: &Fields<'_>,
    gguf: Option<&GgufModel>,
    options: EngineOptions,
    pool: ThreadPool,
) -> Result<Engine, LoadError> {
    let config = llama::Config::read(fields)?;
    let vocabulary = Vocabulary::read(files.as_ref(), gguf, config.vocabulary)?;
    let mut tokenizer = Fields::read_optional(files.as_ref(), TOKENIZER_CONFIG)?;
    if let Some(model) = gguf {
        let inside = model.tokenizer_config()?;
        tokenizer = Some(match tokenizer {
            Some(beside) => beside.or(inside),
            None => inside,
        });
    }
    let settings = ChatSettings::read(
        files.as_ref(),
        fields,
        tokenizer.as_ref(),
        (config.context, config.kv_shape()),
        config.vocabulary,
        &vocabulary,
        &options,
    )?;
    let clock = options.clock.clone();
    let template = ChatTemplate::read(files.as_ref(), tokenizer.as_ref(), clock)?;
    let weights = match gguf {
        Some(model) => Weights::of(files, model.entries(config.head_dim)?),
        None => Weights::open(files)?,
    };
    if let Some(to) = options.quantize {
        weights.quantize(to);
    }
    let kv_bytes = config
        .kv_shape()
        .block_bytes()
        .saturating_mul(settings.blocks as u64);
    weights.fit(kv_bytes, options.max_weight_bytes)?;
    tracing::info!(
        weight_bytes = weights.resident_bytes(),
        kv_bytes,
        "memory planned"
    );
    let decoder = pool.install(|| {
        let decoder = Llama::load(&weights, config)?;
        warm(&decoder)?;
        Ok(decoder)
    })?;
    tracing::info!(
        family = fields.text("model_type")?.unwrap_or_default(),
        tensors = weights.tensor_count(),
        threads = options.threads,
        process_bytes = process_bytes(),
        "model loaded"
    );
    start_chat(decoder, vocabulary, settings, template, options, pool)
}

/// The rest of a chat model's engine, whatever its decoder.
pub(crate) fn start_chat<D: Decoder + 'static>(
    decoder: D,
    vocabulary: Vocabulary,
    settings: ChatSettings,
    template: ChatTemplate,
    options: EngineOptions,
    pool: ThreadPool,
) -> Result<Engine, LoadError> {
    let shared = Arc::new(Shared::new());
    let (settings, vocabulary) = (Arc::new(settings), Arc::new(vocabulary));
    let (queue, jobs) = gate::queue(options.queue);
    let worker = Scheduler::new(
        decoder,
        Arc::clone(&settings),
        Arc::clone(&vocabulary),
        Arc::clone(&shared),
    );
    worker::spawn(pool, Arc::clone(&shared), move || worker.run(jobs))?;
    let chat = Chat {
        queue,
        settings,
        vocabulary,
        template,
        grammars: std::sync::OnceLock::new(),
        turns: Turns::new(options.threads),
        options,
    };
    Ok(Engine::new(Side::Chat(Box::new(chat)), shared))
}

fn load_bert(
    family: Family,
    files: Arc<dyn ModelFiles>,
    fields: &Fields<'_>,
    options: EngineOptions,
    pool: ThreadPool,
) -> Result<Engine, LoadError> {
    let weights = Weights::open(Arc::clone(&files))?;
    if let Some(to) = options.quantize {
        weights.quantize(to);
    }
    weights.fit(0, options.max_weight_bytes)?;
    tracing::info!(
        weight_bytes = weights.resident_bytes(),
        kv_bytes = 0u64,
        "memory planned"
    );
    let encoder = pool.install(|| Bert::load(family, files.as_ref(), fields, &weights))?;
    let vocabulary = Arc::new(Vocabulary::read(files.as_ref(), None, encoder.vocabulary)?);
    let input = Input {
        tokens: vec![0, 0].into(),
        second: None,
    };
    let warm = Batch {
        inputs: vec![&input],
    };
    let vectors = pool
        .install(|| encoder.encode(&warm))
        .map_err(LoadError::Compute)?;
    if vectors.iter().flatten().any(|value| !value.is_finite()) {
        return Err(LoadError::NotFinite);
    }
    tracing::info!(
        family = fields.text("model_type")?.unwrap_or_default(),
        tensors = weights.tensor_count(),
        threads = options.threads,
        process_bytes = process_bytes(),
        "model loaded"
    );

    let shared = Arc::new(Shared::new());
    let (queue, jobs) = gate::queue(options.queue);
    let embedding = Embedding {
        queue,
        vocabulary,
        dimensions: (!encoder.ranks()).then_some(encoder.dimensions),
        marks_pairs: encoder.marks_pairs,
        max_input_tokens: encoder.max_input_tokens,
        turns: Turns::new(options.threads),
        options,
    };
    let worker = EmbedWorker::new(
        encoder,
        embedding.options.batch_tokens,
        embedding.options.max_sequences,
        Arc::clone(&shared),
    );
    worker::spawn(pool, Arc::clone(&shared), move || worker.run(jobs))?;
    Ok(Engine::new(Side::Embedding(Box::new(embedding)), shared))
}

/// What the whole process holds in memory now, by the kernel's account; none where it gives none.
fn process_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// One step, so that weights that do not compute are found before anybody is served, and so that kernels have made their tiles.
fn warm<D: Decoder>(decoder: &D) -> Result<(), LoadError> {
    let mut kv = KvPool::new(decoder.shape(), 1);
    // More than one token: candle has kernels for matrices that those for vectors do not share.
    let rows = [Row {
        tokens: &[0, 0],
        held: Held {
            blocks: &[0],
            tokens: 0,
        },
        limit: 2,
        wants_logits: true,
    }];
    let logits = decoder
        .forward(&mut kv, &rows)
        .map_err(LoadError::Compute)?;
    match logits
        .iter()
        .flatten()
        .flatten()
        .all(|value| value.is_finite())
    {
        true => Ok(()),
        false => Err(LoadError::NotFinite),
    }
}
