//! Weights of a model, in safetensors (one file or sharded) or GGUF, read tensor by tensor.
//!
//! Each tensor's bytes go from [`ModelFiles`] into the memory of the `Vec<f32>` that becomes the tensor: that is the only
//! plaintext copy. f16 and bf16 are widened in that memory, because candle has no bf16 kernel on CPU and converts whole
//! matrices at every step otherwise. Blocks of quantized rows pass through a buffer of bounded size, since candle lets nobody
//! write into its own.

mod blocks;
mod header;
mod index;
mod plan;
mod quantize;
mod rows;
mod widen;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
};

use candle_core::{Device, Tensor};

use crate::{LoadError, ModelFiles, Quantize, linear::Matrix, turns::Turns};
pub(crate) use header::{Dtype, Entry, RowOrder};

pub(crate) struct Weights {
    files: Arc<dyn ModelFiles>,
    tensors: HashMap<String, Entry>,
    /// What dense matrices become.
    quantize: OnceLock<Quantize>,
    /// Dense matrices on their way to that at the same time.
    quantizing: Turns,
    /// Buffers for quantized rows that are in use at the same time.
    buffers: Turns,
    /// Those of them that nobody uses, kept: given back, the allocator would put tensors into their places and keep the rest.
    spare: Mutex<Vec<Vec<u32>>>,
}

impl Weights {
    /// Reads and checks the headers; no tensor yet.
    pub(crate) fn open(files: Arc<dyn ModelFiles>) -> Result<Arc<Self>, LoadError> {
        let tensors = index::open(files.as_ref())?;
        Ok(Self::of(files, tensors))
    }

    /// Of a file whose header was read already.
    pub(crate) fn of(
        files: Arc<dyn ModelFiles>,
        tensors: impl IntoIterator<Item = (String, Entry)>,
    ) -> Arc<Self> {
        Arc::new(Self {
            files,
            tensors: tensors.into_iter().collect(),
            quantize: OnceLock::new(),
            quantizing: Turns::new(quantize::AT_ONCE),
            buffers: Turns::new(blocks::BUFFERS),
            spare: Mutex::default(),
        })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(crate) fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// The entry of a tensor of exactly this shape.
    fn entry(&self, name: &str, shape: &[usize]) -> Result<&Entry, LoadError> {
        let entry = self
            .tensors
            .get(name)
            .ok_or_else(|| LoadError::MissingTensor { name: name.into() })?;
        if entry.shape != shape {
            return Err(entry.refuse(
                name,
                format!(
                    "shape is {:?}, the configuration asks for {shape:?}",
                    entry.shape
                ),
            ));
        }
        Ok(entry)
    }

    /// A matrix of exactly this shape for products, in f32 or quantized as it is.
    pub(crate) fn matrix(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Matrix, LoadError> {
        self.matrix_or(name, [outputs, inputs], |entry| {
            Matrix::packed(outputs, inputs, |values| self.fill(name, entry, values))
        })
    }

    /// As [`matrix`](Self::matrix), for looking up rows only.
    pub(crate) fn table(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Matrix, LoadError> {
        self.matrix_or(name, [outputs, inputs], |entry| {
            self.read(name, entry).map(Matrix::Table)
        })
    }

    fn matrix_or(
        &self,
        name: &str,
        shape: [usize; 2],
        dense: impl FnOnce(&Entry) -> Result<Matrix, LoadError>,
    ) -> Result<Matrix, LoadError> {
        let entry = self.entry(name, &shape)?;
        match entry.dtype {
            Dtype::Quantized(format) => self
                .blocks(name, entry, format, shape)
                .map(Matrix::Quantized),
            _ => match self.format(name, entry) {
                Some(format) => self.quantized(name, entry, format).map(Matrix::Quantized),
                None => dense(entry),
            },
        }
    }

    /// A tensor of one dimension and exactly this length, as f32.
    pub(crate) fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.get(name, &[length])?;
        tensor.to_vec1().map_err(LoadError::Compute)
    }

    /// A tensor of exactly this shape, as f32.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.read(name, self.entry(name, shape)?)
    }

    fn read(&self, name: &str, entry: &Entry) -> Result<Tensor, LoadError> {
        let length = usize::try_from(entry.bytes).map_err(|_wide| too_large(name, entry))?;
        // Comes as zeros from the system, so no page is touched before its bytes are there.
        let mut values = vec![0f32; length / width(name, entry)?];
        self.fill(name, entry, &mut values)?;
        Tensor::from_vec(values, entry.shape.as_slice(), &Device::Cpu).map_err(LoadError::Compute)
    }

    /// The numbers of a tensor, of which there are as many as `values` has places.
    fn fill(&self, name: &str, entry: &Entry, values: &mut [f32]) -> Result<(), LoadError> {
        let length = usize::try_from(entry.bytes).map_err(|_wide| too_large(name, entry))?;
        if length / width(name, entry)? != values.len() {
            return Err(entry.refuse(name, "has another length than its shape".into()));
        }
        let memory: &mut [u8] = bytemuck::cast_slice_mut(values);
        let start = memory.len().checked_sub(length);
        let start = start.ok_or_else(|| too_large(name, entry))?;
        let (_, bytes) = memory.split_at_mut(start);
        self.files
            .read_at(&entry.file, entry.offset, bytes)
            .map_err(|source| LoadError::Read {
                file: entry.file.to_string(),
                source,
            })?;
        match entry.dtype {
            Dtype::F16 => widen::in_place(values, widen::f16),
            Dtype::Bf16 => widen::in_place(values, widen::bf16),
            _ => {}
        }
        if let RowOrder::Interleaved { head_dim } = entry.rows {
            let width = entry.shape.get(1).copied().unwrap_or(1);
            rows::halve(values, width, head_dim)
                .ok_or_else(|| entry.refuse(name, format!("rows are not heads of {head_dim}")))?;
        }
        Ok(())
    }
}

/// Bytes of each number.
fn width(name: &str, entry: &Entry) -> Result<usize, LoadError> {
    match entry.dtype {
        Dtype::F32 => Ok(4),
        Dtype::F16 | Dtype::Bf16 => Ok(2),
        Dtype::Quantized(_) => Err(entry.refuse(name, "is quantized, and no matrix".into())),
        Dtype::Other(kind) => Err(entry.refuse(name, format!("is {kind}, not {SUPPORTED}"))),
    }
}

fn too_large(name: &str, entry: &Entry) -> LoadError {
    entry.refuse(name, "too large".into())
}

const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_K or Q6_K";

// Both formats of weights are little-endian, and their bytes are read into numbers as they lie.
const _: () = assert!(cfg!(target_endian = "little"));

#[cfg(test)]
mod tests;
