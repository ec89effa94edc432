//! When a connection last had a call, so that an idle one can be told from a busy one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a connection has done.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    last_millis: AtomicU64,
    under_way: AtomicUsize,
}

/// Held while a call is under way, until its answer was taken or left.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn new() -> Activity {
        Activity { opened: Instant::now(), last_millis: AtomicU64::new(0), under_way: AtomicUsize::new(0) }
    }

    /// A call begins.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    fn touch(&self) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// Ends when there was no call for this long.
    pub(super) async fn idle_for(&self, wait: Duration) {
        loop {
            if self.under_way.load(Ordering::Acquire) > 0 {
                self.touch();
            }
            let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
            let left = wait.saturating_sub(self.opened.elapsed().saturating_sub(last));
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Idleness begins here, however long the call took; nobody may see it ended before that is noted.
        self.0.touch();
        self.0.under_way.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idleness_is_counted_from_the_end_of_the_last_call() {
        const WAIT: Duration = Duration::from_millis(400);
        let activity = Arc::new(Activity::new());
        let busy = activity.begin();
        let idle = tokio::spawn({
            let activity = Arc::clone(&activity);
            async move { activity.idle_for(WAIT).await }
        });
        // Longer than may pass without a call, and not a multiple of it: a look has just been taken when it ends.
        tokio::time::sleep(WAIT + WAIT * 9 / 10).await;
        assert!(!idle.is_finished());
        let ended = Instant::now();
        drop(busy);
        tokio::time::timeout(WAIT * 20, idle).await.unwrap().unwrap();
        assert!(ended.elapsed() >= WAIT - Duration::from_millis(2), "{:?}", ended.elapsed());
    }
}
