//! The registers that follow from an image, and those that follow from where it runs.

use aws_lc_rs::digest::{Context, SHA384};

use crate::digest::{Pcr, Sha384Digest};
use crate::section::Kind;

/// What the secure module will report for an image that runs outside debug mode. In debug mode all of them are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurements {
    /// The image: kernel, command line, all ramdisks.
    pub pcr0: Pcr,
    /// Kernel, command line, first ramdisk.
    pub pcr1: Pcr,
    /// The other ramdisks.
    pub pcr2: Pcr,
    /// The certificate that signed the image; a register of zeros where nobody did.
    pub pcr8: Option<Pcr>,
}

impl Measurements {
    /// The registers that have a value, with their index.
    pub fn registers(&self) -> impl Iterator<Item = (u8, Pcr)> {
        [(0, self.pcr0), (1, self.pcr1), (2, self.pcr2)]
            .into_iter()
            .chain(self.pcr8.map(|pcr| (8, pcr)))
    }
}

/// PCR3: the ARN of the IAM role of the parent instance (`arn:aws:iam::<account>:role/<path and name>`), extended as it is.
pub fn role_pcr(arn: &str) -> Pcr {
    Pcr::first(arn.as_bytes())
}

/// PCR4: the ID of the parent instance (`i-…`), extended as it is. Known only once the instance exists.
pub fn instance_pcr(id: &str) -> Pcr {
    Pcr::first(id.as_bytes())
}

/// PCR0 to PCR2 while sections pass by. Each register is extended once, by the SHA-384 of its sections' contents.
pub(crate) struct Measuring {
    image: Context,
    bootstrap: Context,
    application: Context,
    ramdisks: usize,
}

impl Measuring {
    pub(crate) fn new() -> Self {
        Self {
            image: Context::new(&SHA384),
            bootstrap: Context::new(&SHA384),
            application: Context::new(&SHA384),
            ramdisks: 0,
        }
    }

    /// A part of a section's content, in the order of the file.
    pub(crate) fn update(&mut self, kind: Kind, part: &[u8]) {
        match kind {
            Kind::Signature | Kind::Metadata => return,
            Kind::Ramdisk if self.ramdisks > 0 => self.application.update(part),
            Kind::Kernel | Kind::CommandLine | Kind::Ramdisk => self.bootstrap.update(part),
        }
        self.image.update(part);
    }

    /// After the last part of a section.
    pub(crate) fn end(&mut self, kind: Kind) {
        if kind == Kind::Ramdisk {
            self.ramdisks += 1;
        }
    }

    /// Without PCR8.
    pub(crate) fn finish(self) -> Measurements {
        let pcr = |context| Pcr::first(Sha384Digest::finish(context).as_bytes());
        Measurements {
            pcr0: pcr(self.image),
            pcr1: pcr(self.bootstrap),
            pcr2: pcr(self.application),
            pcr8: None,
        }
    }
}
