use zeroize::Zeroizing;

use crate::Text;

/// Ends an answer before the first stop string, and holds back what may still become one.
pub(crate) struct StopFilter {
    stops: Vec<Text>,
    /// The end of the text so far: the beginning of a stop string, or empty.
    held: Zeroizing<String>,
}

pub(crate) struct Passed {
    /// What can be shown now.
    pub(crate) text: Zeroizing<String>,
    /// A stop string was reached: nothing comes after `text`.
    pub(crate) stopped: bool,
}

impl StopFilter {
    pub(crate) fn new(stops: &[Text]) -> Self {
        let copy = |stop: &Text| Text::new(stop.expose().to_owned());
        Self {
            stops: stops.iter().map(copy).collect(),
            held: Zeroizing::default(),
        }
    }

    pub(crate) fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.expose()))
            .min();
        if let Some(position) = first {
            let text = Zeroizing::new(self.held.get(..position).unwrap_or_default().to_owned());
            self.held = Zeroizing::default();
            return Passed {
                text,
                stopped: true,
            };
        }
        let boundary = self.boundary();
        let rest = Zeroizing::new(self.held.get(boundary..).unwrap_or_default().to_owned());
        self.held.truncate(boundary);
        Passed {
            text: std::mem::replace(&mut self.held, rest),
            stopped: false,
        }
    }

    /// What was held back, once it is known that nothing follows.
    pub(crate) fn finish(&mut self) -> Zeroizing<String> {
        std::mem::take(&mut self.held)
    }

    /// Where the longest end of `held` starts that begins a stop string.
    fn boundary(&self) -> usize {
        let longest = self
            .stops
            .iter()
            .map(|stop| stop.expose().len())
            .max()
            .unwrap_or(0);
        let earliest = self.held.len().saturating_sub(longest);
        let begins_a_stop = |start: &usize| {
            self.held
                .get(*start..)
                .is_some_and(|end| self.stops.iter().any(|stop| stop.expose().starts_with(end)))
        };
        (earliest..self.held.len())
            .find(begins_a_stop)
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests;
