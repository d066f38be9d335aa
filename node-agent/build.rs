//! Compiles the kubelet's API without `protoc`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["podresources.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
