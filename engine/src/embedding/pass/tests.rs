use proptest::prelude::*;

use super::*;

fn wish(caller: &str, lengths: &[usize]) -> Wish {
    Wish::new(Arc::from(caller), lengths.iter().copied())
}

/// Passes until nothing is left, each as the lengths of its inputs by request.
fn passes(wishes: &mut [Wish], lengths: &[Vec<usize>], budget: usize) -> Vec<Vec<(usize, usize)>> {
    let mut served = Served::default();
    let mut all = Vec::new();
    loop {
        let chosen = served.fill(wishes, budget);
        if chosen.is_empty() {
            return all;
        }
        let pass = chosen
            .iter()
            .map(|(number, place)| (*number, lengths[*number][*place]));
        all.push(pass.collect());
    }
}

fn of(requests: &[(&str, Vec<usize>)], budget: usize) -> Vec<Vec<(usize, usize)>> {
    let mut wishes: Vec<_> = requests
        .iter()
        .map(|(caller, lengths)| wish(caller, lengths))
        .collect();
    let lengths: Vec<_> = requests
        .iter()
        .map(|(_, lengths)| lengths.clone())
        .collect();
    passes(&mut wishes, &lengths, budget)
}

#[test]
fn requests_of_several_callers_share_a_pass() {
    let found = of(&[("a", vec![10, 20]), ("b", vec![30]), ("c", vec![5])], 100);
    assert_eq!(found, [[(0, 20), (1, 30), (2, 5), (0, 10)]]);
}

#[test]
fn a_short_request_does_not_wait_for_a_long_list() {
    // Of another caller, and of the same.
    for caller in ["a", "b"] {
        let found = of(&[("a", vec![50; 40]), (caller, vec![10])], 100);
        assert!(found[0].contains(&(1, 10)), "{:?}", found[0]);
    }
}

#[test]
fn callers_get_the_same_however_many_requests_they_send() {
    let mut requests = vec![("b", vec![10; 100])];
    requests.extend((0..9).map(|_| ("a", vec![10; 100])));
    let found = of(&requests, 200);
    for pass in found.iter().take(5) {
        let tokens = |of_b: bool| -> usize {
            let rows = pass.iter().filter(|(number, _)| (*number == 0) == of_b);
            rows.map(|(_, tokens)| tokens).sum()
        };
        assert_eq!((tokens(true), tokens(false)), (100, 100));
    }
}

#[test]
fn who_comes_late_is_not_served_alone_until_all_is_even() {
    let mut served = Served::default();
    let mut wishes = vec![wish("a", &[10; 100])];
    for _ in 0..5 {
        served.fill(&mut wishes, 100);
    }
    wishes.push(wish("b", &[10; 100]));
    let chosen = served.fill(&mut wishes, 100);
    assert_eq!(chosen.iter().filter(|(number, _)| *number == 0).count(), 5);
}

#[test]
fn an_input_beyond_the_budget_runs_alone_and_nobody_starves() {
    let found = of(&[("a", vec![500, 20]), ("b", vec![90; 4])], 100);
    assert!(found.contains(&vec![(0, 500)]), "{found:?}");
    assert!(
        found
            .iter()
            .all(|pass| pass.len() == 1
                || pass.iter().map(|(_, tokens)| tokens).sum::<usize>() <= 100)
    );
    // A caller whose inputs fit beside every other must not hold up one whose input needs a whole pass.
    let found = of(&[("a", vec![100; 3]), ("b", vec![1; 3000])], 100);
    let last = found
        .iter()
        .rposition(|pass| pass.contains(&(0, 100)))
        .unwrap();
    assert!(last < 10, "{last}");
}

proptest! {
    #[test]
    fn every_input_runs_once_and_no_pass_has_room_for_what_waits(
        requests in proptest::collection::vec((0..3u8, proptest::collection::vec(1..300usize, 0..30)), 0..8),
        budget in 1..600usize,
    ) {
        let mut wishes: Vec<_> = requests.iter()
            .map(|(caller, lengths)| wish(&caller.to_string(), lengths)).collect();
        let mut served = Served::default();
        let mut seen = Vec::new();
        loop {
            let chosen = served.fill(&mut wishes, budget);
            if chosen.is_empty() {
                break;
            }
            let used: usize = chosen.iter().map(|(number, place)| requests[*number].1[*place]).sum();
            prop_assert!(used <= budget || chosen.len() == 1);
            let shortest = wishes.iter().filter_map(|wish| wish.left.first()).min();
            if let Some((shortest, _)) = shortest {
                prop_assert!(used + shortest > budget);
            }
            seen.extend(chosen);
        }
        seen.sort_unstable();
        let all: Vec<_> = requests.iter().enumerate()
            .flat_map(|(number, (_, lengths))| (0..lengths.len()).map(move |place| (number, place))).collect();
        prop_assert_eq!(seen, all);
    }

    /// Texts of 1 to 256 tokens and passes of 2048: while enough waits, less than a tenth of a pass is not used.
    #[test]
    fn passes_are_nine_tenths_full_while_enough_waits(lengths in proptest::collection::vec(1..257usize, 50..250)) {
        let found = of(&[("a", lengths.clone())], 2048);
        let (_, full) = found.split_last().unwrap();
        for pass in full {
            let used: usize = pass.iter().map(|(_, tokens)| tokens).sum();
            prop_assert!(used * 10 >= 2048 * 9, "{used}");
        }
    }
}
