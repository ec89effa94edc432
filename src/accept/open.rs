//! The connections that are open, so that whoever is trusted no more is cut off at once and not at the next handshake.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::Notify;

use super::Conn;
use crate::identify::svid::{Leaf, Role, SvidError, Trust};

/// Every open connection of all listeners whose peers prove who they are. The listeners' own bounds bound it.
#[derive(Debug, Default)]
pub struct Connections {
    table: Mutex<Table>,
    numbered: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Arc<Open>>,
    /// The chains of those, by the fingerprint of the leaf: an agent has one for all its connections.
    chains: HashMap<[u8; 32], Weak<Chain>>,
}

type Chain = [CertificateDer<'static>];

/// One open connection.
#[derive(Debug)]
struct Open {
    conn: Arc<Conn>,
    /// What its peer proved itself by, leaf first, so that it can be judged again.
    chain: Arc<Chain>,
    role: Role,
    cut: Notify,
}

/// The place of a connection among the open ones; dropping it gives the place up.
#[derive(Debug)]
pub(super) struct Entered {
    connections: Arc<Connections>,
    number: u64,
    open: Arc<Open>,
}

impl Connections {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.table().open.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table().open.is_empty()
    }

    /// Cuts the connections of peers of a role that this holds for, with every stream on them, and says how many. Calls
    /// on them are told that their peer has left; a new connection is judged by the trust then in force.
    pub fn cut(&self, role: Role, which: impl Fn(&Conn) -> bool) -> usize {
        self.cut_open(|open| open.role == role && which(&open.conn))
    }

    /// Cuts the connections whose certificates this trust does not verify any more, and says how many. Each chain is
    /// verified anew, so this is no work for a thread on which calls run.
    pub fn cut_untrusted(&self, trust: &Trust, now: UnixTime) -> usize {
        self.cut_open(|open| open.verify(trust, now).is_err())
    }

    fn cut_open(&self, which: impl Fn(&Open) -> bool) -> usize {
        // Judged without the lock, since connections come and go meanwhile.
        let open: Vec<Arc<Open>> = self.table().open.values().map(Arc::clone).collect();
        let cut = open.iter().filter(|open| which(open));
        cut.map(|open| open.cut.notify_one()).count()
    }

    pub(super) fn enter(
        self: &Arc<Self>,
        conn: Arc<Conn>,
        chain: &[CertificateDer<'_>],
        role: Role,
    ) -> Entered {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table();
        let known = table.chains.get(&conn.fingerprint).and_then(Weak::upgrade);
        // Another may have the same leaf and other certificates above it.
        let chain = match known.filter(|known| **known == *chain) {
            Some(known) => known,
            None => {
                let new: Arc<Chain> = chain.iter().map(|der| der.clone().into_owned()).collect();
                table.chains.insert(conn.fingerprint, Arc::downgrade(&new));
                new
            }
        };
        let open = Arc::new(Open { conn, chain, role, cut: Notify::new() });
        table.open.insert(number, Arc::clone(&open));
        drop(table);
        Entered { connections: Arc::clone(self), number, open }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn verify(&self, trust: &Trust, now: UnixTime) -> Result<Leaf, SvidError> {
        let (leaf, intermediates) =
            self.chain.split_first().ok_or_else(|| SvidError::Encoding("no certificate".to_owned()))?;
        trust.verify(self.role, leaf, intermediates, now)
    }
}

impl Entered {
    /// The facts of the connection.
    pub(super) fn conn(&self) -> &Arc<Conn> {
        &self.open.conn
    }

    /// Judges the peer again, by another trust than that of its handshake.
    pub(super) fn verify(&self, trust: &Trust) -> Result<Leaf, SvidError> {
        self.open.verify(trust, UnixTime::now())
    }

    /// Waits until the connection is to be cut. Only one may wait.
    pub(super) async fn cut(&self) {
        self.open.cut.notified().await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.open.remove(&self.number);
        // Its last connection takes a chain along.
        if Arc::strong_count(&self.open.chain) == 1 {
            table.chains.remove(&self.open.conn.fingerprint);
        }
    }
}
