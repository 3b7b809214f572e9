//! What an unlocked package gives out: the right bytes, from any thread, each segment fetched and decrypted about once.
mod support;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;
use sealed_model::{Error, Source};
use support::{Memory, World, pattern, safetensors};

const FILE: &str = "model.safetensors";

/// Counts what is read, and fails when told to.
struct Watched {
    inner: Memory,
    bytes: AtomicU64,
    broken: AtomicBool,
}

impl Watched {
    fn new(inner: Memory) -> Self {
        Self {
            inner,
            bytes: AtomicU64::new(0),
            broken: AtomicBool::new(false),
        }
    }
}

impl Source for Watched {
    fn size(&self, name: &str) -> io::Result<u64> {
        self.inner.size(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_at(name, offset, buf)
    }
}

fn world(len: usize) -> (World, Vec<u8>) {
    let world = World::new();
    let file = safetensors(&pattern(len));
    world.write(FILE, &file);
    (world, file)
}

#[test]
fn every_range_across_segment_boundaries_reads_right() {
    let (world, file) = world(5_000_000);
    let unlocked = world.open(world.package()).unwrap();
    let edges = [
        0u64,
        1,
        1_048_519,
        1_048_520,
        1_048_521,
        2_097_079,
        2_097_080,
        2_097_081,
        3_145_640,
        file.len() as u64 - 1,
        file.len() as u64,
    ];
    for &start in &edges {
        for &end in edges.iter().filter(|end| **end >= start) {
            let mut buf = vec![0xaa; usize::try_from(end - start).unwrap()];
            unlocked.read_at(FILE, start, &mut buf).unwrap();
            assert!(
                buf == file[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()],
                "{start}..{end}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn random_reads_match(ranges in proptest::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 1..12)) {
        let (world, file) = world(4_200_000);
        let unlocked = world.open(world.package()).unwrap();
        for (a, b) in ranges {
            let (a, b) = (a.index(file.len() + 1), b.index(file.len() + 1));
            let (start, end) = (a.min(b), a.max(b));
            let mut buf = vec![0; end - start];
            unlocked.read_at(FILE, start as u64, &mut buf).unwrap();
            prop_assert!(buf == file[start..end]);
        }
    }
}

#[test]
fn small_sequential_reads_fetch_each_segment_once() {
    let (world, file) = world(6_000_000);
    let source = Watched::new(world.package());
    let unlocked = world.open(&source).unwrap();
    let before = source.bytes.load(Ordering::Relaxed);
    let mut got = Vec::new();
    // Tensors of many sizes, one after the other.
    for len in [1usize, 700, 4096, 1 << 18, 3_333].into_iter().cycle() {
        let len = len.min(file.len() - got.len());
        let mut buf = vec![0; len];
        unlocked.read_at(FILE, got.len() as u64, &mut buf).unwrap();
        got.extend_from_slice(&buf);
        if got.len() == file.len() {
            break;
        }
    }
    assert!(got == file);
    let sealed = source.inner.0["model.safetensors.enc"].len() as u64;
    assert_eq!(source.bytes.load(Ordering::Relaxed) - before, sealed);
}

#[test]
fn reading_tensor_by_tensor_from_four_threads_fetches_little_more_than_the_file() {
    let (world, file) = world(20_000_000);
    let package = world.package();
    let sealed = package.0["model.safetensors.enc"].len() as u64;
    let source = Watched::new(package);
    let unlocked = world.open(&source).unwrap();
    let before = source.bytes.load(Ordering::Relaxed);
    let tensor = 300_000usize;
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let start =
                        usize::try_from(next.fetch_add(tensor as u64, Ordering::Relaxed)).unwrap();
                    if start >= file.len() {
                        break;
                    }
                    let mut buf = vec![0; tensor.min(file.len() - start)];
                    unlocked.read_at(FILE, start as u64, &mut buf).unwrap();
                    assert!(buf == file[start..start + buf.len()]);
                }
            });
        }
    });
    let fetched = source.bytes.load(Ordering::Relaxed) - before;
    // Two threads may want the same segment at the same moment; neither waits for the other.
    assert!(fetched < sealed * 3, "{fetched} bytes fetched of {sealed}");
}

#[test]
fn one_large_read_fetches_the_file_exactly_once() {
    let (world, file) = world(9_000_000);
    let source = Watched::new(world.package());
    let unlocked = world.open(&source).unwrap();
    let before = source.bytes.load(Ordering::Relaxed);
    let all = unlocked.read(FILE, 1 << 30).unwrap();
    assert!(*all == file);
    let fetched = source.bytes.load(Ordering::Relaxed) - before;
    let sealed = source.inner.0["model.safetensors.enc"].len() as u64;
    // The header may be read by two threads at once.
    assert!(
        (sealed..=sealed + 8 * 40).contains(&fetched),
        "{fetched} of {sealed}"
    );
}

#[test]
fn a_source_that_fails_is_retryable_and_leaves_zeros_then_serves_again() {
    let (world, file) = world(3_000_000);
    let source = Watched::new(world.package());
    let unlocked = world.open(&source).unwrap();
    let mut buf = vec![7; file.len()];
    unlocked.read_at(FILE, 0, &mut buf[..10]).unwrap();
    source.broken.store(true, Ordering::Relaxed);
    let error = unlocked.read_at(FILE, 0, &mut buf).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(
        matches!(&error, Error::Unavailable { file, source } if file == "model.safetensors.enc" && source.kind() == io::ErrorKind::ConnectionReset)
    );
    assert!(buf.iter().all(|byte| *byte == 0));
    assert_eq!(
        io::Error::from(error).kind(),
        io::ErrorKind::ConnectionReset
    );
    source.broken.store(false, Ordering::Relaxed);
    unlocked.read_at(FILE, 0, &mut buf).unwrap();
    assert!(buf == file);
}

#[test]
fn ranges_and_names_outside_the_package_are_refused() {
    let (world, file) = world(10);
    let unlocked = world.open(world.package()).unwrap();
    let size = file.len() as u64;
    assert_eq!(unlocked.len(FILE), Some(size));
    assert_eq!(unlocked.len("model.safetensors.enc"), None);
    assert_eq!(unlocked.len("../model.safetensors"), None);
    for (offset, len) in [(size, 1), (0, file.len() + 1), (u64::MAX, 1), (u64::MAX, 0)] {
        let outcome = unlocked.read_at(FILE, offset, &mut vec![0; len]);
        assert!(
            matches!(outcome, Err(Error::OutOfRange { .. })),
            "{offset} {len}: {outcome:?}"
        );
    }
    unlocked.read_at(FILE, size, &mut []).unwrap();
    assert!(matches!(
        unlocked.read("nothing.json", 10),
        Err(Error::NoSuchFile { .. })
    ));
    assert!(matches!(
        unlocked.read(FILE, size - 1),
        Err(Error::TooLarge { .. })
    ));
    assert_eq!(*unlocked.read(FILE, size).unwrap(), file);
    assert_eq!(unlocked.read("LICENSE", 0).unwrap().len(), 0);
    let names: Vec<_> = unlocked
        .files()
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(
        names,
        ["1_Pooling/config.json", "LICENSE", "config.json", FILE]
    );
}
