//! How likely each token was, in OpenAI's words.

use engine::{TokenChance, TokenLogprob};
use serde::{Serialize, Serializer};

/// Of the tokens of one choice, or of one piece of it.
#[derive(Serialize)]
pub(crate) struct Logprobs<'a> {
    content: Vec<Entry<'a>>,
    refusal: (),
}

impl<'a> Logprobs<'a> {
    /// `None` if nobody asked.
    pub(crate) fn of(asked: bool, tokens: &'a [TokenLogprob]) -> Option<Self> {
        asked.then(|| Self {
            content: tokens.iter().map(Entry).collect(),
            refusal: (),
        })
    }
}

struct Entry<'a>(&'a TokenLogprob);

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            #[serde(flatten)]
            token: Chance<'a>,
            top_logprobs: Vec<Chance<'a>>,
        }
        Fields {
            token: Chance::of(&self.0.token),
            top_logprobs: self.0.top.iter().map(Chance::of).collect(),
        }
        .serialize(serializer)
    }
}

#[derive(Serialize)]
struct Chance<'a> {
    /// As far as it is text.
    token: std::borrow::Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> Chance<'a> {
    fn of(chance: &'a TokenChance) -> Self {
        Self {
            token: String::from_utf8_lossy(&chance.bytes),
            logprob: chance.logprob,
            bytes: &chance.bytes,
        }
    }
}
