//! The journal: what runs have learnt, on the disk before it is released to an agent, so that a crash cleans no run.
//!
//! It is two series of append-only files beside the store: `read-N.flow`, of which a segment goes once all in it is
//! older than the window, and `secret-N.flow`, whose segments stay for a day. A frame is written by one `write` and not
//! synced: that survives the end of the process however it comes, and a loss of power takes the agents' sessions too.
//! Frames hold keyed hashes and never text. A thread of its own writes, and takes all that waits as one write.
//!
//! A segment begins with `HPFLOW`, the version of the format and eight bytes by which its key is known; a frame is its
//! length (u32), its CRC-32 (u64), and its body, all little-endian. What does not read as a frame is the torn end of its
//! segment. Versions 1 and 2 are still read: they have no certificates, and version 1 has eight bytes of the body's SHA-256
//! for a checksum.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use tokio::sync::oneshot;

use crate::call::AgentId;

/// How a segment begins; the version of the format follows.
const MAGIC: &[u8; 6] = b"HPFLOW";
/// The version that is written.
const VERSION: u8 = 3;
/// The version before it, which does not say by which certificates calls came.
const VERSION_WITHOUT_INSTANCES: u8 = 2;
/// The version before that, with other checksums.
const VERSION_OF_SHA256: u8 = 1;
/// Beside the kind of a frame: that it says by which certificate the call came.
const HAS_INSTANCE: u8 = 0x80;
/// The bytes by which a segment's key is known.
pub type KeyMark = [u8; 8];
const HEAD_BYTES: usize = MAGIC.len() + 1 + 8;
/// What a frame has before its body.
const FRAME_HEAD_BYTES: usize = 12;
/// The largest body of a frame.
const FRAME_BYTES_MAX: usize = 8 << 20;
/// At this size a segment ends.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// What a series may take on the disk; beyond it nothing more is taken.
const SERIES_BYTES_MAX: u64 = 2 << 30;
/// Frames that wait to be written.
const QUEUE_MAX: usize = 4096;
/// What one write may weigh, unless one frame alone weighs more.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// How long a frame may wait to be written, on a disk that hangs.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// How far a clock may be wrong without anything being dropped too early.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(60 * 60);

/// How long what a frame has is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// As long as the window.
    Read,
    /// As long as secrets are remembered.
    Secret,
}

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was learnt from a reply.
    Learnt,
    /// What was sent, or stopped: the history of destinations.
    Sent,
    /// A step of an operator's sequence that was taken.
    Passed,
    /// Nothing: it was tried whether the disk can be written to.
    Probe,
}

/// One thing to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is about.
    pub kind: Kind,
    /// Whose it is.
    pub agent: AgentId,
    /// The run, keyed under its agent.
    pub run: String,
    /// The trace that it came in, by which agents meet.
    pub trace: Option<[u8; 16]>,
    /// The serial number of the certificate that the call came with; none where that is not known.
    pub instance: Option<String>,
    /// The labels that came with it, a bit each in the order of their declaration.
    pub labels: u8,
    /// When, to the microsecond.
    pub at: SystemTime,
    /// What was learnt or sent, in the form of its own type.
    pub data: Vec<u8>,
}

/// Why a frame was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal of flow control: {0}")]
pub struct JournalError(pub String);

/// Where the journal is and how long it keeps what.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; it is made when it is not there.
    pub dir: PathBuf,
    /// How long what is no secret is remembered.
    pub window: Duration,
    /// How long secrets are.
    pub secret_window: Duration,
    /// By which the key is known that everything is hashed with.
    pub key: KeyMark,
}

/// What a segment that was read has to say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// All in it was hashed with the key of now.
    Wholly,
    /// It was hashed with another key: whose it is can be read, and what it was cannot be found again.
    InPart,
}

/// Writes frames.
pub struct Journal {
    queue: SyncSender<Pending>,
    /// Whether the last write failed.
    failing: std::sync::Arc<AtomicBool>,
}

struct Pending {
    series: Series,
    frame: Vec<u8>,
    told: oneshot::Sender<Result<(), String>>,
}

impl Journal {
    /// Opens the journal in its directory, and gives every frame that is still of use, the oldest first in each series.
    pub fn open(config: Config, mut restored: impl FnMut(Frame, Readable)) -> io::Result<Journal> {
        DirBuilder::new().recursive(true).mode(0o700).create(&config.dir)?;
        for series in [Series::Read, Series::Secret] {
            let since = SystemTime::now().checked_sub(config.keeps(series) + CLOCK_ERROR_MAX);
            for (_, path) in segments(&config.dir, series)? {
                read(&path, &config.key, |frame, readable| {
                    if since.is_none_or(|since| frame.at >= since) && frame.kind != Kind::Probe {
                        restored(frame, readable);
                    }
                })?;
            }
        }
        let (queue, frames) = sync_channel(QUEUE_MAX);
        let failing = std::sync::Arc::new(AtomicBool::new(false));
        let fails = std::sync::Arc::clone(&failing);
        let mut pens =
            Pens { read: Pen::new(&config, Series::Read)?, secret: Pen::new(&config, Series::Secret)? };
        std::thread::Builder::new()
            .name("flow-write".to_owned())
            .spawn(move || write(&mut pens, &frames, &fails))?;
        Ok(Journal { queue, failing })
    }

    /// Whether the last write failed: then whatever must be remembered should not be begun before a probe succeeds.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Writes a frame; once this returns, it survives the end of the process.
    pub async fn append(&self, series: Series, frame: &Frame) -> Result<(), JournalError> {
        let (told, written) = oneshot::channel();
        let pending = Pending { series, frame: encode(frame)?, told };
        self.queue.try_send(pending).map_err(|error| {
            JournalError(match error {
                TrySendError::Full(_) => format!("{QUEUE_MAX} frames wait to be written"),
                TrySendError::Disconnected(_) => "its writer has ended".to_owned(),
            })
        })?;
        match tokio::time::timeout(WRITE_TIME_MAX, written).await {
            Ok(Ok(written)) => written.map_err(JournalError),
            Ok(Err(_)) => Err(JournalError("its writer has ended".to_owned())),
            Err(_) => {
                self.failing.store(true, Ordering::Relaxed);
                Err(JournalError("the disk does not take it".to_owned()))
            }
        }
    }

    /// Writes a frame that says nothing, to learn whether the disk can be written to again.
    pub async fn probe(&self, agent: &AgentId) -> Result<(), JournalError> {
        let frame = Frame {
            kind: Kind::Probe,
            agent: agent.clone(),
            run: String::new(),
            trace: None,
            instance: None,
            labels: 0,
            at: SystemTime::now(),
            data: Vec::new(),
        };
        self.append(Series::Read, &frame).await
    }
}

/// By what a key is known, and nothing of it is told.
pub fn key_mark(key: &[u8; 32]) -> KeyMark {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"holdpoint lineage key\0");
    context.update(key);
    context.finish().as_ref().first_chunk::<8>().copied().unwrap_or_default()
}

impl Config {
    fn keeps(&self, series: Series) -> Duration {
        match series {
            Series::Read => self.window,
            Series::Secret => self.secret_window.max(self.window),
        }
    }
}

impl Series {
    fn prefix(self) -> &'static str {
        match self {
            Series::Read => "read-",
            Series::Secret => "secret-",
        }
    }
}

struct Pens {
    read: Pen,
    secret: Pen,
}

/// Writes one series.
struct Pen {
    dir: PathBuf,
    series: Series,
    keeps: Duration,
    key: KeyMark,
    open: Option<(File, u64)>,
    next: u64,
    /// Segments that have ended, with their size and when the last frame went there.
    ended: Vec<(PathBuf, u64, SystemTime)>,
}

fn write(pens: &mut Pens, frames: &Receiver<Pending>, failing: &AtomicBool) {
    let mut carry: Option<Pending> = None;
    loop {
        let first = match carry.take() {
            Some(first) => first,
            None => match frames.recv() {
                Ok(first) => first,
                Err(_) => return,
            },
        };
        let (series, mut bytes, mut told) = (first.series, first.frame, vec![first.told]);
        while let Ok(next) = frames.try_recv() {
            if next.series != series || bytes.len() + next.frame.len() > GROUP_BYTES_MAX {
                carry = Some(next);
                break;
            }
            bytes.extend_from_slice(&next.frame);
            told.push(next.told);
        }
        let pen = match series {
            Series::Read => &mut pens.read,
            Series::Secret => &mut pens.secret,
        };
        let written = pen.write(&bytes);
        failing.store(written.is_err(), Ordering::Relaxed);
        if let Err(error) = &written {
            tracing::error!(dir = %pen.dir.display(), %error, "the journal of flow control cannot be written: what it must have is refused");
        }
        let written = written.map_err(|error| error.to_string());
        for told in told {
            // Whoever waited may have given up.
            let _ = told.send(written.clone());
        }
    }
}

impl Pen {
    fn new(config: &Config, series: Series) -> io::Result<Pen> {
        let mut ended = Vec::new();
        let mut next = 1;
        for (number, path) in segments(&config.dir, series)? {
            let meta = fs::metadata(&path)?;
            ended.push((path, meta.len(), meta.modified().unwrap_or_else(|_| SystemTime::now())));
            next = number + 1;
        }
        let keeps = config.keeps(series);
        Ok(Pen { dir: config.dir.clone(), series, keeps, key: config.key, open: None, next, ended })
    }

    /// Appends whole frames; on an error the segment is as it was, or is left.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.turn(bytes.len() as u64)?;
        let Some((file, len)) = &mut self.open else { return Err(io::Error::other("no segment is open")) };
        if let Err(error) = file.write_all(bytes) {
            let cut = file.set_len(*len);
            if cut.is_err() {
                // What is torn ends its segment, so the next frame goes to another.
                self.end();
            }
            return Err(error);
        }
        *len += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self) {
        if let Some((_, len)) = self.open.take() {
            let path = self.path(self.next - 1);
            self.ended.push((path, len, SystemTime::now()));
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}{number:012}.flow", self.series.prefix()))
    }

    /// Sees to a segment with room, and drops those of which nothing is of use any more.
    fn turn(&mut self, bytes: u64) -> io::Result<()> {
        if self
            .open
            .as_ref()
            .is_some_and(|(_, len)| len + bytes <= SEGMENT_BYTES_MAX || *len <= HEAD_BYTES as u64)
        {
            return Ok(());
        }
        self.end();
        self.drop_old(SystemTime::now());
        let held: u64 = self.ended.iter().map(|(_, len, _)| len).sum();
        if held + bytes > SERIES_BYTES_MAX {
            return Err(io::Error::other(format!(
                "it holds {held} bytes within its window, and takes no more"
            )));
        }
        let path = self.path(self.next);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        self.next += 1;
        let head = [MAGIC.as_slice(), &[VERSION], &self.key].concat();
        if let Err(error) = file.write_all(&head) {
            // An empty segment is read as one without frames.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.open = Some((file, HEAD_BYTES as u64));
        Ok(())
    }

    fn drop_old(&mut self, now: SystemTime) {
        let keeps = self.keeps + CLOCK_ERROR_MAX;
        self.ended.retain(|(path, _, last)| {
            let old = now.duration_since(*last).unwrap_or_default() > keeps;
            // One that cannot be removed is tried again with the next segment.
            !(old && fs::remove_file(path).is_ok())
        });
    }
}

/// The segments of a series by their numbers.
fn segments(dir: &Path, series: Series) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(series.prefix())?.strip_suffix(".flow")?.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path, key: &KeyMark, each: impl FnMut(Frame, Readable)) -> io::Result<()> {
    let invalid =
        |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    if fs::metadata(path)?.len() > SEGMENT_BYTES_MAX {
        return Err(invalid("is larger than any segment that was ever written"));
    }
    let torn = frames(&fs::read(path)?, key, each).map_err(invalid)?;
    if torn > 0 {
        tracing::warn!(file = %path.display(), bytes = torn, "the end of a segment was torn, and is left out");
    }
    Ok(())
}

/// Calls back with each frame of a segment, in order, and gives how many bytes at its end are none: it was torn there. A
/// segment of a format that is not known is an error, which says so.
pub fn frames(
    segment: &[u8],
    key: &KeyMark,
    mut each: impl FnMut(Frame, Readable),
) -> Result<usize, &'static str> {
    let Some((head, mut rest)) = segment.split_at_checked(HEAD_BYTES) else { return Ok(0) };
    let checksum: fn(&[u8]) -> u64 = match head.strip_prefix(MAGIC.as_slice()) {
        Some([VERSION | VERSION_WITHOUT_INSTANCES, ..]) => checksum,
        Some([VERSION_OF_SHA256, ..]) => sha256_sum,
        _ => return Err("is no journal that this version of Holdpoint can read"),
    };
    let mark = head.get(MAGIC.len() + 1..).unwrap_or_default();
    let readable = if mark == key { Readable::Wholly } else { Readable::InPart };
    while !rest.is_empty() {
        let Some((body, after)) = body(rest, checksum) else { return Ok(rest.len()) };
        each(decode(body).ok_or("a frame is not of this version of Holdpoint")?, readable);
        rest = after;
    }
    Ok(0)
}

/// The body of the first frame, and what comes after it.
fn body(bytes: &[u8], checksum: fn(&[u8]) -> u64) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (body, after) = rest.split_at_checked(len).filter(|_| len <= FRAME_BYTES_MAX)?;
    (checksum(body) == u64::from_le_bytes(*sum)).then_some((body, after))
}

/// By what a torn frame is known. Nobody else writes here, so it need not withstand anybody.
fn checksum(body: &[u8]) -> u64 {
    u64::from(crc32fast::hash(body))
}

fn sha256_sum(body: &[u8]) -> u64 {
    let digest = digest::digest(&digest::SHA256, body);
    digest.as_ref().first_chunk::<8>().map(|sum| u64::from_le_bytes(*sum)).unwrap_or_default()
}

fn encode(frame: &Frame) -> Result<Vec<u8>, JournalError> {
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + 64 + frame.data.len());
    bytes.resize(FRAME_HEAD_BYTES, 0);
    let kind = match frame.kind {
        Kind::Learnt => 1,
        Kind::Sent => 2,
        Kind::Probe => 3,
        Kind::Passed => 4,
    };
    bytes.push(if frame.instance.is_some() { kind | HAS_INSTANCE } else { kind });
    bytes.push(frame.labels);
    let micros = frame.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    bytes.extend_from_slice(&u64::try_from(micros).unwrap_or(u64::MAX).to_le_bytes());
    bytes.extend_from_slice(&frame.trace.unwrap_or_default());
    for text in [frame.agent.as_str(), &frame.run].into_iter().chain(frame.instance.as_deref()) {
        let len = u16::try_from(text.len()).map_err(|_| JournalError("a name is too long".to_owned()))?;
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(&frame.data);
    let body = bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default();
    if body.len() > FRAME_BYTES_MAX {
        return Err(JournalError(format!("a frame is larger than {FRAME_BYTES_MAX} bytes")));
    }
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = checksum(body).to_le_bytes();
    for (to, from) in bytes.iter_mut().zip(len.into_iter().chain(sum)) {
        *to = from;
    }
    Ok(bytes)
}

fn decode(body: &[u8]) -> Option<Frame> {
    let (&[kind, labels], rest) = body.split_first_chunk::<2>()?;
    let (micros, rest) = rest.split_first_chunk::<8>()?;
    let (trace, mut rest) = rest.split_first_chunk::<16>()?;
    let mut text = || {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        rest = after;
        std::str::from_utf8(text).ok()
    };
    let (agent, run) = (text()?, text()?);
    let instance = if kind & HAS_INSTANCE == 0 { None } else { Some(text()?.to_owned()) };
    Some(Frame {
        kind: match kind & !HAS_INSTANCE {
            1 => Kind::Learnt,
            2 => Kind::Sent,
            3 => Kind::Probe,
            4 => Kind::Passed,
            _ => return None,
        },
        agent: AgentId::from_normalised(agent),
        run: run.to_owned(),
        trace: Some(*trace).filter(|trace| *trace != [0; 16]),
        instance,
        labels,
        at: UNIX_EPOCH.checked_add(Duration::from_micros(u64::from_le_bytes(*micros)))?,
        data: rest.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> PathBuf {
        std::env::temp_dir().join(format!("holdpoint-journal-{}", crate::call::RecordId::new()))
    }

    fn config(dir: &Path, key: u8) -> Config {
        Config {
            dir: dir.to_owned(),
            window: Duration::from_secs(1800),
            secret_window: Duration::from_secs(86_400),
            key: [key; 8],
        }
    }

    fn frame(run: &str, data: &[u8]) -> Frame {
        Frame {
            kind: Kind::Learnt,
            agent: AgentId::from_normalised("spiffe://example.org/a"),
            run: run.to_owned(),
            trace: Some([7; 16]),
            instance: run.len().is_multiple_of(2).then(|| "0badcafe".to_owned()),
            labels: 3,
            at: UNIX_EPOCH
                + Duration::from_micros(
                    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
                ),
            data: data.to_vec(),
        }
    }

    fn all(dir: &Path, key: u8) -> Vec<(Frame, Readable)> {
        let mut all = Vec::new();
        drop(Journal::open(config(dir, key), |frame, readable| all.push((frame, readable))).unwrap());
        all
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_the_end_and_a_torn_end_is_left_out() {
        let dir = place();
        let journal = Journal::open(config(&dir, 1), |_, _| panic!("there is nothing yet")).unwrap();
        let (one, two) = (frame("one", b"x"), frame("two", &[9; 4000]));
        journal.append(Series::Read, &one).await.unwrap();
        journal.append(Series::Secret, &two).await.unwrap();
        journal.append(Series::Read, &two).await.unwrap();
        journal.probe(&one.agent).await.unwrap();
        assert!(!journal.is_failing());
        let expected = [one.clone(), two.clone(), two.clone()].map(|frame| (frame, Readable::Wholly));
        assert_eq!(all(&dir, 1), expected);
        let (_, path) = segments(&dir, Series::Read).unwrap().remove(0);
        let torn = fs::metadata(&path).unwrap().len() - 100;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(torn).unwrap();
        let left = all(&dir, 1);
        assert_eq!(left.len(), 2, "the second frame of the series was torn");
        assert_eq!(left.first().unwrap().0, one);
        assert!(all(&dir, 2).iter().all(|(_, readable)| *readable == Readable::InPart));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn what_is_older_than_the_window_goes_and_secrets_stay() {
        let dir = place();
        let journal = Journal::open(config(&dir, 1), |_, _| {}).unwrap();
        let old = Frame { at: SystemTime::now() - Duration::from_secs(6 * 3600), ..frame("old", b"x") };
        journal.append(Series::Read, &old).await.unwrap();
        journal.append(Series::Secret, &old).await.unwrap();
        assert_eq!(all(&dir, 1).len(), 1);
        let mut pen = Pen::new(&config(&dir, 1), Series::Read).unwrap();
        pen.drop_old(SystemTime::now() + Duration::from_secs(6 * 3600));
        assert!(segments(&dir, Series::Read).unwrap().is_empty());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn a_disk_that_cannot_be_written_to_is_told_until_it_can() {
        let dir = place();
        let journal = Journal::open(config(&dir, 1), |_, _| {}).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert!(journal.append(Series::Read, &frame("one", b"x")).await.is_err());
        assert!(journal.is_failing());
        fs::create_dir_all(&dir).unwrap();
        journal.probe(&frame("one", b"x").agent).await.unwrap();
        assert!(!journal.is_failing());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_segment_of_a_later_version_stops_the_start() {
        let dir = place();
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("read-000000000001.flow"), b"HPFLOW\x04........").unwrap();
        assert!(Journal::open(config(&dir, 1), |_, _| {}).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_the_version_before_wrote_is_read() {
        let dir = place();
        fs::create_dir_all(&dir).unwrap();
        let mut segment = [MAGIC.as_slice(), &[VERSION_OF_SHA256], &[1; 8]].concat();
        for run in ["one", "two"] {
            let mut bytes = encode(&frame(run, b"x")).unwrap();
            let sum = sha256_sum(&bytes[FRAME_HEAD_BYTES..]).to_le_bytes();
            bytes[4..FRAME_HEAD_BYTES].copy_from_slice(&sum);
            segment.extend(bytes);
        }
        fs::write(dir.join("read-000000000001.flow"), &segment).unwrap();
        let runs = || all(&dir, 1).into_iter().map(|(frame, _)| frame.run).collect::<Vec<_>>();
        assert_eq!(runs(), ["one", "two"]);
        let last = segment.len() - 1;
        segment[last] ^= 1;
        fs::write(dir.join("read-000000000001.flow"), &segment).unwrap();
        assert_eq!(runs(), ["one"], "what is not as it was written is no frame");
        fs::remove_dir_all(&dir).unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = body(&bytes, checksum);
            let _ = decode(&bytes);
        }

        #[test]
        fn a_frame_comes_back_as_it_was(run in "[a-z:]{0,40}", data in prop::collection::vec(any::<u8>(), 0..300)) {
            let frame = frame(&run, &data);
            let bytes = encode(&frame).unwrap();
            let (body, rest) = body(&bytes, checksum).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(decode(body).unwrap(), frame);
        }
    }
}
