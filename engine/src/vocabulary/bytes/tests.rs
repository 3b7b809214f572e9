use serde_json::json;

use super::*;
use crate::fixtures::byte_tokenizer;

fn read(tokenizer: &Value) -> Option<TokenBytes> {
    TokenBytes::read(&Tokenizer::from_bytes(tokenizer.to_string()).unwrap())
}

#[test]
fn byte_level_tokens_are_their_bytes() {
    let bytes = read(&byte_tokenizer()).unwrap();
    for byte in 0..=255u8 {
        assert_eq!(bytes.of[usize::from(byte)], [byte]);
        assert!(!bytes.special[usize::from(byte)]);
    }
    assert_eq!(bytes.of[257], b"<|end|>");
    assert!(bytes.special[257]);
}

#[test]
fn sentencepiece_tokens_have_spaces_and_single_bytes() {
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true,
                  "vocab": {"▁the": 0, "<0x0A>": 1, "é": 2, "<0xZZ>": 3}, "merges": []},
    });
    let bytes = read(&tokenizer).unwrap();
    let expected: [&[u8]; 4] = [b" the", b"\n", "é".as_bytes(), b"<0xZZ>"];
    assert_eq!(bytes.of, expected);
}

#[test]
fn tokens_of_words_are_no_bytes() {
    let mut tokenizer = byte_tokenizer();
    for decoder in [
        json!(null),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
    ] {
        tokenizer["decoder"] = decoder;
        assert!(read(&tokenizer).is_none());
    }
}
