//! `holdpoint check`: which configured tools together make a path to the outside, and which rule covers it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::world::World;

fn check(file: &Path) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
    let output = command.args(["--json", "check", "--config"]).arg(file).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test]
async fn every_path_to_the_outside_is_shown_with_the_rule_that_covers_it() {
    let world = World::prepared("{}").await;
    let file = world.config();
    let told = check(&file);
    let text = |names: &Value| names.to_string();
    assert!(text(&told["paths"]["confidential_sources"]).contains("drive/read_drive"), "{told:#}");
    assert!(text(&told["paths"]["untrusted_sources"]).contains("mail/read_inbox"));
    let sinks = told["paths"]["sinks"].as_array().unwrap();
    let mail = sinks.iter().find(|sink| sink["sink"] == "mail/send_email").unwrap();
    assert_eq!(mail["confidential"], "hold (hold-flow)", "{mail:#}");
    assert!(mail["both"].as_str().unwrap().starts_with("deny (deny-planted-lineage"), "{mail:#}");
    assert!(mail["secret"].as_str().unwrap().starts_with("deny (deny-secret-lineage"), "{mail:#}");
    assert!(sinks.iter().all(|sink| sink["sink"] != "drive/read_drive"), "a read inside leads nowhere");
    assert!(!told["warnings"].to_string().contains("no rule covers"), "{told:#}");

    // Without the rules of flow control each path is a warning.
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let fewer = world.dir.join("policies");
    std::fs::create_dir(&fewer).unwrap();
    for entry in std::fs::read_dir(&policies).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("flow") {
            std::fs::copy(&path, fewer.join(name)).unwrap();
        }
    }
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace(policies.to_str().unwrap(), fewer.to_str().unwrap())).unwrap();
    let told = check(&file);
    let warning = "no rule covers what is confidential on its way to mail/send_email";
    assert!(told["warnings"].to_string().contains(warning), "{told:#}");
}
