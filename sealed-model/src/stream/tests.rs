use serde::Deserialize;

use super::*;
use crate::layout::Layout;

fn key() -> DataKey {
    DataKey::from_bytes(&[3; 32]).unwrap()
}

/// A file that Tink's own implementation encrypted; how it was made is in `tests/data/README.md`.
#[test]
fn a_file_encrypted_by_tink_opens() {
    #[derive(Deserialize)]
    struct Vector {
        key: String,
        associated_data: String,
        plaintext: String,
        ciphertext: String,
    }
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../tests/data/tink.json")).unwrap();
    assert!(!vectors.is_empty());
    for vector in vectors {
        let key = DataKey::from_bytes(&hex::decode(vector.key).unwrap()).unwrap();
        let file = hex::decode(vector.ciphertext).unwrap();
        let expected = hex::decode(vector.plaintext).unwrap();
        let layout = Layout::new(expected.len() as u64).unwrap();
        assert_eq!(layout.ciphertext_len(), file.len() as u64);
        let (header, sealed) = file.split_first_chunk::<HEADER>().unwrap();
        let header = Header::from_bytes(header).unwrap();
        let file_key = FileKey::derive(&key, &header, vector.associated_data.as_bytes()).unwrap();
        let mut plaintext = vec![0; expected.len()];
        file_key.open(0, true, sealed, &mut plaintext).unwrap();
        assert_eq!(plaintext, expected);
    }
}

#[test]
fn a_segment_opens_only_in_its_place_with_its_end_under_its_key_and_data() {
    let header = Header::random().unwrap();
    let sealer = FileKey::derive(&key(), &header, b"data").unwrap();
    let mut sealed = b"plaintext".to_vec();
    let tag = sealer.seal(4, false, &mut sealed).unwrap();
    sealed.extend_from_slice(&tag);

    let opens = |file_key: &FileKey, segment, last, sealed: &[u8]| {
        let mut plaintext = vec![0xaa; 9];
        let outcome = file_key.open(segment, last, sealed, &mut plaintext);
        match outcome {
            Ok(()) => assert_eq!(plaintext, b"plaintext"),
            Err(Unverified) => assert!(!plaintext.starts_with(b"pl"), "unverified bytes came out"),
        }
        outcome.is_ok()
    };
    let same = FileKey::derive(&key(), &header, b"data").unwrap();
    assert!(opens(&same, 4, false, &sealed));
    assert!(!opens(&same, 5, false, &sealed), "another place");
    assert!(!opens(&same, 4, true, &sealed), "another end");
    assert!(!opens(&same, 4, false, &sealed[1..]), "cut");
    assert!(!opens(&same, 4, false, &[]), "nothing");
    let others = [
        FileKey::derive(&DataKey::from_bytes(&[4; 32]).unwrap(), &header, b"data"),
        FileKey::derive(&key(), &header, b"date"),
        FileKey::derive(&key(), &Header::random().unwrap(), b"data"),
    ];
    for other in others {
        assert!(!opens(&other.unwrap(), 4, false, &sealed));
    }
}

#[test]
fn a_header_says_its_length_and_comes_back_the_same() {
    let bytes: [u8; HEADER] = Header::random().unwrap().to_bytes().try_into().unwrap();
    assert_eq!(Header::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    let mut wrong = bytes;
    wrong[0] = 0x27;
    assert!(Header::from_bytes(&wrong).is_none());
}
