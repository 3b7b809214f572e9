//! Bounds of a JSON schema, before anybody works with it.

use std::io;

use serde_json::Value;

use crate::{EngineError, EngineOptions};

/// # Errors
/// Larger or deeper than the options say. `field` is where it came in.
pub(super) fn check(
    field: &'static str,
    schema: &Value,
    options: &EngineOptions,
) -> Result<(), EngineError> {
    let refused = |problem| Err(EngineError::Schema { field, problem });
    if !schema.is_object() {
        return refused("the schema must be an object");
    }
    if !within(schema, options.max_schema_depth) {
        return refused("the schema nests too deeply");
    }
    if bytes(schema) > options.max_schema_bytes {
        return refused("the schema is too large");
    }
    Ok(())
}

/// As JSON.
pub(super) fn bytes(value: &Value) -> usize {
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}

fn within(value: &Value, depth: usize) -> bool {
    let Some(below) = depth.checked_sub(1) else {
        return !value.is_object() && !value.is_array();
    };
    match value {
        Value::Object(fields) => fields.values().all(|field| within(field, below)),
        Value::Array(items) => items.iter().all(|item| within(item, below)),
        _ => true,
    }
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0 += piece.len();
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
