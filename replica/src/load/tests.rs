//! Models are built from ONNX's own messages, so that each file is wrong in exactly one way.

use std::path::PathBuf;

use prost::Message;
use tempfile::TempDir;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

use super::*;

enum Dim {
    Fixed(i64),
    Named(&'static str),
    Unnamed,
}

fn value(name: &str, datatype: DataType, dims: &[Dim]) -> ValueInfoProto {
    let dim = |dim: &Dim| {
        let value = match dim {
            Dim::Fixed(size) => Some(dimension::Value::DimValue(*size)),
            Dim::Named(name) => Some(dimension::Value::DimParam((*name).to_owned())),
            Dim::Unnamed => None,
        };
        Dimension { value, ..Default::default() }
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: datatype.into(), shape };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(kind), ..Default::default() }
}

fn one_node(op_type: &str, domain: &str, input: ValueInfoProto, output: ValueInfoProto) -> ModelProto {
    let node = NodeProto {
        input: vec![input.name.clone()],
        output: vec![output.name.clone()],
        name: "node".to_owned(),
        op_type: op_type.to_owned(),
        domain: domain.to_owned(),
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(GraphProto {
            node: vec![node],
            name: "g".to_owned(),
            input: vec![input],
            output: vec![output],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn relu(dims: &[Dim]) -> ModelProto {
    one_node("Relu", "", value("x", DataType::Float, dims), value("y", DataType::Float, dims))
}

fn saved(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn load_bytes(bytes: &[u8]) -> Result<Model, LoadError> {
    let (_folder, path) = saved(bytes);
    load(&path)
}

#[test]
fn digits_has_its_named_tensors_and_answers_probabilities_at_any_batch_size() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tide/models/digits.onnx");
    let model = load(&path).unwrap();
    let info = model.signature.info();
    assert!(info.is_batched());
    assert_eq!((info.inputs[0].name.as_str(), info.inputs[0].datatype.as_str()), ("image", "FP32"));
    assert_eq!((info.inputs[0].shape.as_slice(), info.outputs[0].shape.as_slice()), ([-1, 64].as_slice(), [-1, 10].as_slice()));
    assert_eq!(info.outputs[0].name, "probabilities");
    for rows in [1, 7, 32] {
        let outputs = model.run(vec![Tensor::zero::<f32>(&[rows, 64]).unwrap()]).unwrap();
        assert_eq!(outputs[0].shape(), [rows, 10]);
        let sums = outputs[0].to_plain_array_view::<f32>().unwrap();
        for row in sums.rows() {
            assert!((row.sum() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn unnamed_dimensions_are_free_and_the_first_is_the_batch() {
    let model = load_bytes(&relu(&[Dim::Unnamed, Dim::Unnamed]).encode_to_vec()).unwrap();
    assert!(model.signature.batched);
    assert_eq!(model.signature.info().outputs[0].shape, [-1, -1]);
    for shape in [[1, 3], [4, 2]] {
        let outputs = model.run(vec![Tensor::zero::<f32>(&shape).unwrap()]).unwrap();
        assert_eq!(outputs[0].shape(), shape);
    }
}

#[test]
fn a_fixed_first_dimension_is_served_at_its_shape() {
    let model = load_bytes(&relu(&[Dim::Fixed(1), Dim::Named("n")]).encode_to_vec()).unwrap();
    assert!(!model.signature.batched);
    let info = model.signature.info();
    assert_eq!((info.inputs[0].shape.as_slice(), info.inputs[0].batched), ([1, -1].as_slice(), false));
}

#[test]
fn a_missing_file_and_a_folder_are_refused_by_path() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("none.onnx"), folder.path().to_owned()] {
        let error = load(&path).unwrap_err();
        assert!(matches!(error, LoadError::Read { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()));
    }
}

#[test]
fn what_is_not_onnx_is_refused() {
    for bytes in [b"".as_slice(), b"hello, I am a text\n", b"\x80\x02}q\x00.", &[0; 4096], &[0xff; 64]] {
        let error = load_bytes(bytes).unwrap_err();
        assert!(matches!(error, LoadError::NotOnnx { .. }), "{error}");
    }
}

#[test]
fn a_truncated_model_is_refused() {
    let whole = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tide/models/digits.onnx")).unwrap();
    for part in [10, 100, 1000, whole.len() - 1] {
        let error = load_bytes(&whole[..part]).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn operators_that_tract_lacks_are_named_with_their_domain() {
    let dims = [Dim::Named("n")];
    let model = one_node("FusedMoonMul", "com.example", value("x", DataType::Float, &dims), value("y", DataType::Float, &dims));
    let error = load_bytes(&model.encode_to_vec()).unwrap_err();
    assert!(error.to_string().contains("com.example.FusedMoonMul"), "{error}");
    assert!(error.to_string().contains("tract lacks"), "{error}");
}

#[test]
fn a_map_output_is_refused_with_the_way_out() {
    let dims = [Dim::Named("n"), Dim::Fixed(3)];
    let mut output = value("probabilities", DataType::Float, &dims);
    // tract's messages know tensors only: a sequence of maps reads as a type without a value.
    output.r#type = Some(TypeProto::default());
    let error =
        load_bytes(&one_node("ZipMap", "ai.onnx.ml", value("x", DataType::Float, &dims), output).encode_to_vec()).unwrap_err();
    assert!(matches!(error, LoadError::NotTensor { .. }), "{error}");
    assert!(error.to_string().contains("zipmap"), "{error}");
}

#[test]
fn strings_are_refused_by_tensor() {
    let dims = [Dim::Named("n")];
    let model = one_node("Identity", "", value("words", DataType::String, &dims), value("y", DataType::String, &dims));
    let error = load_bytes(&model.encode_to_vec()).unwrap_err();
    assert!(error.to_string().contains("`words`"), "{error}");
}

#[test]
fn a_graph_that_names_an_output_nobody_makes_is_refused_without_a_panic() {
    let mut model = relu(&[Dim::Named("n")]);
    model.graph.as_mut().unwrap().output[0].name = "nobody".to_owned();
    let error = load_bytes(&model.encode_to_vec()).unwrap_err();
    assert!(matches!(error, LoadError::Prepare { .. }), "{error}");
}
