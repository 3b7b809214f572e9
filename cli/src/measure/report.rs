//! What was found out about an image, for people and for programs.

use std::path::Path;
use std::time::SystemTime;

use attestation::RUNTIME_PCR;
use image::ramdisk_registers;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Measured;
use super::files;
use super::runtime::Runtime;
use crate::output::{self, field};

/// For people; `path` is where the image was read from.
pub(super) fn table(path: &Path, measured: &Measured) -> String {
    let Measured { image, .. } = measured;
    let mut text = String::new();
    field(&mut text, "image", path.display());
    let size = output::bytes(image.size);
    field(
        &mut text,
        "format",
        format_args!(
            "EIF 4, {}, {size}, CRC-32 {:08x}",
            image.architecture, image.checksum
        ),
    );
    let memory = output::bytes(image.default_memory);
    field(
        &mut text,
        "defaults",
        format_args!(
            "{memory} of memory, {} processors (not measured)",
            image.default_processors
        ),
    );
    if let Some(metadata) = &image.metadata {
        let [name, version] = [metadata.name(), metadata.version()].map(Option::unwrap_or_default);
        field(
            &mut text,
            "metadata",
            format_args!(
                "{} {} (not measured)",
                name.escape_debug(),
                version.escape_debug()
            ),
        );
    }
    match &image.signature {
        None => field(&mut text, "signature", "none"),
        Some(signature) => field(
            &mut text,
            "signature",
            format_args!(
                "of PCR0, by {}, usable until {}",
                signature.subject().escape_debug(),
                show_time(signature.not_after())
            ),
        ),
    }
    if let Some(version) = &image.kernel_version {
        field(&mut text, "kernel", version);
    }
    field(&mut text, "cmdline", image.command_line.escape_debug());
    text += &format!("\n{:>12}  {:<96}  PART\n", "SIZE", "SHA-384");
    let named = image
        .ramdisks
        .iter()
        .enumerate()
        .map(|(index, content)| (format!("ramdisk {}", index + 1), content));
    for (name, content) in [("kernel".to_owned(), &image.kernel)]
        .into_iter()
        .chain(named)
    {
        text += &format!("{:>12}  {}  {name}\n", content.size, content.sha384);
    }
    text.push('\n');
    for (index, pcr) in &measured.registers {
        field(
            &mut text,
            &format!("PCR{index}"),
            format_args!("{pcr}  {}", covers(*index, image.ramdisks.len())),
        );
    }
    if image.signature.is_none() {
        field(&mut text, "PCR8", "zero: nobody signed the image");
    }
    if let Some(runtime) = &measured.runtime {
        text.push('\n');
        field(
            &mut text,
            "config",
            format_args!("sha256 {}", runtime.config()),
        );
        for (name, digest) in runtime.models() {
            field(
                &mut text,
                "model",
                format_args!("{name}, manifest sha256 {digest}"),
            );
        }
    }
    text
}

/// Everything.
pub(super) fn json(measured: &Measured) -> Value {
    let image = &measured.image;
    let pcrs: Map<_, _> = measured
        .registers
        .iter()
        .map(|(index, pcr)| (index.to_string(), pcr.to_string().into()))
        .collect();
    let signature = image.signature.as_ref().map(|signature| {
        json!({
            "subject": signature.subject(),
            "certificate_sha384": signature.certificate_sha384().to_string(),
            "not_after": show_time(signature.not_after()),
        })
    });
    let ramdisks: Vec<_> = image
        .ramdisks
        .iter()
        .zip(&measured.listings)
        .enumerate()
        .map(|(index, (content, listing))| {
            let mut ramdisk = json!({
                "size": content.size,
                "sha384": content.sha384.to_string(),
                "registers": ramdisk_registers(index),
            });
            if let (Some(map), Value::Object(files)) =
                (ramdisk.as_object_mut(), files::json(listing))
            {
                map.extend(files);
            }
            ramdisk
        })
        .collect();
    json!({
        "pcrs": pcrs,
        "architecture": image.architecture.to_string(),
        "size": image.size,
        "kernel": {
            "size": image.kernel.size,
            "sha384": image.kernel.sha384.to_string(),
            "version": image.kernel_version,
        },
        "command_line": image.command_line,
        "ramdisks": ramdisks,
        "signature": signature,
        "runtime": measured.runtime.as_ref().map(Runtime::json),
        "not_measured": {
            "crc32": format!("{:08x}", image.checksum),
            "default_memory": image.default_memory,
            "default_processors": image.default_processors,
            "metadata": image.metadata.as_ref().map(image::Metadata::fields),
        },
    })
}

fn covers(index: u8, ramdisks: usize) -> &'static str {
    match index {
        0 => "kernel, command line, all ramdisks",
        1 => "kernel, command line, ramdisk 1",
        2 if ramdisks == 1 => "nothing: there is no second ramdisk, as in many other images",
        2 => "ramdisks from 2 on",
        3 => "role of the parent instance",
        4 => "parent instance",
        RUNTIME_PCR => "configuration and models, once the enclave has loaded them",
        _ => "certificate of the signature",
    }
}

fn show_time(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "out of range".into())
}
