use super::*;

fn asked() -> ChatRequest {
    ChatRequest {
        seed: Some(5),
        ..ChatRequest::new(Vec::new())
    }
}

/// Each time from the same logits, with what came before.
fn drawn(request: &ChatRequest, logits: &[f32], count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(request, 0, &[]);
    let mut scratch = Scratch::default();
    let mut next = || {
        let mut logits = logits.to_vec();
        sampler.adjust(&mut logits);
        sampler.sample(&logits, &mut scratch).unwrap()
    };
    (0..count).map(|_| next()).collect()
}

fn draw(temperature: f32, top_p: f32, seed: u64, logits: &[f32], count: usize) -> Vec<u32> {
    let request = ChatRequest {
        temperature,
        top_p,
        seed: Some(seed),
        ..asked()
    };
    drawn(&request, logits, count)
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
fn top_k_leaves_all_but_the_likeliest_out() {
    let logits = [0.0, 2.0, 1.0, 2.0, -1.0];
    let of = |top_k| {
        let request = ChatRequest { top_k, ..asked() };
        let mut tokens = drawn(&request, &logits, 1000);
        tokens.sort();
        tokens.dedup();
        tokens
    };
    assert_eq!(of(1), [1]);
    assert_eq!(of(2), [1, 3]);
    assert_eq!(of(3), [1, 2, 3]);
    for all in [0, 5, 6, u32::MAX] {
        assert_eq!(of(all), [0, 1, 2, 3, 4]);
    }
    // The nucleus is of what top_k leaves: a half of it is the first.
    let request = ChatRequest {
        top_k: 2,
        top_p: 0.5,
        ..asked()
    };
    assert!(
        drawn(&request, &logits, 200)
            .iter()
            .all(|token| *token == 1)
    );
}

#[test]
fn min_p_is_a_share_of_the_likeliest() {
    let logits = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln);
    let of = |min_p, top_p| {
        let request = ChatRequest {
            min_p,
            top_p,
            ..asked()
        };
        let mut tokens = drawn(&request, &logits, 1000);
        tokens.sort();
        tokens.dedup();
        tokens
    };
    assert_eq!(of(0.0, 1.0), [0, 1, 2, 3]);
    assert_eq!(of(0.4, 1.0), [1, 2, 3]);
    assert_eq!(of(0.6, 1.0), [1, 3]);
    assert_eq!(of(1.0, 1.0), [1]);
    assert_eq!(of(0.6, 0.95), [1, 3]);
    assert_eq!(of(0.1, 0.6), [1, 3]);
}

#[test]
fn penalties_and_bias_change_what_is_likeliest() {
    let greedy = || ChatRequest {
        temperature: 0.0,
        ..asked()
    };
    let logits = [1.0, 0.8, 0.5];
    let presence = ChatRequest {
        presence_penalty: 0.3,
        ..greedy()
    };
    assert_eq!(drawn(&presence, &logits, 6), [0, 1, 0, 0, 0, 0]);
    let frequency = ChatRequest {
        frequency_penalty: 0.3,
        ..greedy()
    };
    assert_eq!(drawn(&frequency, &logits, 6), [0, 1, 0, 1, 2, 0]);
    let liked = ChatRequest {
        frequency_penalty: -2.0,
        ..greedy()
    };
    assert_eq!(drawn(&liked, &logits, 3), [0, 0, 0]);
    let bias = ChatRequest {
        logit_bias: vec![(2, 100.0), (1, 0.5), (7, 100.0)],
        ..greedy()
    };
    assert_eq!(drawn(&bias, &logits, 2), [2, 2]);
    let ban = ChatRequest {
        logit_bias: vec![(0, -100.0), (1, -100.0)],
        ..greedy()
    };
    assert_eq!(drawn(&ban, &logits, 2), [2, 2]);
}

#[test]
fn repetition_counts_the_prompt_and_divides_what_is_above_zero() {
    let request = ChatRequest {
        temperature: 0.0,
        repetition_penalty: 2.0,
        ..asked()
    };
    let mut adjusted = [4.0, -4.0, 4.0, -4.0];
    Sampler::new(&request, 0, &[0, 1, 1]).adjust(&mut adjusted);
    assert_eq!(adjusted, [2.0, -8.0, 4.0, -4.0]);
}

#[test]
fn choices_have_seeds_of_their_own() {
    let of = |choice| {
        let mut sampler = Sampler::new(&asked(), choice, &[]);
        let mut scratch = Scratch::default();
        let tokens = (0..40).map(|_| sampler.sample(&[0.0; 100], &mut scratch).unwrap());
        tokens.collect::<Vec<_>>()
    };
    assert_eq!(of(3), of(3));
    assert_ne!(of(0), of(1));
    assert_ne!(of(1), of(2));
    assert_eq!(of(0), drawn(&asked(), &[0.0; 100], 40));
}

#[test]
fn what_is_ruled_out_never_comes() {
    let mut logits = vec![f32::NEG_INFINITY; 5000];
    for token in [3, 1500, 4999] {
        logits[token] = 1.0;
    }
    for request in [
        asked(),
        ChatRequest {
            top_p: 0.99,
            ..asked()
        },
        ChatRequest {
            top_k: 100,
            ..asked()
        },
        ChatRequest {
            min_p: 0.01,
            ..asked()
        },
    ] {
        let mut tokens = drawn(&request, &logits, 300);
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens, [3, 1500, 4999]);
    }
}

#[test]
fn refuses_what_is_no_number() {
    for logits in [
        &[0.0, f32::NAN][..],
        &[f32::INFINITY, 0.0],
        &[f32::NEG_INFINITY; 2],
        &[],
    ] {
        let mut sampler = Sampler::new(&asked(), 0, &[]);
        assert!(sampler.sample(logits, &mut Scratch::default()).is_err());
    }
}

/// For the figure in docs/engine.md: `cargo test --release -p engine sampling_takes -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn sampling_takes_a_part_of_a_millisecond() {
    let mut random = StdRng::seed_from_u64(1);
    let peaked: Vec<f32> = (0..128_256)
        .map(|_| random.random::<f32>() * 20.0)
        .collect();
    let flat: Vec<f32> = (0..128_256).map(|_| random.random::<f32>()).collect();
    for (name, request) in [
        (
            "greedy",
            ChatRequest {
                temperature: 0.0,
                ..asked()
            },
        ),
        ("temperature 1", asked()),
        (
            "top_p 0.9",
            ChatRequest {
                top_p: 0.9,
                temperature: 0.7,
                ..asked()
            },
        ),
        (
            "top_k 40",
            ChatRequest {
                top_k: 40,
                ..asked()
            },
        ),
        (
            "min_p 0.05",
            ChatRequest {
                min_p: 0.05,
                ..asked()
            },
        ),
    ] {
        for (kind, logits) in [("peaked", &peaked), ("flat", &flat)] {
            let mut sampler = Sampler::new(&request, 0, &[]);
            let mut scratch = Scratch::default();
            let begun = tokio::time::Instant::now();
            for _ in 0..100 {
                sampler.sample(logits, &mut scratch).unwrap();
            }
            println!("{name}, {kind}: {:?}", begun.elapsed() / 100);
        }
    }
}
