//! What a reply brings: however it is cut into pieces, the same is learnt, and what the journal keeps of it is read back.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use holdpoint::call::{Confidentiality, Integrity, RecordId, Returns};
use holdpoint::classify::catalog::Reply;
use holdpoint::flow::learn::{Echo, Form, Learner, Source};
use holdpoint::flow::lineage::Learnt;
use holdpoint::flow::text::FlowKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte says of what form it is and how confidential, the second how many of the next are cuts.
    let [kind, cuts, rest @ ..] = data else { return };
    let form = [Form::Text, Form::Json, Form::Mcp][usize::from(*kind % 3)];
    let level = [Confidentiality::Public, Confidentiality::Internal, Confidentiality::Secret]
        [usize::from(*kind / 3 % 3)];
    let (cuts, mut body) = rest.split_at(usize::from(*cuts % 16).min(rest.len()));
    let mut whole = Learner::new(source(level), form);
    let whole = together(vec![whole.feed(body), whole.finish()]);
    let mut learner = Learner::new(source(level), form);
    let mut parts = Vec::new();
    for cut in cuts {
        let (piece, more) = body.split_at(usize::from(*cut).min(body.len()));
        parts.push(learner.feed(piece));
        body = more;
    }
    parts.push(learner.feed(body));
    parts.push(learner.finish());
    for part in &parts {
        assert_eq!(
            Learnt::decode(&part.encode()).as_ref(),
            Some(part),
            "what is kept is not what was learnt"
        );
    }
    assert_eq!(together(parts), whole, "cuts change what is learnt");
    let _ = Learnt::decode(rest);
});

fn source(confidentiality: Confidentiality) -> Source {
    static KEY: OnceLock<Arc<FlowKey>> = OnceLock::new();
    let labels = Returns { confidentiality, integrity: Integrity::Mixed };
    Source {
        key: Arc::clone(KEY.get_or_init(|| Arc::new(FlowKey::new(&[9; 32])))),
        reply: RecordId::from_u128(7),
        upstream: Arc::from("mail"),
        tool: Arc::from("read"),
        host: None,
        returns: Arc::new(Reply { labels, ..Reply::default() }),
        parties: Vec::new(),
        echo: Echo::default(),
    }
}

/// All that several parts of one reply bring together, whatever the parts were.
fn together(parts: Vec<Learnt>) -> (bool, BTreeMap<(u32, Confidentiality), BTreeSet<u64>>) {
    let mut unknown = false;
    let mut whole: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
    for part in parts {
        unknown |= part.unknown;
        for fragment in part.fragments {
            let all = whole.entry((fragment.number, fragment.confidentiality)).or_default();
            all.extend(fragment.grams.into_iter().map(u64::from).chain(fragment.tokens).chain(fragment.ids));
        }
        let said = part.planted.into_iter().chain(part.words.into_iter().map(u64::from)).chain(part.urls);
        whole.entry((u32::MAX, Confidentiality::Public)).or_default().extend(said);
    }
    (unknown, whole)
}
