//! Tensors of the Open Inference Protocol to tract's and back. Little-endian, row-major, as the protocol says.

use bytes::Bytes;
use tidegate_api::inference::InferTensorContents;
use tract_onnx::prelude::{DatumType, Tensor, TractResult};

#[cfg(target_endian = "big")]
compile_error!("raw tensors are little-endian and are copied as they are");

/// Protocol name, tract type, and bytes of one element.
const DATATYPES: [(&str, DatumType, usize); 12] = [
    ("BOOL", DatumType::Bool, 1),
    ("UINT8", DatumType::U8, 1),
    ("UINT16", DatumType::U16, 2),
    ("UINT32", DatumType::U32, 4),
    ("UINT64", DatumType::U64, 8),
    ("INT8", DatumType::I8, 1),
    ("INT16", DatumType::I16, 2),
    ("INT32", DatumType::I32, 4),
    ("INT64", DatumType::I64, 8),
    ("FP16", DatumType::F16, 2),
    ("FP32", DatumType::F32, 4),
    ("FP64", DatumType::F64, 8),
];

/// The protocol's name of a type; `None` for a type that is not served, for instance strings.
/// Dimensions computed inside a model leave it as INT64.
pub(crate) fn datatype(datum: DatumType) -> Option<&'static str> {
    let datum = if datum == DatumType::TDim { DatumType::I64 } else { datum };
    DATATYPES.iter().find(|(_, known, _)| *known == datum).map(|(name, ..)| *name)
}

/// Where an input's elements are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Elements<'a> {
    Raw(&'a [u8]),
    Typed(&'a InferTensorContents),
}

/// An input tensor.
///
/// # Errors
/// What is wrong with the elements, as the end of a sentence that begins with the input's name.
pub(crate) fn decode(datum: DatumType, shape: &[usize], elements: Elements) -> Result<Tensor, String> {
    let count = shape.iter().try_fold(1_usize, |product, n| product.checked_mul(*n)).ok_or("has a shape that overflows")?;
    match elements {
        Elements::Raw(bytes) => from_raw(datum, shape, count, bytes),
        Elements::Typed(contents) => from_contents(datum, shape, count, contents),
    }
}

fn from_raw(datum: DatumType, shape: &[usize], count: usize, bytes: &[u8]) -> Result<Tensor, String> {
    let (_, _, size) = DATATYPES.iter().find(|(_, known, _)| *known == datum).ok_or("has a datatype that is not served")?;
    if count.checked_mul(*size) != Some(bytes.len()) {
        return Err(format!("has {} bytes, but its shape and datatype need {}", bytes.len(), count.saturating_mul(*size)));
    }
    let mut tensor = Tensor::zero_dt(datum, shape).map_err(|e| format!("cannot be held: {e}"))?;
    if datum == DatumType::Bool {
        // Any byte but 0 and 1 would be undefined behaviour in a bool.
        let whole: Vec<u8> = bytes.iter().map(|byte| u8::from(*byte != 0)).collect();
        tensor.as_bytes_mut().copy_from_slice(&whole);
    } else {
        tensor.as_bytes_mut().copy_from_slice(bytes);
    }
    Ok(tensor)
}

fn from_contents(datum: DatumType, shape: &[usize], count: usize, contents: &InferTensorContents) -> Result<Tensor, String> {
    let c = contents;
    let expect = |found: usize, field: &str| {
        if found == count { Ok(()) } else { Err(format!("has {found} elements in `{field}`, but its shape needs {count}")) }
    };
    match datum {
        DatumType::Bool => expect(c.bool_contents.len(), "bool_contents")?,
        DatumType::I8 | DatumType::I16 | DatumType::I32 => expect(c.int_contents.len(), "int_contents")?,
        DatumType::I64 => expect(c.int64_contents.len(), "int64_contents")?,
        DatumType::U8 | DatumType::U16 | DatumType::U32 => expect(c.uint_contents.len(), "uint_contents")?,
        DatumType::U64 => expect(c.uint64_contents.len(), "uint64_contents")?,
        DatumType::F32 => expect(c.fp32_contents.len(), "fp32_contents")?,
        DatumType::F64 => expect(c.fp64_contents.len(), "fp64_contents")?,
        _ => return Err("has a datatype that only `raw_input_contents` can carry".to_owned()),
    }
    let made = match datum {
        DatumType::Bool => Tensor::from_shape(shape, &c.bool_contents),
        DatumType::I8 => Tensor::from_shape(shape, &narrowed::<_, i8>(&c.int_contents)?),
        DatumType::I16 => Tensor::from_shape(shape, &narrowed::<_, i16>(&c.int_contents)?),
        DatumType::I32 => Tensor::from_shape(shape, &c.int_contents),
        DatumType::I64 => Tensor::from_shape(shape, &c.int64_contents),
        DatumType::U8 => Tensor::from_shape(shape, &narrowed::<_, u8>(&c.uint_contents)?),
        DatumType::U16 => Tensor::from_shape(shape, &narrowed::<_, u16>(&c.uint_contents)?),
        DatumType::U32 => Tensor::from_shape(shape, &c.uint_contents),
        DatumType::U64 => Tensor::from_shape(shape, &c.uint64_contents),
        DatumType::F64 => Tensor::from_shape(shape, &c.fp64_contents),
        _ => Tensor::from_shape(shape, &c.fp32_contents),
    };
    made.map_err(|e| format!("cannot be held: {e}"))
}

/// The protocol carries small integers in wider fields.
fn narrowed<W: Copy + std::fmt::Display, N: TryFrom<W>>(wide: &[W]) -> Result<Vec<N>, String> {
    wide.iter()
        .map(|&value| N::try_from(value).map_err(|_| format!("has the element {value}, which its datatype cannot hold")))
        .collect()
}

/// An output tensor as the protocol's raw bytes.
pub(crate) fn encode(tensor: &Tensor) -> TractResult<Bytes> {
    if tensor.datum_type() == DatumType::TDim {
        let numbers = tensor.cast_to::<i64>()?;
        return Ok(Bytes::copy_from_slice(numbers.as_bytes()));
    }
    Ok(Bytes::copy_from_slice(tensor.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_and_typed_elements_give_the_same_tensor_and_come_back_as_the_same_bytes() {
        let values = [1.5_f32, -2.0, 0.25, 8.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let raw = decode(DatumType::F32, &[2, 2], Elements::Raw(&bytes)).unwrap();
        let contents = InferTensorContents { fp32_contents: values.to_vec(), ..Default::default() };
        let typed = decode(DatumType::F32, &[2, 2], Elements::Typed(&contents)).unwrap();
        assert_eq!(raw, typed);
        assert_eq!(encode(&raw).unwrap(), bytes);
    }

    #[test]
    fn every_datatype_is_read_raw() {
        for (name, datum, size) in DATATYPES {
            let bytes = vec![1_u8; 3 * size];
            let tensor = decode(datum, &[3], Elements::Raw(&bytes)).unwrap();
            assert_eq!(datatype(tensor.datum_type()), Some(name));
            assert_eq!(encode(&tensor).unwrap(), bytes, "{name}");
        }
    }

    #[test]
    fn wrong_lengths_are_refused_with_both_figures() {
        let error = decode(DatumType::F32, &[2, 2], Elements::Raw(&[0; 15])).unwrap_err();
        assert_eq!(error, "has 15 bytes, but its shape and datatype need 16");
        let contents = InferTensorContents { int64_contents: vec![1], ..Default::default() };
        let error = decode(DatumType::I64, &[2], Elements::Typed(&contents)).unwrap_err();
        assert_eq!(error, "has 1 elements in `int64_contents`, but its shape needs 2");
    }

    #[test]
    fn a_shape_whose_size_overflows_is_refused() {
        assert!(decode(DatumType::F32, &[usize::MAX, 2], Elements::Raw(&[])).is_err());
        assert!(decode(DatumType::F64, &[usize::MAX / 4], Elements::Raw(&[])).is_err());
    }

    #[test]
    fn an_integer_that_does_not_fit_is_refused_by_value() {
        let contents = InferTensorContents { int_contents: vec![1, 300], ..Default::default() };
        let error = decode(DatumType::I8, &[2], Elements::Typed(&contents)).unwrap_err();
        assert_eq!(error, "has the element 300, which its datatype cannot hold");
    }

    #[test]
    fn any_byte_but_zero_is_true_in_a_bool() {
        let tensor = decode(DatumType::Bool, &[3], Elements::Raw(&[0, 1, 255])).unwrap();
        assert_eq!(encode(&tensor).unwrap(), [0, 1, 1].as_slice());
    }
}
