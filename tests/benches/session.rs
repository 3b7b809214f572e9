//! What it costs to come to an attested session: TCP or unix socket, TLS 1.3 with both SVIDs, the challenge, evidence made for this
//! connection, and every check of the gateway's library; with the simulated secure module, each side in a process of its own.
//!
//! ```sh
//! cargo bench -p tests --bench session
//! ```
//!
//! First one after another, then as many as two dozen at a time; straight to the enclave, and through the host's relay.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark: a panic ends it"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::{ConnectOptions, connect, policy};
use identity::issue::{self, Authority};
use identity::{Credentials, SpiffeId, TrustBundles, TrustDomain};
use sim::stack::{GATEWAY_ID, Stack, TRUST_DOMAIN};
use tests::models;
use tokio::time::Instant;
use transport::Endpoint;

const ALONE: usize = 500;
const AT_ONCE: usize = 24;
const SECONDS: f64 = 10.0;

#[tokio::main]
async fn main() {
    // `cargo test --benches` only asks whether it runs.
    let seconds = if std::env::args().any(|arg| arg == "--bench") {
        SECONDS
    } else {
        0.2
    };
    let dir = tempfile::tempdir().unwrap();
    let stack = Stack::start(tests::options(models::both(dir.path())))
        .await
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(stack.layout.path(name)).unwrap();
    let enclave: toml::Value = toml::from_str(&read("enclave.toml")).unwrap();
    let relay: toml::Value = toml::from_str(&read("gateway.toml")).unwrap();
    let (cores, load) = (
        std::thread::available_parallelism().unwrap(),
        std::fs::read_to_string("/proc/loadavg").unwrap(),
    );
    println!("{cores} cores, load average before: {}", load.trim());
    for (name, endpoint) in [
        ("enclave", &enclave["listen"]["serve"]),
        ("through the relay", &relay["enclave"]),
    ] {
        let endpoint: Endpoint = endpoint.as_str().unwrap().parse().unwrap();
        let options = caller(
            &stack,
            endpoint,
            enclave["trust"]["bundle"].as_str().unwrap(),
        );
        // As a task, as in the gateway: what runs on the main thread itself is woken up across threads at each step.
        let one = options.clone();
        tokio::spawn(async move { alone(name, &one).await })
            .await
            .unwrap();
        together(name, &options, seconds).await;
    }
    stack.stop().await;
}

fn caller(stack: &Stack, endpoint: Endpoint, bundle: &str) -> ConnectOptions {
    let read = |name: &str| std::fs::read_to_string(stack.layout.path(name)).unwrap();
    let issuer = Authority::from_pem(&read("issuer.pem"), &read("issuer.key")).unwrap();
    let id = SpiffeId::new(GATEWAY_ID).unwrap();
    let now = tests::clock();
    let credentials = Credentials::new();
    credentials.install(issue::new_svid(&issuer, &id, Duration::from_secs(3600), now()).unwrap());
    let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
    ConnectOptions {
        endpoint,
        credentials: Arc::new(credentials),
        bundles: TrustBundles::from_pem(&domain, bundle)
            .unwrap()
            .into_handle(),
        policy: Arc::new(policy::load(&stack.layout.path("gateway-policy.toml")).unwrap()),
        now,
    }
}

async fn alone(name: &'static str, options: &ConnectOptions) {
    let mut took = Vec::with_capacity(ALONE);
    for _ in 0..ALONE {
        let begun = Instant::now();
        drop(connect(options).await.unwrap());
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    println!(
        "{name}, one after another: p50 {:.2?}, p99 {:.2?}, worst {:.2?}",
        took[ALONE / 2],
        took[ALONE * 99 / 100],
        took[ALONE - 1]
    );
}

async fn together(name: &str, options: &ConnectOptions, seconds: f64) {
    let (done, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (options, done, failed) = (options.clone(), Arc::clone(&done), Arc::clone(&failed));
            tokio::spawn(async move {
                while Instant::now() < end {
                    let outcome = match connect(&options).await {
                        Ok(_session) => &done,
                        Err(_busy) => &failed,
                    };
                    outcome.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    println!(
        "{name}, {AT_ONCE} at a time: {:.0} verified connections per second, {} refused",
        done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64(),
        failed.load(Ordering::Relaxed)
    );
}
