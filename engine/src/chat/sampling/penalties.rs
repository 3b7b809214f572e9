use std::collections::HashMap;

use crate::ChatRequest;

/// What makes tokens less likely that were there before. Repetition looks at prompt and answer, as in transformers; presence and
/// frequency at the answer alone, as OpenAI describes them.
pub(crate) struct Penalties {
    presence: f32,
    frequency: f32,
    repetition: f32,
    /// How often the answer has each token of prompt and answer.
    counts: HashMap<u32, f32>,
}

impl Penalties {
    /// `None` if the request asks for none, so that nothing is counted.
    pub(crate) fn new(request: &ChatRequest, prompt: &[u32]) -> Option<Self> {
        let repetition = request.repetition_penalty;
        let (presence, frequency) = (request.presence_penalty, request.frequency_penalty);
        if repetition == 1.0 && presence == 0.0 && frequency == 0.0 {
            return None;
        }
        let counts = match repetition == 1.0 {
            true => HashMap::new(),
            false => prompt.iter().map(|token| (*token, 0.0)).collect(),
        };
        Some(Self {
            presence,
            frequency,
            repetition,
            counts,
        })
    }

    pub(crate) fn made(&mut self, token: u32) {
        *self.counts.entry(token).or_default() += 1.0;
    }

    pub(crate) fn apply(&self, logits: &mut [f32]) {
        for (token, count) in &self.counts {
            let Some(logit) = logits.get_mut(*token as usize) else {
                continue;
            };
            match *logit > 0.0 {
                true => *logit /= self.repetition,
                false => *logit *= self.repetition,
            }
            if *count > 0.0 {
                *logit -= self.presence + self.frequency * count;
            }
        }
    }
}
