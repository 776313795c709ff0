//! Compiles the protocol with protox, so that no protoc is needed; keeps the descriptors for reflection and the lock.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTO: &str = "proto/podwire/v1/podwire.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    if std::env::var_os("CARGO_FEATURE_PROTO").is_none() {
        return Ok(());
    }
    let has = |feature| std::env::var_os(feature).is_some();
    let descriptors = protox::compile([PROTO], ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("podwire.v1.descriptors"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(has("CARGO_FEATURE_CLIENT"))
        .build_server(has("CARGO_FEATURE_SERVER"))
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
