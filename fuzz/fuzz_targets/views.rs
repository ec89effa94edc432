//! What leaves: no text breaks the views of it or makes them grow without bound, and examining it ends.
#![no_main]

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use holdpoint::call::Class;
use holdpoint::classify::sink::{Internal, SinkKind};
use holdpoint::flow::canary::Canaries;
use holdpoint::flow::finding::{Aim, Outgoing, Remembered, Standing, examine};
use holdpoint::flow::history::History;
use holdpoint::flow::lineage::Memory;
use holdpoint::flow::text::FlowKey;
use holdpoint::flow::view;
use libfuzzer_sys::fuzz_target;

const WINDOW: Duration = Duration::from_secs(1800);

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (mut count, mut bytes) = (0, 0);
    view::each(&text, &mut |view| {
        count += 1;
        bytes += view.len();
    });
    // Itself, and at most four encodings of it, each with four of its own, but for what is compressed.
    assert!(count <= 64 && bytes <= 25 * text.len().max(64) + (1 << 20), "{count} views of {bytes} bytes");

    static KEY: OnceLock<Arc<FlowKey>> = OnceLock::new();
    let key = KEY.get_or_init(|| Arc::new(FlowKey::new(&[9; 32])));
    let (to, said) = text.split_once('\n').unwrap_or((&text, ""));
    let (memory, history, canaries) = (Memory::new(WINDOW), History::default(), Canaries::default());
    let own = [&memory];
    let remembered =
        Remembered { own: &own, joined: &[], secrets: &[], history: &history, canaries: &canaries };
    let internal = Internal::default();
    for kind in [SinkKind::Message, SinkKind::Http] {
        let outgoing = Outgoing {
            class: Class::External,
            host: None,
            internal: &internal,
            aims: vec![Aim { kind, text: to.into(), standing: Standing::Nothing }],
            payload: vec![said.into()],
            refs: Vec::new(),
            others: Vec::new(),
            consequential: Vec::new(),
            digest: 1,
        };
        examine(
            key,
            WINDOW,
            remembered,
            &outgoing,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        );
    }
});
