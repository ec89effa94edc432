//! Who calls: from a verified SPIFFE ID and the registry to an [`Agent`] with the autonomy in force today.

pub mod directory;
pub mod people;
pub mod suspended;
pub mod svid;

use std::sync::Arc;

use time::Date;

use crate::accept::Conn;
use crate::call::{AgentId, AgentProfile, Stage, Stop, StopKind};
use directory::{Directory, Known, Owners, Standing};
use suspended::Suspensions;

/// An agent that is known and may call. Only [`agent`] makes one.
#[derive(Clone, Debug)]
pub struct Agent {
    known: Arc<Known>,
    profile: Arc<AgentProfile>,
    instance: Arc<str>,
}

impl Agent {
    /// The profile that policy sees. The same pointer as long as nothing about the agent changes.
    pub fn profile(&self) -> &Arc<AgentProfile> {
        &self.profile
    }

    /// The verified id.
    pub fn id(&self) -> &AgentId {
        &self.profile.id
    }

    /// The certificate's serial number: which instance of the agent this is.
    pub fn instance(&self) -> &Arc<str> {
        &self.instance
    }

    /// The accountable people.
    pub fn owners(&self) -> &Owners {
        &self.known.entry().owners
    }

    /// When the registration must be reviewed.
    pub fn review_due(&self) -> Option<Date> {
        self.known.entry().review_due
    }
}

/// Finds out who is at the other end of a connection, and with what autonomy it may call today.
pub fn agent(
    directory: &Directory,
    suspensions: &Suspensions,
    conn: &Conn,
    today: Date,
) -> Result<Agent, Box<Stop>> {
    let id = conn.agent_id();
    let agent = identified(directory, id, conn.serial(), today)?;
    if suspensions.includes(id) {
        return Err(suspended(id));
    }
    Ok(agent)
}

/// Refuses a call of an agent that was suspended while the call was on its way.
pub fn still(suspensions: &Suspensions, agent: &AgentId) -> Result<(), Box<Stop>> {
    if suspensions.includes(agent) { Err(suspended(agent)) } else { Ok(()) }
}

fn identified(
    directory: &Directory,
    id: &AgentId,
    serial: &Arc<str>,
    today: Date,
) -> Result<Agent, Box<Stop>> {
    let unidentified = |reason: &'static str, public: &str, operator: String| {
        Err(Stop::new(Stage::Identify, StopKind::Unidentified, reason, public).operator(operator))
    };
    let Some(known) = directory.find(id) else {
        let operator = format!("{id} is not in the registry");
        return unidentified("unknown-agent", "this agent is not registered", operator);
    };
    let profile = match known.entry().standing(today) {
        Standing::InForce => known.profile().clone(),
        Standing::Reduced => known.reduced().clone(),
        Standing::Suspended => return Err(suspended(id)),
        Standing::Retired => {
            return unidentified("retired", "this agent is retired", format!("{id} is retired"));
        }
        Standing::ReviewOverdue => {
            let operator = format!("the review of {id} is more than 14 days overdue");
            return unidentified("review-overdue", "this agent is suspended until it is reviewed", operator);
        }
    };
    Ok(Agent { known, profile, instance: serial.clone() })
}

fn suspended(id: &AgentId) -> Box<Stop> {
    Stop::new(Stage::Identify, StopKind::Unidentified, "suspended", "this agent is suspended")
        .operator(format!("{id} is suspended"))
}

/// Whether an agent may call at all on a day; one that may not keeps no connection when that is found.
pub fn may_call(directory: &Directory, suspensions: &Suspensions, id: &AgentId, today: Date) -> bool {
    let standing = directory.find(id).map(|known| known.entry().standing(today));
    matches!(standing, Some(Standing::InForce | Standing::Reduced)) && !suspensions.includes(id)
}

#[cfg(test)]
mod tests;
