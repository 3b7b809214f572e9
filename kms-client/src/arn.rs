use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The ARN of one KMS key: `arn:<partition>:kms:<region>:<account>:key/<id>`. No alias: what an alias names can be changed by others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyArn {
    text: String,
    region: String,
    domain: String,
}

/// Not the ARN of a KMS key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArnError {
    /// An alias can be pointed to another key.
    #[error(
        "is an alias; write the key's own ARN, arn:aws:kms:REGION:ACCOUNT:key/ID (aws kms describe-key shows it)"
    )]
    Alias,
    /// Something else.
    #[error("is not the ARN of a KMS key; write arn:aws:kms:REGION:ACCOUNT:key/ID")]
    Form,
}

impl KeyArn {
    /// The whole ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// For instance `eu-central-1`.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The name of the service's endpoint in the key's region; its certificate is checked against it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("kms.{}.{}", self.region, self.domain)
    }
}

impl FromStr for KeyArn {
    type Err = ArnError;

    fn from_str(text: &str) -> Result<Self, ArnError> {
        let plain = |part: &str, max: usize| {
            (1..=max).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, "kms", region, account, resource] = parts.as_slice() else {
            return Err(ArnError::Form);
        };
        if resource.starts_with("alias/") {
            return Err(ArnError::Alias);
        }
        let domain = match *partition {
            "aws" | "aws-us-gov" => "amazonaws.com",
            "aws-cn" => "amazonaws.com.cn",
            _ => return Err(ArnError::Form),
        };
        let id = resource.strip_prefix("key/").ok_or(ArnError::Form)?;
        let account_is_one = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if !plain(region, 32) || !account_is_one || !plain(id, 64) {
            return Err(ArnError::Form);
        }
        Ok(Self {
            text: text.to_owned(),
            region: (*region).to_owned(),
            domain: domain.to_owned(),
        })
    }
}

impl TryFrom<String> for KeyArn {
    type Error = ArnError;

    fn try_from(text: String) -> Result<Self, ArnError> {
        text.parse()
    }
}

impl From<KeyArn> for String {
    fn from(arn: KeyArn) -> Self {
        arn.text
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_with_its_region_and_endpoint() {
        let arn: KeyArn =
            "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
                .parse()
                .unwrap();
        assert_eq!(arn.region(), "eu-central-1");
        assert_eq!(arn.host(), "kms.eu-central-1.amazonaws.com");
        let china: KeyArn = "arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-0123"
            .parse()
            .unwrap();
        assert_eq!(china.host(), "kms.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:s3:eu-central-1:111122223333:key/a",
            "arn:aws:kms::111122223333:key/a",
            "arn:aws:kms:eu-central-1:1111:key/a",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/a/b",
            "arn:aws:kms:eu-central-1:111122223333:key/a:b",
            "arn:aws:kms:eu.evil.com/:111122223333:key/a",
            "arn:evil:kms:eu-central-1:111122223333:key/a",
            "arn:aws:kms:eu-central-1:111122223333:key/A",
        ] {
            assert_eq!(text.parse::<KeyArn>(), Err(ArnError::Form), "{text}");
        }
        assert_eq!(
            "arn:aws:kms:eu-central-1:111122223333:alias/a".parse::<KeyArn>(),
            Err(ArnError::Alias)
        );
    }
}
