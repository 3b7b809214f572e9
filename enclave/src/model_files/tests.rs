use super::*;

#[test]
fn only_ranges_that_meet_cover_a_file() {
    type Read = &'static [(u64, u64)];
    let cases: [(Read, u64, bool); 8] = [
        (&[], 0, false),
        (&[], 5, false),
        (&[(0, 5)], 5, true),
        (&[(0, 4)], 5, false),
        (&[(3, 5), (0, 3)], 5, true),
        (&[(4, 5), (0, 3)], 5, false),
        (&[(0, 2), (1, 4), (0, 1), (4, 5)], 5, true),
        (&[(1, 5)], 5, false),
    ];
    for (ranges, size, whole) in cases {
        let read = ranges.iter().map(|(start, end)| *start..*end).collect();
        assert_eq!(covers(read, size), whole, "{ranges:?} of {size}");
    }
}
