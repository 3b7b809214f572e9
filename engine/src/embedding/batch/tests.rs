use zeroize::Zeroizing;

use super::plan;

fn check(lengths: &[usize], budget: usize, expected: &[&[usize]]) {
    let inputs: Vec<_> = lengths
        .iter()
        .map(|length| Zeroizing::new(vec![1; *length]))
        .collect();
    let places: Vec<_> = plan(&inputs, budget)
        .into_iter()
        .map(|batch| batch.places)
        .collect();
    assert_eq!(places, expected);
}

#[test]
fn batches_hold_similar_lengths_within_the_budget() {
    check(&[5, 1, 5, 1], 10, &[&[1, 3], &[0, 2]]);
    check(&[3, 3, 3], 100, &[&[0, 1, 2]]);
    check(&[1, 9], 10, &[&[0], &[1]]);
    check(&[50, 2], 10, &[&[1], &[0]]);
    check(&[], 10, &[]);
}
