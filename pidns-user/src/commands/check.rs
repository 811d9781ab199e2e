//! `pidns-trace check`: reports what this kernel and these privileges allow.

mod btf_report;

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::terminal;

use crate::{
    cli::{CheckArgs, CheckOutput},
    commands::failure::{Failure, code},
    kernel::{
        btf::{self, Btf},
        capabilities::{self, Capabilities, NEEDED},
        error::LoadError,
        hooks::{self, Hook, HookForm, HookSet},
        iterator::TaskIterator,
        layout::Layout,
        load::{self, Settings},
        namespace,
    },
    output::{Paint, Screen, wrap},
    text::JsonText,
};

/// The result of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// It works.
    Ok,
    /// The stream runs but misses something.
    Gap,
    /// The live stream does not run.
    Missing,
    /// It could not be tried.
    Unknown,
}

/// A line.
#[derive(Debug, Serialize)]
struct CheckLine {
    what: String,
    verdict: Verdict,
    detail: String,
    /// The recommended action.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl CheckLine {
    /// Writes the line, with the remedy below it.
    fn write(&self, screen: Screen, to: &mut dyn io::Write) -> io::Result<()> {
        /// Column of the detail.
        const INDENT: usize = 30;
        let Self { what, verdict, detail, remedy } = self;
        let (verdict, paint) = match verdict {
            Verdict::Ok => ("ok", Paint::Green),
            Verdict::Gap => ("gap", Paint::Yellow),
            Verdict::Missing => ("MISSING", Paint::Red),
            Verdict::Unknown => ("unknown", Paint::Yellow),
        };
        let padding = " ".repeat(9_usize.saturating_sub(verdict.len()));
        let start = format!("{what:<20} {}{padding}", paint.on(verdict, screen.style));
        wrap::write((&start, what.width().max(20) + 10), detail, INDENT, screen.width, to)?;
        match remedy {
            Some(remedy) => {
                let start = format!("{:<INDENT$}-> ", "");
                wrap::write((&start, start.len()), remedy, INDENT + 3, screen.width, to)
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct CheckReport {
    lines: Vec<CheckLine>,
}

impl CheckReport {
    fn put(
        &mut self,
        what: impl Into<String>,
        verdict: Verdict,
        detail: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.lines.push(CheckLine { what: what.into(), verdict, detail: detail.into(), remedy });
    }

    fn ok(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.put(what, Verdict::Ok, detail, None);
    }
}

/// Checks and reports.
pub fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    if let Some(file) = &args.btf {
        return btf_report::run(file, args);
    }
    let mut report = CheckReport::default();
    check_namespaces(&mut report);
    let layout = check_btf(&mut report);
    let privileged = check_capabilities(&mut report)?;
    check_hooks(&mut report, layout.as_ref(), args, privileged);
    if layout.is_some() && privileged {
        check_snapshots(&mut report);
    }
    let code = if !privileged {
        code::PRIVILEGE
    } else if report.lines.iter().any(|line| line.verdict == Verdict::Missing) {
        code::KERNEL
    } else {
        0
    };
    conclude(&report, args, code)
}

/// Prints the report and returns the exit code.
fn conclude(report: &CheckReport, args: &CheckArgs, code: u8) -> Result<ExitCode, Failure> {
    print(report, args, code).or_else(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Ok(())
        } else {
            Err(Failure::Io { what: "write to standard output", error })
        }
    })?;
    Ok(ExitCode::from(code))
}

fn check_namespaces(report: &mut CheckReport) {
    if Path::new("/proc/self/ns/pid").exists() {
        report.ok("CONFIG_PID_NS", "this kernel has PID namespaces");
    } else {
        report.put(
            "CONFIG_PID_NS",
            Verdict::Missing,
            "/proc/self/ns/pid does not exist",
            Some("boot a kernel with CONFIG_PID_NS=y, and mount /proc".to_owned()),
        );
    }
    match namespace::is_initial() {
        Some(true) => report.ok("PID namespace", "the host's own: nothing is hidden"),
        Some(false) => report.put(
            "PID namespace",
            Verdict::Gap,
            namespace::ELSEWHERE,
            Some(
                "run it on the host, or in a container with the host's PID namespace (--pid=host)".to_owned(),
            ),
        ),
        None => report.put("PID namespace", Verdict::Unknown, "/proc/self/ns/pid cannot be read", None),
    }
}

fn check_btf(report: &mut CheckReport) -> Option<Layout> {
    let missing = |report: &mut CheckReport, detail: String| {
        let remedy = "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (every distribution's since about 2021)";
        report.put("BTF", Verdict::Missing, detail, Some(remedy.to_owned()));
    };
    let bytes = match load::read_btf() {
        Ok(bytes) => bytes,
        Err(LoadError::NoBtf(error)) => {
            missing(report, format!("{}: {error}", btf::PATH));
            return None;
        }
        Err(error) => {
            missing(report, error.to_string());
            return None;
        }
    };
    let btf = match Btf::parse(&bytes) {
        Ok(btf) => btf,
        Err(error) => {
            missing(report, format!("{}: {error}", btf::PATH));
            return None;
        }
    };
    match Layout::resolve(&btf) {
        Ok(layout) => {
            report.ok("BTF", format!("{}, {} types", btf::PATH, btf.len() - 1));
            Some(layout)
        }
        Err(error) => {
            let remedy =
                "pidns-trace does not know this kernel's structures: please report this, with uname -r";
            report.put("BTF", Verdict::Missing, error.to_string(), Some(remedy.to_owned()));
            None
        }
    }
}

fn check_capabilities(report: &mut CheckReport) -> Result<bool, Failure> {
    let own = Capabilities::own()
        .map_err(|error| Failure::Io { what: "read own capabilities from /proc/self/status", error })?;
    let they_count = check_user_namespace(report);
    let mut all = they_count;
    for capability in NEEDED {
        let purpose = format!("to {}", capability.purpose);
        if !own.suffice_for(&capability) {
            all = false;
            let remedy = format!("run it with sudo, or: {}", capabilities::setcap());
            report.put(capability.name, Verdict::Missing, format!("missing: needed {purpose}"), Some(remedy));
        } else if they_count {
            report.ok(capability.name, purpose);
        } else {
            let detail = format!("held in this user namespace only: needed {purpose}");
            report.put(capability.name, Verdict::Missing, detail, None);
        }
    }
    Ok(all)
}

/// Whether capabilities held in this user namespace count.
fn check_user_namespace(report: &mut CheckReport) -> bool {
    let what = "user namespace";
    match namespace::is_initial_user() {
        Some(true) => report.ok(what, "the initial one: capabilities count"),
        Some(false) => {
            let detail = "not the initial one: capabilities held here do not count";
            report.put(what, Verdict::Missing, detail, Some(namespace::TO_INITIAL_USER.to_owned()));
            return false;
        }
        None => report.put(what, Verdict::Unknown, "/proc/self/ns/user cannot be read", None),
    }
    true
}

fn check_hooks(report: &mut CheckReport, layout: Option<&Layout>, args: &CheckArgs, privileged: bool) {
    let Some(layout) = layout else { return };
    // Load with `Auto` even if all function hooks are requested, so that the report does not end at the first refusal.
    let all_asked_for = args.hooks == HookSet::Function;
    let set = if all_asked_for { HookSet::Auto } else { args.hooks };
    let settings = Settings { hooks: set, ..Settings::everything() };
    if !privileged {
        for hook in hooks::all(layout) {
            report.put(hook.name, Verdict::Unknown, "cannot be tried without the capabilities above", None);
        }
        return;
    }
    match load::load(&settings) {
        Ok((loaded, ..)) => {
            for (hook, form) in &loaded.hooks {
                match form {
                    HookForm::On(_) => report.ok(hook.name, format!("{form}: {}", hook.shows)),
                    HookForm::Unneeded => report.ok(hook.name, form.to_string()),
                    HookForm::Off(_) if all_asked_for && hook.is_function() => {
                        let remedy = "--hooks function requires it; --hooks auto works without it";
                        report.put(hook.name, Verdict::Missing, form.to_string(), Some(remedy.to_owned()));
                    }
                    HookForm::Off(_) => {
                        report.put(hook.name, Verdict::Gap, form.to_string(), Some(hook.loss()))
                    }
                }
            }
            check_function_hooks(report, &loaded.hooks, args.hooks);
            report.ok(
                "ring buffer",
                format!("{} KiB by default, --ring-size changes it", settings.ring_bytes >> 10),
            );
        }
        Err(LoadError::Hook { hook, error }) => {
            let remedy = "the live stream needs it; does this kernel have CONFIG_BPF_EVENTS=y, and no \
                          lockdown in confidentiality mode?";
            report.put(hook, Verdict::Missing, error, Some(remedy.to_owned()));
        }
        Err(error) => report.put("kernel side", Verdict::Missing, error.to_string(), None),
    }
}

/// Checks the features that `tree`, `ps`, `pid` and the agent use. The live stream runs without them.
fn check_snapshots(report: &mut CheckReport) {
    let iterators = TaskIterator::load_with_holders();
    match &iterators {
        Ok(_) => report.ok("snapshots", "the kernel's task iterator lists the processes"),
        Err(error) => {
            let remedy = "tree, ps and pid read /proc instead; record, agent and --snapshot need it in full or in part";
            report.put("snapshots", Verdict::Gap, error.to_string(), Some(remedy.to_owned()));
        }
    }
    match iterators.as_ref().map(TaskIterator::holders_loaded) {
        Ok(Ok(())) => {
            report.ok("holders", "the kernel's iterator of open files finds the holders of namespaces")
        }
        Ok(Err(why)) => report.put("holders", Verdict::Gap, why, Some(WITHOUT_HOLDERS.to_owned())),
        Err(_) => {
            report.put("holders", Verdict::Gap, "needs the task iterator", Some(WITHOUT_HOLDERS.to_owned()))
        }
    }
}

/// Consequence of missing holder iterators.
const WITHOUT_HOLDERS: &str = "tree, explain and record read the holders of namespaces in /proc, which takes several times as long \
                            and misses the files of threads that have their own file table";

/// If no function hook works there is one common reason, which is not in any single hook.
fn check_function_hooks(report: &mut CheckReport, hooks: &[(Hook, HookForm)], set: HookSet) {
    let mut functions = hooks.iter().filter(|(hook, _)| hook.is_function());
    if set == HookSet::Auto && functions.all(|(_, form)| matches!(form, HookForm::Off(_))) {
        report.put(
            "function hooks",
            Verdict::Gap,
            "this kernel accepts none, although the capabilities are there: most likely it is in lockdown, was built without \
             CONFIG_FUNCTION_TRACER, or has a policy against them",
            Some("none if this is intended: the stream runs on tracepoints".to_owned()),
        );
    }
}

fn print(report: &CheckReport, args: &CheckArgs, code: u8) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match args.output {
        CheckOutput::Json => {
            #[derive(Serialize)]
            struct Document<'a> {
                version: &'static str,
                runs: bool,
                #[serde(flatten)]
                report: &'a CheckReport,
            }
            serde_json::to_writer_pretty(
                JsonText(&mut out),
                &Document { version: env!("CARGO_PKG_VERSION"), runs: code == 0, report },
            )?;
            writeln!(out)?;
        }
        CheckOutput::Table => {
            let screen = terminal::screen(&args.screen);
            for line in &report.lines {
                line.write(screen, &mut out)?;
            }
        }
    }
    out.flush()
}
