//! The journal of flow control: whatever bytes a segment has, reading it ends, takes no more memory than what it reads
//! allows, and what is read is written again as it was.
#![no_main]

use std::time::{Duration, SystemTime};

use holdpoint::flow::chain::Advanced;
use holdpoint::flow::history::{History, Step};
use holdpoint::flow::journal::{Frame, Kind, frames};
use holdpoint::flow::lineage::{Fragment, Learnt, Memory};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 8] = [7; 8];
const WINDOW: Duration = Duration::from_secs(1800);
const MEMORY_BYTES_MAX: usize = 64 << 10;
const HISTORY_BYTES_MAX: usize = 4 << 20;

fuzz_target!(|data: &[u8]| {
    read(data);
    read(&[b"HPFLOW\x02".as_slice(), &KEY, data].concat());
    read(&segment(data));
});

/// A segment whose frames have sums that are right: the first two bytes of each say how long it is.
fn segment(mut data: &[u8]) -> Vec<u8> {
    let mut segment = [b"HPFLOW\x03".as_slice(), &KEY].concat();
    while let Some((len, rest)) = data.split_first_chunk::<2>() {
        let (body, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
        segment.extend_from_slice(&(body.len() as u32).to_le_bytes());
        segment.extend_from_slice(&u64::from(crc32fast::hash(body)).to_le_bytes());
        segment.extend_from_slice(body);
        data = rest;
    }
    segment
}

fn read(segment: &[u8]) {
    let (mut memory, mut history) = (Memory::bounded(WINDOW, MEMORY_BYTES_MAX), History::default());
    let mut bytes = 0;
    let torn = frames(segment, &KEY, |frame, _| {
        bytes += frame.data.len() + frame.run.len() + frame.agent.as_str().len();
        take(&frame, &mut memory, &mut history);
    });
    assert!(bytes <= segment.len(), "more was read than is there");
    assert!(torn.is_ok_and(|torn| torn <= segment.len()) || torn.is_err());
    // Of one frame more than its bound is counted before it is known that it has no room.
    assert!(memory.bytes() <= MEMORY_BYTES_MAX + 8 * segment.len() + 4096, "{} of a memory", memory.bytes());
    assert!(history.bytes() <= HISTORY_BYTES_MAX, "{} of a history", history.bytes());
}

/// Takes what a frame says, as a restart does.
fn take(frame: &Frame, memory: &mut Memory, history: &mut History) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    match frame.kind {
        Kind::Learnt => {
            let Some(learnt) = Learnt::decode(&frame.data) else { return };
            assert!(room(&learnt) <= 12 * frame.data.len() + 1024, "a length that lies sets room aside");
            assert_eq!(learnt.encode(), frame.data, "not what was written");
            memory.learn(&learnt, now.min(frame.at));
        }
        Kind::Sent => {
            let Some(step) = Step::decode(&frame.data) else { return };
            assert_eq!(step.encode(), frame.data, "not what was written");
            history.note(&step, now.min(frame.at), WINDOW);
        }
        Kind::Passed => {
            let Some(advanced) = Advanced::decode(&frame.data) else { return };
            assert_eq!(Advanced::decode(&advanced.encode()), Some(advanced), "not what was written");
        }
        Kind::Probe => {}
    }
}

/// What a piece of learning takes in memory.
fn room(learnt: &Learnt) -> usize {
    let fragment = |one: &Fragment| {
        (one.parties.capacity() + one.tokens.capacity() + one.ids.capacity()) * 8 + one.grams.capacity() * 4
    };
    learnt.fragments.iter().map(fragment).sum::<usize>()
        + learnt.fragments.capacity() * size_of::<Fragment>()
        + (learnt.known.capacity() + learnt.planted.capacity() + learnt.urls.capacity()) * 8
        + learnt.words.capacity() * 4
}
