//! `cloister-dev bench`: what the whole service costs on this machine, beside the same model called in-process in the same
//! run. The difference is the price of gateway, relay, TLS and HTTP; the model's own speed cancels out.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use engine::{ChatEvent, ChatRequest, DirFiles, Engine, EngineOptions, Message, Role, Text};
use gateway::{AttestedSession, ConnectOptions};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use identity::issue::{self, Authority};
use identity::{Credentials, SpiffeId, TrustBundles, TrustDomain};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ask;
use super::screen::Screen;
use crate::stack::{Clock, GATEWAY_ID, Model, Options, Stack, TRUST_DOMAIN};

const SESSIONS: usize = 50;
const ROUND_TRIPS: usize = 200;
const EMBEDDINGS: usize = 64;
const CHATS: usize = 5;
const ANSWER_TOKENS: u32 = 128;
/// Callers at once, and how often each asks.
const CALLERS: usize = 16;
const ASKS: usize = 4;
const HOUR: Duration = Duration::from_secs(3600);
/// One word is one token for both tokenizers, nearly; the exact count is reported.
const WORDS_128: usize = 126;

pub(super) async fn bench(project: &Path, now: Clock) -> Result<()> {
    let screen = Screen::new();
    let chat = Model {
        name: "cloister-demo".to_owned(),
        dir: project.join("demo-model"),
    };
    let embed = Model {
        name: "all-MiniLM-L6-v2".to_owned(),
        dir: project.join("target/models/all-MiniLM-L6-v2"),
    };
    anyhow::ensure!(
        embed.dir.is_dir(),
        "{} is missing: run scripts/fetch-minilm",
        embed.dir.display()
    );
    let exe = std::env::current_exe()?;
    let mut options = Options::new(exe, vec![chat.clone(), embed.clone()], now.clone());
    options.progress = Arc::new(move |text| screen.step(text));
    let stack = Stack::start(options).await?;
    screen.steps_done();
    let measured = measure(screen, &stack, &chat, &embed, &now).await;
    stack.stop().await;
    measured
}

async fn measure(
    screen: Screen,
    stack: &Stack,
    chat: &Model,
    embed: &Model,
    now: &Clock,
) -> Result<()> {
    screen.heading("Cold start");
    for (what, took) in &stack.timings {
        screen.field(what, &format!("{:.0} ms", ms(*took)));
    }
    screen.heading("Cold start of the enclave, by its own log");
    let log = std::fs::read_to_string(stack.layout.log("enclave"))?;
    for line in log.lines().filter(|l| l.contains("boot step done")) {
        if let Some((_, fields)) = line.split_once("boot step done ") {
            screen.line(&format!("  {fields}"));
        }
    }

    screen.heading(
        "Attested session (TCP, TLS 1.3 mTLS, evidence made and verified), through the relay",
    );
    let options = connect_options(stack, now)?;
    // Not measured: the first touches cold code and pages.
    let session = gateway::connect(&options).await?;
    let mut took = Vec::new();
    for _ in 0..SESSIONS {
        let started = Instant::now();
        gateway::connect(&options).await?;
        took.push(started.elapsed());
    }
    quantiles(screen, "connect", took);

    let mut took = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let started = Instant::now();
        round_trip(&session).await?;
        took.push(started.elapsed());
    }
    quantiles(screen, "GET /v1/models", took);

    screen.heading("Embeddings of 128 tokens, all-MiniLM-L6-v2, one at a time");
    let text = ["cipher"; WORDS_128].join(" ");
    let threads = std::thread::available_parallelism()?.get();
    let direct = load(&embed.dir, threads).await?;
    let mut tokens = 0;
    let alone = per_second(EMBEDDINGS, async || {
        let pending = direct.embed(vec![Text::new(text.clone())], Arc::default())?;
        tokens = pending.await?.prompt_tokens;
        Ok(())
    })
    .await?;
    screen.field("tokens", &tokens.to_string());
    let served = per_second(EMBEDDINGS, async || {
        ask::embed(stack.port(), &embed.name, &[&text]).await?;
        Ok(())
    })
    .await?;
    compared(screen, "texts/s", alone, served);
    screen.heading("The same, 16 callers at once");
    let alone = together(|caller| {
        let (direct, text) = (direct.clone(), text.clone());
        async move {
            let caller: Arc<str> = caller.to_string().into();
            for _ in 0..ASKS {
                direct
                    .embed(vec![Text::new(text.clone())], Arc::clone(&caller))?
                    .await?;
            }
            Ok(ASKS)
        }
    })
    .await?;
    let served = together(|_| {
        let (port, name, text) = (stack.port(), embed.name.clone(), text.clone());
        async move {
            for _ in 0..ASKS {
                ask::embed(port, &name, &[&text]).await?;
            }
            Ok(ASKS)
        }
    })
    .await?;
    compared(screen, "texts/s", alone, served);
    direct.stop();

    screen.heading("Chat, demonstration model, greedy, one at a time");
    let direct = load(&chat.dir, threads).await?;
    let question = "Explain how the key is released.";
    let (tokens, took) = decode(&direct, question, CHATS).await?;
    let alone = f64::from(tokens) / took.as_secs_f64();
    let (mut tokens, mut took, mut first) = (0, Duration::ZERO, Vec::new());
    for _ in 0..CHATS {
        let answer = ask::chat(stack.port(), &chat.name, question, |_| {}).await?;
        tokens += answer.completion_tokens;
        took += answer.total;
        first.push(answer.first_piece);
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand tokens")]
    let served = tokens as f64 / took.as_secs_f64();
    compared(screen, "tokens/s", alone, served);
    quantiles(screen, "first piece", first);

    screen.heading("The same, 16 callers at once");
    let alone = together(|_| {
        let direct = direct.clone();
        async move { Ok(usize::try_from(decode(&direct, question, ASKS).await?.0)?) }
    })
    .await?;
    direct.stop();
    let served = together(|_| {
        let (port, name) = (stack.port(), chat.name.clone());
        async move {
            let mut tokens = 0;
            for _ in 0..ASKS {
                let answer = ask::chat(port, &name, question, |_| {}).await?;
                tokens += usize::try_from(answer.completion_tokens)?;
            }
            Ok(tokens)
        }
    })
    .await?;
    compared(screen, "tokens/s", alone, served);
    Ok(())
}

/// How many in a second, of what each of the callers counts.
async fn together<F>(ask: impl Fn(usize) -> F) -> Result<f64>
where
    F: Future<Output = Result<usize>> + Send + 'static,
{
    let started = Instant::now();
    let mut callers: JoinSet<_> = (0..CALLERS).map(ask).collect();
    let mut count = 0;
    while let Some(counted) = callers.join_next().await {
        count += counted??;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

fn compared(screen: Screen, unit: &str, alone: f64, served: f64) {
    screen.field("in-process", &format!("{alone:.1} {unit}"));
    screen.field(
        "whole service",
        &format!("{served:.1} {unit} ({:.2} of in-process)", served / alone),
    );
}

fn connect_options(stack: &Stack, now: &Clock) -> Result<ConnectOptions> {
    let read = |name: &str| std::fs::read_to_string(stack.layout.path(name));
    let issuer = Authority::from_pem(&read("issuer.pem")?, &read("issuer.key")?)?;
    let root = issuer.cert_chain().last().context("no root")?;
    let domain = TrustDomain::new(TRUST_DOMAIN)?;
    let pem = identity::pem::encode_certificates(std::slice::from_ref(root));
    let svid = issue::new_svid(&issuer, &SpiffeId::new(GATEWAY_ID)?, HOUR, now())?;
    let credentials = Arc::new(Credentials::new());
    credentials.install(svid);
    let config = gateway::Config::load(&stack.layout.config("gateway"))?;
    Ok(ConnectOptions {
        endpoint: config.enclave,
        credentials,
        bundles: TrustBundles::from_pem(&domain, &pem)?.into_handle(),
        policy: Arc::new(config.policy),
        now: now.clone(),
    })
}

async fn round_trip(session: &AttestedSession) -> Result<()> {
    let request = Request::get("https://enclave/v1/models")
        .body(Empty::<bytes::Bytes>::new().map_err(|never| match never {}))?;
    let answer = session.send::<_>(request).await?;
    anyhow::ensure!(answer.status().is_success(), "{}", answer.status());
    answer.into_body().collect().await?;
    Ok(())
}

async fn load(dir: &Path, threads: usize) -> Result<Engine> {
    let files = Arc::new(DirFiles::new(dir));
    let options = EngineOptions {
        threads,
        ..EngineOptions::default()
    };
    Ok(tokio::task::spawn_blocking(move || Engine::load(files, options)).await??)
}

/// Tokens and time of so many greedy answers of the engine alone.
async fn decode(engine: &Engine, question: &str, times: usize) -> Result<(u32, Duration)> {
    let (mut tokens, mut took) = (0, Duration::ZERO);
    for _ in 0..times {
        let mut request = ChatRequest::new(vec![Message::new(
            Role::User,
            Text::new(question.to_owned()),
        )]);
        request.temperature = 0.0;
        request.max_tokens = Some(ANSWER_TOKENS);
        let started = Instant::now();
        let mut events = engine.chat(request)?;
        loop {
            match events.recv().await {
                Some(ChatEvent::Done { usage }) => {
                    tokens += usage.completion_tokens;
                    break;
                }
                Some(ChatEvent::Failed(error)) => return Err(error.into()),
                Some(_) => {}
                None => bail!("the answer ended without its end"),
            }
        }
        took += started.elapsed();
    }
    Ok((tokens, took))
}

async fn per_second(count: usize, mut once: impl AsyncFnMut() -> Result<()>) -> Result<f64> {
    once().await?;
    let started = Instant::now();
    for _ in 0..count {
        once().await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

fn quantiles(screen: Screen, name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |percent: usize| {
        let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(index).copied().unwrap_or_default()
    };
    screen.field(
        name,
        &format!(
            "p50 {:.2} ms, p99 {:.2} ms ({} times)",
            ms(at(50)),
            ms(at(99)),
            took.len()
        ),
    );
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}
