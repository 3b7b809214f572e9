//! The engine's side of `scripts/bench engine`: loads a model, then does what each line of standard input asks for and answers with
//! one number, so that it can take turns with another program.
//!
//! - `decode SEQUENCES PROMPT TOKENS`: tokens per second of all answers together, prompts not counted
//! - `answer SEQUENCES PROMPT TOKENS`: seconds until all answers are there
//! - `prefill TOKENS`: tokens of a prompt per second
//! - `first PROMPT`: seconds to the first token, nobody else there
//! - `capacity PROMPT TOKENS`: requests per second, sixteen callers
//! - `loaded PROMPT TOKENS RATE COUNT`: 95th percentile of the seconds to the first token, requests at random times
//! - `embed TEXTS WORDS`: texts per second, one request
//! - `memory`: bytes of this process in memory
//! - `bandwidth`: bytes per second that all threads together read
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark stops at the first surprise and prints what it found"
)]

use std::{hint::black_box, io::BufRead, path::Path, sync::Arc, thread, time::Duration};

use engine::{
    ChatEvent, ChatRequest, DirFiles, Engine, EngineOptions, Message, Quantize, Role, Text,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rayon::prelude::*;
use tokio::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let options = EngineOptions {
        quantize: arguments.get(2).map(|name| Quantize::named(name).unwrap()),
        kv_cache_bytes: 512 << 20,
        ..EngineOptions::default()
    };
    let begun = Instant::now();
    let files = DirFiles::new(Path::new(&arguments[1]));
    let engine = Engine::load(Arc::new(files), options).unwrap();
    println!("{}", begun.elapsed().as_secs_f64());
    let mut callers = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<usize>().unwrap();
        // Nobody's prompt is remembered, unless the same number is used twice.
        callers += 100;
        let answer = match words[0] {
            "decode" => decode(&engine, callers, number(1), number(2), number(3)),
            "answer" => answer(&engine, callers, number(1), number(2), number(3)),
            "prefill" => number(1) as f64 / ask(&engine, callers, number(1), 1).1,
            "first" => ask(&engine, callers, number(1), 2).0,
            "capacity" => capacity(&engine, callers, number(1), number(2)),
            "loaded" => {
                let rate: f64 = words[3].parse().unwrap();
                loaded(&engine, callers, number(1), number(2), rate, number(4))
            }
            "embed" => embed(&engine, number(1), number(2)),
            "memory" => memory(),
            "bandwidth" => bandwidth(),
            other => panic!("unknown command {other}"),
        };
        println!("{answer}");
    }
}

/// Seconds to the first token and to the last, of a prompt that has so many tokens with a tokenizer of single bytes.
fn ask(engine: &Engine, caller: usize, prompt: usize, tokens: usize) -> (f64, f64) {
    let begun = Instant::now();
    let mut events = engine
        .chat(ChatRequest {
            max_tokens: Some(u32::try_from(tokens).unwrap()),
            temperature: 0.0,
            caller: caller.to_string().into(),
            ..ChatRequest::new(vec![Message::new(
                Role::User,
                Text::new("x".repeat(prompt)),
            )])
        })
        .unwrap();
    let mut first = None;
    loop {
        match events.blocking_recv().unwrap() {
            ChatEvent::Failed(error) => panic!("{error}"),
            ChatEvent::Done { usage, .. } => {
                assert_eq!(usage.prompt_tokens as usize, prompt);
                assert_eq!(usage.completion_tokens as usize, tokens);
                let last = begun.elapsed().as_secs_f64();
                return (first.unwrap_or(last), last);
            }
            _ => first = first.or(Some(begun.elapsed().as_secs_f64())),
        }
    }
}

fn answer(engine: &Engine, caller: usize, sequences: usize, prompt: usize, tokens: usize) -> f64 {
    let begun = Instant::now();
    thread::scope(|scope| {
        for sequence in 0..sequences {
            scope.spawn(move || ask(engine, caller + sequence, prompt, tokens));
        }
    });
    begun.elapsed().as_secs_f64()
}

/// By the difference between long answers and short ones, of prompts that are remembered.
fn decode(engine: &Engine, caller: usize, sequences: usize, prompt: usize, tokens: usize) -> f64 {
    const FEW: usize = 2;
    let all = |tokens: usize| answer(engine, caller, sequences, prompt, tokens);
    all(FEW);
    let (few, many) = (all(FEW), all(FEW + tokens));
    (sequences * tokens) as f64 / (many - few)
}

fn capacity(engine: &Engine, caller: usize, prompt: usize, tokens: usize) -> f64 {
    const EACH: usize = 3;
    const CALLERS: usize = 16;
    let begun = Instant::now();
    thread::scope(|scope| {
        for number in 0..CALLERS {
            scope.spawn(move || {
                for turn in 0..EACH {
                    // A caller of its own for each, so that every prompt is read.
                    ask(engine, caller * 1000 + number * EACH + turn, prompt, tokens);
                }
            });
        }
    });
    (EACH * CALLERS) as f64 / begun.elapsed().as_secs_f64()
}

fn loaded(
    engine: &Engine,
    caller: usize,
    prompt: usize,
    tokens: usize,
    rate: f64,
    count: usize,
) -> f64 {
    let mut random = StdRng::seed_from_u64(1);
    let mut firsts: Vec<f64> = thread::scope(|scope| {
        let requests = (0..count).map(|number| {
            let pause = -random.random::<f64>().max(1e-9).ln() / rate;
            thread::sleep(Duration::from_secs_f64(pause));
            scope.spawn(move || ask(engine, caller * 1000 + number, prompt, tokens).0)
        });
        let requests: Vec<_> = requests.collect();
        requests
            .into_iter()
            .map(|request| request.join().unwrap())
            .collect()
    });
    firsts.sort_by(f64::total_cmp);
    firsts[(count * 95).div_ceil(100).min(count) - 1]
}

fn embed(engine: &Engine, texts: usize, words: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    // "word" is one token of BERT's vocabulary.
    let text = vec!["word"; words].join(" ");
    let begun = Instant::now();
    let mut done = 0;
    while done == 0 || begun.elapsed() < Duration::from_secs(2) {
        let inputs = (0..texts).map(|_| Text::new(text.clone())).collect();
        let embedding = engine.embed(inputs, Arc::from("bench")).unwrap();
        done += black_box(runtime.block_on(embedding).unwrap())
            .vectors
            .len();
    }
    done as f64 / begun.elapsed().as_secs_f64()
}

fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<f64>().unwrap() * 1024.0
}

fn bandwidth() -> f64 {
    let numbers = vec![1u64; 64 << 20];
    let pass = || {
        let begun = Instant::now();
        let sum: u64 = numbers
            .par_chunks(1 << 20)
            .map(|part| {
                part.iter()
                    .fold(0u64, |sum, number| sum.wrapping_add(*number))
            })
            .sum();
        black_box(sum);
        size_of_val(numbers.as_slice()) as f64 / begun.elapsed().as_secs_f64()
    };
    (0..5).map(|_| pass()).fold(0.0, f64::max)
}
