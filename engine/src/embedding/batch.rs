use zeroize::Zeroizing;

/// Inputs of one forward pass.
pub(crate) struct Batch<'a> {
    pub(crate) inputs: Vec<&'a [u32]>,
    /// The place of each input in the request.
    pub(crate) places: Vec<usize>,
}

impl Batch<'_> {
    /// Tokens per row once the shorter ones are padded.
    pub(crate) fn width(&self) -> usize {
        self.inputs
            .iter()
            .map(|input| input.len())
            .max()
            .unwrap_or(0)
    }
}

/// Groups inputs of similar length, so that little is padding, into batches of at most `budget` tokens with padding. A
/// longer input gets a batch of its own.
pub(crate) fn plan(inputs: &[Zeroizing<Vec<u32>>], budget: usize) -> Vec<Batch<'_>> {
    let mut order: Vec<(usize, &[u32])> = inputs
        .iter()
        .map(|input| input.as_slice())
        .enumerate()
        .collect();
    order.sort_by_key(|(_, input)| input.len());
    let mut batches: Vec<Batch<'_>> = Vec::new();
    for (place, input) in order {
        // Sorted, so the new input decides the width.
        match batches.last_mut() {
            Some(batch) if (batch.inputs.len() + 1) * input.len() <= budget => {
                batch.inputs.push(input);
                batch.places.push(place);
            }
            _ => batches.push(Batch {
                inputs: vec![input],
                places: vec![place],
            }),
        }
    }
    batches
}

#[cfg(test)]
mod tests;
