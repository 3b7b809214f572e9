//! Packs an enclave image: kernel, init, enclave program and configuration in, one file out. The same inputs give the same
//! bytes.
//!
//! ```text
//! kernel, command line
//! ramdisk 1 (PCR1)   init, mount points, dev/console
//! ramdisk 2 (PCR2)   app/manifest     list of what follows, which init checks before it starts anything
//!                    app/enclave      the program
//!                    app/enclave.toml the measured configuration
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use image::{
    Architecture, BuildInfo, Entry, Image, Metadata, RamdiskError, RamdiskWriter, Recipe,
    SignatureError, Source,
};
use init::command_line::COMMAND_LINE;
use init::files::{self, FilesError, LIST, Listed};

/// Where the configuration lies in the image, relative to its root.
pub const CONFIG: &str = "app/enclave.toml";
/// Where the first process lies.
pub const INIT: &str = "init";
/// Where the enclave program lies.
pub const PROGRAM: &str = "app/enclave";

/// A program is linked statically and has no model in it.
const MAX_PROGRAM: u64 = 256 << 20;
/// What the enclave program reads at most.
const MAX_CONFIG: usize = 1 << 20;
/// What a starter takes that names none; nothing measures it.
const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_PROCESSORS: u64 = 2;

/// What goes in.
pub struct Parts<'a> {
    /// A bzImage.
    pub kernel: &'a Path,
    /// PID 1, linked statically.
    pub init: &'a Path,
    /// The enclave program, linked statically.
    pub enclave: &'a Path,
    /// The enclave program's configuration, byte for byte.
    pub config: &'a [u8],
    /// For the metadata, which nothing measures.
    pub name: &'a str,
    /// Likewise.
    pub version: &'a str,
}

/// Who signs: PEM of a P-384 certificate and of its key (PKCS#8). PCR8 then names the certificate.
pub struct Signer<'a> {
    pub certificate: &'a [u8],
    pub key: &'a [u8],
}

/// What was packed.
#[derive(Debug)]
pub struct Built {
    /// As the reader sees it.
    pub image: Image,
    /// What is in each ramdisk, in the order of the image.
    pub ramdisks: Vec<Vec<Entry>>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {problem}", path.display())]
    Program { path: PathBuf, problem: String },
    #[error("the configuration has {0} bytes, an enclave reads at most {MAX_CONFIG}")]
    ConfigTooLarge(usize),
    #[error(transparent)]
    Ramdisk(#[from] RamdiskError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error("the image cannot be signed: {0}")]
    Signature(#[from] SignatureError),
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Writes the image to `out`, whole or not at all, and reads it once more.
///
/// # Errors
/// A part that no image may have, and what reading and writing may bring.
pub fn build(parts: &Parts<'_>, signer: Option<&Signer<'_>>, out: &Path) -> Result<Built, Error> {
    if parts.config.len() > MAX_CONFIG {
        return Err(Error::ConfigTooLarge(parts.config.len()));
    }
    let init = program(parts.init)?;
    let enclave = program(parts.enclave)?;
    let (boot, boot_entries) = boot_ramdisk(&init)?;
    let (app, app_entries) = app_ramdisk(&enclave, parts.config)?;
    let kernel_version = kernel_version(parts.kernel)?;
    let metadata = Metadata::new(&BuildInfo {
        name: parts.name,
        version: parts.version,
        time: "1970-01-01T00:00:00+00:00",
        tool: "cloister",
        tool_version: env!("CARGO_PKG_VERSION"),
        operating_system: "Linux",
        kernel_version: &kernel_version,
    });

    let partial = beside(out);
    let pack = |signature: Option<&[u8]>| -> Result<Image, Error> {
        let recipe = Recipe {
            architecture: Architecture::X86_64,
            default_memory: DEFAULT_MEMORY,
            default_processors: DEFAULT_PROCESSORS,
            kernel: File::open(parts.kernel)
                .and_then(Source::file)
                .map_err(Error::io(parts.kernel))?,
            command_line: COMMAND_LINE,
            ramdisks: vec![Source::bytes(&boot), Source::bytes(&app)],
            metadata: &metadata,
            signature,
        };
        write(recipe, &partial)
    };
    let packed = pack(None).and_then(|image| match signer {
        None => Ok(image),
        Some(Signer { certificate, key }) => {
            let pcr0 = &image.measurements.pcr0;
            pack(Some(&image::sign(pcr0, certificate, key)?))
        }
    });
    let image = packed
        .and_then(|image| {
            std::fs::rename(&partial, out).map_err(Error::io(out))?;
            Ok(image)
        })
        .inspect_err(|_| drop(std::fs::remove_file(&partial)))?;
    Ok(Built {
        image,
        ramdisks: vec![boot_entries, app_entries],
    })
}

/// As the kernel says it of itself, so that the same parts give the same metadata whoever packs them: `6.12.57`.
fn kernel_version(path: &Path) -> Result<String, Error> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(image::kernel::START)
        .read_to_end(&mut start)
        .map_err(Error::io(path))?;
    let text = image::kernel::version(&start).unwrap_or_default();
    let word = text.split_ascii_whitespace().next().unwrap_or("unknown");
    Ok(word.to_owned())
}

fn boot_ramdisk(init: &[u8]) -> Result<(Vec<u8>, Vec<Entry>), Error> {
    let mut bytes = Vec::new();
    let entries = RamdiskWriter::new(&mut bytes)
        .directory("dev", 0o755)?
        .device("dev/console", 0o600, 5, 1)?
        .file(INIT, 0o755, init.len() as u64, init)?
        .directory("proc", 0o555)?
        .directory("sys", 0o555)?
        .finish()?;
    Ok((bytes, entries))
}

fn app_ramdisk(enclave: &[u8], config: &[u8]) -> Result<(Vec<u8>, Vec<Entry>), Error> {
    let listed = |path: &str, mode, content: &[u8]| {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, content).as_ref());
        Listed {
            path: path.to_owned(),
            size: content.len() as u64,
            mode,
            sha256,
        }
    };
    let list = files::render(vec![
        listed(PROGRAM, 0o555, enclave),
        listed(CONFIG, 0o444, config),
    ])?;
    let mut bytes = Vec::new();
    // The list comes first, where a ramdisk that does not fit is cut last.
    let entries = RamdiskWriter::new(&mut bytes)
        .directory("app", 0o555)?
        .file(LIST, 0o444, list.len() as u64, list.as_bytes())?
        .file(CONFIG, 0o444, config.len() as u64, config)?
        .file(PROGRAM, 0o555, enclave.len() as u64, enclave)?
        .finish()?;
    Ok((bytes, entries))
}

/// Reads a program, and refuses one that could not run in an image: there is no loader and no library in it.
fn program(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(MAX_PROGRAM + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io(path))?;
    let refuse = |problem: &str| Error::Program {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    if bytes.len() as u64 > MAX_PROGRAM {
        return Err(refuse("is larger than 256 MiB"));
    }
    match dynamic_loader(&bytes) {
        Some(false) => Ok(bytes),
        Some(true) => Err(refuse(
            "is linked dynamically, and an image has no libraries; build it with -C target-feature=+crt-static",
        )),
        None => Err(refuse("is no ELF program for x86-64")),
    }
}

/// Whether a 64-bit little-endian x86-64 ELF file asks for a loader (`PT_INTERP`); `None` if it is something else.
/// System V ABI, "ELF header" and "Program header".
fn dynamic_loader(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    const EM_X86_64: u16 = 62;
    let u16_at = |at: usize| Some(u16::from_le_bytes(*elf.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*elf.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*elf.get(at..)?.first_chunk()?));
    if elf.get(..6)? != b"\x7fELF\x02\x01" || u16_at(18)? != EM_X86_64 {
        return None;
    }
    let table = usize::try_from(u64_at(32)?).ok()?;
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    for index in 0..count {
        let entry = table.checked_add(size.checked_mul(index)?)?;
        if u32_at(entry)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

fn write(recipe: Recipe<'_>, path: &Path) -> Result<Image, Error> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(Error::io(path))?;
    let mut out = BufWriter::new(file);
    image::write(recipe, &mut out)?;
    out.flush().map_err(Error::io(path))?;
    out.get_ref().sync_all().map_err(Error::io(path))?;
    let file = File::open(path).map_err(Error::io(path))?;
    Ok(Image::read(io::BufReader::new(file))?)
}

fn beside(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
