//! The part of `/status` about the kernel side and the snapshots.

use serde_json::{Value, json};

use super::{Shared, tally::seconds};
use crate::kernel::clock;

impl Shared {
    /// This part as a JSON object.
    pub(super) fn status(&self) -> Value {
        let facts = self.facts();
        let state = self.state();
        let unseen: Vec<Value> =
            facts.unseen.iter().map(|(hook, shows)| json!({ "hook": hook, "not_seen": shows })).collect();
        let hooks: serde_json::Map<_, _> =
            facts.hooks.iter().map(|(hook, form)| (hook.clone(), json!(form))).collect();
        let maps: Vec<Value> = facts
            .gauges
            .maps()
            .iter()
            .map(|map| json!({ "map": map.name, "entries": map.entries, "capacity": map.capacity }))
            .collect();
        let ring = facts
            .gauges
            .ring()
            .map(|ring| json!({ "capacity_bytes": ring.capacity, "used_bytes": ring.used }));
        drop(facts);
        let age_ns = clock::boottime_ns().saturating_since(state.as_of);
        let last_snapshot = (state.as_of.0 > 0).then(|| {
            json!({
                "age_seconds": seconds(age_ns),
                "pass_seconds": self.last_pass().map(|took| took.as_secs_f64()),
                "namespaces": state.below().count(),
            })
        });
        json!({
            "hooks": hooks,
            "unseen": unseen,
            "maps": maps,
            "ring": ring,
            "lost": self.tally().lost,
            "last_snapshot": last_snapshot,
        })
    }
}
