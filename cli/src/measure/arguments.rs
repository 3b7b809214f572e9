//! Arguments that would otherwise end in a register that nobody has, or in text that says something else.

pub(super) fn role(text: &str) -> Result<String, String> {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account, resource) =
        (next(), next(), next(), next(), next(), next());
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let name = resource.strip_prefix("role/").unwrap_or_default();
    let graphic = name.bytes().all(|b| b.is_ascii_graphic());
    if arn == "arn"
        && partition.starts_with("aws")
        && service == "iam"
        && region.is_empty()
        && digits
        && graphic
        && !name.is_empty()
    {
        return Ok(text.to_owned());
    }
    Err(
        "PCR3 is that of the role itself, arn:aws:iam::<12 digits>:role/<path and name>; \
         neither of an instance profile nor of an assumed role"
            .into(),
    )
}

pub(super) fn instance(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("i-").unwrap_or_default();
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match matches!(digits.len(), 8 | 17) && digits.bytes().all(lower) {
        true => Ok(text.to_owned()),
        false => Err("an instance is i- and 17 hex digits (8 for old ones), in lower case".into()),
    }
}

/// Three segments, as kbs names resources.
pub(crate) fn key_id(text: &str) -> Result<String, String> {
    let segment = |s: &str| {
        !s.is_empty()
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match text.split('/').count() == 3 && text.split('/').all(segment) {
        true => Ok(text.to_owned()),
        false => Err("a key is <repository>/<type>/<tag>, as models/chat/epoch-3".into()),
    }
}
