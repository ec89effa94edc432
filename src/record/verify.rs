//! Checks a whole log, offline or beside a running gateway, in bounded memory.
//!
//! A bare chain shows every change *within* it. It cannot show that its last records were cut off or changed, nor
//! that all of it was written anew: for that, a checkpoint known elsewhere is needed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::attest::{Against, Attest};
use super::chain::{Fault, Header, Kind, Leaf, Walker, timestamp};
use super::recover::is_live;
use super::segment::{self, End, Lines, Segment};

/// How many closed intents are remembered, to find one that comes again.
const CLOSED_MAX: usize = 1 << 20;
/// How many open intents are remembered; a log with more is reported as incomplete without naming the rest.
const OPEN_MAX: usize = 1 << 20;
/// How long a call of a running gateway may be without outcome before the log counts as incomplete.
const IN_FLIGHT: Duration = Duration::from_secs(3600);

/// What a log is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every record is there and unchanged, as far as the chain itself can show.
    Ok,
    /// The chain holds, but something did not end: a write, or a call without outcome.
    Incomplete,
    /// Something was changed, removed, inserted or reordered.
    Tampered,
}

/// The first record that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The segment's path.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// The number that it should have.
    pub seq: u64,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: record {}: {}", self.file, self.line, self.seq, self.why)
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The verdict.
    pub status: Status,
    /// The first record that is wrong, or the first that is incomplete.
    pub first_bad: Option<Bad>,
    /// How many records were checked.
    pub records: u64,
    /// How many segments were read.
    pub segments: u64,
    /// The last record's number; 0 when there is none.
    pub last_seq: u64,
    /// The last record's leaf: compare it with what is known elsewhere.
    pub head: Option<String>,
    /// Whether a gateway was writing.
    pub live: bool,
    /// When earlier segments are not here: the first record that is.
    pub archived_before: Option<u64>,
    /// Intents without outcome.
    pub open_intents: u64,
    /// Of these, calls that a running gateway may still be serving.
    pub in_flight: u64,
    /// Outcomes for an intent that already had one.
    pub repeated_outcomes: u64,
    /// Outcomes whose intent is in an archived segment.
    pub archived_intents: u64,
    /// Repairs that the log tells of.
    pub repairs: u64,
    /// Signed checkpoints in it.
    pub checkpoints: u64,
    /// The last record that one covers.
    pub covered: Option<u64>,
    /// The fingerprints of the keys that signed them.
    pub signed_by: Vec<String>,
    /// Checkpoints kept elsewhere that hold.
    pub held: u64,
    /// How often a record is older than the one before it: the clock was set.
    pub clock_back: u64,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

/// Checks every record of a directory. An error means that it could not be read.
pub fn verify(dir: &Path) -> io::Result<Report> {
    verify_against(dir, &Against::default())
}

/// Checks every record of a directory, its archive included, against keys and checkpoints that are known elsewhere.
pub fn verify_against(dir: &Path, against: &Against) -> io::Result<Report> {
    let report = match read(dir, against) {
        // A running gateway has archived a segment since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_live(dir) => read(dir, against)?,
        read => read?,
    };
    // A running gateway cuts off a write that the disk refused; who reads at that instant may see half of it.
    if report.live && report.status == Status::Tampered { read(dir, against) } else { Ok(report) }
}

fn read(dir: &Path, against: &Against) -> io::Result<Report> {
    let live_before = is_live(dir);
    let segments = segment::all(dir)?;
    let Some(first) = segments.first().map(|segment| segment.first) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no audit segment here"));
    };
    let attest = Attest::begin(first, against);
    let attest = attest.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    let mut check = Check::new(first, attest);
    let mut fault = None;
    for (at, segment) in segments.iter().enumerate() {
        fault = check.segment(segment, at + 1 == segments.len())?;
        check.segments += 1;
        if fault.is_some() {
            break;
        }
    }
    let live = live_before || is_live(dir);
    let last = segments.last().map(|segment| segment.path.display().to_string()).unwrap_or_default();
    Ok(check.report(fault, live, (first, last)))
}

struct Check {
    walker: Walker,
    segments: u64,
    records: u64,
    open: HashMap<u128, Place>,
    open_lost: u64,
    closed: Closed,
    repeated_outcomes: u64,
    archived_intents: u64,
    repairs: u64,
    archived: Option<u64>,
    attest: Attest,
    /// What the first record names as its predecessor.
    first_prev: Option<String>,
    /// When the record before was written.
    ts: String,
    clock_back: u64,
    /// The line of the last record in its segment.
    line: u64,
}

/// Where an open intent is. There may be many, so it is kept small.
struct Place {
    file: Arc<str>,
    line: u64,
    seq: u64,
    ts: Box<str>,
}

/// The intents that were closed lately.
#[derive(Default)]
struct Closed {
    known: HashSet<u128>,
    order: VecDeque<u128>,
}

impl Closed {
    fn insert(&mut self, id: u128) {
        if self.known.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > CLOSED_MAX {
            self.order.pop_front().map(|oldest| self.known.remove(&oldest));
        }
    }
}

/// What ended the reading before its end.
enum Stopped {
    Torn(Bad),
    Wrong(Bad),
}

impl Check {
    fn new(first: u64, attest: Attest) -> Check {
        Check {
            walker: Walker::from(first),
            segments: 0,
            records: 0,
            open: HashMap::new(),
            open_lost: 0,
            closed: Closed::default(),
            repeated_outcomes: 0,
            archived_intents: 0,
            repairs: 0,
            archived: (first != 1).then_some(first),
            attest,
            first_prev: None,
            ts: String::new(),
            clock_back: 0,
            line: 0,
        }
    }

    fn segment(&mut self, segment: &Segment, last: bool) -> io::Result<Option<Stopped>> {
        let file: Arc<str> = Arc::from(segment.path.display().to_string());
        let bad = |line, seq, why: String| Bad { file: file.to_string(), line, seq, why };
        if segment.first != self.walker.seq {
            let why = Fault::Seq { found: segment.first, expected: self.walker.seq };
            let why = format!("the segment's name does not follow: {why}");
            return Ok(Some(Stopped::Wrong(bad(1, self.walker.seq, why))));
        }
        let mut lines = Lines::open(&segment.path, 0)?;
        while let Some(line) = lines.read()? {
            let seq = self.walker.seq;
            let wrong = |why: String| Ok(Some(Stopped::Wrong(bad(line.number, seq, why))));
            match line.end {
                End::Newline => {}
                End::File if last => {
                    return Ok(Some(Stopped::Torn(bad(line.number, seq, Fault::Torn.to_string()))));
                }
                End::File => return wrong(Fault::Torn.to_string()),
                End::TooLong => return wrong(Fault::TooLong.to_string()),
            }
            let prev = self.walker.prev;
            let header = match self.walker.step(line.bytes) {
                Ok(header) => header,
                Err(fault) => return wrong(fault.to_string()),
            };
            self.records += 1;
            self.line = line.number;
            let leaf = self.walker.prev.unwrap_or(Leaf::NONE);
            if let Err(why) = self.attest.record((seq, header.kind()), (prev, leaf), line.bytes) {
                return wrong(why);
            }
            if self.first_prev.is_none() {
                self.first_prev = Some(header.prev().to_owned());
            }
            if *header.ts < *self.ts {
                self.clock_back += 1;
            }
            header.ts.clone_into(&mut self.ts);
            if let Err(why) = self.pair(&header, &file, line.number) {
                return wrong(why.to_owned());
            }
        }
        Ok(None)
    }

    /// Pairs intents with outcomes.
    fn pair(&mut self, header: &Header<'_>, file: &Arc<str>, line: u64) -> Result<(), &'static str> {
        match (header.kind(), header.id()) {
            (Some(Kind::Intent), Some(id)) => {
                if self.open.contains_key(&id) || self.closed.known.contains(&id) {
                    return Err("an intent with this id was written before");
                }
                if self.open.len() < OPEN_MAX {
                    let (file, seq, ts) = (file.clone(), header.seq, Box::from(header.ts));
                    self.open.insert(id, Place { file, line, seq, ts });
                } else {
                    self.open_lost += 1;
                }
            }
            (Some(Kind::Outcome), _) => {
                let Some(intent) = header.closes() else { return Err("the outcome names no intent") };
                if self.open.remove(&intent).is_some() {
                    self.closed.insert(intent);
                } else if self.closed.known.contains(&intent) {
                    self.repeated_outcomes += 1;
                } else if self.archived.is_some() || self.open_lost > 0 {
                    self.archived_intents += 1;
                } else {
                    return Err("the outcome's intent was never written");
                }
            }
            (Some(Kind::Recovered), _) => self.repairs += 1,
            _ => {}
        }
        Ok(())
    }

    fn report(self, stopped: Option<Stopped>, live: bool, (first, file): (u64, String)) -> Report {
        let last = self.walker.seq - 1;
        let (attested, missing) = self.attest.end(last, (first, self.first_prev));
        let missing = missing.map(|why| Bad { file: file.clone(), line: self.line, seq: last, why });
        let stopped = stopped.filter(|stopped| matches!(stopped, Stopped::Wrong(_)) || missing.is_none());
        let stopped = stopped.or(missing.map(Stopped::Wrong));
        let since = timestamp(time::OffsetDateTime::now_utc() - IN_FLIGHT).to_string();
        let in_flight = match live {
            true => self.open.values().filter(|place| *place.ts > *since).count() as u64,
            false => 0,
        };
        let open_intents = self.open.len() as u64 + self.open_lost;
        // The end of a log that is written to is signed within a minute.
        let unsigned = attested.unsigned.filter(|_| !live);
        let unsigned = unsigned.map(|why| Bad { file: file.clone(), line: self.line, seq: last, why });
        let overdue = self.open.into_values().filter(|place| !live || *place.ts <= *since);
        let overdue = overdue.min_by_key(|place| place.seq).map(|Place { file, line, seq, .. }| Bad {
            file: file.to_string(),
            line,
            seq,
            why: "an intent without outcome".to_owned(),
        });
        let mut notes = attested.notes;
        if attested.held == 0 {
            notes.push(NO_TAIL.to_owned());
        }
        if self.clock_back > 0 {
            notes.push(format!("the clock went back {} times", self.clock_back));
        }
        let (status, first_bad) = match (stopped, overdue) {
            (Some(Stopped::Wrong(bad)), _) => (Status::Tampered, Some(bad)),
            (Some(Stopped::Torn(bad)), None) if !live => (Status::Incomplete, Some(bad)),
            (_, Some(bad)) => (Status::Incomplete, Some(bad)),
            (Some(Stopped::Torn(_)), None) => {
                notes.push("the last write is in progress".to_owned());
                (Status::Ok, None)
            }
            (None, None) => match unsigned {
                Some(bad) => (Status::Incomplete, Some(bad)),
                None => (Status::Ok, None),
            },
        };
        if self.archived.is_some() {
            notes.push(format!("records before {first} are not here; check them where they were archived"));
        }
        let head = (self.records > 0).then_some(self.walker.prev).flatten();
        Report {
            status,
            first_bad,
            records: self.records,
            segments: self.segments,
            last_seq: last,
            head: head.map(|leaf: Leaf| leaf.to_string()),
            live,
            archived_before: self.archived,
            open_intents,
            in_flight,
            repeated_outcomes: self.repeated_outcomes,
            archived_intents: self.archived_intents,
            repairs: self.repairs,
            checkpoints: attested.checkpoints,
            covered: attested.covered,
            signed_by: attested.signed_by,
            held: attested.held,
            clock_back: self.clock_back,
            notes,
        }
    }
}

/// Said with every verdict.
const NO_TAIL: &str = "the chain alone cannot show that the newest records were cut off or changed, or that all of it \
                       was written anew: compare the head with a checkpoint kept elsewhere";
