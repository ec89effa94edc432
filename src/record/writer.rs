//! The threads that write and sync the ledger.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::bell::{Bell, Intake};
use super::chain::{HEAD_BYTES_MAX, Kind};
use super::checkpoint::Checkpoint;
use super::ledger::{Config, Durability, Pending, Shared};
use super::machine::Machine;
use super::pen::{Files, Pen, PenError};

/// What one `write` may weigh, unless one record alone weighs more.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Starts both threads; the receiver is told when they are done. The lock is held until then.
pub(super) fn start(
    pen: Pen,
    lock: File,
    entries: Receiver<Pending>,
    bell: &Bell,
    shared: Arc<Shared>,
    config: &Config,
) -> io::Result<Receiver<()>> {
    let (tell, done) = sync_channel(1);
    let (syncs, to_sync) = sync_channel(config.queue_max.max(1));
    let (linger, for_sync, machine) = (config.linger, shared.clone(), Arc::clone(&config.machine));
    let syncer = std::thread::Builder::new()
        .name("audit-sync".to_owned())
        .spawn(move || sync(&to_sync, &for_sync, linger, &*machine))?;
    let writer = std::thread::Builder::new().name("audit-write".to_owned()).spawn(move || {
        write(pen, &Intake::new(entries), syncs, &shared);
        let _ = syncer.join();
        drop(lock);
        let _ = tell.send(());
    })?;
    bell.is_for(writer.thread().clone());
    Ok(done)
}

/// What is written and waits to be synced.
struct Written {
    /// Who waits for it, and the record's number.
    pending: Option<(Pending, u64)>,
    /// What to tell when it is durable.
    checkpoint: Option<Checkpoint>,
    files: Files,
}

fn write(mut pen: Pen, entries: &Intake<Pending>, syncs: SyncSender<Written>, shared: &Shared) {
    let mut carry = None;
    loop {
        pen.look(&shared.space);
        let first = match (carry.take(), pen.idle()) {
            (Some(first), _) => first,
            (None, idle) => match entries.wait(idle) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    sign(&mut pen, &syncs, shared, Sign::WhenDue);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            },
        };
        let group;
        (group, carry) = gather(first, entries, pen.segment_bytes_max.saturating_sub(pen.len));
        for pending in &group {
            shared.taken(pending);
        }
        commit(&mut pen, group, &syncs, shared);
    }
    sign(&mut pen, &syncs, shared, Sign::Now);
    end(&pen);
}

/// When a checkpoint is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    WhenDue,
    Now,
}

/// Writes a checkpoint. One that the disk refuses is tried again with the next record: it covers that too.
fn sign(pen: &mut Pen, syncs: &SyncSender<Written>, shared: &Shared, when: Sign) {
    let wanted = if when == Sign::Now { pen.uncovered() } else { pen.due() };
    if shared.failure().is_none() && wanted {
        match pen.sign() {
            Ok(Some(_)) => shared.wrote(1, pen.buffer.len() as u64),
            Ok(None) => {}
            Err(PenError::Refused(error)) => tracing::error!(%error, "a checkpoint could not be written"),
            Err(PenError::Broken(error)) => shared.fail(broken(&error)),
        }
    }
    tell(pen, syncs);
}

/// Hands over the checkpoints that were written: they are told once they are durable.
fn tell(pen: &mut Pen, syncs: &SyncSender<Written>) {
    let Some(files) = pen.files() else { return };
    for checkpoint in pen.made.drain(..) {
        // A thread that syncs no more tells nothing; whoever waits for it has been refused.
        let written = Written { pending: None, checkpoint: Some(checkpoint), files: files.clone() };
        let _ = syncs.send(written);
    }
}

fn broken(error: &io::Error) -> String {
    format!("{error}; restart the gateway so that the log is checked")
}

/// A clean end leaves nothing that a power loss could take. Nobody waits for this sync any more: whoever was promised
/// one has had it, so a failure breaks no promise and refuses no call, but an operator must learn of it.
fn end(pen: &Pen) {
    if let Some(files) = pen.files()
        && let Err(error) = files.sync(&*pen.machine)
    {
        tracing::error!(%error, "the audit's end could not be synced: loss of power may take it");
    }
}

/// All that is queued, as far as one write and the segment take it, and the entry that did not fit.
fn gather(first: Pending, entries: &Intake<Pending>, room: u64) -> (Vec<Pending>, Option<Pending>) {
    let limit = GROUP_BYTES_MAX.min(usize::try_from(room).unwrap_or(usize::MAX));
    let mut bytes = first.entry.members.len() + HEAD_BYTES_MAX;
    let mut group = vec![first];
    while let Ok(next) = entries.next() {
        bytes += next.entry.members.len() + HEAD_BYTES_MAX;
        if bytes > limit {
            return (group, Some(next));
        }
        group.push(next);
    }
    (group, None)
}

fn commit(pen: &mut Pen, mut group: Vec<Pending>, syncs: &SyncSender<Written>, shared: &Shared) {
    // A caller that did not wait for its intent may close one that the disk refused meanwhile.
    while let Some(orphan) = pen.orphan(&group) {
        shared.drop_orphan(group.remove(orphan));
    }
    // A checkpoint is asked for by an empty entry of its kind; it covers what was asked for before it.
    let (asked, group): (Vec<Pending>, Vec<Pending>) =
        group.into_iter().partition(|pending| pending.entry.kind == Kind::Checkpoint);
    if !group.is_empty() {
        put(pen, group, syncs, shared);
    }
    sign(pen, syncs, shared, if asked.is_empty() { Sign::WhenDue } else { Sign::Now });
    let last = pen.seq.saturating_sub(1);
    for pending in asked {
        match (shared.failure(), pen.files()) {
            (None, Some(files)) => {
                hand_over(syncs, Written { pending: Some((pending, last)), checkpoint: None, files }, shared);
            }
            (why, _) => shared.refuse(pending, why.unwrap_or("the log is empty")),
        }
    }
}

fn put(pen: &mut Pen, group: Vec<Pending>, syncs: &SyncSender<Written>, shared: &Shared) {
    let put = match shared.failure().map(str::to_owned) {
        Some(why) => Err(why),
        None => match pen.put(group.iter().map(|pending| &pending.entry)) {
            Ok(files) => Ok(files),
            Err(PenError::Refused(error)) => Err(error.to_string()),
            Err(PenError::Broken(error)) => {
                let why = broken(&error);
                shared.fail(why.clone());
                Err(why)
            }
        },
    };
    match put {
        Ok(files) => {
            shared.come_to(pen.place());
            shared.wrote(group.len() as u64, pen.buffer.len() as u64);
            let first = pen.seq - group.len() as u64;
            for ((mut pending, seq), bytes) in group.into_iter().zip(first..).zip(&pen.lines) {
                pending.bytes = *bytes;
                match pending.durability {
                    Durability::Written => shared.accept(pending, seq),
                    Durability::Synced => {
                        let files = files.clone();
                        hand_over(
                            syncs,
                            Written { pending: Some((pending, seq)), checkpoint: None, files },
                            shared,
                        );
                    }
                }
            }
        }
        Err(why) => group.into_iter().for_each(|pending| shared.refuse(pending, &why)),
    }
}

fn hand_over(syncs: &SyncSender<Written>, written: Written, shared: &Shared) {
    if let Err(error) = syncs.send(written)
        && let Some((pending, _)) = error.0.pending
    {
        shared.refuse(pending, "the thread that syncs stopped");
    }
}

/// Syncs what was written, everything that waits at once.
fn sync(written: &Receiver<Written>, shared: &Shared, linger: Duration, machine: &dyn Machine) {
    let mut company = 1;
    while let Ok(first) = written.recv() {
        let waiting = assemble(first, written, linger, company);
        company = waiting.len();
        // The last files cover all: a segment is synced before its successor is begun.
        let Some(files) = waiting.last().map(|last| last.files.clone()) else { continue };
        // After a failed fsync the kernel may have dropped the pages: nothing about the file is known, and a later
        // fsync that succeeds says nothing of them.
        let synced = match shared.failure() {
            Some(why) => Err(why.to_owned()),
            None => files.sync(machine).map_err(|error| broken(&io::Error::other(format!("fsync: {error}")))),
        };
        match synced {
            Ok(()) => {
                shared.synced();
                for one in waiting {
                    one.checkpoint.iter().for_each(|checkpoint| shared.signed(checkpoint));
                    one.pending.into_iter().for_each(|(pending, seq)| shared.accept(pending, seq));
                }
            }
            Err(why) => {
                shared.fail(why.clone());
                let pending = waiting.into_iter().filter_map(|one| one.pending);
                pending.for_each(|(pending, _)| shared.refuse(pending, &why));
            }
        }
    }
}

/// Who waits now and, when there was company the last time, who comes until as many are here again or the linger ends.
fn assemble(first: Written, written: &Receiver<Written>, linger: Duration, company: usize) -> Vec<Written> {
    let mut waiting = vec![first];
    waiting.extend(written.try_iter().take(company.max(1024)));
    let end = Instant::now() + linger;
    while waiting.len() < company {
        match written.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(next) => waiting.push(next),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::super::chain::Leaf;
    use super::*;

    /// A log that is kept.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_end_that_cannot_be_synced_is_in_the_log() {
        let log = Log::default();
        let kept = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || kept.clone()).finish();
        // The system refuses to sync what is no file.
        let unsynced = File::options().append(true).open("/dev/null").unwrap();
        let last = Some((unsynced, 1));
        let pen = Pen::after(&Config::new("state/audit"), (1, Leaf::NONE), last, None).unwrap();
        tracing::subscriber::with_default(subscriber, || end(&pen));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ERROR") && text.contains("could not be synced"), "{text}");
    }
}
