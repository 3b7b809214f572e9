//! Weights of a model in safetensors, one file or sharded, read tensor by tensor.
//!
//! Each tensor's bytes go from [`ModelFiles`] through a small staging buffer into the `Vec<f32>` that becomes the tensor:
//! that is the only plaintext copy. f16 and bf16 are widened on the way, because candle has no bf16 kernel on CPU and
//! converts whole matrices at every step otherwise.

mod header;
mod index;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::{LoadError, ModelFiles};
use header::{Dtype, Entry};

pub(crate) struct Weights {
    files: Arc<dyn ModelFiles>,
    tensors: HashMap<String, Entry>,
    /// candle's loaders can only say "error"; the first real reason is kept here.
    failure: Mutex<Option<LoadError>>,
}

/// One read: large enough that a reader which decrypts in segments of 1 MiB wastes little at the ends, small enough that a
/// staging buffer per thread does not count beside the tensors.
const STAGING_BYTES: usize = 4 << 20;

impl Weights {
    /// Reads and checks the headers; no tensor yet.
    pub(crate) fn open(files: Arc<dyn ModelFiles>) -> Result<Arc<Self>, LoadError> {
        let tensors = index::open(files.as_ref())?;
        Ok(Arc::new(Self {
            files,
            tensors,
            failure: Mutex::new(None),
        }))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(crate) fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// A tensor of exactly this shape, as f32.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
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
        Tensor::from_vec(self.fill(name, entry)?, shape, &Device::Cpu).map_err(LoadError::Compute)
    }

    /// For candle's own models. What they report as an error is explained by [`Weights::failure`].
    pub(crate) fn var_builder(self: &Arc<Self>) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Backend(Arc::clone(self))), DType::F32, Device::Cpu)
    }

    pub(crate) fn failure(&self, error: candle_core::Error) -> LoadError {
        let kept = self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        kept.unwrap_or(LoadError::Compute(error))
    }

    fn fill(&self, name: &str, entry: &Entry) -> Result<Vec<f32>, LoadError> {
        let width = match entry.dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Other => return Err(entry.refuse(name, "dtype is not F32, F16 or BF16".into())),
        };
        let elements = usize::try_from(entry.bytes)
            .map_err(|_wide| entry.refuse(name, "too large".into()))?
            / width;
        let mut values = vec![0f32; elements];
        let step = STAGING_BYTES / width;
        values
            .par_chunks_mut(step)
            .enumerate()
            .try_for_each(|(index, part)| {
                let mut staging = Zeroizing::new(vec![0u8; part.len() * width]);
                let offset = entry.offset + u64::try_from(index * step * width).unwrap_or(u64::MAX);
                self.files
                    .read_at(&entry.file, offset, &mut staging)
                    .map_err(|source| LoadError::Read {
                        file: entry.file.to_string(),
                        source,
                    })?;
                widen(entry.dtype, &staging, part);
                Ok(())
            })?;
        Ok(values)
    }
}

/// Little-endian values of `bytes` into `values`, which has as many elements.
fn widen(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Dtype::F16 => {
            // In blocks, so that the conversion can use the processor's own instruction.
            let mut block = Zeroizing::new([0u16; 4096]);
            for (values, bytes) in values
                .chunks_mut(block.len())
                .zip(bytes.chunks(2 * block.len()))
            {
                for (bits, bytes) in block.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *bits = u16::from_le_bytes(*bytes);
                }
                let halves: &[half::f16] =
                    half::slice::HalfBitsSliceExt::reinterpret_cast(block.as_slice());
                if let Some(halves) = halves.get(..values.len()) {
                    halves.convert_to_f32_slice(values);
                }
            }
        }
        Dtype::Bf16 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        Dtype::Other => {}
    }
}

/// candle's view of [`Weights`].
struct Backend(Arc<Weights>);

impl Backend {
    fn keep(&self, error: LoadError) -> candle_core::Error {
        let text = error.to_string();
        self.0
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        candle_core::Error::Msg(text)
    }
}

impl SimpleBackend for Backend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        self.0
            .get(name, shape.dims())
            .map_err(|error| self.keep(error))?
            .to_dtype(dtype)
    }

    fn get_unchecked(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let shape = self
            .0
            .tensors
            .get(name)
            .map(|entry| entry.shape.clone())
            .unwrap_or_default();
        self.get(Shape::from(shape), name, Init::Const(0.0), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

#[cfg(test)]
mod tests;
