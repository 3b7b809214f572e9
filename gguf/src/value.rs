use std::io::Read;

use super::reader::Reader;
use super::{Keep, MAX_KEPT, MAX_SHORT, MAX_STRING, Problem, types};

/// A value of metadata, without the width that it has in the file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
}

/// Reads the value of `key`, and returns it if it is to be kept.
pub(super) fn read<R: Read>(
    reader: &mut Reader<R>,
    key: &str,
    kind: u32,
    keep: Keep,
) -> Result<Option<Value>, Problem> {
    match kind {
        types::STRING => text(reader, key, keep),
        types::ARRAY => array(reader, key, keep),
        _ => scalar(reader, key, kind).map(|value| match keep {
            Keep::Nothing => None,
            Keep::Short | Keep::All => Some(value),
        }),
    }
}

fn text<R: Read>(reader: &mut Reader<R>, key: &str, keep: Keep) -> Result<Option<Value>, Problem> {
    let text = match keep {
        Keep::Nothing => {
            reader.skip_string("string", MAX_STRING)?;
            None
        }
        Keep::Short => String::from_utf8(reader.string("string", MAX_STRING)?)
            .ok()
            .filter(|text| text.len() <= MAX_SHORT),
        Keep::All => Some(utf8(reader, key)?),
    };
    Ok(text.map(Value::Text))
}

fn utf8<R: Read>(reader: &mut Reader<R>, key: &str) -> Result<String, Problem> {
    String::from_utf8(reader.string("string", MAX_STRING)?)
        .map_err(|_bytes| Problem::NotUtf8 { key: key.into() })
}

fn scalar<R: Read>(reader: &mut Reader<R>, key: &str, kind: u32) -> Result<Value, Problem> {
    Ok(match kind {
        types::U8 => Value::Unsigned(u8::from_le_bytes(reader.bytes()?).into()),
        types::I8 => Value::Signed(i8::from_le_bytes(reader.bytes()?).into()),
        types::U16 => Value::Unsigned(u16::from_le_bytes(reader.bytes()?).into()),
        types::I16 => Value::Signed(i16::from_le_bytes(reader.bytes()?).into()),
        types::U32 => Value::Unsigned(reader.u32()?.into()),
        types::I32 => Value::Signed(i32::from_le_bytes(reader.bytes()?).into()),
        types::F32 => Value::Float(f32::from_le_bytes(reader.bytes()?).into()),
        types::U64 => Value::Unsigned(reader.u64()?),
        types::I64 => Value::Signed(i64::from_le_bytes(reader.bytes()?)),
        types::F64 => Value::Float(f64::from_le_bytes(reader.bytes()?)),
        types::BOOL => match reader.bytes()? {
            [bit @ (0 | 1)] => Value::Bool(bit == 1),
            _ => return Err(Problem::Bool { key: key.into() }),
        },
        found => {
            return Err(Problem::ValueType {
                key: key.into(),
                found,
            });
        }
    })
}

/// Arrays in arrays are in no published file, and ggml's own reader knows none.
fn array<R: Read>(reader: &mut Reader<R>, key: &str, keep: Keep) -> Result<Option<Value>, Problem> {
    let kind = reader.u32()?;
    let len = reader.u64()?;
    if keep == Keep::All && len > MAX_KEPT {
        return Err(Problem::Count {
            what: "values of an array",
            claimed: len,
            max: MAX_KEPT,
        });
    }
    match (kind, keep) {
        (types::STRING, Keep::All) => {
            let texts = (0..len).map(|_| utf8(reader, key));
            Ok(Some(Value::Texts(texts.collect::<Result<_, _>>()?)))
        }
        (types::STRING, _) => {
            // Each takes eight bytes at least, so a count that lies ends with the header.
            for _ in 0..len {
                reader.skip_string("string", MAX_STRING)?;
            }
            Ok(None)
        }
        (_, Keep::All) => numbers(reader, key, kind, len).map(Some),
        _ => {
            let size = types::scalar_size(kind).ok_or_else(|| Problem::ValueType {
                key: key.into(),
                found: kind,
            })?;
            reader.skip(len.checked_mul(size).ok_or(Problem::HeaderLength)?)?;
            Ok(None)
        }
    }
}

/// No room is made before a value is there.
fn numbers<R: Read>(
    reader: &mut Reader<R>,
    key: &str,
    kind: u32,
    len: u64,
) -> Result<Value, Problem> {
    let (mut integers, mut floats, mut bools) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..len {
        match scalar(reader, key, kind)? {
            Value::Unsigned(number) => {
                let number =
                    i64::try_from(number).map_err(|_wide| Problem::Number { key: key.into() })?;
                integers.push(number);
            }
            Value::Signed(number) => integers.push(number),
            Value::Float(number) => floats.push(number),
            Value::Bool(bit) => bools.push(bit),
            _ => {}
        }
    }
    match kind {
        types::F32 | types::F64 => Ok(Value::Floats(floats)),
        types::BOOL => Ok(Value::Bools(bools)),
        _ if types::scalar_size(kind).is_some() => Ok(Value::Integers(integers)),
        found => Err(Problem::ValueType {
            key: key.into(),
            found,
        }),
    }
}
