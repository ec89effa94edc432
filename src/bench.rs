//! Switches that turn single controls off, so that a benchmark shows what each costs. Only a binary built with the
//! feature `bench` has them, no release does, and it says so loudly.

/// A control that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the control of that name")]
pub enum Control {
    Classify,
    Decide,
    Flow,
    Ledger,
    Limit,
    Spans,
    Tls,
}

/// Whether a control is switched off: never, but in a binary for benchmarks.
#[cfg(not(feature = "bench"))]
#[inline(always)]
pub const fn off(_: Control) -> bool {
    false
}

#[cfg(feature = "bench")]
pub use switches::{agent, off, warn};

#[cfg(feature = "bench")]
mod switches {
    use std::sync::LazyLock;

    use super::Control;

    /// `HOLDPOINT_BENCH_OFF`: controls with commas between them.
    static OFF: LazyLock<Vec<Control>> = LazyLock::new(|| {
        let all = [
            ("classify", Control::Classify),
            ("decide", Control::Decide),
            ("flow", Control::Flow),
            ("ledger", Control::Ledger),
            ("limit", Control::Limit),
            ("spans", Control::Spans),
            ("tls", Control::Tls),
        ];
        let asked = std::env::var("HOLDPOINT_BENCH_OFF").unwrap_or_default();
        let asked: Vec<&str> = asked.split(',').map(str::trim).collect();
        all.into_iter().filter(|(name, _)| asked.contains(name)).map(|(_, control)| control).collect()
    });

    /// Whether a control is switched off.
    pub fn off(control: Control) -> bool {
        OFF.contains(&control)
    }

    /// Who calls when there is no certificate that says it: `HOLDPOINT_BENCH_AGENT`.
    pub fn agent() -> crate::call::AgentId {
        let named = std::env::var("HOLDPOINT_BENCH_AGENT").unwrap_or_default();
        crate::call::AgentId::from_normalised(&named)
    }

    /// Says what kind of binary this is.
    pub fn warn() {
        tracing::error!(off = ?*OFF, "this binary is for benchmarks: its controls can be switched off");
    }
}
