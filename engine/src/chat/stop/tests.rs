use super::StopFilter;
use crate::Text;

/// Feeds the pieces and returns what was shown after each, with "!" where it stopped; the end is flushed.
fn check(stops: &[&str], pieces: &[&str], expected: &[&str]) {
    let texts: Vec<_> = stops.iter().map(|stop| Text::new((*stop).into())).collect();
    let mut filter = StopFilter::new(&texts);
    let mut shown = Vec::new();
    for piece in pieces {
        let passed = filter.push(piece);
        if passed.stopped {
            shown.push(format!("{}!", *passed.text));
            break;
        }
        shown.push(passed.text.to_string());
    }
    if shown.last().is_none_or(|last| !last.ends_with('!')) {
        shown.push(filter.finish().to_string());
    }
    assert_eq!(shown, expected, "stops {stops:?}, pieces {pieces:?}");
}

#[test]
fn no_part_of_a_stop_string_is_shown() {
    check(&[], &["abc"], &["abc", ""]);
    check(&["END"], &["say END now"], &["say !"]);
    check(&["END"], &["say E", "N", "D now"], &["say ", "", "!"]);
    check(&["END"], &["E", "NOUGH"], &["", "ENOUGH", ""]);
    check(&["END"], &["EEN", "D"], &["E", "!"]);
    check(&["END"], &["trailing EN"], &["trailing ", "EN"]);
    check(&["aab"], &["a", "a", "a", "b"], &["", "", "a", "!"]);
    check(&["long one", "on"], &["a lo", "ng", " on"], &["a ", "l!"]);
    check(&["xy", "abcxyz"], &["abcx", "y"], &["", "abc!"]);
    check(&["é!"], &["caf", "é", "!"], &["caf", "", "!"]);
    check(&["\n\n"], &["a\n", "b\n", "\nc"], &["a", "\nb", "!"]);
}
