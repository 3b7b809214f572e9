use super::Detokenizer;
use crate::{
    fixtures::{VOCABULARY, vocabulary_files},
    vocabulary::Vocabulary,
};

fn pieces(tokens: &[u32]) -> Vec<String> {
    let vocabulary = Vocabulary::read(&vocabulary_files(), None, VOCABULARY).unwrap();
    let mut detokenizer = Detokenizer::default();
    tokens
        .iter()
        .map(|token| detokenizer.push(*token, &vocabulary).unwrap().to_string())
        .collect()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn characters_come_whole() {
    assert_eq!(
        pieces(&bytes("aé€😀b")),
        ["a", "", "é", "", "", "€", "", "", "", "😀", "b"]
    );
    let long = "naïve 😀😀 Größe 中文字符 ".repeat(20);
    assert_eq!(pieces(&bytes(&long)).concat(), long);
}

#[test]
fn special_tokens_show_nothing() {
    assert_eq!(pieces(&[104, 258, 105, 256]), ["h", "", "i", ""]);
}

#[test]
fn bytes_that_are_no_text_do_not_hold_the_rest_back() {
    let mut tokens = vec![0xff; 40];
    tokens.extend(bytes("after"));
    let shown = pieces(&tokens);
    assert!(shown.concat().ends_with("after"));
    assert!(
        shown[..20].concat().contains('\u{fffd}'),
        "given up after a few tokens"
    );
    let mut tokens = bytes("a");
    tokens.push(0x80);
    tokens.extend(bytes("b"));
    assert_eq!(pieces(&tokens).concat(), "a\u{fffd}b");
}
