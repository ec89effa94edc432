//! An operator's sequences: steps that are harmless one by one, matched as calls go by, with bounded state.
