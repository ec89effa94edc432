//! Flow control: however a reply is cut, the same is learnt from it and the same is found in what carries a piece of it,
//! whatever the piece is encoded in. Nothing that is looked at grows beyond its bounds.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use holdpoint::call::{Class, Confidentiality, Integrity, RecordId, Returns};
use holdpoint::classify::catalog::Reply;
use holdpoint::classify::sink::{Internal, SinkKind};
use holdpoint::classify::view::Pointer;
use holdpoint::flow::canary::Canaries;
use holdpoint::flow::finding::{Aim, FindingKind, Outgoing, Remembered, Standing, examine};
use holdpoint::flow::history::History;
use holdpoint::flow::learn::{Echo, Form, Learner, Source};
use holdpoint::flow::lineage::{Learnt, Memory};
use holdpoint::flow::text::FlowKey;
use holdpoint::flow::view;
use libfuzzer_sys::fuzz_target;

const WINDOW: Duration = Duration::from_secs(1800);
/// Small, so that it is full now and then.
const MEMORY_BYTES_MAX: usize = 16 << 10;
/// What a memory has beside what it counts before it takes something in.
const SLACK_BYTES: usize = 4 << 10;
/// What is told of one finding at most.
const EVIDENCE_MAX: usize = 16;

static KEY: LazyLock<Arc<FlowKey>> = LazyLock::new(|| Arc::new(FlowKey::new(&[9; 32])));

fuzz_target!(|data: &[u8]| {
    // How the reply is read, which piece of it leaves and how, and how many of the next bytes are cuts.
    let [reading, from, to, way, cuts, rest @ ..] = data else { return };
    let (cuts, reply) = rest.split_at(usize::from(*cuts % 16).min(rest.len()));
    let form = [Form::Json, Form::Mcp, Form::Text][usize::from(*reading % 3)];
    let source = source(*reading / 3);

    let whole = learn(&source, form, &[reply]);
    let cut = learn(&source, form, &chunks(reply, cuts));
    assert_eq!(together(&cut), together(&whole), "cuts change what is learnt");

    let (whole, cut) = (memory(&whole), memory(&cut));
    let text = String::from_utf8_lossy(reply);
    let leaves = encoded(piece(&text, *from, *to), *way);
    let found = found(&whole, &leaves);
    assert_eq!(self::found(&cut, &leaves), found, "cuts change what is found");
    if form == Form::Text && reply.is_ascii() && whole.is_confidential(now()) {
        let sure = learn(&source, form, &[reply]);
        let grams: BTreeSet<u32> =
            sure.iter().flat_map(|part| &part.fragments).flat_map(|one| one.grams.iter().copied()).collect();
        let found = self::found(&whole, &text);
        assert!(grams.len() < 2 || is_lineage(&found), "a whole reply leaves and is not found");
    }
    views(&leaves);
});

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A reply, by what the catalogue may say of it.
fn source(says: u8) -> Source {
    let pointers = |text: &str| vec![Pointer::parse(text).expect("a pointer")];
    let confidentiality =
        [Confidentiality::Internal, Confidentiality::Secret, Confidentiality::Public][usize::from(says % 3)];
    let integrity = [Integrity::Trusted, Integrity::Mixed, Integrity::Untrusted][usize::from(says / 3 % 3)];
    let described = says / 9 % 2 == 1;
    let labels = Returns { confidentiality, integrity };
    let returns = match described {
        false => Reply { labels, ..Reply::default() },
        true => Reply {
            labels,
            records: Some(Pointer::parse("/*").expect("a pointer")),
            parties: pointers("/from"),
            ids: pointers("/id"),
            untrusted: Some(pointers("/body")),
            known: pointers("/mail"),
        },
    };
    Source {
        key: Arc::clone(&KEY),
        reply: RecordId::from_u128(7),
        upstream: Arc::from("mail"),
        tool: Arc::from("read"),
        host: None,
        returns: Arc::new(returns),
        parties: Vec::new(),
        echo: Echo::default(),
    }
}

fn learn(source: &Source, form: Form, chunks: &[&[u8]]) -> Vec<Learnt> {
    let mut learner = Learner::new(source.clone(), form);
    let mut learnt: Vec<Learnt> = chunks.iter().map(|chunk| learner.feed(chunk)).collect();
    learnt.push(learner.finish());
    learnt
}

/// The stream in pieces, each as long as the next cut says, and the rest.
fn chunks<'s>(mut stream: &'s [u8], cuts: &[u8]) -> Vec<&'s [u8]> {
    let mut chunks = Vec::new();
    for cut in cuts {
        let (chunk, rest) = stream.split_at(usize::from(*cut).min(stream.len()));
        chunks.push(chunk);
        stream = rest;
    }
    chunks.push(stream);
    chunks
}

/// What several parts of one reply bring together, whatever the parts were.
fn together(
    parts: &[Learnt],
) -> (BTreeMap<(u32, Confidentiality), [BTreeSet<u64>; 4]>, [BTreeSet<u64>; 4], bool) {
    let (mut fragments, mut sets) =
        (BTreeMap::<_, [BTreeSet<u64>; 4]>::new(), [const { BTreeSet::new() }; 4]);
    for part in parts {
        for fragment in &part.fragments {
            let all = fragments.entry((fragment.number, fragment.confidentiality)).or_default();
            all[0].extend(fragment.grams.iter().map(|gram| u64::from(*gram)));
            all[1].extend(&fragment.tokens);
            all[2].extend(&fragment.ids);
            all[3].extend(&fragment.parties);
        }
        sets[0].extend(&part.known);
        sets[1].extend(&part.planted);
        sets[2].extend(part.words.iter().map(|word| u64::from(*word)));
        sets[3].extend(&part.urls);
    }
    (fragments, sets, parts.iter().any(|part| part.unknown))
}

fn memory(parts: &[Learnt]) -> Memory {
    let mut memory = Memory::bounded(WINDOW, MEMORY_BYTES_MAX);
    parts.iter().for_each(|part| memory.learn(part, now()));
    assert!(memory.bytes() <= MEMORY_BYTES_MAX + SLACK_BYTES, "a memory of {} bytes", memory.bytes());
    memory
}

/// A part of a text, between two of its 256ths.
fn piece(text: &str, from: u8, to: u8) -> &str {
    let at = |place: u8| text.floor_char_boundary(text.len() * usize::from(place) / 255);
    text.get(at(from)..at(to)).unwrap_or(text)
}

/// The ways of hiding that are looked through, and some of one in the other.
fn encoded(text: &str, way: u8) -> String {
    let once = match way % 11 {
        1 => STANDARD.encode(text),
        2 => URL_SAFE_NO_PAD.encode(text),
        3 => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        4 => base32(text.as_bytes()),
        5 => text.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        6 => text.chars().rev().collect(),
        7 => text.chars().map(rot13).collect(),
        8 => {
            STANDARD.encode(packed(GzEncoder::new(Vec::new(), Compression::fast()), text, GzEncoder::finish))
        }
        9 => STANDARD.encode(packed(
            ZlibEncoder::new(Vec::new(), Compression::fast()),
            text,
            ZlibEncoder::finish,
        )),
        10 => text.chars().flat_map(|each| [each, '\u{200b}']).collect(),
        _ => text.to_owned(),
    };
    if way / 11 % 2 == 1 { STANDARD.encode(once) } else { once }
}

fn packed<W: Write>(
    mut writer: W,
    text: &str,
    finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>,
) -> Vec<u8> {
    writer.write_all(text.as_bytes()).expect("there is room");
    finish(writer).expect("there is room")
}

fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect::<Vec<_>>();
    let number = |five: &[u8]| five.iter().fold(0, |number, bit| number << 1 | bit) << (5 - five.len());
    bits.chunks(5).map(|five| char::from(ALPHABET[usize::from(number(five))])).collect()
}

fn rot13(each: char) -> char {
    let turned = |first: u8| char::from(first + (each as u8 - first + 13) % 26);
    match each {
        'a'..='z' => turned(b'a'),
        'A'..='Z' => turned(b'A'),
        _ => each,
    }
}

/// What was found in a mail with this text: each kind, with what it rests on.
type Findings = BTreeMap<FindingKind, Option<BTreeSet<String>>>;

fn found(memory: &Memory, text: &str) -> (Findings, Vec<u64>) {
    let (own, history, canaries, internal) =
        ([memory], History::default(), Canaries::default(), Internal::default());
    let remembered =
        Remembered { own: &own, joined: &[], secrets: &[], history: &history, canaries: &canaries };
    let outgoing = Outgoing {
        class: Class::External,
        host: None,
        internal: &internal,
        aims: vec![Aim {
            kind: SinkKind::Message,
            text: "x@example.com".into(),
            standing: Standing::Nothing,
        }],
        payload: vec![text.into()],
        refs: Vec::new(),
        others: Vec::new(),
        consequential: vec![text.into()],
        digest: 1,
    };
    let examined = examine(&KEY, WINDOW, remembered, &outgoing, now());
    let findings = examined.findings.into_iter().map(|finding| {
        // Of more than is told, which are told is chance.
        let all = finding.evidence.len() < EVIDENCE_MAX;
        let evidence = finding.evidence.iter().map(|one| format!("{one:?}")).collect();
        (finding.kind, all.then_some(evidence))
    });
    (findings.collect(), examined.carried)
}

fn is_lineage((findings, _): &(Findings, Vec<u64>)) -> bool {
    findings.contains_key(&FindingKind::Lineage) || findings.contains_key(&FindingKind::SecretLineage)
}

/// Itself, and at most four encodings of it, each with four of its own, but for what is compressed.
fn views(text: &str) {
    let (mut count, mut bytes) = (0, 0);
    view::each(text, &mut |view| {
        count += 1;
        bytes += view.len();
    });
    let compressed = text.len() / 12;
    assert!(count <= 64 + compressed, "{count} views of {} bytes", text.len());
    assert!(bytes <= 25 * text.len().max(64) + (2 << 20), "{bytes} bytes of views of {}", text.len());
}
