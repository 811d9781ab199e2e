//! Arguments and results of functions and tracepoints.

use std::{collections::HashMap, fmt};

use super::{Btf, BtfError, Type, kind, u32_at};

const PARAMETER_LEN: usize = 8;

/// The values that a program at a function or tracepoint gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype<'a> {
    /// The arguments, in order.
    pub arguments: Vec<Value<'a>>,
    /// The result.
    pub returns: Value<'a>,
}

/// An argument or result, as precisely as a program that reads it from a register needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// No result.
    Nothing,
    /// An integer of any size.
    Number,
    /// A pointer to this structure or union. If the name is empty, a pointer to any other type.
    Pointer(&'a str),
    /// A value that does not fit in a register.
    Other,
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("void"),
            Self::Number => f.write_str("integer"),
            Self::Pointer("") => f.write_str("pointer"),
            Self::Pointer(to) => write!(f, "struct {to} *"),
            Self::Other => f.write_str("other"),
        }
    }
}

impl fmt::Display for Prototype<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<String> = self.arguments.iter().map(Value::to_string).collect();
        write!(f, "{} ({})", self.returns, arguments.join(", "))
    }
}

impl<'a> Btf<'a> {
    /// Returns the number of the typedef `btf_trace_NAME`, and the prototype of a program on that tracepoint.
    pub fn tracepoint(&self, name: &str) -> Result<(u32, Prototype<'a>), BtfError> {
        let typedef = format!("btf_trace_{name}");
        let id = self.find(&[kind::TYPEDEF], &typedef)?;
        let pointer = self.resolve(id)?;
        if pointer.kind != kind::PTR {
            return Err(BtfError::Unexpected(typedef));
        }
        let mut prototype = self.prototype(pointer.size_or_type)?;
        if prototype.arguments.is_empty() {
            return Err(BtfError::Unexpected(typedef));
        }
        // The first parameter is the tracepoint's own.
        prototype.arguments.remove(0);
        Ok((id, prototype))
    }

    /// Returns number and prototype of each function with one of these names. Functions that BTF lacks are omitted.
    ///
    /// There are 60,000 functions. This walks all of them once instead of keeping each in the index.
    pub fn functions<'n>(
        &self,
        names: &[&'n str],
    ) -> Result<HashMap<&'n str, (u32, Prototype<'a>)>, BtfError> {
        let mut found = HashMap::new();
        for id in 1..self.starts.len() as u32 {
            let function = self.get(id)?;
            if function.kind != kind::FUNC {
                continue;
            }
            let text = self.strings.get(function.name as usize..).unwrap_or(&[]);
            let is = |name: &&&str| {
                text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
            };
            if let Some(name) = names.iter().find(is) {
                found.insert(*name, (id, self.prototype(function.size_or_type)?));
            }
        }
        Ok(found)
    }

    /// Number of the function with this name, if the index includes it ([`Btf::parse_for`]).
    pub fn function(&self, name: &str) -> Result<u32, BtfError> {
        self.find(&[kind::FUNC], name)
    }

    fn prototype(&self, id: u32) -> Result<Prototype<'a>, BtfError> {
        let prototype = self.get(id)?;
        if prototype.kind != kind::FUNC_PROTO {
            return Err(BtfError::Unexpected(format!("type {id}")));
        }
        let mut arguments = Vec::with_capacity(prototype.count);
        for index in 0..prototype.count {
            let of = u32_at(self.types, prototype.rest + index * PARAMETER_LEN + 4, "parameter")?;
            arguments.push(self.value(of)?);
        }
        Ok(Prototype { arguments, returns: self.value(prototype.size_or_type)? })
    }

    /// Classifies a parameter or result of this type.
    fn value(&self, id: u32) -> Result<Value<'a>, BtfError> {
        if id == 0 {
            return Ok(Value::Nothing);
        }
        let found = self.resolve(id)?;
        Ok(match found.kind {
            kind::INT | kind::ENUM | kind::ENUM64 => Value::Number,
            kind::PTR => match found.size_or_type {
                0 => Value::Pointer(""),
                to => match self.resolve(to) {
                    Ok(Type { kind: kind::STRUCT | kind::UNION, name, .. }) => {
                        Value::Pointer(std::str::from_utf8(self.string(name)?).unwrap_or_default())
                    }
                    _ => Value::Pointer(""),
                },
            },
            _ => Value::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::PATH;

    const TASK: Value<'static> = Value::Pointer("task_struct");

    #[test]
    fn the_running_kernels_prototypes_are_read() {
        let bytes = std::fs::read(PATH).expect("the running kernel has BTF");
        let btf = Btf::parse(&bytes).unwrap();
        let (_, fork) = btf.tracepoint("sched_process_fork").unwrap();
        assert_eq!(fork, Prototype { arguments: vec![TASK, TASK], returns: Value::Nothing });
        let found = btf.functions(&["release_task", "copy_pid_ns", "release", "no_such_function"]).unwrap();
        assert_eq!(found.len(), 2, "whole names only: {found:?}");
        assert_eq!(found["release_task"].1, Prototype { arguments: vec![TASK], returns: Value::Nothing });
        assert_eq!(
            found["copy_pid_ns"].1.to_string(),
            "struct pid_namespace * (integer, struct user_namespace *, struct pid_namespace *)"
        );
    }
}
