//! `pidns-trace`.

use std::process::ExitCode;

use pidns_user::{
    cli::{Cli, Command},
    commands,
};

fn main() -> ExitCode {
    let Cli { command, trace } = Cli::of_command_line();
    let prints = !matches!(command, Some(Command::Record(_) | Command::Agent(_)));
    let can_print = if prints { commands::closed_output::check() } else { Ok(()) };
    let result = can_print.and_then(|()| match &command {
        None => commands::trace::run(&trace),
        Some(Command::Trace(args)) => commands::trace::run(args),
        Some(Command::Record(args)) => commands::record::run(args),
        Some(Command::Replay(args)) => commands::replay::run(args),
        Some(Command::Tree(args)) => commands::tree::run(args),
        Some(Command::Ps(args)) => commands::ps::run(args),
        Some(Command::Pid(args)) => commands::pid::run(args),
        Some(Command::Explain(args)) => commands::explain::run(args),
        Some(Command::Findings(args)) => commands::findings::run(args),
        Some(Command::Agent(args)) => commands::agent::run(args),
        Some(Command::Check(args)) => commands::check::run(args),
        Some(Command::Completions(args)) => commands::completions::run(args),
        Some(Command::Man(args)) => commands::man::run(args),
    });
    result.unwrap_or_else(|failure| {
        commands::notices::write(&failure);
        ExitCode::from(&failure)
    })
}
