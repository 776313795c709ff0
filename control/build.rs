//! Compiles the protocol with protox, so that no protoc is needed; keeps the descriptors for reflection and the lock.

const PROTO: &str = "proto/podwire/v1/podwire.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    #[cfg(feature = "proto")]
    compile()?;
    Ok(())
}

#[cfg(feature = "proto")]
fn compile() -> Result<(), Box<dyn std::error::Error>> {
    use prost::Message;

    let descriptors = protox::compile([PROTO], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("podwire.v1.descriptors"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(cfg!(feature = "client"))
        .build_server(cfg!(feature = "server"))
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
