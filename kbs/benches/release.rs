//! Full key releases against the real broker in a process of its own: challenge, fresh key, fresh evidence, attestation,
//! policy, JWE, opened again; each on a new TLS connection. 1,000 resources are stored.
//!
//! Both sides run on this machine, so the enclaves' part (evidence, TLS, opening the JWE) is on the same cores; the
//! processor time of each side is told apart. First at a fixed rate, measured from the moment each release was due, then
//! as fast as it goes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark: a panic ends it"
)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, reason = "each user takes what it needs of it")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use attestation::Pcrs;
use support::Site;
use tokio::time::{Instant, sleep_until};

const RESOURCES: usize = 1000;
const RATE: u32 = 300;
const SECONDS: u32 = 10;
/// Connections at a time, in the second part.
const AT_ONCE: usize = 16;

/// As an owner writes it for one image.
fn measured(pcrs: &Pcrs) -> String {
    let conditions: String = (0..3)
        .filter_map(|index| Some((index, pcrs.get(&index)?)))
        .map(|(index, pcr)| format!("\tinput.nitro.pcrs[\"{index}\"] == \"{pcr}\"\n"))
        .collect();
    format!(
        "package policy\n\nimport rego.v1\n\ndefault allow := false\n\nallow if {{\n\tdata.plugin == \"resource\"\n\
         {conditions}\tdata[\"resource-path\"][0] == \"models\"\n}}\n"
    )
}

fn path(i: usize) -> String {
    format!("models/model-{}/epoch-1", i % RESOURCES)
}

/// Seconds of processor time of a process so far.
fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |i: usize| fields.get(i).unwrap().parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

struct Times {
    broker: f64,
    enclaves: f64,
    wall: Instant,
}

impl Times {
    fn take(broker: &str) -> Self {
        Self {
            broker: cpu(broker),
            enclaves: cpu("self"),
            wall: Instant::now(),
        }
    }
}

fn report(what: &str, broker: &str, before: &Times, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let after = Times::take(broker);
    let count = latencies.len();
    let at = |per_mille: usize| latencies.get((count - 1) * per_mille / 1000).unwrap();
    let per = |seconds: f64| seconds * 1e3 / f64::from(u32::try_from(count).unwrap());
    let wall = (after.wall - before.wall).as_secs_f64();
    println!(
        "{what}: {:.0} releases/s over {wall:.1} s, p50 {:.1?}, p99 {:.1?}, worst {:.1?}; processor time per release: \
         broker {:.2} ms, enclaves {:.2} ms",
        1e3 / per(wall),
        at(500),
        at(990),
        at(1000),
        per(after.broker - before.broker),
        per(after.enclaves - before.enclaves),
    );
}

#[tokio::main]
async fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let site = Site::new(measured, "");
    let config = site.config();
    for i in 0..RESOURCES {
        kbs::offline::put_resource(&config, &path(i), &[7; 32], support::now()).unwrap();
    }
    let running = site.serve().await;
    let broker = running.0.id().to_string();
    let client = Arc::new(site.client());
    client.data_key(&path(0)).await.unwrap();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "{RESOURCES} resources stored; load average before: {}",
        load.trim()
    );

    let (before, start) = (Times::take(&broker), Instant::now());
    let releases: Vec<_> = (0..RATE * SECONDS)
        .map(|i| {
            let client = Arc::clone(&client);
            let due = start + Duration::from_secs(1) * i / RATE;
            tokio::spawn(async move {
                sleep_until(due).await;
                let released = client.data_key(&path(i as usize)).await;
                released.map(|_key| due.elapsed())
            })
        })
        .collect();
    let (mut latencies, mut failed) = (Vec::new(), Vec::new());
    for release in releases {
        match release.await.unwrap() {
            Ok(latency) => latencies.push(latency),
            Err(error) => failed.push(error.to_string()),
        }
    }
    if let Some(error) = failed.first() {
        println!("{} releases failed; the first: {error}", failed.len());
    }
    report(&format!("at {RATE}/s"), &broker, &before, latencies);

    let (before, next) = (Times::take(&broker), Arc::new(AtomicUsize::new(0)));
    let end = Instant::now() + Duration::from_secs(u64::from(SECONDS));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (client, next) = (Arc::clone(&client), Arc::clone(&next));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    let began = Instant::now();
                    let path = path(next.fetch_add(1, Ordering::Relaxed));
                    client.data_key(&path).await.unwrap();
                    latencies.push(began.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await.unwrap());
    }
    report(&format!("{AT_ONCE} at once"), &broker, &before, latencies);
    let audited = kbs::offline::verify_log(&config, &[]).unwrap();
    println!("the log: {} entries, verified", audited.entries);
}
