//! Errors about options that a command does not have. clap suggests similar options, which are no help with options
//! that other commands have.

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::arguments::shared_option;

/// Explains the error of this command (`None`: the live stream), if it is about an option that other commands have.
pub(super) fn explained(mut error: Error, command: Option<&str>, definition: &mut Command) -> Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return error };
    let Some(option) = argument.split([' ', '[', '=']).next().and_then(shared_option) else { return error };
    let message = match (error.kind(), option, command) {
        (ErrorKind::UnknownArgument, "--from" | "--at", None | Some("trace" | "replay" | "record")) => format!(
            "{option} belongs to tree, ps, pid, explain and findings; `pidns-trace replay FILE` prints the events of a recording"
        ),
        (ErrorKind::TooManyValues, "--watch", Some("findings")) => {
            "--watch takes no time here: a line is printed whenever a finding opens, changes or closes; --for 10s watches for a \
             time and then reports"
                .to_owned()
        }
        (ErrorKind::UnknownArgument, ..) => {
            for tip in [ContextKind::Suggested, ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand] {
                error.remove(tip);
            }
            return error;
        }
        _ => return error,
    };
    let of_command = match command {
        Some(command) => definition.find_subcommand_mut(command),
        None => None,
    };
    match of_command {
        Some(command) => Error::raw(error.kind(), message).format(command),
        None => Error::raw(error.kind(), message).format(definition),
    }
}
