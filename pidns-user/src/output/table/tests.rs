use super::*;
use crate::{
    event::container::Runtime,
    event::identity::{BootNs, HostPid, NsInum},
    event::{Cause, Exit, Namespace, Process},
    output::screen::Style,
    text::Name,
};
use proptest::prelude::*;

fn nginx() -> Process {
    Process {
        pid: HostPid(48121),
        pids: vec![48121, 1],
        comm: Name::from(&b"ng\x1b[31minx"[..]),
        start_boot_ns: BootNs(5),
        ppid: Some(HostPid(811)),
        uid: 0,
        ns: NsInum(4026532847),
        container: None,
    }
}

fn namespace() -> Namespace {
    Namespace {
        inum: NsInum(4026532847),
        level: 1,
        parent: None,
        born_boot_ns: None,
        kernel_id: None,
        user_ns: 1,
        owner_uid: 0,
        container: None,
    }
}

fn table(screen: Screen) -> Table {
    Table::new(TimeZone::UTC, &Fields::default(), true, screen)
}

fn terminal(width: usize) -> Screen {
    Screen { width: Some(width), style: Style::Plain }
}

fn event(body: Body) -> Event {
    let time = jiff::Timestamp::new(1_700_000_000, 120_000_000).unwrap();
    Event { seq: 1, time, boot_ns: BootNs(1), exact: true, body }
}

fn container(name: &str) -> Container {
    Container { runtime: Some(Runtime::Docker), name: Some(Name::from(name)), ..Container::default() }
}

fn reap(pids: &[u32], comm: &str) -> Body {
    let process = Process { pids: pids.to_vec(), comm: Name::from(comm), ..nginx() };
    Body::ProcessReap { process, zombie_ns: Some(1_900_000) }
}

/// The heading and the line of an event in this container.
fn shown(mut table: Table, body: Body, container: Option<&Container>) -> Vec<String> {
    let mut out = Vec::new();
    table.begin(&mut out).unwrap();
    table.event(1, &event(body), container, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn columns_are_omitted_by_importance() {
    let web = container("web");
    let heading = |width| shown(table(terminal(width)), reap(&[7, 1], "sh"), Some(&web)).remove(0);
    let headings = |width| heading(width).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(headings(60), ["TIME", "EVENT", "PIDS", "DETAIL"]);
    assert_eq!(headings(80), ["TIME", "EVENT", "PIDS", "CONTAINER", "DETAIL"]);
    assert_eq!(headings(100), ["TIME", "EVENT", "PIDS", "COMM", "CONTAINER", "DETAIL"]);
    assert_eq!(headings(120), ["TIME", "EVENT", "NS", "PIDS", "COMM", "CONTAINER", "DETAIL"]);
    let all = ["TIME", "EVENT", "NS", "LVL", "PIDS", "COMM", "CONTAINER", "DETAIL"];
    assert_eq!(headings(200), all);
    let chosen: Fields<Field> = "time,ns,level,pids,comm,container".parse().unwrap();
    let chosen = Table::new(TimeZone::UTC, &chosen, true, terminal(60));
    let line = &shown(chosen, reap(&[7, 1], "sh"), Some(&web))[0];
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>(),
        ["TIME", "NS", "LVL", "PIDS", "COMM", "CONTAINER"],
        "chosen columns are always shown"
    );
}

#[test]
fn long_names_and_deep_nesting_keep_the_columns_in_line() {
    let pids: Vec<u32> = (0..33).map(|level| 4_000_000 - level).collect();
    let long = container("a-container-with-a-name-that-is-hard-to-remember");
    let lines = shown(table(terminal(80)), reap(&pids, "名前名前名前"), Some(&long));
    assert_eq!(lines[0], "TIME      EVENT         PIDS        CONTAINER      DETAIL");
    assert_eq!(lines[1], "22:13:20  reap          4000000…    docker/a-con…  zombie for 1.9 ms");
    let lines = shown(table(terminal(100)), reap(&pids, "名前名前名前"), Some(&long));
    assert!(lines[1].contains("  名前名前…   docker/a-cont…"), "{lines:?}");
    let ns = namespace();
    let gone = Body::NamespaceDestroy { ns, lived_ns: Some(1_900_000) };
    let narrow = shown(table(terminal(60)), gone, None);
    assert_eq!(narrow[1], "22:13:20  destroy      -          4026532847 lived 1.9 ms");
    let none = shown(table(terminal(80)), reap(&[48121, 1], "sh"), None);
    assert!(none[1].contains("  4026532847  "), "without a container the namespace is shown: {none:?}");
}

#[test]
fn init_and_its_fork_have_one_line() {
    let ns = namespace();
    let fork =
        |process: Process| Body::ProcessFork { process, parent: nginx(), crosses: false, restored: false };
    let other = Process { pid: HostPid(48130), pids: vec![48130, 1], ..nginx() };
    let member = Process { pid: HostPid(48131), pids: vec![48131, 2], ..nginx() };
    let mut table = table(Screen::default());
    let mut lines = |body: Body| {
        let mut out = Vec::new();
        table.event(1, &event(body), None, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().count()
    };
    assert_eq!(lines(fork(nginx())), 1, "the fork is shown if the init event was not");
    assert_eq!(lines(Body::NamespaceInit { ns, process: nginx() }), 1);
    assert_eq!(lines(fork(other)), 1, "the fork of another init, in between");
    assert_eq!(lines(fork(member)), 1);
    assert_eq!(lines(fork(nginx())), 0, "the init event has a line already");
    assert_eq!(lines(fork(nginx())), 1, "each init event hides only one fork");
}

#[test]
fn heading_is_bold_and_event_is_coloured() {
    let screen = Screen { width: Some(60), style: Style::Colour };
    let lines = shown(table(screen), reap(&[7, 1], "sh"), None);
    assert!(lines[0].starts_with("\x1b[1mTIME\x1b[0m"), "{lines:?}");
    assert!(lines[1].contains("\x1b[2mreap\x1b[0m"), "{lines:?}");
}

proptest! {
    #[test]
    fn no_line_is_wider_than_the_terminal(
        pids in prop::collection::vec(1..4_194_304_u32, 1..34),
        comm in "[a-z名\u{1b}]{0,15}",
        name in prop::option::of("[a-z名-]{1,80}"),
        width in 20..250_usize,
    ) {
        let container = name.as_deref().map(container);
        for line in shown(table(terminal(width)), reap(&pids, &comm), container.as_ref()) {
            prop_assert!(line.width() <= width, "{line:?}");
        }
    }
}

fn line(body: Body, exact: bool) -> String {
    let event = Event {
        seq: 1,
        time: jiff::Timestamp::new(1_700_000_000, 120_000_000).unwrap(),
        boot_ns: BootNs(1),
        exact,
        body,
    };
    let mut out = Vec::new();
    let web =
        Container { runtime: Some(Runtime::Docker), name: Some(Name::from("web")), ..Container::default() };
    table(Screen::default()).event(1, &event, Some(&web), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn row_is_aligned_with_its_headings_and_escapes_names() {
    let ns = Namespace { parent: Some(NsInum(4026531836)), ..namespace() };
    let mut sender = nginx();
    sender.comm = Name::from("dockerd");
    sender.pid = HostPid(811);
    let cause = Cause::Signal { signal: "SIGKILL".to_owned(), sender: Some(sender) };
    let exit = Exit::Signal { signal: "SIGKILL".to_owned(), core: false };
    let row = line(Body::NamespaceInitExit { ns, process: nginx(), exit, cause, members: 6 }, true);
    assert_eq!(
        row,
        "22:13:20.120  init exit      4026532847    1  48121 → 1       ng\\u{1b}[31minx  \
         docker/web        SIGKILL from dockerd[811], 6 PIDs left\n"
    );
    let mut headings = Vec::new();
    table(Screen::default()).begin(&mut headings).unwrap();
    let headings = String::from_utf8(headings).unwrap();
    assert_eq!(
        headings,
        "TIME          EVENT          NS          LVL  PIDS            COMM             CONTAINER         DETAIL\n"
    );
    let column = |heading| headings.find(heading).unwrap();
    let chars: Vec<char> = row.chars().collect();
    for (heading, text) in [("EVENT", "init exit"), ("NS", "4026532847"), ("PIDS", "48121"), ("COMM", "ng")] {
        let at: String = chars[column(heading)..].iter().collect();
        assert!(at.starts_with(text), "{heading} is not above {text} in {row}");
    }
}

#[test]
fn ignored_signal_is_reported_with_its_reason() {
    let ns = namespace();
    let shown = |signal: &str, from: &'static str, fate: &'static str| {
        let body = Body::InitSignal {
            ns: ns.clone(),
            process: nginx(),
            signal: signal.to_owned(),
            sender: None,
            from: from.into(),
            fate: fate.into(),
        };
        let line = line(body, true);
        line.rsplit_once("docker/web        ").unwrap().1.trim_end().to_owned()
    };
    let inside = |signal| shown(signal, "inside", "ignored");
    assert_eq!(inside("SIGKILL"), "ignored SIGKILL from the kernel: from inside, PID 1 cannot be killed");
    assert_eq!(inside("SIGSTOP"), "ignored SIGSTOP from the kernel: from inside, PID 1 cannot be stopped");
    let no_handler = "it has no handler, ignores it, or is exiting";
    assert_eq!(inside("SIGTERM"), format!("ignored SIGTERM from the kernel: {no_handler}"));
    assert!(inside("SIGCONT").ends_with("it continues"));
    let outside = |signal| shown(signal, "ancestor", "ignored");
    assert!(outside("SIGKILL").ends_with(": it is exiting already"), "from outside SIGKILL works otherwise");
    assert_eq!(outside("SIGTERM"), inside("SIGTERM"));
    assert_eq!(shown("SIGTERM", "ancestor", "already_pending"), "already pending SIGTERM from the kernel");
}

#[test]
fn a_narrow_terminal_shows_the_fate_and_the_sender_of_a_signal() {
    let sender = Process { comm: Name::from("runc"), pid: HostPid(9196), ..nginx() };
    let signal = |fate: &'static str| Body::InitSignal {
        ns: namespace(),
        process: nginx(),
        signal: "SIGTERM".to_owned(),
        sender: Some(sender.clone()),
        from: "ancestor".into(),
        fate: fate.into(),
    };
    let web = container("web");
    for fate in ["ignored", "delivered"] {
        let detail = |width| {
            let lines = shown(table(terminal(width)), signal(fate), Some(&web));
            let at = lines[0].find("DETAIL").unwrap();
            lines[1].chars().skip(at).collect::<String>()
        };
        let text = format!("{fate} SIGTERM from runc[9196]");
        for width in [80, 100, 120] {
            assert!(detail(width).starts_with(&text[..text.len() - 6]), "{width}: {}", detail(width));
        }
        assert!(detail(60).starts_with(&format!("{fate} SIGTERM from r")), "{}", detail(60));
    }
}

#[test]
fn a_long_container_moves_the_columns_of_later_rows_of_a_pipe_too() {
    let mut table = table(Screen::default());
    let mut start_of_detail = |name: &str| {
        let mut out = Vec::new();
        table.event(1, &event(reap(&[48121, 1], "sh")), Some(&container(name)), &mut out).unwrap();
        let line = String::from_utf8(out).unwrap();
        line[..line.find("zombie for").unwrap()].width()
    };
    let usual = start_of_detail("web");
    assert_eq!(start_of_detail("a-container-of-25-letters"), usual + 16, "the column grows to 32");
    assert_eq!(start_of_detail("web"), usual + 16, "later rows are in line with it");
    assert!(start_of_detail(&"x".repeat(60)) > usual + 16);
    assert_eq!(start_of_detail("web"), usual + 16, "one that is longer than on a wide terminal stays alone");
}

#[test]
fn estimates_are_marked() {
    assert!(
        line(Body::ProcessReap { process: nginx(), zombie_ns: Some(1_900_000) }, false)
            .ends_with("zombie for 1.9 ms ~\n")
    );
}
