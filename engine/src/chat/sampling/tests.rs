use super::Sampler;

fn draw(temperature: f32, top_p: f32, seed: u64, logits: &[f32], count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(temperature, top_p, Some(seed));
    (0..count)
        .map(|_| sampler.sample(logits).unwrap())
        .collect()
}

#[test]
fn no_temperature_takes_the_first_of_the_likeliest() {
    assert_eq!(draw(0.0, 1.0, 1, &[0.0, 3.0, 3.0, -1.0], 3), [1, 1, 1]);
    assert_eq!(draw(1.0, 0.0, 1, &[0.0, 3.0, 3.0, -1.0], 3), [1, 1, 1]);
    assert_eq!(draw(1e-30, 1.0, 1, &[0.0, 3.0, 2.9], 3), [1, 1, 1]);
}

#[test]
fn a_seed_repeats_its_draws() {
    let logits = [0.1, 0.2, 0.3, 0.4];
    assert_eq!(
        draw(1.0, 1.0, 7, &logits, 50),
        draw(1.0, 1.0, 7, &logits, 50)
    );
    assert_ne!(
        draw(1.0, 1.0, 7, &logits, 50),
        draw(1.0, 1.0, 8, &logits, 50)
    );
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [0.1f32, 0.2, 0.7].map(f32::ln);
    let drawn = draw(1.0, 1.0, 3, &logits, 20_000);
    for (token, expected) in [(0, 0.1), (1, 0.2), (2, 0.7)] {
        let share = drawn.iter().filter(|drawn| **drawn == token).count() as f64 / 20_000.0;
        assert!((share - expected).abs() < 0.015, "token {token}: {share}");
    }
}

#[test]
fn the_nucleus_leaves_unlikely_tokens_out() {
    let logits = [0.05f32, 0.5, 0.15, 0.3].map(f32::ln);
    assert!(
        draw(1.0, 0.45, 5, &logits, 500)
            .iter()
            .all(|token| *token == 1)
    );
    let drawn = draw(1.0, 0.75, 5, &logits, 500);
    assert!(drawn.contains(&1) && drawn.contains(&3) && !drawn.contains(&0) && !drawn.contains(&2));
    assert!(draw(1.0, 0.9, 5, &logits, 500).contains(&2));
    // A flat distribution, where no token stands out: nothing needed is filtered beforehand.
    let flat = draw(1.0, 0.5, 5, &[0.0; 100], 2000);
    assert!(flat.contains(&0) && flat.iter().all(|token| *token <= 50));
}

#[test]
fn refuses_what_is_no_number() {
    for logits in [
        &[0.0, f32::NAN][..],
        &[f32::INFINITY, 0.0],
        &[f32::NEG_INFINITY; 2],
        &[],
    ] {
        assert!(Sampler::new(1.0, 1.0, Some(1)).sample(logits).is_err());
    }
}
