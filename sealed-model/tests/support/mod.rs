//! A small model directory, its package in memory, and sources that misbehave.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sealed_model::{
    DataKey, Manifest, Package, PublisherKey, SealOptions, SigningKey, Source, UnlockedPackage,
    seal,
};
use tempfile::TempDir;

pub(crate) const NAME: &str = "demo";
pub(crate) const EPOCH: u64 = 3;
pub(crate) const KEY: [u8; 32] = [42; 32];

/// A package in memory. Clone and change it.
#[derive(Clone, Debug)]
pub(crate) struct Memory(pub(crate) BTreeMap<String, Vec<u8>>);

impl Memory {
    pub(crate) fn load(dir: &Path) -> Self {
        let files = fs::read_dir(dir).unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            entry.file_type().unwrap().is_file().then(|| {
                (
                    entry.file_name().into_string().unwrap(),
                    fs::read(entry.path()).unwrap(),
                )
            })
        });
        Self(files.collect())
    }

    pub(crate) fn file(&mut self, name: &str) -> &mut Vec<u8> {
        self.0.get_mut(name).unwrap()
    }
}

impl Source for Memory {
    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.0.get(name).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let file = self.0.get(name).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap();
        let bytes = file
            .get(start..start + buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// A model directory, its publisher and where its packages go.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) signer: SigningKey,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            signer: SigningKey::generate().unwrap(),
        };
        fs::create_dir(world.model()).unwrap();
        world.write("config.json", br#"{"model_type":"bert"}"#);
        world.write("1_Pooling/config.json", b"{}");
        world.write("LICENSE", b"");
        world.write("model.safetensors", &safetensors(&[1, 2, 3, 4, 5]));
        world
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.model().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.dir.path().join("package")
    }

    pub(crate) fn seal_as(
        &self,
        name: &str,
        epoch: u64,
        key: &DataKey,
    ) -> Result<Manifest, sealed_model::Error> {
        let options = SealOptions {
            name,
            epoch,
            key,
            signer: &self.signer,
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            progress: &|_| {},
        };
        seal(&self.model(), &self.out(), &options)
    }

    pub(crate) fn seal(&self) -> Result<Manifest, sealed_model::Error> {
        self.seal_as(NAME, EPOCH, &key())
    }

    /// The package in memory; on disk it makes room for the next.
    pub(crate) fn package_as(&self, name: &str, epoch: u64, key: &DataKey) -> Memory {
        self.seal_as(name, epoch, key).unwrap();
        let memory = Memory::load(&self.out());
        fs::remove_dir_all(self.out()).unwrap();
        memory
    }

    pub(crate) fn package(&self) -> Memory {
        self.package_as(NAME, EPOCH, &key())
    }

    pub(crate) fn trusted(&self) -> Vec<PublisherKey> {
        vec![self.signer.public().unwrap()]
    }

    pub(crate) fn open<S: Source>(
        &self,
        source: S,
    ) -> Result<UnlockedPackage<S>, sealed_model::Error> {
        Package::open(source, &self.trusted(), NAME, EPOCH)?.unlock(key())
    }

    /// What an owner's tool does that believes nothing: tags, documents, and the publisher's digest of each segment.
    pub(crate) fn open_and_verify_all<S: Source>(
        &self,
        source: S,
    ) -> Result<(), sealed_model::Error> {
        let unlocked = self.open(source)?;
        unlocked.verify()?;
        let documents = unlocked.documents()?;
        documents.check(unlocked.manifest(), &self.trusted())?;
        unlocked.check_segments()?.verify()
    }

    /// What a reader does that takes all of it.
    pub(crate) fn open_and_verify<S: Source>(&self, source: S) -> Result<(), sealed_model::Error> {
        self.open(source)?.verify()
    }
}

pub(crate) fn key() -> DataKey {
    DataKey::from_bytes(&KEY).unwrap()
}

/// A safetensors file with one tensor of these bytes.
pub(crate) fn safetensors(data: &[u8]) -> Vec<u8> {
    let len = data.len();
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        data,
    ]
    .concat()
}

/// A tool of `target/tools`, which `scripts/dev-tools` brings. Without it the test says so and is skipped; with CI=true it fails.
pub(crate) fn tool(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let tool = root.join("target/tools").join(path);
    if tool.exists() {
        return Some(tool);
    }
    assert_ne!(
        std::env::var("CI").as_deref(),
        Ok("true"),
        "target/tools/{path} is missing: run scripts/dev-tools"
    );
    println!("skipped: target/tools/{path} is not installed (scripts/dev-tools brings it)");
    None
}

/// Whether the tools' Python has this module; without it as [`tool`].
pub(crate) fn python(module: &str) -> Option<PathBuf> {
    let python = tool("py/bin/python3")?;
    let probe = std::process::Command::new(&python)
        .args(["-c", &format!("import {module}")])
        .output();
    if probe.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    assert_ne!(
        std::env::var("CI").as_deref(),
        Ok("true"),
        "{module} is missing: run scripts/dev-tools"
    );
    println!("skipped: {module} is not installed (scripts/dev-tools brings it)");
    None
}

/// Bytes in which a misplaced segment or byte shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
