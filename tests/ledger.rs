//! The ledger through its front door: what is acknowledged is there, and what was touched is found and named.

#![expect(clippy::unwrap_used, reason = "tests and what they share stop at the first surprise")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdpoint::call::RecordId;
use holdpoint::cli::audit;
use holdpoint::json::Members;
use holdpoint::record::tail::{self, Format};
use holdpoint::record::verify::{Bad, Report, Status, verify};
use holdpoint::record::{Config, Durability, Entry, Kind, Ledger, LedgerError};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let dir = std::env::temp_dir().join(format!("holdpoint-{}", RecordId::new()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".jsonl")).collect();
        files.sort();
        files
    }

    fn config(&self) -> Config {
        Config::new(&self.0)
    }

    fn verify(&self) -> Report {
        verify(&self.0).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What an intent says.
fn body() -> Members {
    let mut members = Members::default();
    members.object("agent", |agent| agent.text("id", "spiffe://acme/team/mailer"));
    members.text("upstream", "mail");
    members.text("tool", "send");
    members.text("class", "write");
    members
}

/// A text of so many bytes.
fn text(bytes: usize) -> Members {
    let mut members = Members::default();
    members.text("text", &"x".repeat(bytes));
    members
}

fn intent() -> Entry {
    Entry::new(Kind::Intent, Some([7; 16]), body())
}

fn outcome(of: RecordId) -> Entry {
    let mut members = Members::default();
    members.text("status", "ok");
    members.number("duration_ms", 3);
    Entry::outcome(of, Some([7; 16]), members)
}

/// A closed log of calls, each an intent and its outcome.
async fn log_of(dir: &Dir, calls: usize, segment_bytes_max: u64) {
    let (ledger, _) = Ledger::open(Config { segment_bytes_max, ..dir.config() }).unwrap();
    for _ in 0..calls {
        let intent = intent();
        let id = intent.id();
        ledger.append(intent, Durability::Written).await.unwrap();
        ledger.append(outcome(id), Durability::Written).await.unwrap();
    }
}

fn tampered(report: &Report) -> Bad {
    assert_eq!(report.status, Status::Tampered, "{report:?}");
    report.first_bad.clone().unwrap()
}

#[tokio::test]
async fn a_log_is_chained_over_its_segments_and_read_by_people() {
    let dir = Dir::new();
    log_of(&dir, 50, 4000).await;
    log_of(&dir, 50, 4000).await;
    assert!(dir.segments().len() > 5);
    for segment in dir.segments() {
        use std::os::unix::fs::PermissionsExt;
        let meta = fs::metadata(&segment).unwrap();
        assert!(meta.len() <= 4000);
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    }
    let report = dir.verify();
    assert_eq!((report.status, report.records, report.last_seq), (Status::Ok, 200, 200), "{report:?}");

    let mut text = Vec::new();
    assert_eq!(audit::verify(&dir.0, Format::Text, &mut text), 0);
    assert!(String::from_utf8(text).unwrap().starts_with("ok: 200 records"));
    let mut text = Vec::new();
    assert_eq!(audit::tail(&dir.0, 30, audit::Then::Stop, Format::Text, &mut text), 0);
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), 30);
    assert!(text.contains("intent      mailer  mail.send  write"), "{text}");

    let mut line = Vec::new();
    tail::last(&dir.0, 2, Format::Json, &mut line).unwrap();
    let line: serde_json::Value =
        serde_json::from_slice(line.split(|b| *b == b'\n').next().unwrap()).unwrap();
    let found = tail::find(&dir.0, line["id"].as_str().unwrap()).unwrap();
    let kinds: Vec<_> = found.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["intent", "outcome"]);
    assert_eq!(tail::find(&dir.0, &"07".repeat(16)).unwrap().len(), 200);
}

#[tokio::test]
async fn a_crash_between_a_new_segment_and_its_first_record_does_not_break_the_chain() {
    let dir = Dir::new();
    log_of(&dir, 10, 4000).await;
    fs::write(dir.0.join("audit-00000000000000000021.jsonl"), "").unwrap();
    fs::write(dir.0.join("floor"), "21\n").unwrap();
    log_of(&dir, 10, 4000).await;
    let report = dir.verify();
    assert_eq!((report.status, report.records), (Status::Ok, 40), "{report:?}");
}

#[tokio::test]
async fn a_followed_log_shows_what_is_appended() {
    let dir = Dir::new();
    log_of(&dir, 2, 600).await;
    let mut out = Vec::new();
    let position = tail::last(&dir.0, 1, Format::Text, &mut out).unwrap();
    log_of(&dir, 5, 600).await;
    let mut out = Vec::new();
    let mut rounds = 0;
    let wanted = || {
        rounds += 1;
        rounds < 20
    };
    tail::follow(&dir.0, position, Format::Text, &mut out, wanted).unwrap();
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 10);
}

#[tokio::test]
async fn any_changed_byte_is_found_and_named() {
    let dir = Dir::new();
    log_of(&dir, 20, 3000).await;
    let segments = dir.segments();
    let texts: Vec<Vec<u8>> = segments.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut runner = TestRunner::new(Cases { cases: 400, failure_persistence: None, ..Cases::default() });
    let places = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1_u8..);
    runner
        .run(&places, |(segment, byte, flip)| {
            let segment = segment.index(segments.len());
            let mut text = texts[segment].clone();
            // Only a checkpoint could show a change of the last record.
            let last = text[..text.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
            let room = if segment + 1 == segments.len() { last } else { text.len() };
            let byte = byte.index(room);
            text[byte] ^= flip;
            fs::write(&segments[segment], &text).unwrap();
            let report = verify(&dir.0);
            fs::write(&segments[segment], &texts[segment]).unwrap();
            let report = report.unwrap();
            let bad = tampered(&report);
            // The record itself or the one after it is named.
            let line = texts[segment][..byte].iter().filter(|b| **b == b'\n').count() as u64 + 1;
            let here =
                bad.file == segments[segment].display().to_string() && (line..=line + 1).contains(&bad.line);
            let next = segments.get(segment + 1).is_some_and(|next| bad.file == next.display().to_string());
            prop_assert!(here || (next && bad.line == 1), "byte {byte} of {segment} (line {line}): {bad}");
            Ok(())
        })
        .unwrap();
    assert_eq!(dir.verify().status, Status::Ok);
}

#[tokio::test]
async fn removed_inserted_and_reordered_records_are_found_and_named() {
    let dir = Dir::new();
    log_of(&dir, 10, 64 << 20).await;
    let path = dir.segments()[0].clone();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let with = |lines: &[&str]| {
        fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        tampered(&dir.verify())
    };
    let mut deleted = lines.clone();
    deleted.remove(7);
    assert_eq!(with(&deleted).line, 8);
    let mut doubled = lines.clone();
    doubled.insert(7, lines[6]);
    assert_eq!(with(&doubled).line, 8);
    let mut swapped = lines.clone();
    swapped.swap(4, 5);
    let bad = with(&swapped);
    assert_eq!((bad.line, bad.seq), (5, 5));
    assert!(bad.why.contains("its seq is 6, and 5 was expected"), "{bad}");
    let mut blank = lines.clone();
    blank.insert(3, "");
    assert_eq!(with(&blank).line, 4);
    assert!(matches!(Ledger::open(dir.config()), Err(LedgerError::Broken { line: 4, .. })));
    assert_eq!(dir.segments().len(), 1);
}

#[tokio::test]
async fn a_segment_that_is_replaced_or_missing_is_found_and_old_ones_may_be_archived() {
    let (dir, other) = (Dir::new(), Dir::new());
    log_of(&dir, 30, 3000).await;
    log_of(&other, 30, 3000).await;
    let (own, others) = (dir.segments(), other.segments());
    let kept = fs::read(&own[1]).unwrap();
    fs::write(&own[1], fs::read(&others[1]).unwrap()).unwrap();
    let bad = tampered(&dir.verify());
    assert_eq!((bad.file, bad.line), (own[1].display().to_string(), 1));
    fs::remove_file(&own[1]).unwrap();
    assert_eq!(tampered(&dir.verify()).file, own[2].display().to_string());
    fs::remove_file(&own[0]).unwrap();
    let report = dir.verify();
    assert_eq!(report.status, Status::Ok, "{report:?}");
    assert!(report.archived_before.is_some());
    fs::write(&own[1], kept).unwrap();
    assert_eq!(dir.verify().status, Status::Ok);
    // The gateway goes on where the log ends.
    log_of(&dir, 1, 3000).await;
    assert_eq!(dir.verify().last_seq, 62);
}

#[tokio::test]
async fn a_last_write_cut_at_any_byte_is_set_aside() {
    let whole = Dir::new();
    log_of(&whole, 3, 64 << 20).await;
    let text = fs::read(&whole.segments()[0]).unwrap();
    let last = text[..text.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last + 1..text.len() {
        let dir = Dir::new();
        let path = dir.0.join(whole.segments()[0].file_name().unwrap());
        fs::write(&path, &text[..cut]).unwrap();
        assert_eq!(dir.verify().status, Status::Incomplete);
        let (ledger, recovered) = Ledger::open(dir.config()).unwrap();
        assert_eq!(recovered.torn_bytes, (cut - last) as u64);
        assert_eq!(fs::read(recovered.torn_file.unwrap()).unwrap(), &text[last..cut]);
        // The outcome was lost, so that the intent is closed as unknown.
        assert_eq!((recovered.dangling, recovered.next_seq), (1, 8));
        drop(ledger);
        let report = dir.verify();
        assert_eq!((report.status, report.records, report.repairs), (Status::Ok, 7, 1), "{report:?}");
    }
}

#[tokio::test]
async fn a_garbled_last_line_is_set_aside_and_a_garbled_earlier_one_stops_the_gateway() {
    let dir = Dir::new();
    log_of(&dir, 3, 64 << 20).await;
    let path = dir.segments()[0].clone();
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(&[0; 5000]);
    fs::write(&path, &text).unwrap();
    let (ledger, recovered) = Ledger::open(dir.config()).unwrap();
    assert_eq!((recovered.torn_bytes, recovered.dangling), (5000, 0));
    drop(ledger);
    assert_eq!(dir.verify().status, Status::Ok);
    let text = fs::read_to_string(&path).unwrap().replacen("\"seq\":3", "\"seq\":4", 1);
    fs::write(&path, &text).unwrap();
    let Err(error) = Ledger::open(dir.config()) else { panic!("a broken chain was opened") };
    assert!(error.to_string().contains(".jsonl:3: record 3: its seq is 4"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn intents_left_open_are_closed_as_unknown_also_from_old_segments() {
    let dir = Dir::new();
    let open = [intent(), intent()];
    let ids = [open[0].id(), open[1].id()];
    {
        let (ledger, _) = Ledger::open(Config { segment_bytes_max: 2000, ..dir.config() }).unwrap();
        for entry in open {
            ledger.append(entry, Durability::Synced).await.unwrap();
        }
        for _ in 0..100 {
            let intent = intent();
            let id = intent.id();
            ledger.append(intent, Durability::Written).await.unwrap();
            ledger.append(outcome(id), Durability::Written).await.unwrap();
        }
        let report = dir.verify();
        assert_eq!((report.status, report.in_flight), (Status::Ok, 2), "{report:?}");
    }
    let report = dir.verify();
    assert_eq!((report.status, report.open_intents), (Status::Incomplete, 2));
    assert_eq!(report.first_bad.unwrap().line, 1);
    let (_, recovered) = Ledger::open(dir.config()).unwrap();
    assert_eq!(recovered.dangling, 2);
    let found = tail::find(&dir.0, &ids[0].to_string()).unwrap();
    assert_eq!(found[1]["status"], "unknown");
    assert_eq!(found[1]["trace_id"], "07".repeat(16));
    assert_eq!(dir.verify().status, Status::Ok);
}

#[tokio::test]
async fn the_next_open_reads_only_from_the_oldest_open_intent() {
    let dir = Dir::new();
    log_of(&dir, 200, 4000).await;
    let (_, recovered) = Ledger::open(dir.config()).unwrap();
    assert!(recovered.scanned < 50, "{recovered:?}");
    assert_eq!(recovered.next_seq, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_all_written_and_few_syncs_are_needed() {
    let dir = Dir::new();
    let (ledger, _) = Ledger::open(dir.config()).unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let durability = if task % 2 == 0 { Durability::Synced } else { Durability::Written };
                let mut seqs = Vec::new();
                for _ in 0..100 {
                    let intent = intent();
                    let id = intent.id();
                    seqs.push(ledger.append(intent, durability).await.unwrap().seq);
                    seqs.push(ledger.append(outcome(id), durability).await.unwrap().seq);
                }
                seqs
            })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        let own = task.await.unwrap();
        assert!(own.is_sorted());
        seqs.extend(own);
    }
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(1..=12_800));
    let stats = ledger.stats();
    assert_eq!((stats.records, stats.lost), (12_800, 0));
    assert!(stats.syncs < 6_400, "{stats:?}");
    drop(ledger);
    let report = dir.verify();
    assert_eq!((report.status, report.records), (Status::Ok, 12_800), "{report:?}");
}

#[tokio::test]
async fn a_full_queue_refuses_and_what_is_lost_is_counted() {
    let dir = Dir::new();
    let (ledger, _) = Ledger::open(Config { queue_max: 2, ..dir.config() }).unwrap();
    let large = text(4 << 20);
    for _ in 0..40 {
        ledger.append_detached(Entry::new(Kind::Finding, None, large.clone()));
    }
    let refused = ledger.append(intent(), Durability::Written).await;
    let lost = ledger.stats().lost;
    assert!(lost > 0 && (matches!(refused, Err(LedgerError::Full)) || refused.is_ok()), "{refused:?}");
    drop(ledger);
    let report = dir.verify();
    assert_eq!(report.records, 40 - lost + u64::from(refused.is_ok()));
}

#[tokio::test]
async fn a_record_that_could_not_be_read_again_is_refused() {
    let dir = Dir::new();
    let (ledger, _) = Ledger::open(dir.config()).unwrap();
    let refused = ledger.append(Entry::new(Kind::Finding, None, text(16 << 20)), Durability::Written).await;
    assert!(matches!(refused, Err(LedgerError::TooLarge)), "{refused:?}");
    assert_eq!(ledger.stats().records, 0);
    ledger.append(Entry::new(Kind::Finding, None, text(15 << 20)), Durability::Written).await.unwrap();
    drop(ledger);
    assert_eq!(dir.verify().records, 1);
}

#[tokio::test]
async fn a_hung_writer_is_a_refusal_and_not_a_wait_and_recovers() {
    let dir = Dir::new();
    let (release, hang) = std::sync::mpsc::channel::<()>();
    let hang = std::sync::Mutex::new(hang);
    // The hook runs on the writer's thread: it stands for a disk that does not come back.
    let on_commit = std::sync::Arc::new(move |_, _| {
        let _ = hang.lock().unwrap().recv();
    });
    let wait = Duration::from_millis(300);
    let config = Config { wait, on_commit: Some(on_commit), ..dir.config() };
    let (ledger, _) = Ledger::open(config).unwrap();
    assert!(matches!(ledger.append(intent(), Durability::Written).await, Err(LedgerError::Hung)));
    let start = Instant::now();
    assert!(matches!(ledger.append(intent(), Durability::Synced).await, Err(LedgerError::Hung)));
    assert!(start.elapsed() < wait / 2);
    drop(release);
    tokio::time::sleep(wait).await;
    assert_eq!(ledger.append(intent(), Durability::Synced).await.unwrap().seq, 2);
}

#[tokio::test]
async fn the_hook_is_told_of_every_record_and_each_of_its_bytes() {
    let dir = Dir::new();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook = std::sync::Arc::clone(&told);
    let on_commit = std::sync::Arc::new(move |bytes, _| hook.lock().unwrap().push(bytes));
    let (ledger, _) = Ledger::open(Config { on_commit: Some(on_commit), ..dir.config() }).unwrap();
    ledger.append(intent(), Durability::Synced).await.unwrap();
    ledger.append_detached(intent());
    ledger.append(intent(), Durability::Written).await.unwrap();
    let refused = ledger.append(Entry::new(Kind::Finding, None, text(16 << 20)), Durability::Written).await;
    assert!(refused.is_err());
    let bytes = ledger.stats().bytes;
    drop(ledger);
    let lines: Vec<u64> = fs::read_to_string(&dir.segments()[0])
        .unwrap()
        .split_inclusive('\n')
        .map(|line| line.len() as u64)
        .collect();
    assert_eq!(*told.lock().unwrap(), lines);
    assert_eq!((lines.len(), lines.iter().sum()), (3, bytes));
}

#[tokio::test]
async fn two_gateways_cannot_share_a_directory() {
    let dir = Dir::new();
    let (_ledger, _) = Ledger::open(dir.config()).unwrap();
    assert!(matches!(Ledger::open(dir.config()), Err(LedgerError::Locked(_))));
}

#[tokio::test]
async fn a_full_disk_refuses_until_there_is_room_and_skips_nothing() {
    let dir = Dir::new();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&dir.0).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: only root may mount a small disk");
        return;
    }
    let (ledger, _) = Ledger::open(Config { segment_bytes_max: 300 << 10, ..dir.config() }).unwrap();
    let ballast = dir.0.join("ballast");
    fs::write(&ballast, vec![1; 200 << 10]).unwrap();
    let fill = || Entry::new(Kind::Finding, None, text(5000));
    let mut written = 0;
    let error = loop {
        match ledger.append(fill(), Durability::Synced).await {
            Ok(appended) => written = appended.seq,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, LedgerError::Failed(why) if why.contains("No space")), "{error}");
    assert!(ledger.append(fill(), Durability::Written).await.is_err());
    let full = dir.verify();
    fs::remove_file(ballast).unwrap();
    let after = ledger.append(fill(), Durability::Synced).await;
    drop(ledger);
    let report = dir.verify();
    let _ = Command::new("umount").arg(&dir.0).output();
    assert_eq!((full.status, full.last_seq), (Status::Ok, written), "{full:?}");
    assert_eq!(after.unwrap().seq, written + 1);
    assert_eq!((report.status, report.last_seq), (Status::Ok, written + 1), "{report:?}");
}

/// The child of the test below: appends until it is killed, and prints what it was promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below"]
async fn appends_until_killed() {
    let Ok(dir) = std::env::var("HOLDPOINT_TEST_DIR") else { return };
    let (ledger, _) = Ledger::open(Config { segment_bytes_max: 50_000, ..Config::new(dir) }).unwrap();
    for task in 0..8 {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let durability = if task % 2 == 0 { Durability::Synced } else { Durability::Written };
            loop {
                let intent = intent();
                let id = intent.id();
                let Ok(appended) = ledger.append(intent, durability).await else { std::process::exit(1) };
                writeln!(std::io::stdout().lock(), "\nacked {} {id}", appended.seq).unwrap();
                let _ = ledger.append(outcome(id), durability).await;
            }
        });
    }
    std::future::pending::<()>().await;
}

fn acknowledged_until_killed(dir: &Path, lines: usize) -> Vec<(u64, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "appends_until_killed", "--ignored", "--nocapture"])
        .env("HOLDPOINT_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acked = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap_or_default();
        let words: Vec<&str> = line.split(' ').collect();
        if let ["acked", seq, id] = words[..] {
            acked.push((seq.parse().unwrap(), id.to_owned()));
        }
        if acked.len() == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acked
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = Dir::new();
    let mut acked = Vec::new();
    for round in 1..=5 {
        acked.extend(acknowledged_until_killed(&dir.0, round * 150));
    }
    let (_, recovered) = Ledger::open(dir.config()).unwrap();
    assert!(recovered.dangling <= 8, "{recovered:?}");
    let report = dir.verify();
    assert_eq!(report.status, Status::Ok, "{report:?}");
    let mut ids = vec![String::new(); report.last_seq as usize + 1];
    for segment in dir.segments() {
        for line in fs::read_to_string(segment).unwrap().lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            ids[record["seq"].as_u64().unwrap() as usize] = record["id"].as_str().unwrap().to_owned();
        }
    }
    assert!(acked.len() >= 150 * 15);
    for (seq, id) in acked {
        assert_eq!(ids[seq as usize], id);
    }
}

#[test]
fn a_large_log_is_verified_in_bounded_memory() {
    const CALLS: usize = 100_000;
    let dir = Dir::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config { queue_max: 1 << 16, segment_bytes_max: 16 << 20, ..dir.config() };
        let (ledger, _) = Ledger::open(config).unwrap();
        for call in 0..CALLS {
            let intent = intent();
            let id = intent.id();
            ledger.append_detached(intent);
            ledger.append_detached(outcome(id));
            if call % 1000 == 0 {
                ledger
                    .append(Entry::new(Kind::Admin, None, Members::default()), Durability::Written)
                    .await
                    .unwrap();
            }
        }
        assert_eq!(ledger.stats().lost, 0);
    });
    let before = resident_kib();
    let start = Instant::now();
    let report = dir.verify();
    let rate = report.records as f64 / start.elapsed().as_secs_f64();
    println!("verify_records_per_second: {rate:.0}");
    println!("verify_resident_growth_kib: {}", resident_kib().saturating_sub(before));
    assert_eq!((report.status, report.records), (Status::Ok, 200_100), "{report:?}");
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// Figures, printed: `cargo test --release --test ledger figures -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn figures() {
    for (name, durability, tasks) in [
        ("synced_1", Durability::Synced, 1),
        ("synced_64", Durability::Synced, 64),
        ("written_1", Durability::Written, 1),
        ("written_64", Durability::Written, 64),
    ] {
        let dir = Dir::new();
        let (ledger, _) = Ledger::open(dir.config()).unwrap();
        let end = Instant::now() + Duration::from_secs(3);
        let start = Instant::now();
        let running: Vec<_> = (0..tasks)
            .map(|_| {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    while Instant::now() < end {
                        ledger.append(Entry::new(Kind::Finding, None, body()), durability).await.unwrap();
                    }
                })
            })
            .collect();
        for task in running {
            task.await.unwrap();
        }
        let stats = ledger.stats();
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}_per_second: {:.0} (syncs {})", stats.records as f64 / seconds, stats.syncs);
    }
}
