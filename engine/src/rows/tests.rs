use candle_core::{Device, Tensor};

use super::*;

fn grid() -> impl Iterator<Item = f32> {
    (-20_000..20_000).map(|step| step as f32 / 1000.0)
}

fn applied(activation: Activation, values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    with_widest_vectors(|| activation.apply(&mut values));
    values
}

#[test]
fn exponentials_are_exact_to_a_few_bits() {
    for x in grid().map(|x| x * 4.3) {
        let exact = f64::from(x).exp();
        let off = (f64::from(exp(x)) / exact - 1.0).abs();
        assert!(off < 3e-7, "exp({x}) is off by {off}");
    }
    assert_eq!(exp(0.0), 1.0);
    assert!(exp(-1e30) < 1e-37 && exp(-1e30) >= 0.0);
    assert!(exp(1e30).is_finite() && exp(1e30) > 1e38);
    assert!(exp(f32::NAN).is_nan());
}

/// By a series, in double precision: an error function that shares nothing with ours.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn activations_are_what_their_formulas_say() {
    let values: Vec<f32> = grid().filter(|x| x.abs() < 5.0).collect();
    type Formula = fn(f64) -> f64;
    let exact: [(Activation, Formula); 5] = [
        (Activation::Gelu, |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))),
        (Activation::GeluTanh, |x| {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (root * (x + 0.044_715 * x.powi(3))).tanh())
        }),
        (Activation::Relu, |x| x.max(0.0)),
        (Activation::Silu, |x| x / (1.0 + (-x).exp())),
        (Activation::Tanh, f64::tanh),
    ];
    for (activation, formula) in exact {
        for (x, found) in values.iter().zip(applied(activation, &values)) {
            let off = (f64::from(found) - formula(f64::from(*x))).abs();
            assert!(off < 2e-6, "{activation:?} of {x} is off by {off}");
        }
    }
}

#[test]
fn activations_keep_far_numbers_and_show_what_is_none() {
    for activation in [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::Silu,
    ] {
        assert_eq!(applied(activation, &[1e4, 50.0]), [1e4, 50.0]);
        let far = applied(activation, &[-50.0, -1e4]);
        assert!(
            far.iter().all(|value| value.abs() < 1e-9),
            "{activation:?} {far:?}"
        );
        assert!(
            applied(activation, &[f32::NAN])[0].is_nan(),
            "{activation:?}"
        );
    }
    assert_eq!(applied(Activation::Tanh, &[100.0, -100.0]), [1.0, -1.0]);
    assert!(applied(Activation::Tanh, &[f32::NAN])[0].is_nan());
}

#[test]
fn every_row_is_visited_once_under_its_number() {
    for (rows, width) in [(1, 1), (3, 5), (700, 33), (1, 40_000), (9000, 1)] {
        let x = Tensor::zeros((rows, width), candle_core::DType::F32, &Device::Cpu).unwrap();
        each(&x, |index, row| {
            assert_eq!(row.len(), width);
            row.iter_mut()
                .for_each(|value| *value += index as f32 + 1.0);
        })
        .unwrap();
        for (index, row) in x.to_vec2::<f32>().unwrap().into_iter().enumerate() {
            assert!(row.iter().all(|value| *value == index as f32 + 1.0));
        }
    }
}

#[test]
fn norms_agree_with_double_precision_even_far_from_zero() {
    for offset in [0.0, 1000.0] {
        let row: Vec<f32> = (0..37).map(|n| offset + (n as f32 * 0.7).sin()).collect();
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / 37.0;
        let variance = row
            .iter()
            .map(|x| (f64::from(*x) - mean).powi(2))
            .sum::<f64>()
            / 37.0;
        let norm = LayerNorm {
            weight: vec![2.0; 37],
            bias: vec![0.5; 37],
            epsilon: 1e-5,
        };
        let x = Tensor::from_slice(&row, (1, 37), &Device::Cpu).unwrap();
        norm.apply(&x).unwrap();
        for (found, x) in x
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .zip(&row)
        {
            let exact = (f64::from(*x) - mean) / (variance + 1e-5).sqrt() * 2.0 + 0.5;
            assert!((f64::from(*found) - exact).abs() < 1e-3);
        }
    }
}

#[test]
fn what_is_not_contiguous_is_refused() {
    let x = Tensor::zeros((4, 6), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(each(&x.t().unwrap(), |_, _| {}).is_err());
    assert!(view(&x.t().unwrap(), |_| Ok(())).is_err());
    let whole = x.to_dtype(candle_core::DType::U32).unwrap();
    assert!(each(&whole, |_, _| {}).is_err());
}
