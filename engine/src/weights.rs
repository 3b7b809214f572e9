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
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};
use rayon::prelude::*;

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
    /// What [`Weights::preload`] has read and nobody has taken yet.
    ready: Mutex<HashMap<String, Tensor>>,
    /// candle's loaders can only say "error"; the first real reason is kept here.
    failure: Mutex<Option<LoadError>>,
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
            ready: Mutex::default(),
            failure: Mutex::new(None),
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

    /// A matrix of exactly this shape, in f32 or quantized as it is.
    pub(crate) fn matrix(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Matrix, LoadError> {
        let shape = [outputs, inputs];
        let entry = self.entry(name, &shape)?;
        match entry.dtype {
            Dtype::Quantized(format) => self
                .blocks(name, entry, format, shape)
                .map(Matrix::Quantized),
            _ => match self.format(name, entry) {
                Some(format) => self.quantized(name, entry, format).map(Matrix::Quantized),
                None => self.get(name, &shape).map(Matrix::Dense),
            },
        }
    }

    /// A tensor of exactly this shape, as f32.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let entry = self.entry(name, shape)?;
        let ready = self.ready().remove(name);
        match ready {
            Some(tensor) => Ok(tensor),
            None => self.read(name, entry),
        }
    }

    /// Reads all tensors whose names begin so, several at a time: candle's own models ask for one after the other. What they
    /// do not ask for is let go with [`Weights::forget`].
    pub(crate) fn preload(&self, prefixes: &[&str]) -> Result<(), LoadError> {
        let mut wanted: Vec<_> = self
            .tensors
            .iter()
            .filter(|(name, entry)| {
                entry.dtype.is_dense() && prefixes.iter().any(|p| name.starts_with(p))
            })
            .collect();
        // Neighbours share a segment of a sealed file, which is then opened once.
        wanted.sort_by_key(|(_, entry)| (&entry.file, entry.offset));
        wanted.into_par_iter().try_for_each(|(name, entry)| {
            let tensor = self.read(name, entry)?;
            self.ready().insert(name.clone(), tensor);
            Ok(())
        })
    }

    pub(crate) fn forget(&self) {
        self.ready().clear();
    }

    fn ready(&self) -> MutexGuard<'_, HashMap<String, Tensor>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, name: &str, entry: &Entry) -> Result<Tensor, LoadError> {
        let values = self.fill(name, entry)?;
        Tensor::from_vec(values, entry.shape.as_slice(), &Device::Cpu).map_err(LoadError::Compute)
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
            Dtype::Quantized(_) => {
                return Err(entry.refuse(name, "is quantized, and no matrix".into()));
            }
            Dtype::Other(kind) => {
                return Err(entry.refuse(name, format!("is {kind}, not {SUPPORTED}")));
            }
        };
        let too_large = || entry.refuse(name, "too large".into());
        let length = usize::try_from(entry.bytes).map_err(|_wide| too_large())?;
        // Comes as zeros from the system, so no page is touched before its bytes are there.
        let mut values = vec![0f32; length / width];
        let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let start = memory.len().checked_sub(length).ok_or_else(too_large)?;
        let (_, bytes) = memory.split_at_mut(start);
        self.files
            .read_at(&entry.file, entry.offset, bytes)
            .map_err(|source| LoadError::Read {
                file: entry.file.to_string(),
                source,
            })?;
        match entry.dtype {
            Dtype::F16 => widen::in_place(&mut values, widen::f16),
            Dtype::Bf16 => widen::in_place(&mut values, widen::bf16),
            _ => {}
        }
        if let RowOrder::Interleaved { head_dim } = entry.rows {
            let width = entry.shape.get(1).copied().unwrap_or(1);
            rows::halve(&mut values, width, head_dim)
                .ok_or_else(|| entry.refuse(name, format!("rows are not heads of {head_dim}")))?;
        }
        Ok(values)
    }
}

const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_K or Q6_K";

// Both formats of weights are little-endian, and their bytes are read into numbers as they lie.
const _: () = assert!(cfg!(target_endian = "little"));

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
