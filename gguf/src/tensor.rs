use std::io::Read;

use super::reader::Reader;
use super::types::TensorType;
use super::{MAX_DIMENSIONS, MAX_TENSOR_NAME, Problem};

/// Where a tensor lies, and what it is.
#[derive(Debug)]
pub struct Tensor {
    pub name: String,
    pub kind: &'static TensorType,
    /// As the format has it: the length of a row first. One to four, none of them 0.
    pub shape: Vec<u64>,
    /// The product of the shape.
    pub elements: u64,
    /// From the start of the file.
    pub offset: u64,
    /// In bytes: whole blocks of its type, `elements` of them.
    pub len: u64,
}

impl Tensor {
    pub(super) fn read<R: Read>(reader: &mut Reader<R>) -> Result<Self, Problem> {
        let name = reader.text("tensor name", MAX_TENSOR_NAME)?;
        let dimensions = reader.u32()?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(Problem::Dimensions {
                tensor: name,
                dimensions,
            });
        }
        let shape = (0..dimensions)
            .map(|_| reader.u64())
            .collect::<Result<Vec<_>, _>>()?;
        let found = reader.u32()?;
        let offset = reader.u64()?;
        let Some(kind) = TensorType::of(found) else {
            return Err(Problem::TensorType {
                tensor: name,
                found,
            });
        };
        let elements = shape
            .iter()
            .try_fold(1u64, |product, dim| product.checked_mul(*dim));
        // Rows are quantized block by block.
        let whole = shape.first().is_some_and(|row| row % kind.block == 0);
        let len = elements.and_then(|n| (n / kind.block).checked_mul(kind.bytes));
        match (elements, len) {
            (Some(elements), Some(len)) if whole && elements > 0 => Ok(Self {
                name,
                kind,
                shape,
                elements,
                offset,
                len,
            }),
            _ => Err(Problem::Shape { tensor: name }),
        }
    }
}

/// Tensors lie one after the other, each at the next aligned place, and the last one ends the file but for its padding. Sorts them
/// so; their offsets count from the start of the data here.
pub(super) fn check_layout(
    tensors: &mut [Tensor],
    data: u64,
    alignment: u64,
) -> Result<(), Problem> {
    if tensors.is_empty() {
        return Err(Problem::Empty);
    }
    tensors.sort_by_key(|tensor| tensor.offset);
    let mut free = 0u64;
    for tensor in tensors.iter() {
        let (offset, len) = (tensor.offset, tensor.len);
        let name = || tensor.name.clone();
        if offset % alignment != 0 {
            return Err(Problem::Misaligned {
                tensor: name(),
                offset,
                alignment,
            });
        }
        let end = offset.checked_add(len).filter(|end| *end <= data);
        let Some(end) = end else {
            return Err(Problem::OutOfRange {
                tensor: name(),
                offset,
                len,
                data,
            });
        };
        if offset < free {
            return Err(Problem::Overlap { tensor: name() });
        }
        if offset > free.next_multiple_of(alignment) {
            return Err(Problem::Hole {
                before: format!("tensor {:?}", tensor.name),
                bytes: offset - free,
            });
        }
        free = end;
    }
    if data > free.next_multiple_of(alignment) {
        return Err(Problem::Hole {
            before: "the end".into(),
            bytes: data - free,
        });
    }
    Ok(())
}
