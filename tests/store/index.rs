//! The index as it follows a real audit: what is written is found, with its line, and it can be thrown away at any time.

use std::sync::Arc;

use holdpoint::json::Members;
use holdpoint::record::index::{Index, NoLine};
use holdpoint::record::keep::{Keeper, Retention};
use holdpoint::record::{Config, Durability, Entry, Kind, Ledger};
use holdpoint::secret::ring::Ring;
use holdpoint::store::sqlite;
use holdpoint::store::{Filter, Records, Subject};

use super::*;

/// Longer than anything here takes, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// An audit and the index that follows it.
struct Followed {
    ledger: Ledger,
    index: Index,
}

impl Followed {
    async fn open(dir: &Dir) -> Followed {
        Followed::with(dir, 4000).await
    }

    async fn with(dir: &Dir, segment_bytes_max: u64) -> Followed {
        let config = Config { segment_bytes_max, queue_max: 1 << 16, ..Config::new(dir.file("audit")) };
        let (ledger, _) = Ledger::open(config).unwrap();
        let records = Arc::new(sqlite::Index::open(&dir.file("index.db")).await.unwrap());
        let end = Box::new(ledger.end());
        let index = Index::start(&dir.file("audit"), records, end, Box::new(|_| ())).unwrap();
        Followed { ledger, index }
    }

    /// Calls of an agent, each an intent and its outcome; gives the ids of the intents.
    async fn calls(&self, who: &str, count: usize) -> Vec<RecordId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let intent = intent(who);
            let id = intent.id();
            self.ledger.append(intent, Durability::Written).await.unwrap();
            let mut members = Members::default();
            members.text("status", "executed");
            self.ledger
                .append(Entry::outcome(id, Some([9; 16]), members), Durability::Written)
                .await
                .unwrap();
            ids.push(id);
        }
        assert!(self.index.caught_up(SOON).await);
        ids
    }

    async fn found(&self, filter: Filter) -> Vec<u64> {
        let filter = Filter { limit: Some(1000), ..filter };
        self.index.records(filter).await.unwrap().rows.iter().map(|row| row.seq).collect()
    }

    async fn end(self) {
        self.index.end().await;
    }
}

fn intent(who: &str) -> Entry {
    let mut members = Members::default();
    members.object("agent", |members| members.text("id", agent(who).as_str()));
    members.text("owner", "ana@example.org");
    members.text("upstream", "mail");
    members.text("tool", "send");
    members.text("class", "write");
    members.object("decision", |members| {
        members.text("outcome", "allowed");
        members.text("rule", "act");
    });
    Entry::new(Kind::Intent, Some([9; 16]), members)
}

fn of(who: &str) -> Filter {
    Filter { agent: Some(agent(who).as_str().to_owned()), ..Filter::default() }
}

#[tokio::test]
async fn what_the_audit_gets_is_found_with_its_line() {
    let dir = Dir::new();
    let audit = Followed::open(&dir).await;
    audit.calls("a", 20).await;
    let ids = audit.calls("b", 20).await;
    assert_eq!(audit.found(of("b")).await, (41..=80).rev().filter(|seq| seq % 2 == 1).collect::<Vec<_>>());
    assert_eq!(audit.found(Filter::default()).await.len(), 80);
    assert_eq!((audit.index.behind(), audit.index.indexed().unreadable), (0, 0));

    let story = audit.index.story(Subject::Call(ids[7])).await.unwrap();
    let told: Vec<_> = story.iter().map(|one| (&*one.row.kind, &*one.row.outcome)).collect();
    assert_eq!(told, [("intent", "allowed"), ("outcome", "executed")]);
    let line: serde_json::Value = serde_json::from_str(story[1].line.as_ref().unwrap()).unwrap();
    assert_eq!(line["intent"], ids[7].to_string());
    assert_eq!(audit.index.story(Subject::Trace([9; 16])).await.unwrap().len(), 80);
    let one = audit.index.record(ids[3]).await.unwrap().unwrap();
    assert!(one.line.unwrap().contains(&ids[3].to_string()));
    assert!(audit.index.record(RecordId::new()).await.unwrap().is_none());
    audit.end().await;
}

#[tokio::test]
async fn an_index_goes_on_where_it_was_and_one_that_is_lost_is_filled_anew() {
    let dir = Dir::new();
    let audit = Followed::open(&dir).await;
    audit.calls("a", 30).await;
    let before = audit.index.records(Filter::default()).await.unwrap();
    audit.end().await;

    // The audit goes on while nobody indexes it.
    let audit = Followed::open(&dir).await;
    audit.calls("a", 30).await;
    assert_eq!(audit.found(of("a")).await.len(), 60);
    audit.end().await;
    std::fs::remove_file(dir.file("index.db")).unwrap();
    let audit = Followed::open(&dir).await;
    assert!(audit.index.caught_up(SOON).await);
    assert_eq!(audit.found(Filter::default()).await, (1..=120).rev().collect::<Vec<_>>());
    let page = audit.index.records(Filter { cursor: Some(61), ..Filter::default() }).await.unwrap();
    assert_eq!(page.rows, before.rows, "the same rows as the first time");

    audit.index.rebuild();
    audit.calls("b", 1).await;
    // It may be empty for a moment, and is whole again.
    let end = tokio::time::Instant::now() + SOON;
    while audit.found(Filter::default()).await.len() < 122 {
        assert!(tokio::time::Instant::now() < end, "it was never filled");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    audit.end().await;
}

#[tokio::test]
async fn an_index_of_another_audit_is_not_believed() {
    let dir = Dir::new();
    let audit = Followed::open(&dir).await;
    audit.calls("a", 30).await;
    audit.end().await;
    // Another audit with more records, and then one with fewer.
    for calls in [40, 5] {
        std::fs::remove_dir_all(dir.file("audit")).unwrap();
        let audit = Followed::open(&dir).await;
        let ids = audit.calls("b", calls).await;
        assert_eq!(audit.found(of("a")).await, [0; 0]);
        assert_eq!(audit.found(Filter::default()).await.len(), calls * 2);
        assert!(audit.index.record(ids[0]).await.unwrap().unwrap().line.is_ok());
        audit.end().await;
    }
}

#[tokio::test]
async fn a_line_that_was_changed_or_deleted_is_never_told_as_if_it_were_there() {
    let dir = Dir::new();
    let audit = Followed::open(&dir).await;
    let ids = audit.calls("a", 30).await;
    let mut segments: Vec<_> =
        std::fs::read_dir(dir.file("audit")).unwrap().map(|file| file.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    segments.sort();
    assert!(segments.len() > 3);
    let text = std::fs::read_to_string(&segments[1]).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let changed = uuid::Uuid::parse_str(first["id"].as_str().unwrap()).unwrap();
    let text = text.replacen(&changed.to_string(), &RecordId::new().to_string(), 1);
    std::fs::write(&segments[1], text).unwrap();
    let line = async |id| audit.index.record(id).await.unwrap().unwrap().line;
    assert_eq!(line(RecordId::from_u128(changed.as_u128())).await, Err(NoLine::Changed));
    std::fs::remove_file(&segments[0]).unwrap();
    assert_eq!(line(ids[0]).await, Err(NoLine::Gone));
    assert!(line(ids[29]).await.is_ok());
    audit.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_archived_is_told_and_indexed_like_what_is_not() {
    let dir = Dir::new();
    let audit = Followed::open(&dir).await;
    let ids = audit.calls("a", 90).await;
    let told = async |audit: &Followed, id| {
        let story = audit.index.story(Subject::Call(id)).await.unwrap();
        story.into_iter().map(|one| one.line.unwrap()).collect::<Vec<_>>()
    };
    let before = [told(&audit, ids[0]).await, told(&audit, ids[1]).await];
    let signer = Arc::new(Ring::open(&dir.file("keys")).unwrap().signer().unwrap());
    let retention = Retention { archive_after: Duration::ZERO, retain: None };
    let keeper = Keeper::new(&dir.file("audit"), retention, signer);
    let kept = keeper.round(&audit.ledger, SystemTime::now()).unwrap();
    assert!(kept.archived > 9, "{kept:?}");
    assert_eq!([told(&audit, ids[0]).await, told(&audit, ids[1]).await], before);
    assert_eq!(before[0].len(), 2);

    // Each story decompresses a bounded number of segments, and says where the others are.
    let whole = audit.index.story(Subject::Trace([9; 16])).await.unwrap();
    let far = whole.iter().filter(|one| one.line == Err(NoLine::TooFar)).count();
    assert!((1..180).contains(&far) && whole.len() == 180, "{far}");
    assert!(whole[0].line.is_ok() && whole[179].line.is_ok());

    // An index that is made anew has what is archived, too.
    let newest = audit.index.records(Filter { limit: Some(1000), ..Filter::default() }).await.unwrap();
    audit.end().await;
    std::fs::remove_file(dir.file("index.db")).unwrap();
    let audit = Followed::open(&dir).await;
    assert!(audit.index.caught_up(SOON).await);
    let again = audit.index.records(Filter { limit: Some(1000), ..Filter::default() }).await.unwrap();
    assert_eq!(again.rows[again.rows.len() - newest.rows.len()..], newest.rows);
    assert_eq!(told(&audit, ids[0]).await, before[0]);
    audit.end().await;
}

#[tokio::test]
async fn rows_of_deleted_segments_are_dropped() {
    let dir = Dir::new();
    let audit = Followed::open(&dir).await;
    audit.calls("a", 30).await;
    audit.end().await;
    let records = sqlite::Index::open(&dir.file("index.db")).await.unwrap();
    let oldest = records.page(Filter { limit: Some(1000), ..Filter::default() }).await.unwrap();
    let segments = oldest.rows.iter().map(|row| row.segment).collect::<std::collections::BTreeSet<_>>();
    let second = *segments.iter().nth(1).unwrap();
    while records.forget(second).await.unwrap() > 0 {}
    let left = records.page(Filter { limit: Some(1000), ..Filter::default() }).await.unwrap();
    assert!(left.rows.iter().all(|row| row.seq >= second && row.segment >= second));
    assert_eq!(left.rows.len() as u64, 60 - (second - 1));
}

/// What this process has used of the processors; the kernel counts in hundredths of a second.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

/// The members of an intent that are not the index's concern: as much as the gateway writes.
fn input(members: &mut Members) {
    members.object("input", |members| {
        members.object("agent", |members| {
            members.text("state", "active");
            members.text("team", "care");
            members.texts("groups", ["tier-1", "emea"]);
        });
        for name in ["action", "resource", "class", "context", "auth", "facts", "tiers", "labels"] {
            members.object(name, |members| {
                members.text("name", "search_customers");
                members.text("description", "what policy sees of a call, as the gateway writes it down");
                members.number("consequence", 2);
                members.texts("effects", ["spend", "delete"]);
            });
        }
    });
}

/// Writes an audit of so many records, unless it is there.
async fn written(dir: &Path, records: u64) {
    let (ledger, _) = Ledger::open(Config { queue_max: 1 << 16, ..Config::new(dir.join("audit")) }).unwrap();
    for number in (ledger.end())().seq / 2..records / 2 {
        let mut members = Members::default();
        let id = format!("spiffe://example.org/agent/agent-{}", number % 200);
        members.object("agent", |members| members.text("id", &id));
        members.text("owner", "ana@example.org");
        members.text("upstream", "mail");
        members.text("tool", ["send", "search", "read"][(number % 3) as usize]);
        members.text("class", "write");
        members.text("run", &format!("{number:032x}"));
        members.object("decision", |members| {
            members.text("outcome", "allowed");
            members.text("rule", "act");
        });
        input(&mut members);
        // Traces are random; multiplied by an odd number, these are as scattered.
        let trace =
            (u128::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
        let intent = Entry::new(Kind::Intent, Some(trace), members);
        let mut members = Members::default();
        members.object("agent", |members| members.text("id", &id));
        members.text("upstream", "mail");
        members.text("status", "executed");
        let outcome = Entry::outcome(intent.id(), Some(trace), members);
        ledger.append_detached(intent);
        match number % 1000 {
            0 => drop(ledger.append(outcome, Durability::Written).await.unwrap()),
            _ => ledger.append_detached(outcome),
        }
    }
}

/// How many records are indexed in a second, and what it costs: twice, first writing the audit, which stays in
/// `HOLDPOINT_INDEX_AUDIT`, and then alone, so that its instructions can be counted:
///
/// ```text
/// cargo test --release --test store index::rate -- --exact --ignored --nocapture
/// valgrind --tool=callgrind TARGET/store-… index::rate --exact --ignored --nocapture
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures and asserts nothing"]
async fn rate() {
    let own = Dir::new();
    let dir = std::env::var_os("HOLDPOINT_INDEX_AUDIT").map_or_else(|| own.0.clone(), PathBuf::from);
    let records = std::env::var("HOLDPOINT_INDEX_RECORDS").map_or(200_000, |text| text.parse().unwrap());
    if !dir.join("audit").exists() {
        written(&dir, records).await;
        if dir != own.0 {
            return println!("written: once more to index it");
        }
    }
    let (ledger, _) = Ledger::open(Config::new(dir.join("audit"))).unwrap();
    let seqs = (ledger.end())().seq;
    let index = own.file("index.db");
    let store = Arc::new(sqlite::Index::open(&index).await.unwrap());
    let (start, used) = (std::time::Instant::now(), processor_seconds());
    let index = Index::start(&dir.join("audit"), store, Box::new(ledger.end()), Box::new(|_| ())).unwrap();
    while !index.caught_up(SOON).await {}
    println!("records: {seqs}");
    println!("indexed_records_per_second: {:.0}", seqs as f64 / start.elapsed().as_secs_f64());
    let used = (processor_seconds() - used) * 1e6 / seqs as f64;
    println!("processor_microseconds_per_record: {used:.1}");
    for (name, filter) in [("newest", Filter::default()), ("agent", of("agent-7"))] {
        let start = std::time::Instant::now();
        index.records(filter).await.unwrap();
        println!("page_{name}_milliseconds: {:.2}", start.elapsed().as_secs_f64() * 1e3);
    }
    index.end().await;
    println!("index_bytes_per_record: {}", std::fs::metadata(own.file("index.db")).unwrap().len() / seqs);
}
