//! What is installed fits what podwired looks for: the unit's paths, the example configuration, the Makefile, the package.

use std::path::Path;

use podwire_tests::binary::workspace;
use podwire_vswitch::daemon::config::{Config, DEFAULT_PATH};
use podwire_vswitch::limits::PORTS_MAX;

fn text(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The example with the lines that an operator has to fill in.
fn filled_in() -> Config {
    let example = text("packaging/podwired.toml").replace("#name =", "name =").replace("#pod_cidrs =", "pod_cidrs =");
    Config::parse(Path::new("packaging/podwired.toml"), &example)
        .expect("the example is a configuration once it is filled in")
}

#[test]
fn the_unit_serves_the_defaults_of_the_configuration() {
    let (unit, config) = (text("packaging/podwired.service"), filled_in());
    let run = config.control.socket.parent().and_then(|dir| dir.strip_prefix("/run").ok()).expect("below /run");
    let state = config.control.state_dir.strip_prefix("/var/lib").expect("below /var/lib");
    for line in [
        format!("ExecStart=/usr/bin/podwired --config {DEFAULT_PATH}"),
        format!("RuntimeDirectory={}", run.display()),
        format!("StateDirectory={}", state.display()),
        format!("FileDescriptorStoreMax={PORTS_MAX}"),
    ] {
        assert!(unit.lines().any(|other| other == line), "{line} is missing in the unit");
    }
}

#[test]
fn the_example_is_complete_but_for_what_only_the_operator_knows() {
    let refused =
        Config::parse(Path::new("packaging/podwired.toml"), &text("packaging/podwired.toml")).unwrap_err().to_string();
    assert!(refused.contains("node.name") && refused.contains("node.pod_cidrs"), "{refused}");
    let all = text("packaging/podwired.toml").replace("\n#", "\n");
    let whole: Vec<&str> = all.lines().filter(|line| line.starts_with('[') || line.contains(" = ")).collect();
    Config::parse(Path::new("packaging/podwired.toml"), &whole.join("\n")).expect("what is commented out is right too");
}

#[test]
fn makefile_and_package_install_the_same() {
    let (makefile, package) = (text("Makefile"), text("vswitch/Cargo.toml"));
    assert!(makefile.lines().any(|line| line == format!("CONFIG := {DEFAULT_PATH}")), "CONFIG is {DEFAULT_PATH}");
    assert!(package.contains(&format!("conf-files = [\"{DEFAULT_PATH}\"]")), "it is a conffile");
    let programs = makefile.lines().find_map(|line| line.strip_prefix("PROGRAMS := ")).expect("PROGRAMS");
    for program in programs.split_whitespace() {
        assert!(package.contains(&format!("\"target/release/{program}\", \"usr/bin/\"")), "{program} is packaged");
    }
}
