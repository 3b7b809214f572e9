//! A boot that fails ends the enclave with one line and its exit code, and nothing ever listened.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sim::stack::{Error, Layout, Stack};
use tests::models;

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const REFUSED: i32 = 77;

/// Looks for the enclave's sockets for as long as it lives.
struct Watch {
    seen: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start(sockets: Vec<PathBuf>) -> Self {
        let (seen, stop) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen_there, stop_there) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stop_there.load(Ordering::Relaxed) {
                if sockets.iter().any(|s| s.exists()) {
                    seen_there.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self { seen, stop, thread }
    }

    fn nothing_listened(self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        !self.seen.load(Ordering::Relaxed)
    }
}

/// Starts a run spoilt by `spoil` and returns the enclave's exit code and its one line.
async fn failed_boot(spoil: impl FnOnce(&Layout) + Send + 'static) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = tests::options(models::both(dir.path()));
    let (send, watch) = std::sync::mpsc::channel();
    options.before_start = Some(Box::new(move |layout: &Layout| {
        send.send(Watch::start(vec![
            layout.path("enclave.sock"),
            layout.path("enclave-control.sock"),
        ]))
        .unwrap();
        spoil(layout);
    }));
    let outcome = Stack::start(options).await;
    let watch = watch.recv().unwrap();
    match outcome {
        Ok(stack) => {
            stack.stop().await;
            panic!("it booted");
        }
        Err(Error::Ended {
            role: "enclave",
            code,
            tail,
        }) => {
            assert!(watch.nothing_listened(), "a listener was open: {tail}");
            assert_eq!(tail.lines().count(), 1, "not one line: {tail}");
            (code, tail)
        }
        Err(other) => panic!("{other}"),
    }
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, change(text)).unwrap();
}

fn weights(layout: &Layout) -> PathBuf {
    let package = layout.packages().join(models::CHAT);
    fs::read_dir(package)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| {
            p.file_name()
                .unwrap()
                .to_string_lossy()
                .contains("model.safetensors")
        })
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_weights_is_refused_with_the_file_named() {
    let (code, line) = failed_boot(|layout| {
        let path = weights(layout);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    })
    .await;
    assert_eq!(code, REFUSED, "{line}");
    assert!(line.contains("model.safetensors"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_tail_of_the_weights_is_refused() {
    let (code, line) = failed_boot(|layout| {
        let path = weights(layout);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    })
    .await;
    assert_eq!(code, REFUSED, "{line}");
    assert!(line.contains("model.safetensors"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_manifest_is_refused() {
    let (code, line) = failed_boot(|layout| {
        edit(
            &layout.packages().join(models::CHAT).join("manifest.json"),
            |text| text.replacen("\"epoch\"", " \"epoch\"", 1),
        );
    })
    .await;
    assert_eq!(code, REFUSED, "{line}");
    assert!(line.contains("manifest"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_of_another_model_in_its_place_is_refused() {
    let (code, line) = failed_boot(|layout| {
        let packages = layout.packages();
        fs::remove_dir_all(packages.join(models::CHAT)).unwrap();
        fs::rename(packages.join(models::EMBED), packages.join(models::CHAT)).unwrap();
    })
    .await;
    assert_eq!(code, REFUSED, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_is_told_apart_from_a_refusal() {
    let (code, line) = failed_boot(|layout| {
        let broker = format!("127.0.0.1:{}", layout.broker);
        edit(&layout.config("host"), |text| {
            text.replace(&broker, "127.0.0.1:9")
        });
    })
    .await;
    assert_eq!(code, UNAVAILABLE, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_ends_the_boot() {
    let (code, line) = failed_boot(|layout| {
        fs::write(
            layout.path("policy.rego"),
            "package policy\n\nimport rego.v1\n\ndefault allow := false\n",
        )
        .unwrap();
    })
    .await;
    assert_eq!(code, REFUSED, "{line}");
    assert!(line.contains("PolicyDeny"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_byte_of_configuration_is_another_measurement_and_gets_nothing() {
    let (code, line) = failed_boot(|layout| {
        edit(&layout.config("enclave"), |text| format!("{text}\n# \n"));
    })
    .await;
    assert_eq!(code, REFUSED, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_setting_ends_the_boot_as_a_usage_error() {
    let (code, line) = failed_boot(|layout| {
        edit(&layout.config("enclave"), |text| {
            format!("allow_anything = true\n{text}")
        });
    })
    .await;
    assert_eq!(code, USAGE, "{line}");
    assert!(line.contains("allow_anything"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_another_identity_gets_no_evidence() {
    let (code, line) = failed_boot(|layout| {
        // A certificate of the right domain and root for another workload.
        edit(&layout.config("enclave"), |text| {
            text.replace("spiffe://cloister.dev/kbs", "spiffe://cloister.dev/other")
        });
    })
    .await;
    assert!([UNAVAILABLE, REFUSED].contains(&code), "{code} {line}");
}
