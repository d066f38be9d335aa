//! Datatypes of the Open Inference Protocol and plain tensors: little-endian bytes with a shape.

use bytes::Bytes;

/// What one element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    /// Every datatype with its name in the protocol.
    const NAMES: [(Self, &'static str); 13] = [
        (Self::Bool, "BOOL"),
        (Self::Uint8, "UINT8"),
        (Self::Uint16, "UINT16"),
        (Self::Uint32, "UINT32"),
        (Self::Uint64, "UINT64"),
        (Self::Int8, "INT8"),
        (Self::Int16, "INT16"),
        (Self::Int32, "INT32"),
        (Self::Int64, "INT64"),
        (Self::Fp16, "FP16"),
        (Self::Fp32, "FP32"),
        (Self::Fp64, "FP64"),
        (Self::Bytes, "BYTES"),
    ];

    /// By its name in the protocol.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(datatype, _)| *datatype)
    }

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(datatype, _)| *datatype == self).map_or("", |(_, name)| name)
    }

    /// Bytes of one element; none where elements differ.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

/// A tensor of a known input: its place in the model's list gives name and datatype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub shape: Vec<i64>,
    /// Row-major, little-endian; BYTES elements are each led by a length of four bytes.
    pub data: Bytes,
}

/// A tensor that a model gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub datatype: Datatype,
    pub shape: Vec<i64>,
    pub data: Bytes,
}

/// The number of elements of a shape; nothing if a dimension is negative or the product is beyond reason.
pub fn elements(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, dim| n.checked_mul(usize::try_from(*dim).ok()?))
}

/// The elements of BYTES data. Each is led by its length; nothing if the lengths do not add up.
pub fn split_bytes(data: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = data;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (element, tail) = tail.split_at_checked(len)?;
        found.push(element);
        rest = tail;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_is_found_by_its_name() {
        for (datatype, name) in Datatype::NAMES {
            assert_eq!((Datatype::parse(name), datatype.name()), (Some(datatype), name));
        }
        assert_eq!(Datatype::parse("FP8"), None);
    }

    #[test]
    fn a_shape_beyond_reason_has_no_count() {
        assert_eq!(elements(&[2, 3]), Some(6));
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[-1, 3]), None);
        assert_eq!(elements(&[i64::MAX, i64::MAX]), None);
    }

    #[test]
    fn bytes_elements_are_split_by_their_lengths() {
        assert_eq!(split_bytes(&[2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]), Some(vec![&b"ab"[..], &b""[..]]));
        assert_eq!(split_bytes(&[9, 0, 0, 0, b'a']), None);
        assert_eq!(split_bytes(&[1, 0]), None);
    }
}
