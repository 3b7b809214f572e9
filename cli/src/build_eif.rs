use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use image::{Architecture, BuildInfo, Metadata, Recipe, Source, write};

use crate::failure::Failure;
use crate::measure::read;
use crate::output::{self, field};

/// Pack kernel, command line and ramdisks into an enclave image
///
/// The same inputs give the same bytes. The image appears whole or not at all, and is read once more before it does.
#[derive(Args)]
#[command(after_help = "\
Example:
  cloister build-eif --kernel bzImage --cmdline 'reboot=k panic=30 pci=off console=ttyS0' \\
      --ramdisk boot.cpio --ramdisk app.cpio --out app.eif")]
pub(crate) struct BuildEif {
    /// bzImage, or Image for aarch64.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// What the kernel is started with, at most 2047 bytes.
    #[arg(long, value_name = "TEXT")]
    cmdline: String,
    /// cpio archive. The first counts into PCR1, all others into PCR2. Compress all of them or none.
    #[arg(long, required = true, value_name = "FILE")]
    ramdisk: Vec<PathBuf>,
    /// The image to make; it must not exist.
    #[arg(long, value_name = "IMAGE")]
    out: PathBuf,
    #[arg(long, value_enum, default_value_t, value_name = "ARCH")]
    arch: Arch,
    /// For the metadata, which nothing measures.
    #[arg(long, default_value = "enclave")]
    name: String,
    /// For the metadata.
    #[arg(long, default_value = "0", value_name = "TEXT")]
    image_version: String,
    /// For the metadata. Of the source, not of the build, or no two builds are alike.
    #[arg(
        long,
        default_value = "1970-01-01T00:00:00+00:00",
        value_name = "RFC3339"
    )]
    time: String,
    /// For the metadata.
    #[arg(long, default_value = "unknown", value_name = "TEXT")]
    kernel_version: String,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Arch {
    #[default]
    #[value(name = "x86_64")]
    X86_64,
    Aarch64,
}

/// What other builders write, too. A starter names its own values.
const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_PROCESSORS: u64 = 2;

impl BuildEif {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if self.out.exists() {
            return Err(Failure::usage(anyhow!(
                "{}: exists already: choose another --out, or remove it",
                self.out.display()
            )));
        }
        let mut partial = self.out.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let image = self.pack(&partial).and_then(|()| {
            let image = read(&partial)?;
            fs::rename(&partial, &self.out)
                .map_err(|error| Failure::io("write", &self.out, error))?;
            Ok(image)
        });
        let image = image.inspect_err(|_| drop(fs::remove_file(&partial)))?;
        let mut text = String::new();
        field(&mut text, "image", self.out.display());
        field(&mut text, "size", output::bytes(image.size));
        for (index, pcr) in image.measurements.registers() {
            field(&mut text, &format!("PCR{index}"), pcr);
        }
        output::print(&text)
    }

    fn pack(&self, path: &Path) -> Result<(), Failure> {
        let metadata = Metadata::new(&BuildInfo {
            name: &self.name,
            version: &self.image_version,
            time: &self.time,
            tool: "cloister",
            tool_version: env!("CARGO_PKG_VERSION"),
            operating_system: "Linux",
            kernel_version: &self.kernel_version,
        });
        let recipe = Recipe {
            architecture: match self.arch {
                Arch::X86_64 => Architecture::X86_64,
                Arch::Aarch64 => Architecture::Aarch64,
            },
            default_memory: DEFAULT_MEMORY,
            default_processors: DEFAULT_PROCESSORS,
            kernel: source(&self.kernel)?,
            command_line: &self.cmdline,
            ramdisks: self
                .ramdisk
                .iter()
                .map(|path| source(path))
                .collect::<Result<_, _>>()?,
            metadata: &metadata,
            signature: None,
        };
        let failed = |error| Failure::io("write", path, error);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(failed)?;
        let mut out = BufWriter::new(file);
        write(recipe, &mut out).map_err(|error| match error {
            image::Error::Io(error) => failed(error),
            // An input that no image may have.
            error => {
                Failure::usage(anyhow::Error::new(error).context(self.out.display().to_string()))
            }
        })?;
        out.flush().map_err(failed)?;
        out.get_ref().sync_all().map_err(failed)
    }
}

fn source(path: &Path) -> Result<Source<'static>, Failure> {
    File::open(path)
        .and_then(Source::file)
        .map_err(|error| Failure::io("read", path, error))
}
