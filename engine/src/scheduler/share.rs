//! How the tokens of a step are shared.

use std::sync::Arc;

/// Tokens for each of who wants some. One that wants a single token gets it: an answer goes on in every step. The rest of `budget` is
/// for prompts, evenly between callers, and evenly between the prompts of each; what one does not need goes to the others.
pub(super) fn share(budget: usize, wants: &[(Arc<str>, usize)]) -> Vec<usize> {
    let mut counts: Vec<usize> = wants
        .iter()
        .map(|(_, want)| usize::from(*want == 1))
        .collect();
    let mut left = budget;
    loop {
        let open = |counts: &[usize]| -> Vec<usize> {
            let open = wants.iter().zip(counts).enumerate();
            open.filter(|(_, ((_, want), count))| *count < want)
                .map(|(index, _)| index)
                .collect()
        };
        let hungry = open(&counts);
        let mut callers: Vec<&Arc<str>> = hungry
            .iter()
            .filter_map(|index| wants.get(*index))
            .map(|(caller, _)| caller)
            .collect();
        callers.sort();
        callers.dedup();
        if left == 0 || callers.is_empty() {
            return counts;
        }
        let each_caller = (left / callers.len()).max(1);
        for caller in callers {
            let of_caller: Vec<usize> = hungry
                .iter()
                .copied()
                .filter(|index| wants.get(*index).is_some_and(|(each, _)| each == caller))
                .collect();
            let each = (each_caller / of_caller.len().max(1)).max(1);
            for index in of_caller {
                if let (Some((_, want)), Some(count)) = (wants.get(index), counts.get_mut(index)) {
                    let more = each.min(want - *count).min(left);
                    *count += more;
                    left -= more;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(budget: usize, wants: &[(&str, usize)]) -> Vec<usize> {
        let wants: Vec<_> = wants
            .iter()
            .map(|(caller, want)| (Arc::from(*caller), *want))
            .collect();
        share(budget, &wants)
    }

    #[test]
    fn answers_go_on_while_prompts_share_the_rest() {
        assert_eq!(of(100, &[("a", 1), ("a", 1), ("b", 500)]), [1, 1, 100]);
        assert_eq!(of(100, &[("a", 500), ("b", 500)]), [50, 50]);
        // A short prompt does not wait for a long one.
        assert_eq!(of(100, &[("a", 5000), ("b", 10)]), [90, 10]);
        // Three prompts of one caller are no more than one of another.
        assert_eq!(
            of(120, &[("a", 500), ("a", 500), ("a", 500), ("b", 500)]),
            [20, 20, 20, 60]
        );
    }

    proptest! {
        #[test]
        fn no_token_is_lost_and_none_made_up(
            budget in 1..300usize, wants in proptest::collection::vec((0..4u8, 0..200usize), 0..20),
        ) {
            let wants: Vec<(Arc<str>, usize)> = wants.iter().map(|(caller, want)| (caller.to_string().into(), *want)).collect();
            let counts = share(budget, &wants);
            let mut prompts = 0;
            for ((_, want), count) in wants.iter().zip(&counts) {
                prop_assert!(count <= want);
                prop_assert!(*want != 1 || *count == 1);
                prompts += if *want > 1 { *count } else { 0 };
            }
            let all: usize = wants.iter().map(|(_, want)| *want).filter(|want| *want > 1).sum();
            prop_assert_eq!(prompts, all.min(budget));
        }
    }
}
