//! How calls wait for people, from the section `holds`.

use std::time::Duration;

use super::load::Reader;
use super::raw::File;
use crate::hold;

impl Reader {
    pub(super) fn holds(&mut self, raw: &File) -> hold::Config {
        let (raw, usual) = (&raw.holds, hold::Config::default());
        let ttl_max = self.duration("holds.ttl", raw.ttl.as_deref(), usual.ttl_max.as_secs());
        if ttl_max.is_zero() || ttl_max > usual.ttl_max {
            self.mistake("holds.ttl", "must be more than 0s and at most 24h");
        }
        let wait_max = match raw.wait.as_deref() {
            Some("0s") => Duration::ZERO,
            wait => self.duration("holds.wait", wait, usual.wait_max.as_secs()),
        };
        if wait_max > usual.wait_max {
            self.mistake("holds.wait", "must be at most 280s: clients give up after that");
        }
        let pending_max = raw.pending_max.unwrap_or(usual.pending_max);
        if pending_max == 0 {
            self.mistake("holds.pending_max", "must be at least 1");
        }
        hold::Config { ttl_max, pending_max, wait_max }
    }
}
