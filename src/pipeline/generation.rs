//! What configuration gives the stages: whole, validated before it is in force, and never changed afterwards.
//!
//! A change is another generation. A call takes the one in force at its start and goes with it to its end, so no call is
//! judged by half of each. What must outlive a change (what runs have read, how much of a limit is used, sessions,
//! connections to upstreams) is shared between generations or stands in [`Gateway`](super::Gateway).

use std::sync::Arc;

use crate::classify::catalog::Catalog;
use crate::credential::Broker;
use crate::decide::Policy;
use crate::decode::Decoder;
use crate::definitions::Definitions;
use crate::flow::chain::Chain;
use crate::forward::Upstreams;
use crate::hold;
use crate::identify::directory::Directory;
use crate::limit::Meters;

/// One generation of what configuration gives.
pub struct Generation {
    /// Which one, from 1 at the start of the program.
    pub number: u64,
    /// Who may call.
    pub directory: Directory,
    /// What requests may be, and where they may go.
    pub decoder: Decoder,
    /// What calls do.
    pub catalog: Catalog,
    /// What upstreams say their tools are.
    pub definitions: Arc<Definitions>,
    /// Limits.
    pub meters: Meters,
    /// Policy.
    pub policy: Arc<Policy>,
    /// How calls wait for people.
    pub holds: hold::Config,
    /// Operators' sequences.
    pub chains: Vec<Chain>,
    /// Credentials.
    pub broker: Broker,
    /// Where calls go.
    pub upstreams: Upstreams,
}
