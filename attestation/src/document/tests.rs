use super::*;

/// Raw CBOR of a document, to be broken one member at a time.
struct Raw {
    members: Vec<(&'static str, Vec<u8>)>,
    indefinite: bool,
}

fn head(major: u8, argument: usize) -> Vec<u8> {
    let argument = u16::try_from(argument).unwrap();
    let [high, low] = argument.to_be_bytes();
    match argument {
        0..=23 => vec![major << 5 | low],
        24..=255 => vec![major << 5 | 24, low],
        _ => vec![major << 5 | 25, high, low],
    }
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [head(2, value.len()), value.to_vec()].concat()
}

fn text(value: &str) -> Vec<u8> {
    [head(3, value.len()), value.as_bytes().to_vec()].concat()
}

fn registers(count: usize) -> Vec<u8> {
    (0..count).fold(head(5, count), |map, index| {
        [map, head(0, index), bytes(&[1; 48])].concat()
    })
}

fn bundle(count: usize, length: usize) -> Vec<u8> {
    [head(4, count), bytes(&vec![2; length]).repeat(count)].concat()
}

const NULL_ITEM: [u8; 1] = [0xf6];
const TIMESTAMP: [u8; 9] = [0x1b, 0, 0, 0x01, 0x90, 0, 0, 0, 0];

impl Raw {
    fn new() -> Self {
        let members = vec![
            ("module_id", text("i-0123-enc4567")),
            ("digest", text("SHA384")),
            ("timestamp", TIMESTAMP.to_vec()),
            ("pcrs", registers(16)),
            ("certificate", bytes(&[3; 700])),
            ("cabundle", bundle(4, 600)),
            ("public_key", NULL_ITEM.to_vec()),
            ("user_data", bytes(b"")),
            ("nonce", bytes(&[4; 32])),
        ];
        Self {
            members,
            indefinite: false,
        }
    }

    fn with(mut self, name: &'static str, value: Vec<u8>) -> Self {
        self.members
            .iter_mut()
            .find(|(member, _)| *member == name)
            .unwrap()
            .1 = value;
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.members.retain(|(member, _)| *member != name);
        self
    }

    fn and(mut self, name: &'static str, value: Vec<u8>) -> Self {
        self.members.push((name, value));
        self
    }

    fn payload(&self) -> Vec<u8> {
        let start = if self.indefinite {
            vec![0xbf]
        } else {
            head(5, self.members.len())
        };
        let end = if self.indefinite { vec![0xff] } else { vec![] };
        let members = self
            .members
            .iter()
            .flat_map(|(name, value)| [text(name), value.clone()].concat());
        start.into_iter().chain(members).chain(end).collect()
    }

    fn envelope(&self) -> Vec<u8> {
        envelope(&self.payload())
    }
}

fn envelope(payload: &[u8]) -> Vec<u8> {
    [
        vec![0x84],
        bytes(&PROTECTED_ES384),
        vec![0xa0],
        bytes(payload),
        bytes(&[5; 96]),
    ]
    .concat()
}

fn error(document: &[u8]) -> StructureError {
    UnverifiedDocument::parse(document).err().unwrap()
}

#[test]
fn both_map_forms_and_both_tag_forms_are_read() {
    let mut raw = Raw::new();
    for indefinite in [false, true] {
        raw.indefinite = indefinite;
        for prefix in [&[][..], &[0xd2]] {
            let document = [prefix, &raw.envelope()].concat();
            let parsed = UnverifiedDocument::parse(&document).unwrap();
            assert_eq!(parsed.module_id, "i-0123-enc4567");
            assert_eq!(parsed.pcrs.len(), 16);
            assert_eq!(parsed.cabundle.len(), 4);
            assert_eq!(parsed.public_key, None);
            assert_eq!(parsed.user_data, Some(&b""[..]));
            assert_eq!(parsed.nonce, Some(&[4; 32][..]));
            assert_eq!(parsed.signature, [5; 96]);
        }
    }
}

#[test]
fn optional_members_may_be_absent() {
    let raw = Raw::new()
        .without("public_key")
        .without("user_data")
        .without("nonce");
    let document = raw.envelope();
    let parsed = UnverifiedDocument::parse(&document).unwrap();
    assert_eq!(
        (parsed.public_key, parsed.user_data, parsed.nonce),
        (None, None, None)
    );
}

#[test]
fn inner_maps_and_arrays_may_be_indefinite() {
    let pcrs = [vec![0xbf], registers(16)[1..].to_vec(), vec![0xff]].concat();
    let cabundle = [vec![0x9f], bundle(4, 600)[1..].to_vec(), vec![0xff]].concat();
    let document = Raw::new()
        .with("pcrs", pcrs)
        .with("cabundle", cabundle)
        .envelope();
    let parsed = UnverifiedDocument::parse(&document).unwrap();
    assert_eq!((parsed.pcrs.len(), parsed.cabundle.len()), (16, 4));
}

#[test]
fn a_payload_out_of_bounds_is_refused_with_the_members_name() {
    let length = |field| StructureError::Length { field };
    let item = |field| StructureError::Item { field };
    let duplicate = |field| StructureError::Duplicate { field };
    let one_register = |index: &[u8], value: &[u8]| [&[0xa1][..], index, &bytes(value)].concat();
    let twice = [&[0xa2, 0][..], &bytes(&[1; 48]), &[0], &bytes(&[1; 48])].concat();
    for (raw, expected) in [
        (Raw::new().with("module_id", text("")), length("module_id")),
        (
            Raw::new().with("module_id", text(&"i".repeat(257))),
            length("module_id"),
        ),
        (Raw::new().with("module_id", bytes(b"i")), item("module_id")),
        (
            Raw::new().with("module_id", vec![0x61, 0xff]),
            item("module_id"),
        ),
        (
            Raw::new().with("module_id", NULL_ITEM.to_vec()),
            item("module_id"),
        ),
        (
            Raw::new().with("digest", text("SHA256")),
            StructureError::Digest,
        ),
        (
            Raw::new().with("digest", text("sha384")),
            StructureError::Digest,
        ),
        (Raw::new().with("timestamp", vec![0]), length("timestamp")),
        (Raw::new().with("timestamp", vec![0x20]), item("timestamp")),
        (
            Raw::new().with("timestamp", vec![0xfb, 0, 0, 0, 0, 0, 0, 0, 1]),
            item("timestamp"),
        ),
        (Raw::new().with("pcrs", vec![0xa0]), length("pcrs")),
        (Raw::new().with("pcrs", registers(33)), length("pcrs")),
        (
            Raw::new().with("pcrs", one_register(&[0x18, 32], &[1; 48])),
            length("pcrs"),
        ),
        (
            Raw::new().with("pcrs", one_register(&[0x20], &[1; 48])),
            item("pcrs"),
        ),
        (
            Raw::new().with("pcrs", one_register(&[0x61, b'0'], &[1; 48])),
            item("pcrs"),
        ),
        (
            Raw::new().with("pcrs", one_register(&[0], &[1; 32])),
            length("pcrs"),
        ),
        (
            Raw::new().with("pcrs", one_register(&[0], &[1; 64])),
            length("pcrs"),
        ),
        (Raw::new().with("pcrs", twice), duplicate("pcrs")),
        (
            Raw::new().with("certificate", bytes(b"")),
            length("certificate"),
        ),
        (
            Raw::new().with("certificate", bytes(&[3; 1025])),
            length("certificate"),
        ),
        (Raw::new().with("cabundle", vec![0x80]), length("cabundle")),
        (
            Raw::new().with("cabundle", bundle(9, 600)),
            length("cabundle"),
        ),
        (
            Raw::new().with("cabundle", bundle(1, 0)),
            length("cabundle"),
        ),
        (
            Raw::new().with("cabundle", bundle(1, 1025)),
            length("cabundle"),
        ),
        (
            Raw::new().with("cabundle", bytes(&[2; 600])),
            item("cabundle"),
        ),
        (
            Raw::new().with("public_key", bytes(b"")),
            length("public_key"),
        ),
        (
            Raw::new().with("public_key", bytes(&[6; 1025])),
            length("public_key"),
        ),
        (
            Raw::new().with("user_data", bytes(&[6; 1025])),
            length("user_data"),
        ),
        (Raw::new().with("nonce", bytes(&[6; 1025])), length("nonce")),
        (Raw::new().with("nonce", vec![0xf7]), item("nonce")),
        (
            Raw::new().with("nonce", vec![0x5f, 0x41, 6, 0xff]),
            item("nonce"),
        ),
        (
            Raw::new().and("nonce", NULL_ITEM.to_vec()),
            duplicate("nonce"),
        ),
        (
            Raw::new().and("digest", text("SHA384")),
            duplicate("digest"),
        ),
        (
            Raw::new().and("extra", NULL_ITEM.to_vec()),
            StructureError::Unknown,
        ),
        (
            Raw::new().and("nitrotpm_pcrs", registers(16)),
            StructureError::NitroTpm,
        ),
        (
            Raw::new()
                .without("pcrs")
                .and("nitrotpm_pcrs", registers(16)),
            StructureError::NitroTpm,
        ),
    ] {
        assert_eq!(error(&raw.envelope()), expected);
    }
    for field in [
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "certificate",
        "cabundle",
    ] {
        assert_eq!(
            error(&Raw::new().without(field).envelope()),
            StructureError::Missing { field }
        );
    }
}

#[test]
fn deep_nesting_costs_nothing() {
    // A nested array where a string belongs is refused at its first byte.
    let deep = [vec![0x81; 10_000], vec![0]].concat();
    assert_eq!(
        error(&Raw::new().with("nonce", deep).envelope()),
        StructureError::Item { field: "nonce" }
    );
    assert_eq!(
        error(&vec![0x84; 16_000]),
        StructureError::Item {
            field: "protected header"
        }
    );
}

#[test]
fn an_envelope_of_another_shape_is_refused() {
    let payload = Raw::new().payload();
    let protected = bytes(&PROTECTED_ES384);
    let signature = bytes(&[5; 96]);
    let item = |field| StructureError::Item { field };
    for (parts, expected) in [
        // ES256, then ES384 with a key id beside it, then no protected header at all.
        (
            vec![vec![0x84], bytes(&[0xa1, 1, 0x26]), vec![0xa0]],
            StructureError::Headers,
        ),
        (
            vec![
                vec![0x84],
                bytes(&[0xa2, 1, 0x38, 0x22, 4, 0x40]),
                vec![0xa0],
            ],
            StructureError::Headers,
        ),
        (
            vec![vec![0x84], bytes(b""), vec![0xa1, 1, 0x38, 0x22]],
            StructureError::Headers,
        ),
        (
            vec![vec![0x84], protected.clone(), vec![0xa1, 4, 0x40]],
            StructureError::Headers,
        ),
        (
            vec![vec![0x85], protected.clone(), vec![0xa0]],
            StructureError::Length {
                field: "COSE_Sign1",
            },
        ),
        (
            vec![vec![0x9f], protected.clone(), vec![0xa0]],
            StructureError::Length {
                field: "COSE_Sign1",
            },
        ),
        (
            vec![vec![0xd1, 0x84], protected.clone(), vec![0xa0]],
            item("tag"),
        ), // 17: COSE_Mac0
        (
            vec![vec![0xd2, 0xd2, 0x84], protected.clone(), vec![0xa0]],
            item("COSE_Sign1"),
        ),
        (
            vec![vec![0xd8, 98, 0x84], protected.clone(), vec![0xa0]],
            item("tag"),
        ), // 98: COSE_Sign
    ] {
        let document = [parts.concat(), bytes(&payload), signature.clone()].concat();
        assert_eq!(error(&document), expected);
    }
    let begin = [vec![0x84], protected, vec![0xa0]].concat();
    for (rest, expected) in [
        (
            [bytes(&payload), bytes(&[5; 95])].concat(),
            StructureError::Length { field: "signature" },
        ),
        (
            [bytes(&payload), bytes(&[5; 97])].concat(),
            StructureError::Length { field: "signature" },
        ),
        ([vec![0xf6], signature.clone()].concat(), item("payload")), // detached
        (
            [bytes(b""), signature.clone()].concat(),
            StructureError::Length { field: "payload" },
        ),
        (
            [bytes(&[0; MAX_PAYLOAD + 1]), signature].concat(),
            StructureError::Length { field: "payload" },
        ),
    ] {
        assert_eq!(error(&[begin.clone(), rest].concat()), expected);
    }
}

#[test]
fn trailing_bytes_are_refused_inside_and_outside() {
    let outside = [Raw::new().envelope(), vec![0]].concat();
    assert_eq!(
        error(&outside),
        StructureError::Trailing {
            field: "COSE_Sign1"
        }
    );
    let inside = [Raw::new().payload(), vec![0]].concat();
    assert_eq!(
        error(&envelope(&inside)),
        StructureError::Trailing { field: "payload" }
    );
}

#[test]
fn the_signed_bytes_carry_the_payload_with_the_shortest_head() {
    for length in [1, 23, 24, 255, 256, MAX_PAYLOAD] {
        let payload = vec![9; length];
        let parsed = UnverifiedDocument {
            payload: &payload,
            signature: &[],
            module_id: "",
            timestamp: SystemTime::UNIX_EPOCH,
            pcrs: Pcrs::new(),
            certificate: &[],
            cabundle: vec![],
            public_key: None,
            user_data: None,
            nonce: None,
        };
        let expected = [
            vec![0x84],
            text("Signature1"),
            bytes(&PROTECTED_ES384),
            bytes(b""),
            bytes(&payload),
        ]
        .concat();
        assert_eq!(parsed.signed_bytes(), expected);
    }
}
