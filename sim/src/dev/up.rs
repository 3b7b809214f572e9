//! `cloister-dev up`: start, show what was verified, ask, stay.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::screen::Screen;
use super::{UpArgs, ask};
use crate::stack::{self, Clock, MachineOptions, Model, Options, Stack, Tee};

/// Where `scripts/fetch-minilm` puts the embedding model.
const MINILM: &str = "target/models/all-MiniLM-L6-v2";
const DEMO: &str = "demo-model";
/// Two sentences whose similarity is known (0.761 for all-MiniLM-L6-v2).
const ALIKE: [&str; 2] = ["A man is eating food.", "Someone eats a meal."];

pub(super) struct Failure {
    pub(super) message: String,
    pub(super) code: u8,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code,
        }
    }
}

impl From<stack::Error> for Failure {
    fn from(error: stack::Error) -> Self {
        let code = match &error {
            stack::Error::Model(_) | stack::Error::PortInUse(_) => 64,
            stack::Error::Ended { code, .. } => u8::try_from(*code).unwrap_or(70).max(1),
            stack::Error::NotReady { .. } => 69,
            _ => 70,
        };
        Self::new(code, error.to_string())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Chat,
    Embedding,
}

pub(super) async fn up(args: UpArgs, now: Clock) -> Result<(), Failure> {
    let screen = Screen::new();
    let models = models(&args)?;
    let exe = std::env::current_exe()
        .map_err(|e| Failure::new(70, format!("this program's own path is unknown: {e}")))?;
    let mut options = Options::new(exe, models.iter().map(|(m, _)| m.clone()).collect(), now);
    options.port = args.port;
    options.kms = args.kms;
    options.progress = Arc::new(move |text| screen.step(text));

    let emulated = args.emulator.clone().zip(args.parts.clone());
    screen.heading(match &emulated {
        Some(_) => "Starting Cloister in an emulated Nitro machine",
        None => "Starting Cloister with a simulated TEE",
    });
    if let Some((emulator, parts)) = emulated {
        let mut machine = MachineOptions::new(emulator, parts);
        machine.parent_machine = args.parent_machine;
        options.tee = Tee::Machine(machine);
    }
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signal_error)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signal_error)?;
    let mut stack = tokio::select! {
        stack = Stack::start(options) => stack?,
        _ = interrupt.recv() => return Err(Failure::new(130, "interrupted")),
        _ = terminate.recv() => return Err(Failure::new(143, "terminated")),
    };
    screen.steps_done();

    let told = tell(screen, &stack, &models, &args.ask).await;
    let outcome = match told {
        Err(failure) => Err(failure),
        Ok(()) if args.once => Ok(()),
        Ok(()) => {
            screen.line("\n  Ctrl-C stops everything and leaves nothing behind.");
            tokio::select! {
                error = stack.first_to_end() => Err(error.into()),
                _ = interrupt.recv() => Ok(()),
                _ = terminate.recv() => Ok(()),
            }
        }
    };
    if !args.once {
        screen.step("stopping");
    }
    stack.stop().await;
    screen.steps_done();
    outcome
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn signal_error(error: std::io::Error) -> Failure {
    Failure::new(70, format!("signals cannot be received: {error}"))
}

/// The models to serve: the caller's, or the demonstration model and, where it was fetched, MiniLM.
fn models(args: &UpArgs) -> Result<Vec<(Model, Kind)>, Failure> {
    let mut found = Vec::new();
    if args.model.is_empty() {
        let demo = args.project.join(DEMO);
        found.push(checked("cloister-demo".to_owned(), demo)?);
        let minilm = args.project.join(MINILM);
        if minilm.is_dir() {
            found.push(checked("all-MiniLM-L6-v2".to_owned(), minilm)?);
        }
    }
    for given in &args.model {
        let (name, dir) = match given.split_once('=') {
            Some((name, dir)) => (name.to_owned(), PathBuf::from(dir)),
            None => {
                let dir = PathBuf::from(given);
                let name = dir
                    .canonicalize()
                    .ok()
                    .and_then(|d| Some(d.file_name()?.to_str()?.to_owned()))
                    .ok_or_else(|| Failure::new(64, format!("{given}: no such directory")))?;
                (name, dir)
            }
        };
        found.push(checked(name, dir)?);
    }
    Ok(found)
}

/// Refuses at once what the enclave would refuse after minutes.
fn checked(name: String, dir: PathBuf) -> Result<(Model, Kind), Failure> {
    if !dir.is_dir() {
        return Err(Failure::new(
            64,
            format!("{}: no such directory", dir.display()),
        ));
    }
    let config = dir.join("config.json");
    let text = std::fs::read_to_string(&config).map_err(|e| {
        Failure::new(
            64,
            format!(
                "{}: {e}: a Hugging Face model directory has a config.json",
                config.display()
            ),
        )
    })?;
    let value: Value = serde_json::from_str(&text).map_err(|e| {
        Failure::new(
            64,
            format!(
                "{}: not JSON (line {}, column {})",
                config.display(),
                e.line(),
                e.column()
            ),
        )
    })?;
    let kind = match value.get("model_type").and_then(Value::as_str) {
        Some("bert") => Kind::Embedding,
        Some("llama") => Kind::Chat,
        other => {
            return Err(Failure::new(
                64,
                format!(
                    "{}: model_type {} is not served; llama (chat) and bert (embeddings) are",
                    config.display(),
                    other.map_or("is missing and".to_owned(), |t| format!("\"{t}\"")),
                ),
            ));
        }
    };
    for needed in ["tokenizer.json"] {
        if !dir.join(needed).is_file() {
            return Err(Failure::new(
                64,
                format!("{}: {needed} is missing", dir.display()),
            ));
        }
    }
    Ok((Model { name, dir }, kind))
}

/// Shows what stands and what was verified, then asks the first question.
async fn tell(
    screen: Screen,
    stack: &Stack,
    models: &[(Model, Kind)],
    question: &str,
) -> Result<(), Failure> {
    let unavailable = |e: anyhow::Error| Failure::new(69, format!("{e:#}"));

    screen.heading("Running");
    screen.field("gateway", &stack.base_url());
    screen.field(
        "host relay",
        &format!("tcp://127.0.0.1:{} (ciphertext only)", stack.layout.relay),
    );
    screen.field("enclave", &stack.layout.unix("enclave.sock"));
    screen.field(
        "key broker",
        &format!("https://127.0.0.1:{}", stack.layout.broker),
    );
    screen.field("SPIFFE authority", &stack.layout.unix("workload.sock"));
    screen.field("logs", &stack.logs().display().to_string());
    let timings: Vec<_> = stack
        .timings
        .iter()
        .map(|(what, took)| format!("{what} {} ms", took.as_millis()))
        .collect();
    screen.field("ready after", &timings.join(", "));

    screen.heading("Verified by the gateway on this connection, before any prompt");
    let endpoint = format!("tcp://127.0.0.1:{}", stack.port());
    let (status, body) = stack::get(&endpoint, "/cloister/evidence")
        .await
        .map_err(|e| unavailable(e.into()))?;
    let evidence: Value = serde_json::from_slice(&body).map_err(|e| unavailable(e.into()))?;
    if status != 200 {
        return Err(Failure::new(77, format!("not verified: {evidence}")));
    }
    show(screen, "", &evidence);

    for (model, kind) in models {
        match kind {
            Kind::Chat => {
                screen.heading(&format!("Asking {}", model.name));
                screen.line(&format!("  > {question}"));
                screen.piece("  ");
                let answer = ask::chat(stack.port(), &model.name, question, |piece| {
                    screen.piece(piece);
                })
                .await
                .map_err(unavailable)?;
                screen.line("");
                if answer.text.trim().is_empty() {
                    return Err(Failure::new(70, "the model answered nothing"));
                }
                screen.line(&format!(
                    "  ({} tokens, first after {} ms, all after {} ms)",
                    answer.completion_tokens,
                    answer.first_piece.as_millis(),
                    answer.total.as_millis()
                ));
            }
            Kind::Embedding => {
                screen.heading(&format!("Embedding with {}", model.name));
                let vectors = ask::embed(stack.port(), &model.name, &ALIKE)
                    .await
                    .map_err(unavailable)?;
                let [a, b] = vectors.as_slice() else {
                    return Err(Failure::new(70, "two texts did not give two vectors"));
                };
                screen.line(&format!("  > {}\n  > {}", ALIKE[0], ALIKE[1]));
                screen.line(&format!(
                    "  {} dimensions, cosine {:.4}",
                    a.len(),
                    ask::cosine(a, b)
                ));
            }
        }
    }

    screen.heading("What this proved");
    for line in [
        "The models' keys were released to this measurement and configuration only.",
        "The gateway checked evidence bound to its own TLS connection before it sent the question.",
        "The relay carried ciphertext; TLS ends in the enclave process.",
    ] {
        screen.good(line);
    }
    screen.line(
        "  -- A simulated TEE proves the protocol, not the machine: its root of trust was made for this run, here.",
    );

    screen.heading("Try it");
    let model = models
        .iter()
        .find(|(_, k)| *k == Kind::Chat)
        .or(models.first());
    if let Some((model, kind)) = model {
        let (path, body) = match kind {
            Kind::Chat => (
                "chat/completions",
                format!(
                    r#"{{"model":"{}","messages":[{{"role":"user","content":"Who can read my prompt?"}}]}}"#,
                    model.name
                ),
            ),
            Kind::Embedding => (
                "embeddings",
                format!(
                    r#"{{"model":"{}","input":"A man is eating food."}}"#,
                    model.name
                ),
            ),
        };
        screen.line(&format!(
            "  curl {}/{path} -H 'content-type: application/json' -d '{body}'",
            stack.base_url()
        ));
    }
    Ok(())
}

/// A JSON object as aligned lines; nested names are joined by dots.
fn show(screen: Screen, prefix: &str, value: &Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                show(screen, &name, value);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                let name = if items.len() == 1 {
                    prefix.to_owned()
                } else {
                    format!("{prefix}.{i}")
                };
                show(screen, &name, item);
            }
        }
        // An unused register says nothing to a reader.
        Value::String(s) if s.len() == 96 && s.bytes().all(|b| b == b'0') => {}
        Value::String(s) => screen.field(prefix, s),
        other => screen.field(prefix, &other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(make: impl FnOnce(&std::path::Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        match checked("m".to_owned(), dir.path().to_owned()) {
            Ok(_) => "accepted".to_owned(),
            Err(failure) => {
                assert_eq!(failure.code, 64);
                failure.message
            }
        }
    }

    #[test]
    fn refuses_a_directory_that_is_no_model_and_names_the_file() {
        assert!(refusal(|_| {}).contains("config.json"));
    }

    #[test]
    fn refuses_a_config_that_is_not_json() {
        let said = refusal(|d| std::fs::write(d.join("config.json"), "{").unwrap());
        assert!(said.contains("not JSON"), "{said}");
    }

    #[test]
    fn refuses_a_family_that_is_not_served() {
        let said = refusal(|d| {
            std::fs::write(d.join("config.json"), r#"{"model_type":"mamba"}"#).unwrap();
        });
        assert!(said.contains("mamba"), "{said}");
    }

    #[test]
    fn refuses_a_model_without_tokenizer() {
        let said = refusal(|d| {
            std::fs::write(d.join("config.json"), r#"{"model_type":"llama"}"#).unwrap();
        });
        assert!(said.contains("tokenizer.json"), "{said}");
    }
}
