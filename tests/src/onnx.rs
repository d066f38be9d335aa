//! Writes a small ONNX file: one operator from input `x` to output `y`, both FP32 `[batch,4]`.
//!
//! A few protobuf fields by hand, so that a test can ask for any operator without Python. The field numbers are
//! those of onnx.proto3 (`ModelProto`, `GraphProto`, `NodeProto`, `ValueInfoProto`).

const VARINT: u8 = 0;
const BYTES: u8 = 2;
const FLOAT: u64 = 1;
const WIDTH: u64 = 4;

/// A model of the one operator `kind` of the default domain, opset 17.
pub fn model_of(kind: &str) -> Vec<u8> {
    let node = [text(1, "x"), text(2, "y"), text(3, "only"), text(4, kind)].concat();
    let graph = [message(1, &node), text(2, "graph"), message(11, &tensor("x")), message(12, &tensor("y"))].concat();
    let opset = [text(1, ""), number(2, 17)].concat();
    [number(1, 9), message(7, &graph), message(8, &opset)].concat()
}

fn tensor(name: &str) -> Vec<u8> {
    let shape = [message(1, &text(2, "batch")), message(1, &number(1, WIDTH))].concat();
    let kind = message(1, &[number(1, FLOAT), message(2, &shape)].concat());
    [text(1, name), message(2, &kind)].concat()
}

fn text(field: u8, value: &str) -> Vec<u8> {
    message(field, value.as_bytes())
}

fn message(field: u8, body: &[u8]) -> Vec<u8> {
    let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
    [vec![field << 3 | BYTES], varint(length), body.to_vec()].concat()
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3 | VARINT], varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::prelude::*;

    fn load(kind: &str) -> TractResult<()> {
        let model = tract_onnx::onnx().model_for_read(&mut model_of(kind).as_slice())?;
        model.into_typed()?.into_optimized()?;
        Ok(())
    }

    #[test]
    fn an_operator_that_exists_loads_and_one_that_does_not_is_named() {
        load("Relu").unwrap();
        assert!(format!("{:?}", load("NoSuchOperator").unwrap_err()).contains("NoSuchOperator"));
    }
}
