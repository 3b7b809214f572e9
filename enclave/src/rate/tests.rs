use super::*;

fn caller(name: &str) -> SpiffeId {
    SpiffeId::new(format!("spiffe://cloister.dev/{name}")).unwrap()
}

#[test]
fn a_burst_is_taken_and_then_the_caller_waits() {
    let rate = Rate::new(60, 3, 10);
    let remaining: Vec<u32> = (0..3)
        .map(|_| rate.check(&caller("a")).unwrap().remaining)
        .collect();
    assert_eq!(remaining, [2, 1, 0]);
    let exceeded = rate.check(&caller("a")).unwrap_err();
    assert_eq!(exceeded.seconds(), 1);
    let mut headers = HeaderMap::new();
    exceeded.write(&mut headers);
    assert_eq!(headers[LIMIT], "3");
    assert_eq!(headers[REMAINING], "0");
}

#[test]
fn one_caller_does_not_use_up_anothers_allowance() {
    let rate = Rate::new(60, 1, 10);
    assert!(rate.check(&caller("a")).is_ok());
    assert!(rate.check(&caller("a")).is_err());
    assert!(rate.check(&caller("b")).is_ok());
}

#[test]
fn the_number_of_remembered_callers_is_bounded() {
    let rate = Rate::new(1, 1, 4);
    for index in 0..4 {
        assert!(rate.check(&caller(&format!("c{index}"))).is_ok());
    }
    assert!(rate.check(&caller("one-more")).is_err());
    assert_eq!(rate.limiter.len(), 4);
}

#[test]
fn a_wait_is_told_in_whole_seconds_and_never_zero() {
    for (wait, seconds) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (59_500, 60)] {
        assert_eq!(
            Exceeded {
                wait: Duration::from_millis(wait),
                limit: 1
            }
            .seconds(),
            seconds,
            "{wait}"
        );
    }
}
