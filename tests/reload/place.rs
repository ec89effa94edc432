//! What these stories do to a gateway's directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake::Fake;
use crate::harness::World;

/// The usual gateway, with policies of its own that can be changed.
pub async fn world(extra: &str) -> World {
    world_of(Fake::polite().await, extra).await
}

/// The same with this upstream.
pub async fn world_of(odd: Fake, extra: &str) -> World {
    let world = World::odd(odd, "", extra).await;
    let policies = world.dir.join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for entry in std::fs::read_dir(&shipped).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|end| end == "cedar") {
            std::fs::copy(&entry, policies.join(entry.file_name().unwrap())).unwrap();
        }
    }
    edit(&world, "holdpoint.yaml", |text| text.replace(&shipped.display().to_string(), "policies"));
    reload(&world).await;
    world
}

/// Changes a file of the gateway's directory.
pub fn edit(world: &World, file: &str, change: impl FnOnce(&str) -> String) {
    let path = world.dir.join(file);
    let before = std::fs::read_to_string(&path).unwrap();
    let after = change(&before);
    assert_ne!(before, after, "{file} is to be changed");
    std::fs::write(&path, after).unwrap();
}

/// Asks for the configuration to be read anew; it is good. Gives the number of the generation.
pub async fn reload(world: &World) -> u64 {
    match world.running.as_ref().unwrap().reload().now().await {
        Ok(number) => number,
        Err(mistakes) => panic!("{mistakes:#?}"),
    }
}

/// The number of the generation in force.
pub fn generation(world: &World) -> u64 {
    world.running.as_ref().unwrap().gateway().in_force.load().number
}

/// What is told of each generation in the audit; of a gateway that runs here, once the one in force is. That is written
/// after it is, by a thread of its own.
pub fn generations(world: &World) -> Vec<Value> {
    let (end, here) = (Instant::now() + Duration::from_secs(5), world.running.is_some());
    loop {
        let all = world.records().into_iter();
        let told: Vec<Value> = all.filter(|record| record["what"] == "generation").collect();
        let in_force = |record: &Value| record["generation"] == generation(world);
        if !here || told.iter().any(in_force) || Instant::now() > end {
            return told;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A figure of the metrics.
pub async fn metric(world: &World, name: &str) -> f64 {
    let page = world.page("/metrics").await;
    let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {page}"))
}

/// What `/readyz` says.
pub async fn ready(world: &World) -> Value {
    let page = world.page("/readyz").await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    serde_json::from_str(page.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

/// Writes a file as careful programs do: aside, and then in the place of the other.
pub fn replace(path: &PathBuf, text: impl AsRef<[u8]>) {
    let aside = path.with_extension("new");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(&aside, path).unwrap();
}
