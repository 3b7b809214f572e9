//! Functions of one number, without a branch or a call, so that the compiler makes vectors of them.

/// What a feed-forward layer does to each number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// By the error function.
    Gelu,
    /// Its approximation by a hyperbolic tangent.
    GeluTanh,
    Relu,
    Silu,
    Tanh,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply(self, row: &mut [f32]) {
        match self {
            Self::Gelu => map(row, gelu),
            Self::GeluTanh => map(row, gelu_tanh),
            Self::Relu => map(
                row,
                #[inline(always)]
                |x| if x > 0.0 { x } else { x * 0.0 },
            ),
            Self::Silu => map(row, silu),
            Self::Tanh => map(row, tanh),
        }
    }
}

#[inline(always)]
fn map(row: &mut [f32], function: impl Fn(f32) -> f32) {
    for value in row {
        *value = function(*value);
    }
}

/// Within 3e-7 of the exact result, relatively, where that is a normal number; the smallest one below, no infinity above.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // So large that adding it leaves the number of the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * LN2_HIGH - whole * LN2_LOW;
    // Minimax polynomial of Cephes' expf.
    let mut power = 1.987_569_1e-4;
    for coefficient in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        power = power * rest + coefficient;
    }
    let power = power * rest * rest + rest + 1.0;
    let exponent = shifted.to_bits().wrapping_shl(23);
    power * f32::from_bits(exponent.wrapping_add(127 << 23))
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Within 3e-7.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // x · (1 + tanh(u)) / 2 is x times the logistic function of 2u.
    const ROOT: f32 = 0.797_884_6;
    let u = ROOT * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-2.0 * u))
}

/// With the error function of Abramowitz and Stegun 7.1.26, which is within 1.5e-7.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut sum = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        sum = sum * t + coefficient;
    }
    // Of what the error function lacks to one, half: all that a negative number keeps of itself.
    let tail = 0.5 * sum * t * exp(-z * z);
    let share = if x < 0.0 { tail } else { 1.0 - tail };
    x * share
}
