//! NDJSON: one JSON object per line.

use std::io;

use super::View;
use crate::{
    event::{Event, Numbered, container::Container},
    text::JsonText,
};

/// Writes NDJSON.
#[derive(Debug, Default)]
pub struct Json;

impl View for Json {
    fn begin(&mut self, _to: &mut dyn io::Write) -> io::Result<()> {
        Ok(())
    }

    fn event(
        &mut self,
        seq: u64,
        event: &Event,
        _container: Option<&Container>,
        to: &mut dyn io::Write,
    ) -> io::Result<()> {
        serde_json::to_writer(JsonText(&mut *to), &Numbered { seq, event }).map_err(io::Error::from)?;
        to.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::{BootNs, HostPid, NsInum};
    use crate::event::{Body, Process};
    use crate::text::Name;

    #[test]
    fn line_begins_with_the_common_fields_and_omits_unknown_ones() {
        let event = Event {
            seq: 9,
            time: jiff::Timestamp::new(1_700_000_000, 5).unwrap(),
            boot_ns: BootNs(42),
            exact: false,
            body: Body::ProcessReap {
                process: Process {
                    pid: HostPid(20),
                    pids: vec![20, 2],
                    comm: Name::from("sh"),
                    start_boot_ns: BootNs(7),
                    ppid: None,
                    uid: 0,
                    ns: NsInum(9),
                    container: None,
                },
                zombie_ns: Some(1),
            },
        };
        let mut out = Vec::new();
        Json.event(3, &event, None, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"v\":1,\"event\":\"process.reap\",\"seq\":3,\"time\":\"2023-11-14T22:13:20.000000005Z\",\
             \"boot_ns\":42,\"exact\":false,\"process\":{\"pid\":20,\"pids\":[20,2],\"comm\":\"sh\",\
             \"start_boot_ns\":7,\"uid\":0,\"ns\":9},\"zombie_ns\":1}\n"
        );
    }
}
