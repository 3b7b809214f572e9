//! Compiles the part of SPIRE's API that we call, without `protoc`: a fresh machine has none.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let service = |name: &str| format!("spire/api/server/{name}/v1/{name}.proto");
    let files = ["agent", "bundle", "entry", "svid"].map(service);
    tonic_prost_build::configure()
        .include_file("spire.rs")
        .compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}
