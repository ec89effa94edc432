//! What is SQLite's own: one process at a time, formats, damage, locks, and who may read the files.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use holdpoint::identify::suspended::{OrderError, Suspensions};
use holdpoint::store::sqlite::{Index, Sqlite};
use holdpoint::store::{Changed, Records, StoreError};
use sqlx::{ConnectOptions as _, Connection as _};

use super::*;

async fn open(path: &Path) -> Result<Sqlite, StoreError> {
    Sqlite::open(path).await
}

/// A connection of another program to the same file.
async fn another_program(path: &Path) -> sqlx::SqliteConnection {
    sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

#[tokio::test]
async fn a_second_gateway_on_the_same_store_is_refused_with_the_files_name() {
    let dir = Dir::new();
    let path = dir.file("state/holdpoint.db");
    let first = open(&path).await.unwrap();
    first.suspend(order("mailer", ana(), "", 1)).await.unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(&refused, StoreError::Locked(file) if *file == path), "{refused:?}");
    assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
    first.close().await.unwrap();
    let second = open(&path).await.unwrap();
    assert_eq!(in_force(&second).await, ["mailer"]);
}

#[tokio::test]
async fn only_the_owner_may_read_any_of_the_files() {
    let dir = Dir::new();
    // A file that somebody made readable is private again.
    fs::write(dir.file("holdpoint.db"), "").unwrap();
    fs::set_permissions(dir.file("holdpoint.db"), fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&dir.file("holdpoint.db")).await.unwrap();
    store.suspend(order("mailer", ana(), "", 1)).await.unwrap();
    let index = Index::open(&dir.file("holdpoint.index.db")).await.unwrap();
    index.add(vec![row(1)], after(1)).await.unwrap();
    let mut files = 0;
    for file in fs::read_dir(&dir.0).unwrap().map(|file| file.unwrap()) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        files += 1;
    }
    assert_eq!(files, 7, "two databases, each with its log and its shared memory, and a lock");
}

#[tokio::test]
async fn a_format_of_a_later_version_is_refused_and_left_as_it_is() {
    let dir = Dir::new();
    let path = dir.file("holdpoint.db");
    open(&path).await.unwrap().close().await.unwrap();
    let mut other = another_program(&path).await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99, 'later', 1, x'00', 0)";
    sqlx::query(later).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(refused, StoreError::Newer { found: 99, .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("holdpoint.db") && text.contains("run the version that wrote it"), "{text}");
    assert!(fs::read(&path).unwrap() == before, "nothing was changed");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_what_to_do_and_not_overwritten() {
    let dir = Dir::new();
    let path = dir.file("holdpoint.db");
    let letter = "Dear operator, this is a letter and no database. ".repeat(200);
    fs::write(&path, &letter).unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("holdpoint.db") && text.contains("restore it from a backup"), "{text}");
    assert_eq!(fs::read_to_string(&path).unwrap(), letter);
}

#[tokio::test]
async fn a_database_with_damaged_pages_is_refused() {
    let dir = Dir::new();
    let path = dir.file("holdpoint.db");
    let store = open(&path).await.unwrap();
    for number in 0..200 {
        store.suspend(order(&format!("agent-{number}"), ana(), &"why ".repeat(100), number)).await.unwrap();
    }
    store.close().await.unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let (from, to) = (bytes.len() / 2, bytes.len() - 100);
    bytes[from..to].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused:?}");
    assert!(fs::read(&path).unwrap() == bytes, "nothing was changed");
}

#[tokio::test]
async fn a_store_that_another_program_keeps_locked_refuses_changes_and_still_answers() {
    let dir = Dir::new();
    let path = dir.file("holdpoint.db");
    let store: Arc<dyn Store> = Arc::new(open(&path).await.unwrap());
    store.suspend(order("mailer", ana(), "", 1)).await.unwrap();
    let mut other = another_program(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let refused = store.suspend(order("crawler", ana(), "", 2)).await;
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    assert_eq!(in_force(&*store).await, ["mailer"]);
    // An order by which an agent must stop stops it all the same, and says that it may be forgotten.
    let suspensions = Suspensions::read(Arc::clone(&store)).await.unwrap();
    let told = suspensions.suspend(order("crawler", ana(), "", 2)).await;
    assert!(matches!(told, Err(OrderError::Forgettable(_))), "{told:?}");
    assert!(suspensions.includes(&agent("crawler")));
    let refused = suspensions.resume(order("mailer", ana(), "", 3)).await;
    assert!(matches!(refused, Err(OrderError::Refused(_))), "{refused:?}");
    assert!(suspensions.includes(&agent("mailer")), "what could not be kept is not lifted");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(suspensions.suspend(order("crawler", ana(), "", 4)).await.unwrap(), Changed::Now);
    assert_eq!(in_force(&*store).await, ["crawler", "mailer"]);
}

#[tokio::test]
async fn an_index_that_cannot_be_used_is_made_anew() {
    let dir = Dir::new();
    let path = dir.file("holdpoint.index.db");
    let place = async |fill: &[Row]| {
        let index = Index::open(&path).await.unwrap();
        if let Some(last) = fill.last() {
            index.add(fill.to_vec(), after(last.seq)).await.unwrap();
        }
        let place = index.place().await.unwrap();
        index.close().await.unwrap();
        place
    };
    assert_eq!(place(&[row(1)]).await, Some(after(1)));
    assert_eq!(place(&[]).await, Some(after(1)), "a whole one is kept");

    let mut other = another_program(&path).await;
    sqlx::query("PRAGMA user_version = 99").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(place(&[]).await, None, "another format");

    assert_eq!(place(&[row(2)]).await, Some(after(2)));
    fs::write(&path, "no database at all".repeat(1000)).unwrap();
    assert_eq!(place(&[]).await, None, "damage");
}
