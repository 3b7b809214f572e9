use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sealed_model::{DataKey, Error, SigningKey};

use crate::failure::Failure;
use crate::{files, output};

pub(crate) const EXAMPLE: &str = "\
Examples:
  cloister keygen --out keys
  cloister seal ./my-model --out ./my-model-1 --name my-model --epoch 1 \\
      --key-file keys/data.key --sign-key keys/publisher.key.pem
  cloister inspect ./my-model-1 --publisher keys/publisher.pub.pem";

/// Make a data key and a publisher's key pair
///
/// The data key encrypts one version of one model: give it to the key broker, and make a new one for the next epoch. The
/// publisher's private key signs manifests: keep it offline; its public half goes into the enclave's configuration.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cloister keygen --out keys                     data.key, publisher.key.pem, publisher.pub.pem
  cloister keygen --out keys/epoch-2 --only data      the key of the next version")]
pub(crate) struct Keygen {
    /// Directory for the key files; made if it is not there. Files that exist are never overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Make only one of the two.
    #[arg(long, value_enum, value_name = "KEY")]
    only: Option<Only>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Data,
    Publisher,
}

impl Keygen {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let failed = |error: Error| Failure::model(&self.out, error);
        files::create_dir(&self.out)?;
        let mut text = String::new();
        if self.only != Some(Only::Publisher) {
            let path = self.out.join("data.key");
            let key = DataKey::generate().map_err(failed)?;
            let hex = files::hex_of(&key);
            files::create(&path, 0o600, &hex)?;
            text += &format!(
                "{}  secret: for the key broker and cloister seal\n",
                path.display()
            );
        }
        if self.only != Some(Only::Data) {
            let (private, public) = (
                self.out.join("publisher.key.pem"),
                self.out.join("publisher.pub.pem"),
            );
            let key = SigningKey::generate().map_err(failed)?;
            let publisher = key.public().map_err(failed)?;
            files::create(&private, 0o600, &key.to_pem().map_err(failed)?)?;
            files::create(&public, 0o644, &publisher.to_pem())?;
            text += &format!("{}  secret: signs manifests\n", private.display());
            text += &format!("{}  publisher {}\n", public.display(), publisher.id());
        }
        output::print(&text)
    }
}
