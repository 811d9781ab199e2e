//! The notice at the start of a stream. Without it, a quiet host looks like a hanging program.

use crate::{
    event::{Body, StreamFilter},
    kernel::hooks::{Hook, HookForm},
    text::{Count, Name},
};

/// Number of event kinds that are listed by name; more are only counted.
const NAMED: usize = 4;

/// The attached hooks, and the expected events.
pub(super) fn message(hooks: &[(Hook, HookForm)], filter: &StreamFilter, is_recording: bool) -> String {
    let attached = hooks.iter().filter(|(_, form)| matches!(form, HookForm::On(_)));
    let functions = attached.clone().filter(|(hook, _)| hook.is_function()).count();
    let attached = attached.count();
    let waits = if is_recording { "recording" } else { "waiting for" };
    format!(
        "{} attached ({functions} on functions, {} on tracepoints); {waits} {}. Ctrl-C ends it",
        Count(attached as u64, "hook", "hooks"),
        attached - functions,
        what(filter)
    )
}

/// "fork.failed, process.exit in container web".
fn what(filter: &StreamFilter) -> String {
    let StreamFilter { events, namespaces, containers, pids, comms, levels } = filter;
    // The filter does not apply to `stream.*` and `snapshot.*`.
    let all =
        Body::NAMES.iter().filter(|name| !name.starts_with("stream.") && !name.starts_with("snapshot."));
    let events = match events.len() {
        count if count >= all.count() => "all events".to_owned(),
        count if count > NAMED => Count(count as u64, "kind of event", "kinds of events").to_string(),
        _ => events.iter().map(|event| event.to_string()).collect::<Vec<_>>().join(", "),
    };
    let list = |one: &str, values: Vec<String>| {
        (!values.is_empty()).then(|| format!("{one} {}", values.join(" or ")))
    };
    let shown = |text: &String| Name::from(text.as_str()).for_terminal().to_string();
    let limits = [
        list("in namespace", namespaces.iter().map(ToString::to_string).collect()),
        list("in container", containers.iter().map(shown).collect()),
        list("of PID", pids.iter().map(ToString::to_string).collect()),
        list("of processes called", comms.iter().map(shown).collect()),
        list("at level", levels.clone()),
    ];
    limits.into_iter().flatten().fold(events, |all, limit| format!("{all} {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::{HostPid, NsInum};

    #[test]
    fn notice_names_the_events_and_limits_of_the_filter() {
        let mut filter = StreamFilter { events: vec!["fork.failed".into()], ..StreamFilter::default() };
        assert_eq!(what(&filter), "fork.failed");
        filter.namespaces = vec![NsInum(4026532847)];
        filter.pids = vec![HostPid(7), HostPid(8)];
        filter.containers = vec!["we\u{1b}b".to_owned()];
        assert_eq!(
            what(&filter),
            "fork.failed in namespace 4026532847 in container we\\u{1b}b of PID 7 or 8",
        );
        filter = StreamFilter {
            events: Body::NAMES.iter().map(|&name| name.into()).collect(),
            ..StreamFilter::default()
        };
        assert_eq!(what(&filter), "all events");
        filter.events.truncate(7);
        assert_eq!(what(&filter), "7 kinds of events");
        let text = message(&[], &filter, true);
        assert_eq!(
            text,
            "0 hooks attached (0 on functions, 0 on tracepoints); recording 7 kinds of events. Ctrl-C ends it"
        );
    }
}
