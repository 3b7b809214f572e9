//! `kbs init`: the files a new broker needs, each readable by its owner alone.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::admin;
use crate::error::Error;
use crate::policy::DENY_ALL;
use crate::store::MasterKey;
use crate::token;

/// Makes master key, administrator's key pair, token key, a policy that denies everything, and a configuration to complete.
/// Nothing that exists is touched.
///
/// # Errors
/// A file exists, or cannot be written.
pub fn init(dir: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| Error::File {
            path: dir.display().to_string(),
            source,
        })?;
    let master = MasterKey::generate().ok_or(Error::Crypto("make a master key"))?;
    let (private, public) = admin::generate_key().ok_or(Error::Crypto("make an admin key"))?;
    let token = token::generate_pem().ok_or(Error::Crypto("make a token key"))?;
    write(dir, "master.key", master.to_hex().as_bytes())?;
    write(dir, "admin.key", private.as_bytes())?;
    write(dir, "admin.pub", public.as_bytes())?;
    write(dir, "token.key", token.as_bytes())?;
    write(dir, "policy.rego", DENY_ALL.as_bytes())?;
    write(dir, "kbs.toml", sample(&public).as_bytes())
}

fn write(dir: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    let path = dir.join(name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
        .open(&path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|source| Error::File {
            path: path.display().to_string(),
            source,
        })
}

fn sample(public: &str) -> String {
    format!(
        r#"# Key broker. Relative paths start here; docs/key-broker.md explains each field.
listen = "tcp://127.0.0.1:8443"
control = "tcp://127.0.0.1:9443"
database = "kbs.sqlite"
master_key_file = "master.key"
# Holders of these keys may store resources and policy over the network.
admin_public_keys = ["""
{public}"""]
# With names for the release log; two_person = true asks two of them for each change.
# [[admin]]
# name = "alice"
# public_key = """…"""
# aws-nitro, or the path of a root certificate whose evidence proves only what its owner wants.
trust_anchor = "aws-nitro"
# Installed when the database holds no policy yet. As written it denies everything.
policy = "policy.rego"

# The broker's own X.509-SVID. Enclaves pin its SPIFFE ID.
[tls]
chain = "kbs.pem"
key = "kbs.key"

# Signs attestation tokens. `kbs jwks` prints what other brokers need to take them.
[token]
key = "token.key"
# Public keys published beside it: the one that signs next, and the one that signed before.
publish = []

# To issue SVIDs to attested enclaves:
# [issuer]
# chain = "ca.pem"
# key = "ca.key"
# ttl_s = 3600
# [[issuer.map]]
# spiffe_id = "spiffe://example.org/enclave/demo"
# images = [{{ "0" = "…", "1" = "…", "2" = "…" }}]
"#
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Config;

    #[test]
    fn what_init_makes_can_be_loaded_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("broker");
        init(&dir).unwrap();
        let config = Config::load(&dir.join("kbs.toml")).unwrap();
        config.master_key().unwrap();
        config.admin_keys().unwrap();
        config.token_signer().unwrap();
        assert_eq!(config.initial_policy().unwrap(), DENY_ALL);
        for file in std::fs::read_dir(&dir).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn init_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let before = std::fs::read(dir.path().join("master.key")).unwrap();
        assert!(matches!(init(dir.path()), Err(Error::File { .. })));
        assert_eq!(
            std::fs::read(dir.path().join("master.key")).unwrap(),
            before
        );
    }
}
