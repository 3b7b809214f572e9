//! Images to read, made without the writer, and inputs for the writer.
#![allow(
    dead_code,
    reason = "every test file takes what it needs of the shared part"
)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot set up its world should stop"
)]

pub(crate) mod newc;

use std::io::Cursor;

use image::{Architecture, BuildInfo, Error, Image, Metadata, Recipe, Source, write};

pub(crate) const OFFICIAL: &[u8] = include_bytes!("../data/official.eif");
pub(crate) const SIGNED: &[u8] = include_bytes!("../data/signed.eif");
pub(crate) const COMMAND_LINE: &str = "reboot=k panic=30 pci=off console=ttyS0 random.trust_cpu=on";

/// `data/README.md` says the same in words.
pub(crate) fn inputs() -> (Vec<u8>, [Vec<u8>; 3]) {
    let bytes = |size: u32, f: fn(u32) -> u32| (0..size).map(|i| f(i).to_le_bytes()[0]).collect();
    (
        bytes(3000, |i| i * 7 + i / 256),
        [
            bytes(1001, |i| i * 11 + 3),
            bytes(502, |i| i * 13 + 5),
            bytes(77, |i| i * 17 + 1),
        ],
    )
}

pub(crate) fn metadata() -> Metadata {
    Metadata::new(&BuildInfo {
        name: "probe",
        version: "1",
        time: "1970-01-01T00:00:00+00:00",
        tool: "oracle",
        tool_version: "0.8.1",
        operating_system: "Linux",
        kernel_version: "6.12",
    })
}

pub(crate) fn packed(
    kernel: &[u8],
    command_line: &str,
    ramdisks: &[&[u8]],
    signature: Option<&[u8]>,
) -> Result<Vec<u8>, Error> {
    let mut out = Cursor::new(Vec::new());
    let metadata = metadata();
    let recipe = Recipe {
        architecture: Architecture::X86_64,
        default_memory: 1 << 30,
        default_processors: 2,
        kernel: Source::bytes(kernel),
        command_line,
        ramdisks: ramdisks.iter().map(|bytes| Source::bytes(bytes)).collect(),
        metadata: &metadata,
        signature,
    };
    write(recipe, &mut out)?;
    Ok(out.into_inner())
}

pub(crate) fn packed_inputs(signature: Option<&[u8]>) -> Vec<u8> {
    let (kernel, [a, b, c]) = inputs();
    packed(&kernel, COMMAND_LINE, &[&a, &b, &c], signature).unwrap()
}

/// An image from its sections, whatever they are, with tables and checksum that fit them.
pub(crate) fn assembled(sections: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 548];
    bytes[..4].copy_from_slice(b".eif");
    bytes[5] = 4;
    let count = u16::try_from(sections.len()).unwrap();
    bytes[26..28].copy_from_slice(&count.to_be_bytes());
    for (index, (kind, content)) in sections.iter().enumerate() {
        let (offset, size) = (bytes.len() as u64, content.len() as u64);
        put(&mut bytes, OFFSETS + 8 * index, offset);
        put(&mut bytes, SIZES + 8 * index, size);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(size.to_be_bytes());
        bytes.extend(*content);
    }
    repair(&mut bytes);
    bytes
}

/// Where the tables begin in the header.
pub(crate) const OFFSETS: usize = 28;
pub(crate) const SIZES: usize = 284;

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
}

/// Makes the checksum right again.
pub(crate) fn repair(bytes: &mut [u8]) {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&bytes[..544]);
    checksum.update(&bytes[548..]);
    bytes[544..548].copy_from_slice(&checksum.finalize().to_be_bytes());
}

pub(crate) fn read(bytes: &[u8]) -> Result<Image, Error> {
    Image::read(bytes)
}
