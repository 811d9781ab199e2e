//! The kernel's task iterator: every process at once, as the kernel knows it.

use std::io::{self, Read as _};

use aya::{Endianness, VerifierLogLevel, programs::Iter};
use pidns_ebpf::abi::{names, symbols};

use super::{
    btf::{Btf, BtfError},
    layout::Layout,
    load::{LoadError, check_privileges, loader_without_btf, raise_memlock, read_btf, whole},
    object,
};

/// What the iterator's program attaches to: `int bpf_iter_task(struct bpf_iter_meta *meta, struct task_struct *task)`.
const FUNCTION: &str = "bpf_iter_task";

/// Reads the records of all processes that this process's PID namespace can see: `abi::snapshot` decodes them.
pub fn read() -> Result<Vec<u8>, LoadError> {
    check_privileges()?;
    if object::SNAPSHOT.is_empty() {
        return Err(LoadError::NoObject);
    }
    raise_memlock();
    let bytes = read_btf()?;
    let btf = Btf::parse(&bytes)?;
    let layout = Layout::resolve(&btf)?;
    let own = Layout::of_snapshot(&btf)?;
    let functions = btf.functions(&[FUNCTION])?;
    let (id, _) = functions
        .get(FUNCTION)
        .ok_or_else(|| refused(&io::Error::other("this kernel has no iterator of tasks")))?;
    let projected = btf.project(&[(*id, FUNCTION.to_owned())])?;
    let attach_point = aya::Btf::parse(&projected, Endianness::default())
        .map_err(|_| BtfError::Unexpected("the iterator's attach point".to_owned()))?;

    let mut loader = loader_without_btf();
    loader.verifier_log_level(VerifierLogLevel::DEBUG);
    for (symbol, value) in layout.offsets.iter().chain(&own) {
        loader.override_global(symbol, value, true);
    }
    let probe_numbers = u8::from(layout.probe_numbers);
    loader.override_global(symbols::PROBE_NUMBERS, &probe_numbers, true);
    let mut ebpf = loader.load(object::SNAPSHOT)?;
    let program = ebpf.program_mut(names::PROGRAM_SNAPSHOT).ok_or(LoadError::NoObject)?;
    let program: &mut Iter = program.try_into().map_err(|error| refused(&error))?;
    program.load("task", &attach_point).map_err(|error| refused(&error))?;
    let link = program.attach().map_err(|error| refused(&error))?;
    let link = program.take_link(link).map_err(|error| refused(&error))?;
    let mut file = link.into_file().map_err(|error| refused(&error))?;
    let mut records = Vec::with_capacity(64 << 10);
    file.read_to_end(&mut records)
        .map_err(|error| LoadError::Io { what: "read the kernel's task iterator", error })?;
    Ok(records)
}

fn refused(error: &(dyn std::error::Error + 'static)) -> LoadError {
    LoadError::Hook { hook: "iter/task", error: whole(error) }
}
