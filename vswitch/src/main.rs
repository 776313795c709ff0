//! podwired, the node daemon.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    podwire_vswitch::daemon::main()
}
