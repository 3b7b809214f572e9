//! How fast a package opens against AES-256-GCM itself, on the same bytes in the same run.
//!
//! `cargo bench -p sealed-model`. "aes-256-gcm, one thread" is the ceiling per core: one-MiB messages, opened in place.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot set up its world should stop"
)]

use std::fs;
use std::hint::black_box;
use std::time::SystemTime;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sealed_model::{DataKey, DirSource, Package, SealOptions, SigningKey, UnlockedPackage, seal};

const LEN: usize = 128 << 20;
const FILE: &str = "model.safetensors";

fn open(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let package = package(dir.path());
    let mut group = c.benchmark_group("open");
    group
        .sample_size(10)
        .throughput(Throughput::Bytes(LEN as u64));
    let mut buf = vec![0u8; LEN];

    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let mut message = vec![0u8; 1 << 20];
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut message)
        .unwrap();
    let mut scratch = message.clone();
    group.bench_function("aes-256-gcm, one thread", |b| {
        b.iter(|| {
            for _ in 0..LEN >> 20 {
                scratch.copy_from_slice(&message);
                black_box(
                    key.open_in_place(nonce(), Aad::empty(), &mut scratch)
                        .unwrap(),
                );
            }
        });
    });
    group.bench_function("read, plain file", |b| {
        b.iter(|| {
            let file = fs::File::open(dir.path().join("model").join(FILE)).unwrap();
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut buf, 0).unwrap();
        });
    });
    group.bench_function("read_at, whole file, all threads", |b| {
        b.iter(|| package.read_at(FILE, 0, &mut buf).unwrap());
    });
    group.bench_function("read_at, 600 kB tensors, one thread", |b| {
        b.iter(|| {
            for (i, tensor) in buf.chunks_mut(600_000).enumerate() {
                package.read_at(FILE, i as u64 * 600_000, tensor).unwrap();
            }
        });
    });
    group.bench_function("read_at, 1 MiB segments, one thread", |b| {
        b.iter(|| {
            // Aligned: one whole segment per call, which no other thread joins.
            let (mut at, mut rest) = (1_048_520u64, buf.as_mut_slice());
            while rest.len() >= 2 << 20 {
                let (segment, later) = rest.split_at_mut(1_048_560);
                package.read_at(FILE, at, segment).unwrap();
                (at, rest) = (at + 1_048_560, later);
            }
        });
    });
    let package = package.check_segments().unwrap();
    group.bench_function("read_at, SHA-256 of segments too, all threads", |b| {
        b.iter(|| package.read_at(FILE, 0, &mut buf).unwrap());
    });
    group.bench_function("read_at, SHA-256 of segments too, one thread", |b| {
        b.iter(|| {
            let (mut at, mut rest) = (1_048_520u64, buf.as_mut_slice());
            while rest.len() >= 2 << 20 {
                let (segment, later) = rest.split_at_mut(1_048_560);
                package.read_at(FILE, at, segment).unwrap();
                (at, rest) = (at + 1_048_560, later);
            }
        });
    });
    group.finish();
}

fn package(dir: &std::path::Path) -> UnlockedPackage<DirSource> {
    let header_len = 128;
    let len = LEN - 8 - header_len;
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    let mut file = (header_len as u64).to_le_bytes().to_vec();
    file.extend_from_slice(format!("{header:header_len$}").as_bytes());
    file.resize(LEN, 0x5a);
    fs::create_dir(dir.join("model")).unwrap();
    fs::write(dir.join("model").join(FILE), file).unwrap();
    let (key, signer) = (
        DataKey::from_bytes(&[1; 32]).unwrap(),
        SigningKey::generate().unwrap(),
    );
    let options = SealOptions {
        name: "bench",
        epoch: 1,
        key: &key,
        signer: &signer,
        created: SystemTime::UNIX_EPOCH,
        progress: &|_| {},
    };
    seal(&dir.join("model"), &dir.join("package"), &options).unwrap();
    let source = DirSource::new(dir.join("package"));
    let package = Package::open(source, &[signer.public().unwrap()], "bench", 1).unwrap();
    package.unlock(key).unwrap()
}

criterion_group!(benches, open);
criterion_main!(benches);
