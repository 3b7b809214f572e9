//! AWS KMS in a run: its setup as an operator would have it in AWS, and the owner's wrapping of the models' keys.

use std::sync::Arc;
use std::time::SystemTime;

use kms_client::{
    CredentialSource, Credentials, EncryptionContext, KeyArn, Kms, KmsConfig, Roots, WRAPPED_KEY,
    WrappedKey,
};
use serde_json::{Map, Value, json};
use transport::Endpoint;
use zeroize::Zeroizing;

use super::keys::Sealed;
use super::settings::toml_text;
use super::{Clock, Error, Layout};
use crate::kms::{KeySetup, KmsSetup, KmsTls, Principal};

const REGION: &str = "eu-central-1";
const ACCOUNT: &str = "000000000000";
const KEY_ID: &str = "c1015e00-0000-4000-8000-000000000001";
const HOST_ROLE: &str = "arn:aws:iam::000000000000:role/cloister-dev";
const PUBLISHER_ROLE: &str = "arn:aws:iam::000000000000:role/cloister-dev-publisher";

/// What of a run's KMS is made before anything starts.
pub(super) struct RunKms {
    pub(super) tls: KmsTls,
    pub(super) arn: KeyArn,
    host: Principal,
    publisher: Principal,
}

fn keys_error(error: impl std::fmt::Display) -> Error {
    Error::Keys(error.to_string())
}

impl RunKms {
    pub(super) fn generate(now: SystemTime) -> Result<Self, Error> {
        let arn: KeyArn = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}")
            .parse()
            .map_err(keys_error)?;
        Ok(Self {
            tls: KmsTls::generate(&[&arn.host()], now).map_err(keys_error)?,
            arn,
            host: principal(HOST_ROLE, "ASIAHOST")?,
            publisher: principal(PUBLISHER_ROLE, "AKIAPUBLISHER")?,
        })
    }

    /// The service's own file, and the host's credentials for it.
    pub(super) fn write(
        &self,
        layout: &Layout,
        root_pem: &str,
        image: &Map<String, Value>,
    ) -> Result<(), Error> {
        let setup = KmsSetup {
            listen: Endpoint::Tcp(format!("127.0.0.1:{}", layout.kms)),
            region: REGION.to_owned(),
            account: ACCOUNT.to_owned(),
            tls: self.tls.clone(),
            trust_anchor: root_pem.to_owned(),
            keys: vec![KeySetup {
                id: KEY_ID.to_owned(),
                policy: format!("{:#}", policy(image)),
            }],
            principals: vec![self.host.clone(), self.publisher.clone()],
        };
        let setup = serde_json::to_value(&setup).map_err(keys_error)?;
        layout.write("kms.toml", toml_text(&strip_nulls(setup))?.as_bytes())?;
        let host = json!({
            "Version": 1,
            "AccessKeyId": self.host.access_key_id,
            "SecretAccessKey": self.host.secret_access_key,
        });
        layout.write("aws.json", host.to_string().as_bytes())?;
        Ok(())
    }

    /// As `cloister seal --kms-key` does: each data key under the KMS key, beside its manifest.
    pub(super) async fn wrap(
        &self,
        layout: &Layout,
        sealed: &[Sealed],
        now: Clock,
    ) -> Result<(), Error> {
        let credentials = Credentials::new(
            self.publisher.access_key_id.clone(),
            Zeroizing::new(self.publisher.secret_access_key.clone()),
            None,
            None,
        )
        .map_err(keys_error)?;
        let config = KmsConfig {
            endpoint: Endpoint::Tcp(format!("127.0.0.1:{}", layout.kms)),
            roots: Roots::from_pem(&self.tls.root_pem).map_err(keys_error)?,
            credentials: CredentialSource::Fixed(Arc::new(credentials)),
        };
        let kms = Kms::new(config, now).map_err(keys_error)?;
        for package in sealed {
            let manifest = package.manifest_sha256.to_string();
            let context = EncryptionContext::model(&package.name, package.epoch, &manifest);
            let wrapped = WrappedKey {
                ciphertext: kms
                    .encrypt(&self.arn, package.key.as_ref(), &context)
                    .await
                    .map_err(keys_error)?,
                key_arn: self.arn.clone(),
            };
            let path = layout.packages().join(&package.name).join(WRAPPED_KEY);
            std::fs::write(&path, wrapped.to_json())
                .map_err(Error::io(path.display().to_string()))?;
        }
        Ok(())
    }
}

fn principal(arn: &str, id: &str) -> Result<Principal, Error> {
    let mut secret = Zeroizing::new([0; 30]);
    aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(keys_error)?;
    Ok(Principal {
        arn: arn.to_owned(),
        access_key_id: id.to_owned(),
        secret_access_key: hex::encode(secret.as_slice()),
        session_token: None,
        expiration: None,
    })
}

/// The statements of `infra/aws/base` that decide, for this run's image.
fn policy(image: &Map<String, Value>) -> Value {
    let name = |index: &String| format!("kms:RecipientAttestation:PCR{index}");
    let registers: Map<String, Value> = image
        .iter()
        .map(|(index, value)| (name(index), value.clone()))
        .collect();
    let mut statements = vec![
        json!({
            "Sid": "Wrap",
            "Effect": "Allow",
            "Principal": {"AWS": PUBLISHER_ROLE},
            "Action": ["kms:DescribeKey", "kms:Encrypt"],
            "Resource": "*",
        }),
        json!({
            "Sid": "Image0",
            "Effect": "Allow",
            "Principal": {"AWS": HOST_ROLE},
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": "*",
            "Condition": {"StringEqualsIgnoreCase": registers},
        }),
    ];
    for (index, value) in image {
        statements.push(json!({
            "Sid": format!("NothingElsePCR{index}"),
            "Effect": "Deny",
            "Principal": {"AWS": "*"},
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": "*",
            "Condition": {"StringNotEqualsIgnoreCase": {name(index): value}},
        }));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// TOML has no null: an absent member says the same.
fn strip_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, strip_nulls(value)))
            .collect(),
        Value::Array(values) => values.into_iter().map(strip_nulls).collect(),
        other => other,
    }
}
