use crate::model_signing::SignedModel;
use crate::package::read_bounded;
use crate::{Error, Manifest, PublisherKey, Sha256Digest, Source};

/// The signature's file name, in a package and in a model directory.
pub const MODEL_SIG: &str = "model.sig";
/// The bill of materials' file name in a package.
pub const BOM: &str = "bom.cdx.json";

/// 512 files take 400 KiB in either; nobody has to hold more before it is compared with its digest.
const MAX_DOCUMENT: u64 = 4 << 20;

/// What is said of a model's plaintext beside its manifest. The bytes are those that the manifest names.
#[derive(Debug, Clone)]
pub struct Documents {
    /// A Sigstore bundle: OpenSSF Model Signing v1.0 over the plaintext files.
    pub model_sig: Vec<u8>,
    /// CycloneDX 1.6 in JSON.
    pub bom: Vec<u8>,
}

impl Documents {
    pub(crate) fn read<S: Source>(source: &S, manifest: &Manifest) -> Result<Self, Error> {
        let read = |file: &str, expected: Sha256Digest| {
            let bytes = read_bounded(source, file, MAX_DOCUMENT)?;
            let actual = Sha256Digest::of(&bytes);
            match actual == expected {
                true => Ok(bytes),
                false => Err(Error::Digest {
                    file: file.into(),
                    expected,
                    actual,
                }),
            }
        };
        Ok(Self {
            model_sig: read(MODEL_SIG, manifest.model_sig_sha256)?,
            bom: read(BOM, manifest.bom_sha256)?,
        })
    }

    /// Whether one of `publishers` signed the very files that `manifest` lists.
    ///
    /// # Errors
    /// [`Error::ModelSignature`] where nobody did.
    pub fn check(
        &self,
        manifest: &Manifest,
        publishers: &[PublisherKey],
    ) -> Result<SignedModel, Error> {
        let (model, _) = SignedModel::verify(&self.model_sig, publishers)?;
        let files = manifest.files.iter();
        model.expect(files.map(|entry| (entry.path.as_str(), entry.sha256)))?;
        Ok(model)
    }
}
