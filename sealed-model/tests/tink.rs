//! Our ciphertext opens with Tink, and Tink's with us. Skipped with a line where Tink is not installed; with CI=true that fails.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run its peer should stop"
)]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{EPOCH, KEY, Memory, NAME, World};

/// Around the empty file, the first and second segment's end, and several segments.
const LENGTHS: [usize; 6] = [0, 1, 1_048_520, 1_048_521, 2_097_081, 3_000_000];
/// 96 segments; as a tensor, since no text may be as long.
const LARGE: usize = 100_000_000;

struct Tink {
    python: PathBuf,
    script: PathBuf,
    key: PathBuf,
}

impl Tink {
    fn find(dir: &Path) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
        let key = dir.join("key");
        fs::write(&key, hex::encode(KEY)).ok()?;
        let own = Self {
            python: root.join("target/tools/py/bin/python3"),
            script: root.join("scripts/tink-crosscheck"),
            key,
        };
        let probe = Command::new(&own.python)
            .arg(&own.script)
            .arg("probe")
            .output();
        probe
            .is_ok_and(|output| output.status.success())
            .then_some(own)
    }

    fn run(&self, direction: &str, path: &str, from: &Path, to: &Path) {
        let data = sealed_model::associated_data(NAME, EPOCH, path).unwrap();
        let output = Command::new(&self.python)
            .arg(&self.script)
            .arg(direction)
            .arg(&self.key)
            .arg(String::from_utf8(data).unwrap())
            .args([from, to])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn packages_open_with_tink_and_tinks_files_open_in_packages() {
    let world = World::new();
    let text = String::from_utf8(
        support::pattern(3_000_000)
            .iter()
            .map(|b| b'a' + b % 26)
            .collect(),
    )
    .unwrap();
    for len in LENGTHS {
        world.write(&format!("n{len}.md"), &text.as_bytes()[..len]);
    }
    let Some(tink) = Tink::find(world.dir.path()) else {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "Tink is missing: run scripts/dev-tools"
        );
        println!("skipped: Tink is not installed (scripts/dev-tools brings it)");
        return;
    };
    let large = "model.safetensors";
    // Its header takes 75 bytes.
    let weights = support::safetensors(&support::pattern(LARGE - 75));
    assert_eq!(weights.len(), LARGE);
    world.write(large, &weights);
    world.seal().unwrap();
    let mut theirs = Memory::load(&world.out());
    let result = world.dir.path().join("result");
    for len in LENGTHS {
        let path = format!("n{len}.md");
        let sealed = sealed_model::sealed_name(&path);
        tink.run("open", &path, &world.out().join(&sealed), &result);
        assert!(
            fs::read(&result).unwrap() == text.as_bytes()[..len],
            "ours at {len} bytes"
        );

        tink.run("seal", &path, &world.model().join(&path), &result);
        assert_ne!(theirs.0[&sealed], fs::read(&result).unwrap());
        *theirs.file(&sealed) = fs::read(&result).unwrap();
    }
    let sealed = sealed_model::sealed_name(large);
    tink.run("open", large, &world.out().join(&sealed), &result);
    assert!(
        fs::read(&result).unwrap() == weights,
        "ours at {LARGE} bytes"
    );
    tink.run("seal", large, &world.model().join(large), &result);
    *theirs.file(&sealed) = fs::read(&result).unwrap();

    let unlocked = world.open(&theirs).unwrap();
    unlocked.verify().unwrap();
    for len in LENGTHS {
        let got = unlocked.read(&format!("n{len}.md"), 1 << 30).unwrap();
        assert!(*got == text.as_bytes()[..len], "Tink's at {len} bytes");
    }
    let got = unlocked.read(large, 1 << 30).unwrap();
    assert!(*got == weights, "Tink's at {LARGE} bytes");
}
