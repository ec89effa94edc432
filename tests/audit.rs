//! The audit that lasts: what is signed, kept, archived, proven and copied, and what a disk may do to it.

#![expect(clippy::unwrap_used, reason = "tests and what they share stop at the first surprise")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use holdpoint::call::RecordId;
use holdpoint::cli::audit;
use holdpoint::json::Members;
use holdpoint::record::checkpoint::{self, Checkpoint};
use holdpoint::record::export::{self, Filter, Form};
use holdpoint::record::keep::{Keeper, Retention};
use holdpoint::record::machine::{Machine, Real};
use holdpoint::record::prove::{self, Proof};
use holdpoint::record::publish::{self, OnPublished, Place};
use holdpoint::record::rotate;
use holdpoint::record::seal::{self, Auditor, OpenError, Part};
use holdpoint::record::space::Room;
use holdpoint::record::tail::{self, Format};
use holdpoint::record::verify::{Report, Status, verify, verify_against};
use holdpoint::record::{Against, Config, Durability, Entry, Kind, Ledger, LedgerError};
use holdpoint::secret::ring::{self, KeyError, Purpose, Ring, Slot};
use holdpoint::secret::signer::{PublicKey, Signer};
use holdpoint::telemetry::poster::Poster;
use serde_json::{Value, json};
use time::OffsetDateTime;

/// A directory that goes with the test: a log, and the keys beside it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let dir = std::env::temp_dir().join(format!("holdpoint-{}", RecordId::new()));
        fs::create_dir_all(dir.join("audit")).unwrap();
        Dir(dir)
    }

    fn audit(&self) -> PathBuf {
        self.0.join("audit")
    }

    fn ring(&self) -> Ring {
        Ring::open(&self.0.join("keys")).unwrap()
    }

    fn signer(&self) -> Arc<Signer> {
        Arc::new(self.ring().signer().unwrap())
    }

    /// Signs every eight records, in segments of about five calls.
    fn config(&self) -> Config {
        Config {
            signer: Some(self.signer()),
            checkpoint_records_max: 8,
            segment_bytes_max: 4000,
            ..Config::new(self.audit())
        }
    }

    fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.audit()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("audit-")).collect();
        files.sort();
        files
    }

    fn keys(&self) -> Vec<PublicKey> {
        ring::public_keys(&fs::read_to_string(self.0.join("keys").join(ring::PUBLIC_KEYS)).unwrap()).unwrap()
    }

    fn verify(&self) -> Report {
        self.verify_with(Vec::new())
    }

    /// Against the log's own keys, and checkpoints that were kept elsewhere.
    fn verify_with(&self, checkpoints: Vec<Checkpoint>) -> Report {
        verify_against(&self.audit(), &Against { keys: self.keys(), checkpoints }).unwrap()
    }

    /// The whole text of the log.
    fn text(&self) -> String {
        self.segments().iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    fn records(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn intent() -> Entry {
    let mut members = Members::default();
    members.text("peer", "192.0.2.7:40000");
    members.object("agent", |agent| agent.text("id", "spiffe://example.org/agent/mailer"));
    members.text("upstream", "mail");
    members.text("tool", "send");
    members.text("class", "write");
    members.number("consequence", 2);
    members.object("decision", |decision| decision.text("outcome", "allowed"));
    Entry::new(Kind::Intent, Some([7; 16]), members)
}

fn outcome(of: RecordId) -> Entry {
    let mut members = Members::default();
    members.object("agent", |agent| agent.text("id", "spiffe://example.org/agent/mailer"));
    members.text("upstream", "mail");
    members.text("tool", "send");
    members.text("status", "executed");
    Entry::outcome(of, Some([7; 16]), members)
}

async fn calls(ledger: &Ledger, count: usize) -> Vec<RecordId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let intent = intent();
        ids.push(intent.id());
        ledger.append(intent, Durability::Written).await.unwrap();
        ledger.append(outcome(*ids.last().unwrap()), Durability::Written).await.unwrap();
    }
    ids
}

async fn log_of(dir: &Dir, count: usize) -> Vec<RecordId> {
    let (ledger, _) = Ledger::open(dir.config()).unwrap();
    calls(&ledger, count).await
}

/// The last checkpoint that the log has, as somebody elsewhere would have kept it.
fn kept(dir: &Dir) -> Checkpoint {
    let records = dir.records();
    let last = records.iter().rev().find(|record| record["type"] == "checkpoint").unwrap();
    serde_json::from_value(last["checkpoint"].clone()).unwrap()
}

fn tampered(report: &Report, why: &str) {
    assert_eq!(report.status, Status::Tampered, "{report:?}");
    let bad = report.first_bad.as_ref().unwrap();
    assert!(bad.why.contains(why), "{bad}");
}

#[tokio::test]
async fn a_log_is_signed_as_it_grows_and_at_its_end_and_each_segment_begins_with_a_checkpoint() {
    let dir = Dir::new();
    log_of(&dir, 30).await;
    log_of(&dir, 3).await;
    let report = dir.verify();
    assert_eq!(report.status, Status::Ok, "{report:?}");
    assert!(report.checkpoints > 8, "{report:?}");
    assert_eq!(report.covered, Some(report.last_seq - 1), "the end is signed");
    assert_eq!(report.signed_by, [dir.signer().public().fingerprint()]);
    assert!(dir.segments().len() > 3);
    for segment in &dir.segments()[1..] {
        let text = fs::read_to_string(segment).unwrap();
        assert!(text.lines().next().unwrap().contains(r#""type":"checkpoint""#), "{text}");
    }
    // A clean end leaves nothing to sign: opening and closing adds no record.
    let (ledger, _) = Ledger::open(dir.config()).unwrap();
    drop(ledger);
    assert_eq!(dir.verify().last_seq, report.last_seq);
}

#[tokio::test]
async fn a_log_that_nobody_signed_so_far_is_signed_from_its_next_start_on() {
    let dir = Dir::new();
    let (ledger, _) = Ledger::open(Config { signer: None, ..dir.config() }).unwrap();
    calls(&ledger, 20).await;
    drop(ledger);
    dir.signer();
    // Who asks for a signature learns that there is none: a log without any could be anybody's.
    let report = dir.verify();
    assert_eq!((report.status, report.checkpoints), (Status::Incomplete, 0), "{report:?}");
    assert!(report.first_bad.unwrap().why.contains("no checkpoint is signed by a key that was given"));
    assert_eq!(verify(&dir.audit()).unwrap().status, Status::Ok);
    log_of(&dir, 5).await;
    let report = dir.verify();
    assert_eq!(report.status, Status::Ok, "{report:?}");
    assert_eq!(report.covered, Some(report.last_seq - 1));
}

#[tokio::test]
async fn an_empty_last_segment_breaks_no_chain() {
    let dir = Dir::new();
    log_of(&dir, 20).await;
    let next = dir.verify().last_seq + 1;
    // A crash after a segment was begun and before its first record: the hint already names it.
    File::create(dir.audit().join(format!("audit-{next:020}.jsonl"))).unwrap();
    fs::write(dir.audit().join("floor"), format!("{next}\n")).unwrap();
    log_of(&dir, 2).await;
    let report = dir.verify();
    assert_eq!(report.status, Status::Ok, "{report:?}");
    assert!(report.last_seq > next);
}

#[tokio::test]
async fn records_that_are_cut_off_are_found_by_a_checkpoint_kept_elsewhere() {
    let dir = Dir::new();
    log_of(&dir, 20).await;
    let elsewhere = kept(&dir);
    assert_eq!(dir.verify_with(vec![elsewhere.clone()]).held, 1);
    // Whole records are cut off, so that the chain itself holds.
    let last = dir.segments().pop().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let short: String = lines[..lines.len() - 2].iter().map(|line| format!("{line}\n")).collect();
    fs::write(&last, short).unwrap();
    assert_ne!(dir.verify().status, Status::Tampered, "the chain alone cannot show it");
    tampered(&dir.verify_with(vec![elsewhere.clone()]), "cut off, or this is an older copy");
    // A whole segment less is found too.
    fs::remove_file(&last).unwrap();
    tampered(&dir.verify_with(vec![elsewhere]), "cut off, or this is an older copy");
}

#[tokio::test]
async fn an_older_copy_is_found_even_when_it_went_on() {
    let dir = Dir::new();
    log_of(&dir, 10).await;
    let copy: Vec<_> = dir.segments().iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    log_of(&dir, 10).await;
    let elsewhere = kept(&dir);
    for path in dir.segments() {
        fs::remove_file(path).unwrap();
    }
    fs::remove_file(dir.audit().join("floor")).unwrap();
    for (path, bytes) in copy {
        fs::write(path, bytes).unwrap();
    }
    tampered(&dir.verify_with(vec![elsewhere.clone()]), "an older copy");
    // The gateway goes on with it: every number is there, and the chain and its signatures hold.
    log_of(&dir, 20).await;
    assert_eq!(dir.verify().status, Status::Ok);
    tampered(&dir.verify_with(vec![elsewhere]), "an older copy that went on");
}

#[tokio::test]
async fn a_log_that_was_written_anew_is_found_by_its_key() {
    let (dir, other) = (Dir::new(), Dir::new());
    log_of(&dir, 10).await;
    log_of(&other, 10).await;
    let against = Against { keys: dir.keys(), checkpoints: Vec::new() };
    let report = verify_against(&other.audit(), &against).unwrap();
    tampered(&report, "none of its checkpoints is signed by a key that was given");
    tampered(&dir.verify_with(vec![kept(&other)]), "");
    assert_eq!(verify(&other.audit()).unwrap().status, Status::Ok, "without a key nobody can tell");
}

#[tokio::test]
async fn a_checkpoint_that_signs_something_else_is_found() {
    let dir = Dir::new();
    log_of(&dir, 3).await;
    let path = dir.segments().pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let signed = kept(&dir);
    // The last record is a checkpoint, so that no later record's hash shows what is changed in it.
    for (from, to) in [
        (format!(r#""root":"{}""#, signed.root), format!(r#""root":"{}""#, "0".repeat(64))),
        (format!(r#""at":"{}""#, signed.at), r#""at":"2020-01-01T00:00:00.000000Z""#.to_owned()),
        (format!(r#""signature":"{}"#, &signed.signature[..4]), r#""signature":"AAAA"#.to_owned()),
    ] {
        let changed = text.rsplitn(2, from.as_str()).collect::<Vec<_>>();
        fs::write(&path, format!("{}{to}{}", changed[1], changed[0])).unwrap();
        tampered(&dir.verify(), "its signature is not by the key that it names");
    }
    fs::write(&path, &text).unwrap();
    assert_eq!(dir.verify().status, Status::Ok);
    let mut forged = signed.clone();
    forged.seq += 5;
    let against = Against { keys: dir.keys(), checkpoints: vec![forged] };
    assert!(verify_against(&dir.audit(), &against).unwrap_err().to_string().contains("is not signed"));
}

#[tokio::test]
async fn any_record_between_checkpoints_is_proven_without_the_others() {
    let dir = Dir::new();
    let ids = log_of(&dir, 25).await;
    for id in &ids {
        let proof = prove::prove(&dir.audit(), &id.to_string()).unwrap().unwrap();
        let proven = proof.check(&dir.keys()).unwrap();
        assert!(proven.believed && proof.path.len() <= 5, "{proof:?}");
        let record: Value = serde_json::from_str(&proof.record).unwrap();
        assert_eq!(record["id"], id.to_string());
        let text = serde_json::to_string(&proof).unwrap();
        assert_eq!(ids.iter().filter(|other| text.contains(&other.to_string())).count(), 1);
    }
    let proof = prove::prove(&dir.audit(), &ids[7].to_string()).unwrap().unwrap();
    let other = Dir::new();
    log_of(&other, 1).await;
    assert!(proof.check(&other.keys()).unwrap_err().to_string().contains("not among those given"));
    let changed = |change: fn(&mut Proof)| {
        let mut proof = proof.clone();
        change(&mut proof);
        proof.check(&[]).unwrap_err().to_string()
    };
    assert!(changed(|proof| proof.record = proof.record.replace("write", "read!")).contains("does not lead"));
    assert!(changed(|proof| proof.seq += 1).contains("does not lead"));
    assert!(changed(|proof| drop(proof.path.pop())).contains("does not lead"));
    assert!(changed(|proof| proof.checkpoint.seq += 1).contains("is not signed"));
    let unknown = prove::prove(&dir.audit(), &RecordId::new().to_string()).unwrap();
    assert!(unknown.unwrap_err().contains("no record with this id"));

    let file = dir.0.join("proof.json");
    fs::write(&file, serde_json::to_vec(&proof).unwrap()).unwrap();
    let key = dir.0.join("keys").join(ring::PUBLIC_KEYS);
    let mut out = Vec::new();
    assert_eq!(audit::verify_proof(&file, Some(&key), Format::Text, &mut out), 0);
    assert!(String::from_utf8(out).unwrap().starts_with("ok: record"));
}

/// A machine whose clock and disk do what a test says.
#[derive(Default)]
struct Broken {
    clock_seconds: AtomicI64,
    sync_fails: AtomicBool,
    write_fails: AtomicBool,
    sync_hangs: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    free_bytes: AtomicU64,
}

impl Machine for Broken {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + time::Duration::seconds(self.clock_seconds.load(Ordering::Relaxed))
    }

    fn append(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        match self.write_fails.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Real.append(file, bytes),
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if let Some(hang) = &*self.sync_hangs.lock().unwrap() {
            let _ = hang.recv();
        }
        match self.sync_fails.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Real.sync(file),
        }
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free_bytes.load(Ordering::Relaxed))
    }
}

/// Waits until the ledger has seen how much room there is.
async fn until(ledger: &Ledger, room: Room) {
    while ledger.room() != room {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_low_disk_refuses_what_changes_the_world_first_then_everything_but_outcomes() {
    let dir = Dir::new();
    let machine = Arc::new(Broken::default());
    machine.free_bytes.store(10 << 20, Ordering::Relaxed);
    let config = Config {
        free_bytes_min: 4 << 20,
        machine: Arc::clone(&machine) as Arc<dyn Machine>,
        segment_bytes_max: 64 << 20,
        ..dir.config()
    };
    let (ledger, _) = Ledger::open(config).unwrap();
    assert_eq!(fs::metadata(dir.audit().join("reserve")).unwrap().len(), 1 << 20);
    let (sent, read) = (intent(), intent());
    let (sent_id, read_id) = (sent.id(), read.id());
    ledger.append(sent, Durability::Synced).await.unwrap();

    machine.free_bytes.store(2 << 20, Ordering::Relaxed);
    until(&ledger, Room::Low).await;
    let refused = ledger.append(intent(), Durability::Synced).await;
    assert!(matches!(refused, Err(LedgerError::NoRoom { free_bytes: 2_097_152 })), "{refused:?}");
    ledger.append(read, Durability::Written).await.unwrap();
    ledger.append(outcome(read_id), Durability::Written).await.unwrap();

    machine.free_bytes.store(1000, Ordering::Relaxed);
    until(&ledger, Room::Floor).await;
    assert!(matches!(ledger.append(intent(), Durability::Written).await, Err(LedgerError::NoRoom { .. })));
    // What was sent before is closed all the same.
    ledger.append(outcome(sent_id), Durability::Synced).await.unwrap();

    machine.free_bytes.store(10 << 20, Ordering::Relaxed);
    until(&ledger, Room::Ample).await;
    ledger.append(intent(), Durability::Synced).await.unwrap();
    let seqs = dir.records().iter().filter(|record| record["type"] == "intent").count();
    assert_eq!((seqs, ledger.stats().lost), (3, 0), "refused intents are in no record");
}

#[tokio::test]
async fn a_disk_that_is_full_still_takes_the_outcomes_of_calls_that_were_sent() {
    let dir = Dir::new();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(dir.audit())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: only root may mount a small disk");
        return;
    }
    let config = Config { free_bytes_min: 1 << 20, segment_bytes_max: 64 << 20, ..dir.config() };
    let (ledger, _) = Ledger::open(config).unwrap();
    let mut sent = Vec::new();
    for _ in 0..50 {
        let intent = intent();
        sent.push(intent.id());
        ledger.append(intent, Durability::Synced).await.unwrap();
    }
    // Somebody else fills the disk to its last byte.
    let mut ballast = File::create(dir.audit().join("ballast")).unwrap();
    while io::Write::write_all(&mut ballast, &[1; 4096]).is_ok() {}
    while io::Write::write_all(&mut ballast, &[1]).is_ok() {}
    until(&ledger, Room::Floor).await;
    assert!(ledger.append(intent(), Durability::Synced).await.is_err());
    let mut closed = Vec::new();
    for id in &sent {
        closed.push(ledger.append(outcome(*id), Durability::Synced).await);
    }
    drop(ledger);
    let report = verify(&dir.audit()).unwrap();
    let reserve = dir.audit().join("reserve").exists();
    let _ = std::process::Command::new("umount").arg(dir.audit()).output();
    assert!(closed.iter().all(Result::is_ok), "{closed:?}");
    assert!(!reserve, "the reserve was given up for them");
    assert_eq!((report.status, report.open_intents), (Status::Ok, 0), "{report:?}");
}

#[tokio::test]
async fn a_disk_that_does_not_sync_refuses_writes_after_a_bound_and_reads_go_on() {
    let dir = Dir::new();
    let machine = Arc::new(Broken::default());
    let config = Config {
        wait: Duration::from_millis(300),
        machine: Arc::clone(&machine) as Arc<dyn Machine>,
        segment_bytes_max: 64 << 20,
        checkpoint_records_max: 1000,
        ..dir.config()
    };
    let (ledger, _) = Ledger::open(config).unwrap();
    let (release, hang) = std::sync::mpsc::channel();
    *machine.sync_hangs.lock().unwrap() = Some(hang);
    let hung = intent();
    let id = hung.id();
    assert!(matches!(ledger.append(hung, Durability::Synced).await, Err(LedgerError::Hung)));
    calls(&ledger, 20).await;
    assert!(matches!(ledger.append(intent(), Durability::Synced).await, Err(LedgerError::Hung)));
    ledger.append_detached(outcome(id));
    drop(release);
    tokio::time::sleep(Duration::from_millis(400)).await;
    ledger.append(intent(), Durability::Synced).await.unwrap();
    drop(ledger);
    assert_ne!(dir.verify().status, Status::Tampered);
}

#[tokio::test]
async fn a_disk_that_is_gone_takes_nothing_more_and_what_was_acknowledged_stands() {
    for fails in ["write", "sync"] {
        let dir = Dir::new();
        let machine = Arc::new(Broken::default());
        let config = Config { machine: Arc::clone(&machine) as Arc<dyn Machine>, ..dir.config() };
        let (ledger, _) = Ledger::open(config).unwrap();
        let ids = calls(&ledger, 3).await;
        let flag = if fails == "write" { &machine.write_fails } else { &machine.sync_fails };
        flag.store(true, Ordering::Relaxed);
        let refused = ledger.append(intent(), Durability::Synced).await;
        assert!(
            matches!(&refused, Err(LedgerError::Failed(why)) if why.contains("os error 5")),
            "{refused:?}"
        );
        flag.store(false, Ordering::Relaxed);
        // A refused write left the file as it was; after a failed fsync nothing about the file is known any more.
        let after = ledger.append(intent(), Durability::Written).await;
        assert_eq!(after.is_ok(), fails == "write", "{after:?}");
        assert_eq!(ledger.failure().is_some(), fails == "sync");
        drop(ledger);
        let (_, recovered) = Ledger::open(dir.config()).unwrap();
        assert_eq!(recovered.torn_bytes, 0);
        let report = dir.verify();
        assert_eq!(report.status, Status::Ok, "{report:?}");
        let text = dir.text();
        assert!(ids.iter().all(|id| text.contains(&id.to_string())));
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_and_forward_breaks_nothing_and_is_told() {
    let dir = Dir::new();
    let machine = Arc::new(Broken::default());
    let config = Config { machine: Arc::clone(&machine) as Arc<dyn Machine>, ..dir.config() };
    let (ledger, _) = Ledger::open(config).unwrap();
    calls(&ledger, 5).await;
    machine.clock_seconds.store(-86_400 * 365, Ordering::Relaxed);
    calls(&ledger, 5).await;
    machine.clock_seconds.store(86_400 * 365, Ordering::Relaxed);
    calls(&ledger, 5).await;
    drop(ledger);
    let report = dir.verify();
    assert_eq!((report.status, report.clock_back), (Status::Ok, 1), "{report:?}");
}

/// A keeper for whom everything that is closed is old at once.
fn keeper(dir: &Dir, retain: Option<Duration>) -> Keeper {
    Keeper::new(&dir.audit(), Retention { archive_after: Duration::ZERO, retain }, dir.signer())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_still_verifies_and_is_read_as_before() {
    let dir = Dir::new();
    let (ledger, _) = Ledger::open(dir.config()).unwrap();
    let ids = calls(&ledger, 60).await;
    let before = dir.segments().len();
    let kept = keeper(&dir, None).round(&ledger, SystemTime::now()).unwrap();
    assert_eq!(kept.archived, before as u64 - 2);
    assert_eq!(dir.segments().len(), 2);
    for entry in fs::read_dir(dir.audit().join("archive")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    calls(&ledger, 5).await;
    drop(ledger);
    let report = dir.verify();
    assert_eq!((report.status, report.archived_before), (Status::Ok, None), "{report:?}");
    assert!(report.segments >= before as u64);
    assert_eq!(tail::find(&dir.audit(), &ids[0].to_string()).unwrap().len(), 2);
    prove::prove(&dir.audit(), &ids[1].to_string()).unwrap().unwrap().check(&dir.keys()).unwrap();
    // The gateway starts with what is left, and goes on.
    log_of(&dir, 5).await;
    assert_eq!(dir.verify().status, Status::Ok);
    // A changed archive is found.
    let archived = fs::read_dir(dir.audit().join("archive")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&archived).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archived, bytes).unwrap();
    let report = verify(&dir.audit());
    assert!(report.is_err() || report.unwrap().status == Status::Tampered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_deletes_leaves_a_signed_statement_of_what_went() {
    let dir = Dir::new();
    let (ledger, _) = Ledger::open(dir.config()).unwrap();
    let ids = calls(&ledger, 60).await;
    let first = Some(Duration::ZERO);
    let keep = keeper(&dir, first);
    let kept = tokio::task::block_in_place(|| keep.round(&ledger, SystemTime::now()).unwrap());
    let deletion = kept.deleted.unwrap();
    assert_eq!(deletion.first_seq, 1);
    calls(&ledger, 2).await;
    drop(ledger);
    let report = dir.verify();
    assert_eq!(
        (report.status, report.archived_before),
        (Status::Ok, Some(deletion.last_seq + 1)),
        "{report:?}"
    );
    assert!(report.notes.iter().any(|note| note.contains("a signed statement says so")), "{report:?}");
    assert!(tail::find(&dir.audit(), &ids[0].to_string()).unwrap().is_empty());
    // Somebody who takes away one segment more is found: what is left does not follow what was said to go.
    log_of(&dir, 20).await;
    fs::remove_file(&dir.segments()[0]).unwrap();
    let report = dir.verify();
    assert!(
        !report
            .notes
            .iter()
            .any(|note| note.contains(&format!("to {} were", report.archived_before.unwrap() - 1)))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_deletes_nothing() {
    let dir = Dir::new();
    let (ledger, _) = Ledger::open(dir.config()).unwrap();
    calls(&ledger, 60).await;
    let keep = keeper(&dir, Some(Duration::from_secs(86_400 * 400)));
    let before = dir.segments();
    let later = SystemTime::now() + Duration::from_secs(86_400 * 500);
    let kept = tokio::task::block_in_place(|| keep.round(&ledger, later).unwrap());
    assert_eq!((kept.archived, kept.deleted), (0, None));
    assert_eq!(dir.segments(), before);
}

#[tokio::test]
async fn a_rotated_signing_key_is_told_by_the_old_one_and_old_checkpoints_still_hold() {
    let dir = Dir::new();
    log_of(&dir, 10).await;
    let (old, before) = (dir.keys(), kept(&dir));
    let ring = dir.ring();
    ring.stage(Purpose::AuditSigning, &ring::random().unwrap()).unwrap();
    let rotated = rotate::staged(&ring, &dir.config()).await.unwrap();
    assert_eq!(rotated.len(), 1);
    assert_eq!(rotated[0].old, old[0].fingerprint());
    assert_eq!(rotated[0].signer(), Some(old[0]));
    assert_ne!(dir.signer().public(), old[0]);
    log_of(&dir, 10).await;
    let after = kept(&dir);
    // Who has only the first key follows the rotation; who has all of them needs not.
    for keys in [old.clone(), dir.keys()] {
        let against = Against { keys, checkpoints: vec![before.clone(), after.clone()] };
        let report = verify_against(&dir.audit(), &against).unwrap();
        assert_eq!((report.status, report.held, report.signed_by.len()), (Status::Ok, 2, 2), "{report:?}");
    }
    // Without a rotation a new key is another's.
    fs::remove_file(dir.0.join("keys/audit-signing.key")).unwrap();
    log_of(&dir, 10).await;
    let report = verify_against(&dir.audit(), &Against { keys: old, checkpoints: Vec::new() }).unwrap();
    tampered(&report, "which no rotation names");
}

#[tokio::test]
async fn a_rotated_pseudonym_key_is_on_the_record_and_the_old_one_is_kept() {
    let dir = Dir::new();
    let ring = dir.ring();
    let old = ring.current_or_new(Purpose::Pseudonym).unwrap();
    log_of(&dir, 2).await;
    ring.stage(Purpose::Pseudonym, &ring::random().unwrap()).unwrap();
    rotate::staged(&ring, &dir.config()).await.unwrap();
    let previous = ring.key(Purpose::Pseudonym, Slot::Previous).unwrap().unwrap();
    let now = ring.key(Purpose::Pseudonym, Slot::Current).unwrap().unwrap();
    assert!(*previous == *old && *now != *old && ring.staged().is_empty());
    let records = dir.records();
    let record = records.iter().find(|record| record["action"] == "key-rotated").unwrap();
    assert_eq!(record["rotation"]["old"], ring::name(Purpose::Pseudonym, &old).unwrap());
    assert_eq!(record["rotation"]["new"], ring::name(Purpose::Pseudonym, &now).unwrap());
    assert!(record["detail"].as_str().unwrap().contains("do not match"));
    assert_eq!(dir.verify().status, Status::Ok);
    // A key that others may read is used for nothing.
    let path = dir.0.join("keys/pseudonym.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = ring.current_or_new(Purpose::Pseudonym).unwrap_err();
    assert!(
        matches!(&refused, KeyError::Open { mode: 0o640, .. }) && refused.to_string().contains("chmod 600")
    );
}

#[test]
fn what_is_sealed_opens_with_the_auditor_s_key_alone_and_only_for_its_own_call() {
    let (public, private) = seal::key_pair().unwrap();
    let auditor = Auditor::new(&public).unwrap();
    let id = RecordId::new();
    let sealed = auditor.seal(id, Part::Arguments, b"{\"to\":\"ana@example.org\"}").unwrap();
    let shown = format!("{sealed:?}");
    assert!(!shown.contains("ana@") && !shown.contains("YW5h"));
    assert!(Auditor::new(&[0; 32]).is_err(), "what is no key seals nothing");
    drop(private);
}

/// The required attributes of OCSF 1.6.0, class API Activity, and of the objects in it.
const OCSF_REQUIRED: [&str; 14] = [
    "/activity_id",
    "/actor",
    "/api",
    "/api/operation",
    "/category_uid",
    "/class_uid",
    "/metadata",
    "/metadata/product",
    "/metadata/version",
    "/severity_id",
    "/src_endpoint",
    "/time",
    "/type_uid",
    "/metadata/product/vendor_name",
];

#[tokio::test]
async fn copies_have_what_their_schemas_require_and_only_the_records_that_were_asked_for() {
    let dir = Dir::new();
    let ids = log_of(&dir, 20).await;
    let export = |form, filter: &Filter| {
        let mut out = Vec::new();
        let copied = export::export(&dir.audit(), form, filter, &mut out).unwrap();
        let lines: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(copied, lines.len() as u64);
        lines
    };
    let all = export(Form::Jsonl, &Filter::default());
    assert_eq!(all, dir.records());
    let events = export(Form::Ocsf, &Filter::default());
    assert_eq!(events.len(), 40, "checkpoints are about no call");
    for event in &events {
        for required in OCSF_REQUIRED {
            assert!(event.pointer(required).is_some(), "{required} in {event}");
        }
        let one_of =
            |object: &str, names: &[&str]| names.iter().any(|name| event[object].get(name).is_some());
        assert!(one_of("actor", &["process", "user", "invoked_by", "session", "app_name"]), "{event}");
        assert!(one_of("src_endpoint", &["ip", "uid", "name", "hostname", "svc_name"]), "{event}");
        let uid = |name: &str| event[name].as_u64().unwrap();
        assert_eq!((uid("class_uid"), uid("category_uid")), (6003, 6));
        assert_eq!(uid("type_uid"), 600_300 + uid("activity_id"));
        assert!(event["time"].as_i64().unwrap() > 1_700_000_000_000, "milliseconds");
    }
    assert_eq!(events[0]["src_endpoint"], json!({"ip": "192.0.2.7", "port": 40000}));
    let logs = export(Form::Otlp, &Filter { outcome: Some("executed".to_owned()), ..Filter::default() });
    assert_eq!(logs.len(), 20);
    let record = &logs[0]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["traceId"], "07".repeat(16));
    assert_eq!(record["eventName"], "holdpoint.audit.outcome");
    assert!(record["timeUnixNano"].as_str().unwrap().parse::<u64>().is_ok());

    let count = |filter: Filter| export(Form::Jsonl, &filter).len();
    let agent = |agent: &str| count(Filter { agent: Some(agent.to_owned()), ..Filter::default() });
    assert_eq!((agent("mailer"), agent("spiffe://example.org/agent/mailer"), agent("ailer")), (40, 40, 0));
    assert_eq!(count(Filter { tool: Some("mail.send".to_owned()), ..Filter::default() }), 40);
    assert_eq!(count(Filter { trace: Some("07".repeat(16)), ..Filter::default() }), 40);
    let tomorrow = Some(OffsetDateTime::now_utc() + time::Duration::days(1));
    assert_eq!(count(Filter { from: tomorrow, ..Filter::default() }), 0);
    assert_eq!(count(Filter { to: tomorrow, ..Filter::default() }), all.len());
    assert!(!ids.is_empty());
}

#[tokio::test]
async fn checkpoints_are_told_once_they_are_durable_and_read_back_from_a_file() {
    let dir = Dir::new();
    let told: Arc<Mutex<Vec<Checkpoint>>> = Arc::default();
    let hook = Arc::clone(&told);
    let config = Config {
        on_checkpoint: Some(Arc::new(move |checkpoint| hook.lock().unwrap().push(checkpoint.clone()))),
        ..dir.config()
    };
    let (ledger, _) = Ledger::open(config).unwrap();
    calls(&ledger, 20).await;
    let end = ledger.checkpoint().await.unwrap();
    let told = told.lock().unwrap().clone();
    assert_eq!(told.last().unwrap().seq + 1, end.seq);
    let file = dir.0.join("elsewhere.jsonl");
    fs::write(&file, told.iter().map(|one| format!("{}\n", json!(one))).collect::<String>()).unwrap();
    assert_eq!(checkpoint::read(&file).unwrap(), told);
    let mut out = Vec::new();
    let key = dir.0.join("keys").join(ring::PUBLIC_KEYS);
    drop(ledger);
    assert_eq!(audit::verify_against(&dir.audit(), (Some(&key), Some(&file)), Format::Text, &mut out), 0);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(&format!("checkpoints kept elsewhere that hold: {}", told.len())), "{text}");
}

/// A server that answers each POST with the next of these statuses, and gives the bodies.
async fn witness(statuses: Vec<u16>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/holdpoint", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let mut bodies = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut text, mut piece) = (String::new(), [0; 4096]);
            while !text.contains("\r\n\r\n") || !text.ends_with('}') {
                let read = stream.read(&mut piece).await.unwrap();
                text.push_str(str::from_utf8(&piece[..read]).unwrap());
            }
            bodies.push(text.split("\r\n\r\n").nth(1).unwrap().to_owned());
            let answer = format!("HTTP/1.1 {status} Told\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        bodies
    });
    (url, served)
}

#[tokio::test]
async fn a_witness_that_fails_is_counted_holds_up_nothing_and_gets_the_newest_later() {
    let dir = Dir::new();
    let (url, served) = witness(vec![503, 200]).await;
    let (collector, collected) = witness(vec![200, 200]).await;
    let (tell, newest) = tokio::sync::watch::channel(None);
    let config = Config {
        on_checkpoint: Some(Arc::new(move |checkpoint| {
            tell.send_replace(Some(checkpoint.clone()));
        })),
        checkpoint_records_max: 1_000_000,
        ..dir.config()
    };
    let (ledger, _) = Ledger::open(Config { segment_bytes_max: 64 << 20, ..config }).unwrap();
    let (told, mut results) = tokio::sync::mpsc::channel(16);
    let on_published: OnPublished = Arc::new(move |published| told.try_send(published.clone()).unwrap());
    let places = vec![Place::Url(Poster::new(&url).unwrap()), Place::Otlp(Poster::new(&collector).unwrap())];
    let (end, ended) = tokio::sync::oneshot::channel();
    let publishing = tokio::spawn(publish::run(places, newest, on_published, ended));
    calls(&ledger, 3).await;
    ledger.checkpoint().await.unwrap();
    assert!(results.recv().await.unwrap().unwrap_err().contains("503"));
    assert_eq!(results.recv().await.unwrap(), Ok(()));
    calls(&ledger, 3).await;
    ledger.checkpoint().await.unwrap();
    end.send(()).unwrap();
    publishing.await.unwrap();
    drop(ledger);
    let bodies = served.await.unwrap();
    let posted: Checkpoint = serde_json::from_str(bodies.last().unwrap()).unwrap();
    assert_eq!(posted, kept(&dir));
    assert_eq!(dir.verify_with(vec![posted]).held, 1);
    let log: Value = serde_json::from_str(collected.await.unwrap().last().unwrap()).unwrap();
    let record = &log["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["eventName"], "holdpoint.audit.checkpoint");
}

#[test]
fn opening_what_was_erased_says_so() {
    let error = OpenError::Erased { id: "x".to_owned(), part: "arguments" };
    assert!(error.to_string().contains("it was erased. The record stands"));
}

/// One million records: `cargo test --release --test audit one_million -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn one_million_records_are_verified_in_bounded_memory() {
    let dir = Dir::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config {
            queue_max: 1 << 16,
            segment_bytes_max: 64 << 20,
            checkpoint_records_max: 1000,
            ..dir.config()
        };
        let (ledger, _) = Ledger::open(config).unwrap();
        for call in 0..500_000 {
            let intent = intent();
            let id = intent.id();
            ledger.append_detached(intent);
            ledger.append_detached(outcome(id));
            if call % 1000 == 0 {
                ledger.checkpoint().await.unwrap();
            }
        }
        assert_eq!(ledger.stats().lost, 0);
    });
    let before = peak_kib();
    let start = Instant::now();
    let report = dir.verify();
    println!("verify_records: {}", report.records);
    println!("verify_records_per_second: {:.0}", report.records as f64 / start.elapsed().as_secs_f64());
    println!("verify_peak_kib: {}", peak_kib());
    println!("verify_peak_growth_kib: {}", peak_kib() - before);
    assert!(report.records > 1_000_000 && report.status == Status::Ok, "{report:?}");
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
