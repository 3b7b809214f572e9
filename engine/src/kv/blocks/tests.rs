use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const TOKENS: [u32; BLOCK] = [7; BLOCK];

#[test]
fn a_block_is_found_by_its_owner_its_beginning_and_its_tokens_and_by_nobody_else() {
    let (alice, bob): (Arc<str>, Arc<str>) = ("spiffe://x/alice".into(), "spiffe://x/bob".into());
    let mut blocks = Blocks::new(4);
    let first = blocks.take().unwrap();
    let chain = blocks
        .remember(first, &alice, Chain::default(), &TOKENS)
        .unwrap();
    assert_eq!(
        blocks.find(&alice, Chain::default(), &TOKENS),
        Some((first, chain))
    );
    assert_eq!(blocks.find(&bob, Chain::default(), &TOKENS), None);
    assert_eq!(blocks.find(&alice, chain, &TOKENS), None);
    assert_eq!(blocks.find(&alice, Chain::default(), &[8; BLOCK]), None);
    assert_eq!(
        blocks.find(&alice, Chain::default(), &TOKENS[1..]),
        None,
        "not full"
    );
}

#[test]
fn what_nobody_uses_is_kept_until_its_place_is_needed_the_longest_unused_first() {
    let owner: Arc<str> = "a".into();
    let mut blocks = Blocks::new(2);
    let (one, two) = (blocks.take().unwrap(), blocks.take().unwrap());
    assert_eq!(blocks.take(), None);
    blocks
        .remember(one, &owner, Chain::default(), &TOKENS)
        .unwrap();
    blocks
        .remember(two, &owner, Chain::default(), &[8; BLOCK])
        .unwrap();
    blocks.give_back(two);
    blocks.give_back(one);
    assert_eq!(blocks.available(), 2);
    // Used once more, and so the other one is the longest unused.
    let (found, _) = blocks.find(&owner, Chain::default(), &[8; BLOCK]).unwrap();
    assert_eq!((found, blocks.available()), (two, 1));
    blocks.give_back(two);
    assert_eq!(blocks.take(), Some(one));
    assert_eq!(blocks.find(&owner, Chain::default(), &TOKENS), None);
    assert!(blocks.find(&owner, Chain::default(), &[8; BLOCK]).is_some());
    assert_eq!(blocks.take(), None, "both are in use");
}

proptest! {
    /// Sequences that come, share beginnings, grow and go: no block has two contents, none is lost.
    #[test]
    fn accounts_are_exact(steps in proptest::collection::vec((0..4u8, 0..3u32, 0..4usize), 1..200)) {
        let owners: [Arc<str>; 2] = ["a".into(), "b".into()];
        let total = 12;
        let mut blocks = Blocks::new(total);
        let mut sequences: Vec<(Vec<u32>, Chain, usize)> = Vec::new();
        for (what, text, which) in steps {
            match what {
                0 => sequences.push((Vec::new(), Chain::default(), which % 2)),
                1 | 2 => {
                    let count = sequences.len();
                    let Some((held, chain, owner)) = sequences.get_mut(which % count.max(1)) else { continue };
                    let tokens = [text; BLOCK];
                    if let Some((block, next)) = blocks.find(&owners[*owner], *chain, &tokens) {
                        held.push(block);
                        *chain = next;
                    } else if let Some(block) = blocks.take() {
                        held.push(block);
                        *chain = blocks.remember(block, &owners[*owner], *chain, &tokens).unwrap();
                    }
                }
                _ => {
                    if !sequences.is_empty() {
                        let (held, ..) = sequences.swap_remove(which % sequences.len());
                        held.into_iter().for_each(|block| blocks.give_back(block));
                    }
                }
            }
            let used: HashSet<u32> = sequences.iter().flat_map(|(held, ..)| held.iter().copied()).collect();
            prop_assert_eq!(blocks.available(), total - used.len());
        }
        sequences.into_iter().flat_map(|(held, ..)| held).for_each(|block| blocks.give_back(block));
        prop_assert_eq!(blocks.available(), total);
    }
}
