//! Compiles the wire types without `protoc`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["control.proto", "inference.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
