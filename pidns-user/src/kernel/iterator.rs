//! The kernel's task iterator: every process at once, as the kernel knows it.

use std::io::{self, Read as _};

use aya::{Ebpf, Endianness, VerifierLogLevel, programs::Iter};
use pidns_ebpf::abi::{names, symbols};

use super::{
    btf::{Btf, BtfError},
    layout::SnapshotLayout,
    load::{LoadError, check_privileges, loader_without_btf, raise_memlock, read_btf, whole},
    object,
};

/// What the iterator's program attaches to: `int bpf_iter_task(struct bpf_iter_meta *meta, struct task_struct *task)`.
pub(super) const FUNCTION: &str = "bpf_iter_task";

/// The iterator, loaded. It goes when this is dropped.
pub struct TaskIterator(Ebpf);

impl TaskIterator {
    /// Loads it.
    pub fn load() -> Result<Self, LoadError> {
        check_privileges()?;
        if object::SNAPSHOT.is_empty() {
            return Err(LoadError::NoObject);
        }
        raise_memlock();
        let (layout, attach_point) = look_up()?;
        let mut loader = loader_without_btf();
        loader.verifier_log_level(VerifierLogLevel::DEBUG);
        for (symbol, value) in &layout.offsets {
            loader.override_global(symbol, value, true);
        }
        let probe_numbers = u8::from(layout.probe_numbers);
        loader.override_global(symbols::PROBE_NUMBERS, &probe_numbers, true);
        let mut iterator = Self(loader.load(object::SNAPSHOT)?);
        iterator.program()?.load("task", &attach_point).map_err(|error| refused(&error))?;
        Ok(iterator)
    }

    fn program(&mut self) -> Result<&mut Iter, LoadError> {
        let program = self.0.program_mut(names::PROGRAM_SNAPSHOT).ok_or(LoadError::NoObject)?;
        program.try_into().map_err(|error| refused(&error))
    }

    /// Reads the records of all processes that this process's PID namespace can see: `abi::snapshot` decodes them. Again
    /// and again, as often as it is called.
    pub fn read(&mut self) -> Result<Vec<u8>, LoadError> {
        let program = self.program()?;
        let link = program.attach().map_err(|error| refused(&error))?;
        let link = program.take_link(link).map_err(|error| refused(&error))?;
        let mut file = link.into_file().map_err(|error| refused(&error))?;
        let mut records = Vec::with_capacity(64 << 10);
        file.read_to_end(&mut records).map_err(|error| LoadError::Iterator(format!("read it: {error}")))?;
        Ok(records)
    }
}

/// What the kernel's BTF has to tell: the offsets, and what the program attaches to. Of all BTF only this is looked at.
fn look_up() -> Result<(SnapshotLayout, aya::Btf), LoadError> {
    let bytes = read_btf()?;
    let mut names = SnapshotLayout::types();
    names.push(FUNCTION);
    let btf = Btf::parse_for(&bytes, &names)?;
    let layout = SnapshotLayout::resolve(&btf)?;
    let function = btf.function(FUNCTION);
    let id = function.map_err(|_| refused(&io::Error::other("this kernel has no iterator of tasks")))?;
    let projected = btf.project(&[(id, FUNCTION.to_owned())])?;
    let attach_point = aya::Btf::parse(&projected, Endianness::default())
        .map_err(|_| BtfError::Unexpected("the iterator's attach point".to_owned()))?;
    Ok((layout, attach_point))
}

fn refused(error: &(dyn std::error::Error + 'static)) -> LoadError {
    LoadError::Iterator(whole(error))
}
