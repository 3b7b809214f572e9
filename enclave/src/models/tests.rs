use super::*;

fn none() -> Models {
    Models::new(Vec::new())
}

#[test]
fn a_generation_lives_as_long_as_whoever_uses_it_and_no_longer() {
    let models = none();
    assert!(!models.draining());
    let used = models.current();
    let first = Arc::downgrade(&used);
    let mut turnover = models.turnover();
    turnover.mark_unchanged();

    let next = models.replace(Vec::new());
    assert!(turnover.has_changed().unwrap());
    assert!(Arc::ptr_eq(&next, &models.current()));
    assert!(models.draining() && first.upgrade().is_some());
    drop(used);
    assert!(!models.draining() && first.upgrade().is_none());
    assert_eq!(next.number, 2);
}

#[test]
fn a_generation_that_nobody_uses_is_freed_by_its_replacement() {
    let models = none();
    let first = Arc::downgrade(&models.current());
    models.replace(Vec::new());
    assert!(first.upgrade().is_none() && !models.draining());
}
