//! Limits the holders that are kept. Any user may open one namespace's file 25,000 times, or create as many namespaces
//! in one. The first holders of each kind are kept, the others are counted.

use std::{
    collections::{BTreeMap, HashMap},
    mem::{Discriminant, discriminant},
};

use crate::event::identity::NsInum;
use crate::event::snapshot::{Holder, Snapshot};

/// Limit for holders of one kind and one namespace. A recording has one line per namespace, and its reader accepts
/// lines up to 1 MiB. Two kinds have a path, and each byte of it can become six in JSON.
const MAX_PER_KIND: u64 = 16;
/// Longest path that is kept, in bytes (PATH_MAX). A mount can be deeper, by using chdir() several times.
const LONGEST_PATH: usize = libc::PATH_MAX as usize;

#[derive(Debug, Default)]
pub(super) struct BoundedHolders {
    holders: Vec<(NsInum, Holder)>,
    of_a_kind: HashMap<(NsInum, Discriminant<Holder>), u64>,
    left_out: BTreeMap<NsInum, u64>,
}

impl BoundedHolders {
    pub(super) fn add(&mut self, inum: NsInum, holder: Holder) {
        let known = self.of_a_kind.entry((inum, discriminant(&holder))).or_default();
        let path = match &holder {
            Holder::Mount { path, .. } => path.as_bytes(),
            Holder::ProcMount(mount) => mount.path.as_bytes(),
            Holder::Fd { .. } | Holder::PidForChildren { .. } | Holder::Child { .. } => b"",
        };
        if *known == MAX_PER_KIND || path.len() > LONGEST_PATH {
            self.leave_out(inum, 1);
            return;
        }
        *known += 1;
        self.holders.push((inum, holder));
    }

    /// Counts omitted holders.
    pub(super) fn leave_out(&mut self, inum: NsInum, count: u64) {
        *self.left_out.entry(inum).or_default() += count;
    }

    pub(super) fn put_into(mut self, snapshot: &mut Snapshot) {
        self.holders.sort();
        snapshot.holders = self.holders;
        snapshot.holders_left_out = self.left_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Body,
        event::identity::{BootNs, HostPid},
        event::snapshot::{ProcMount, SnapshotNamespace, SnapshotSource},
        model::{Forest, World},
        output::{JsonForm, Screen, fields::Fields, forest},
        text::Name,
    };

    #[test]
    fn any_number_of_holders_fits_into_a_line_of_a_recording() {
        let mut kept = BoundedHolders::default();
        // The longest in JSON: each of these bytes takes six.
        let path = Name::from(&[1; LONGEST_PATH][..]);
        let comm = Some(Name::from(&[1; 15][..]));
        for n in 0..1_000 {
            let (mount_ns, pid) = (u32::MAX - n, 4_194_303 - n);
            kept.add(NsInum(7), Holder::Fd { pid: HostPid(pid), comm: comm.clone(), fd: n, tid: None });
            kept.add(NsInum(7), Holder::PidForChildren { pid: HostPid(pid), comm: comm.clone() });
            kept.add(NsInum(7), Holder::Mount { path: path.clone(), mount_ns, pid: HostPid(pid) });
            kept.add(
                NsInum(7),
                Holder::ProcMount(ProcMount { path: path.clone(), mount_ns, pid: HostPid(pid) }),
            );
            kept.add(NsInum(7), Holder::Child { ns: NsInum(mount_ns) });
        }
        kept.add(
            NsInum(8),
            Holder::Mount { path: Name::from(&[b'x'; LONGEST_PATH + 1][..]), mount_ns: 1, pid: HostPid(1) },
        );
        let mut snapshot = Snapshot::empty(SnapshotSource::Proc, BootNs(0));
        kept.put_into(&mut snapshot);
        assert_eq!(snapshot.holders.len(), 5 * 16);
        assert_eq!(snapshot.holders_left_out, [(NsInum(7), 5_000 - 5 * 16), (NsInum(8), 1)].into());
        let holders = snapshot.holders.into_iter().map(|(_, holder)| holder).collect();
        let body = Body::SnapshotNamespace {
            ns: SnapshotNamespace::bare(NsInum(7), 1),
            holders,
            holders_left_out: 4_920,
        };
        let line = serde_json::to_string(&body).expect("JSON");
        assert!((700 << 10..900 << 10).contains(&line.len()), "{} bytes", line.len());
        assert!(line.ends_with(r#""holders_left_out":4920}"#));
    }

    #[test]
    fn a_recording_counts_the_holders_left_out() {
        let line = r#"{"v":1,"event":"snapshot.namespace","seq":2,"time":"2026-11-23T14:03:07Z","boot_ns":1,
            "ns":{"inum":7,"level":1},"holders":[{"kind":"fd","pid":9,"fd":3}],"holders_left_out":41}"#;
        let mut world = World::default();
        world.apply(&serde_json::from_str(line).expect("an event"));
        let snapshot = world.snapshot();
        assert_eq!(
            snapshot.holders,
            [(NsInum(7), Holder::Fd { pid: HostPid(9), comm: None, fd: 3, tid: None })]
        );
        assert_eq!(snapshot.holders_left_out, [(NsInum(7), 41)].into());
        let forest = Forest::new(&snapshot);
        let (fields, mut table, mut json) = (Fields::default(), Vec::new(), Vec::new());
        let shown = forest::Shown { snapshot: &snapshot, forest: &forest, findings: &[], roots: None };
        forest::table(shown, &fields, false, Screen::default(), &mut table).expect("memory");
        forest::json(shown, None, JsonForm::Line, &mut json).expect("memory");
        let [table, json] = [table, json].map(|text| String::from_utf8(text).expect("text"));
        assert!(table.contains("held by ?[9] fd 3 and 41 more"), "{table}");
        assert!(json.contains(r#"{"kind":"fd","pid":9,"fd":3}],"holders_left_out":41}"#), "{json}");
    }
}
